"""One packet in five is lost, under load: breaks, recoveries and long pauses, but no error and no loss."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.degrade("loss 20%")
    lab.start_load(1)
    lab.goes_on(90, records=5)
    lab.say(f"longest pause of the application: {lab.longest_pause():.2f} s")
    lab.stop_load(1)
    lab.mend()
    lab.no_error()
    lab.wait_normal()
    lab.records_are_there(1)
    lab.equal_in_the_end()
