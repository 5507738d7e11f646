"""Every link is pulled under load, twice: once seen by both servers, once in silence."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    for name, cut, heal in (
        ("the plugs are out", lab.cut, lab.plug),
        ("everything is lost in silence", lambda: lab.degrade("loss 100%"), lab.mend),
    ):
        mark = lab.last_ack()
        cut()
        lab.wait_colors(1, "GREEN RED")
        lab.wait(30, "server2 misses server1", lambda: lab.misses_peer(2))
        lab.goes_on()
        lab.say(f"{name}: longest pause of the application {lab.longest_pause(mark):.2f} s")
        heal()
        lab.wait_normal()
        lab.goes_on()
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
    lab.equal_in_the_end()
