"""One packet in a hundred is lost, under load: slower, no error, no data lost."""

FRONT_ENDS = ("ublk", "nbd")
CI_FRONT_ENDS = ("ublk",)


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.degrade("loss 1%")
    lab.start_load(1)
    lab.goes_on(60, records=100)
    lab.say(f"longest pause of the application: {lab.longest_pause():.2f} s")
    lab.stop_load(1)
    lab.mend()
    lab.no_error()
    lab.wait_normal()
    lab.records_are_there(1)
    lab.equal_in_the_end()
