"""Both servers are shut down in good order and come back, in either order: Normal by itself."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    for first, second in ((1, 2), (2, 1)):
        lab.stop_load(1)
        lab.ctrl(1, "--deactive md1")
        for n in (1, 2):
            lab.shut_down(n)
        lab.power_on(first)
        lab.power_on(second)
        lab.wait_normal()
        lab.activate(1)
        lab.records_are_there(1)
        lab.start_load(1)
        lab.goes_on()
    lab.stop_load(1)
    lab.no_error()
    lab.equal_in_the_end()
