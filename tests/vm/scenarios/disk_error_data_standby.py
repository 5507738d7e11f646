"""The standby's data disk fails under load: the application notices nothing."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.disk(2, "data", "fail write flush")
    lab.wait(45, "server1 shows the error", lambda: lab.disk_error(1, 2))
    lab.goes_on()
    lab.say(f"longest pause of the application: {lab.longest_pause():.2f} s")
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
    lab.refused(2, "--active md1", 82, "a disk of this server has failed")
