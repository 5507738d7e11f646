"""The active server's agent is replaced while SQLite writes, three times: no error, a short pause."""

FRONT_ENDS = ("ublk", "nbd")
CI_FRONT_ENDS = ("ublk",)


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_sqlite(1)
    for _ in range(3):
        lab.run(1, "cp /usr/bin/clpmdagent /usr/bin/clpmdagent.new && mv /usr/bin/clpmdagent.new /usr/bin/clpmdagent")
        lab.hand_over(1)
        lab.start_agent(1)
        lab.goes_on()
    lab.wait_normal()
    lab.say(f"longest pause of the application in 3 replacements: {lab.longest_pause():.2f} s")
    lab.check(lab.is_active(1), "the mirror is still active on server1")
    lab.stop_sqlite(1)
    lab.no_error()
    lab.rows_are_there(1)
    lab.equal_in_the_end()
