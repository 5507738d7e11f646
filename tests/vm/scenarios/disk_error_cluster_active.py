"""The active server's cluster partition fails under load: at the next break it cannot note what it
must, so it stops, and the other server takes over with every record."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on(records=50)
    lab.disk(1, "cluster", "fail read write flush")
    lab.cut("mirror")
    lab.wait(60, "the application ends with an error", lambda: lab.acks()[1] and not lab.load_runs(1))
    lab.ctrl(1, "--deactive md1")
    lab.power_off(1)
    lab.wait(30, "server2 misses server1", lambda: lab.misses_peer(2))
    lab.fail_over(2)
    lab.records_are_there(2)
