"""`disk_error = "detach"`: the layer under the active server's data partition turns into one on which
everything fails. The application notices nothing: the other server's disk serves it. A new disk gets a
copy, with the application running on the other server."""

FRONT_ENDS = ("ublk", "nbd")
CI_FRONT_ENDS = ("ublk",)


def scenario(lab):
    lab.mirror_lines += '\ndisk_error = "detach"'
    for n in (1, 2):
        lab.map_disk(n, "data", "linear")
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on()
    before = lab.last_ack()
    lab.map_disk(1, "data", "error")
    lab.wait(60, "server1 goes on with the other disk",
             lambda: lab.logged(1, "goes on with the disk of the other server"))
    lab.goes_on(records=30)
    lab.no_error()
    lab.say(f"longest pause of the application: {lab.longest_pause(before):.1f} s")
    lab.check(lab.disk_error(1, 1), "the disk error is shown")
    lab.wait_colors(1, "RED GREEN")
    lab.stop_load(1)
    lab.records_are_there(1)
    lab.ctrl(1, "--deactive md1")
    lab.fail_over(2)
    lab.records_are_there(2)
    lab.start_load(2)

    # The new disk: blank, and announced as such.
    lab.stop_agent(1)
    lab.map_disk(1, "data", "linear")
    lab.run(1, "dd if=/dev/zero of=/dev/mapper/data bs=1M count=4 2>/dev/null && clpmdinit --create force md1")
    lab.start_agent(1)
    lab.wait_normal(120)
    lab.goes_on()
    lab.no_error()
    lab.stop_load(2)
    lab.equal_in_the_end()
