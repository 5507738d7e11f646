"""Twenty times: the active server is shut down in good order under load, the other takes over."""

CI = False
LIMIT = 5400
FRONT_ENDS = ("ublk", "nbd")


def scenario(lab, rounds=20):
    lab.up()
    here, there = 1, 2
    for i in range(rounds):
        lab.activate(here)
        lab.start_load(here)
        lab.goes_on(records=30)
        lab.shut_down(here)
        lab.wait(60, f"server{there} misses server{here}", lambda n=there: lab.misses_peer(n))
        lab.activate(there)
        lab.records_are_there(there)
        lab.power_on(here)
        lab.wait_normal()
        lab.ctrl(there, "--deactive md1")
        here, there = there, here
        lab.say(f"{i + 1} of {rounds}")
    lab.equal_in_the_end()
