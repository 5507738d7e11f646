"""`disk_error = "reset"`, and the active server's data disk takes no writes any more, under load: the
server resets itself, the other one takes over with every record. It comes up with the bad disk and
is not reset again; with a good one, made new, it catches up by itself."""


def scenario(lab):
    lab.mirror_lines = 'initial_mkfs = true\ndisk_error = "reset"'
    for n in (1, 2):
        lab.map_disk(n, "data", "linear")
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on(records=50)
    lab.map_disk(1, "data", "bad-writes")
    lab.wait_reset(1)
    lab.wait(30, "server2 misses server1", lambda: lab.misses_peer(2))
    lab.fail_over(2)
    lab.records_are_there(2)
    lab.start_load(2)

    lab.power_on(1)
    lab.wait(30, "server1 remembers the error", lambda: lab.disk_error(1, 1))
    lab.wait(30, "server2 is told of it", lambda: lab.disk_error(2, 1))
    lab.goes_on()
    lab.check(lab.agent_runs(1), "server1 is not reset again")
    lab.stop_agent(1)
    lab.map_disk(1, "data", "linear")
    lab.run(1, "clpmdinit --create force md1")
    lab.start_agent(1)
    lab.wait_normal()
    lab.goes_on()
    lab.stop_load(2)
    lab.records_are_there(2)
    lab.equal_in_the_end()
