"""The standby's cluster partition fails under load: the application notices nothing."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.disk(2, "cluster", "fail read write flush")
    # A new session must be noted there, and cannot be.
    lab.cut("mirror")
    lab.wait_colors(1, "GREEN RED")
    lab.plug("mirror")
    lab.wait(45, "server1 shows the error", lambda: lab.disk_error(1, 2))
    lab.goes_on()
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
