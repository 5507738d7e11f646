"""What an operator lives through, from construction to the end of a split brain: work, a cut link,
a crash and failover, the way back."""

FRONT_ENDS = ("ublk", "nbd")
TREE = "/lib/modules"  # of the server itself: some files to compare with


def unpack(lab, n, name):
    lab.run(n, f"cp -r {TREE} /mnt/nmp1/{name} && sync")


def is_whole(lab, n, *names):
    lab.run(n, "echo 3 >/proc/sys/vm/drop_caches")
    for name in names:
        lab.run(n, f"diff -r {TREE} /mnt/nmp1/{name}")


def scenario(lab):
    lab.data_mb = 40  # for three copies of the tree
    lab.up()
    lab.activate(1)
    lab.refused(2, "--active md1", 89, "active on the other server")
    lab.start_sqlite(1)
    unpack(lab, 1, "tree1")
    lab.goes_on()

    lab.cut("mirror")
    lab.wait_colors(1, "GREEN RED")
    lab.goes_on()
    unpack(lab, 1, "tree2")
    lab.check("Total Difference" in lab.run(1, "clpmdstat --mirror md1"), "the difference is shown")
    lab.plug("mirror")
    lab.wait_normal()
    lab.goes_on()

    unpack(lab, 1, "tree3")
    lab.power_off(1)
    lab.wait_colors(2, "GRAY GREEN")
    lab.fail_over(2)
    lab.rows_are_there(2)
    is_whole(lab, 2, "tree1", "tree2", "tree3")
    lab.start_sqlite(2)
    lab.power_on(1)
    lab.wait_normal()
    lab.goes_on()
    lab.stop_sqlite(2)

    lab.cut()
    lab.wait(30, "server1 misses server2", lambda: lab.misses_peer(1))
    lab.activate(1)
    for n in (1, 2):
        lab.run(n, f"echo 'written on server{n}' >/mnt/nmp1/apart; sync")
    lab.plug()
    lab.wait_colors(2, "RED RED")
    lab.refused(2, "--force server2 md1 --yes", 89)
    lab.run(1, "grep -q 'written on server1' /mnt/nmp1/apart")
    lab.ctrl(1, "--deactive md1")
    lab.ctrl(2, "--force server2 md1 --yes")
    lab.wait_normal()
    lab.run(2, "grep -q 'written on server2' /mnt/nmp1/apart")
    lab.rows_are_there(2)
    lab.no_error()
    lab.equal_in_the_end()
