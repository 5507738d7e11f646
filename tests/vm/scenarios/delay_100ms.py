"""Every packet takes 100 ms: slower, no error, the mirror stays in session."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.degrade("delay 100ms")
    lab.start_load(1)
    lab.goes_on(90, records=30)
    lab.check(lab.is_normal(1), "the mirror is Normal with 100 ms of delay")
    lab.say(f"longest pause of the application: {lab.longest_pause():.2f} s")
    lab.stop_load(1)
    lab.no_error()
    lab.mend()
    lab.records_are_there(1)
    lab.equal_in_the_end()
