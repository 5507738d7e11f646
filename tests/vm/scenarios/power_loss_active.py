"""The active server loses power under load: failover, and the other way round on return."""

import time

FRONT_ENDS = ("ublk", "nbd")


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on(records=100)
    begin = time.monotonic()
    lab.power_off(1)
    lab.wait(30, "server2 misses server1", lambda: lab.misses_peer(2))
    noticed = time.monotonic()
    lab.activate(2, "-nomount")
    opened = time.monotonic()
    lab.run(2, "mkdir -p /mnt/nmp1 && mount /dev/NMP1 /mnt/nmp1")
    mounted = time.monotonic()
    lab.say(f"power loss to mounted file system: {mounted - begin:.2f} s = {noticed - begin:.2f} s to notice"
            f" + {opened - noticed:.2f} s clpmdctrl --active -nomount + {mounted - opened:.2f} s mount with its journal")
    lab.records_are_there(2)
    lab.run(2, "umount /mnt/nmp1")
    lab.fsck(2)
    lab.ctrl(2, "--deactive md1")
    lab.activate(2)

    lab.start_load(2)
    lab.power_on(1)
    lab.wait_normal()
    lab.refused(1, "--active md1", 89, "active on the other server")
    lab.goes_on(records=100)
    lab.power_off(2)
    lab.wait(30, "server1 misses server2", lambda: lab.misses_peer(1))
    lab.fail_over(1)
    lab.records_are_there(1)
    lab.power_on(2)
    lab.wait_normal()
    lab.no_error()
    lab.equal_in_the_end()
