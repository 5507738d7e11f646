"""The active server's data disk fails writes under load: the application gets an error and no lie,
and the other server takes over with every record."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on(records=50)
    lab.disk(1, "data", "fail write flush")
    lab.wait(60, "the application ends with an error", lambda: lab.acks()[1] and not lab.load_runs(1))
    lab.wait(30, "server1 shows the error", lambda: lab.disk_error(1, 1))
    lab.ctrl(1, "--deactive md1")
    lab.fail_over(2)
    lab.records_are_there(2)
    lab.disk(1, "data", "heal")
