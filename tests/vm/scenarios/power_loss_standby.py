"""The standby loses power under load: the work goes on, the difference is recovered on return."""

FRONT_ENDS = ("ublk", "nbd")
CI_FRONT_ENDS = ("ublk",)


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    mark = lab.last_ack()
    lab.power_off(2)
    lab.wait_colors(1, "GREEN RED")
    lab.goes_on()
    lab.say(f"longest pause of the application: {lab.longest_pause(mark):.2f} s")
    lab.power_on(2)
    lab.wait_normal()
    lab.goes_on()
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
    lab.equal_in_the_end()
