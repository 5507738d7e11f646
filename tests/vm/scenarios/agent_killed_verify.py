"""Four writers past the page cache that read back what they wrote; the agent is killed below them, on
the active side, then on the standby: no error, no wrong byte, then and at the end."""

FRONT_ENDS = ("ublk", "nbd")
CI_FRONT_ENDS = ("nbd",)
FILE = "/mnt/nmp1/verified"


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1, "lab-load verify", FILE)
    for n in (1, 2, 1):
        lab.goes_on(records=100)
        lab.kill_agent(n)
        lab.start_agent(n)
        lab.goes_on(records=100)
        lab.wait_normal()
    lab.say(f"longest pause of all writers together: {lab.longest_pause():.2f} s")
    lab.stop_load(1, FILE)
    lab.no_error()
    lab.check(lab.last_ack() >= 600, "there was load")
    lab.equal_in_the_end()
