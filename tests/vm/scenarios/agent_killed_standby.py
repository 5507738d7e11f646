"""The standby's agent is killed under load, three times: no error, and it catches up."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    for _ in range(3):
        lab.kill_agent(2)
        lab.goes_on()
        lab.start_agent(2)
        lab.wait_normal()
        lab.goes_on()
    lab.say(f"longest pause of the application: {lab.longest_pause():.2f} s")
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
    lab.equal_in_the_end()
