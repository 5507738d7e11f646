"""Both servers are activated apart: nothing is overwritten until the operator decides."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.cut()
    lab.wait(30, "server2 misses server1", lambda: lab.misses_peer(2))
    lab.wait(30, "server1 misses server2", lambda: lab.misses_peer(1))
    lab.activate(2)
    for n in (1, 2):
        lab.run(n, f"echo 'written on server{n}' >/mnt/nmp1/apart; sync")
    lab.plug()
    for n in (1, 2):
        lab.wait_colors(n, "RED RED")
    for n in (1, 2):
        lab.run(n, f"echo 3 >/proc/sys/vm/drop_caches; grep -q 'written on server{n}' /mnt/nmp1/apart")
    lab.refused(2, "--force server2 md1 --yes", 89)
    lab.ctrl(1, "--deactive md1")
    lab.ctrl(2, "--force server2 md1 --yes")
    lab.wait_normal()
    lab.equal_in_the_end()
