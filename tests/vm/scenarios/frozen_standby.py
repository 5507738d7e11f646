"""The standby stands still for a time, under load: the work goes on, and it catches up."""

import time


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    mark = lab.last_ack()
    lab.freeze(2)
    time.sleep(2)  # shorter than peer_timeout: nothing but a pause
    lab.thaw(2)
    lab.goes_on()
    lab.wait_normal()
    lab.freeze(2)
    lab.wait_colors(1, "GREEN RED")
    lab.goes_on()
    lab.say(f"longest pause of the application: {lab.longest_pause(mark):.2f} s")
    lab.thaw(2)
    lab.wait_normal()
    lab.goes_on()
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
    lab.equal_in_the_end()
