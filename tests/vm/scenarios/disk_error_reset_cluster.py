"""`disk_error = "reset"`, and the standby's cluster partition fails, which no record can hold: it
resets itself, the application notices nothing. With a good disk it catches up by itself. A second
error of the same disk does not reset it."""

AGAIN = "it was reset for this disk before"


def scenario(lab):
    lab.mirror_lines = 'initial_mkfs = true\ndisk_error = "reset"'
    lab.var_mb = 8
    for n in (1, 2):
        lab.map_disk(n, "cluster", "linear")
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.map_disk(2, "cluster", "error")
    # A new session must be noted there, and cannot be.
    lab.cut("mirror")
    lab.wait_colors(1, "GREEN RED")
    lab.plug("mirror")
    lab.wait_reset(2)
    lab.goes_on()

    lab.map_disk(2, "cluster", "linear")
    lab.power_on(2)
    lab.wait_normal()
    lab.goes_on()
    lab.map_disk(2, "cluster", "error")
    lab.cut("mirror")
    lab.wait_colors(1, "GREEN RED")
    lab.plug("mirror")
    lab.wait(60, "server2 says why it is not reset again", lambda: lab.logged(2, AGAIN))
    lab.check(lab.machines[2].is_on() and lab.agent_runs(2), "server2 is not reset again")
    lab.goes_on()
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
