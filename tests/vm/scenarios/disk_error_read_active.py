"""The active server's data disk cannot be read: what is asked for comes from the other one."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on(records=50)
    lab.stop_load(1)
    lab.disk(1, "data", "fail read")
    lab.records_are_there(1)
    lab.disk(1, "data", "heal")
    lab.equal_in_the_end()
