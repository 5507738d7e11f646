"""The active server's cluster partition fails under load: it cannot note what it must, so it stops,
and the other server takes over with every record."""

LIMIT = 150


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on(records=50)
    lab.disk(1, "cluster", "fail read write flush")
    # Nothing is to be noted while both write the same; a break must be.
    lab.kill_agent(2)
    lab.wait(60, "the application ends with an error", lambda: lab.acks()[1] and not lab.load_runs(1))
    lab.start_agent(2)
    lab.power_off(1)
    lab.wait(30, "server2 misses server1", lambda: lab.misses_peer(2))
    lab.fail_over(2, "--peer-down")
    lab.records_are_there(2)
