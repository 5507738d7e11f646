"""Both servers lose power at once, under load: neither opens alone; together they settle."""

FRONT_ENDS = ("ublk", "nbd")
CI_FRONT_ENDS = ("ublk",)


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on(records=100)
    lab.power_off(1, 2)
    lab.power_on(2)
    lab.refused(2, "--active md1", 81, "cannot be reached")
    lab.power_on(1)
    lab.wait_normal()
    lab.fail_over(2)
    lab.records_are_there(2)
    lab.start_load(2)
    lab.goes_on()
    lab.stop_load(2)
    lab.equal_in_the_end()
