"""The active server's agent is killed under load and started again: the device stays, its I/O waits
and goes on, without an error."""

FRONT_ENDS = ("ublk", "nbd")
ROUNDS = 3


def scenario(lab, rounds=ROUNDS):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    for _ in range(rounds):
        lab.kill_agent(1)
        lab.start_agent(1)
        lab.goes_on()
        lab.wait_normal()
        lab.goes_on()
    lab.say(f"longest pause of the application in {rounds} restarts: {lab.longest_pause():.2f} s")
    lab.check(lab.is_active(1), "the mirror is still active on server1")
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
    lab.equal_in_the_end()
