"""The active server stands still and the other one takes over: it wakes up into a split brain that
both see, and loses only what the operator gives up."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.stop_load(1)
    lab.freeze(1)
    lab.wait(30, "server2 misses server1", lambda: lab.misses_peer(2))
    lab.fail_over(2)
    lab.records_are_there(2)
    lab.start_load(2)
    lab.goes_on()
    lab.thaw(1)
    for n in (1, 2):
        lab.wait_colors(n, "RED RED")
    lab.goes_on()
    lab.ctrl(1, "--deactive md1")
    lab.ctrl(2, "--force server2 md1 --yes")
    lab.wait_normal()
    lab.stop_load(2)
    lab.no_error()
    lab.records_are_there(2)
    lab.equal_in_the_end()
