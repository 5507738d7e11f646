"""The example unit for a server that shall not outlive its agent: an agent that is killed has systemd
reboot the server; the other one takes over, and the first comes back by itself. An agent that cannot
start reboots nothing."""

from scenarios.systemd_boot import AUTO, start_load

CI = False
SYSTEMD = True
LIMIT = 2400
EXAMPLE = "/usr/share/doc/clusterpro-md/examples/agent-death-reset.conf"
PLACE = "/etc/systemd/system/clusterpro_md.service.d/agent-death-reset.conf"


def scenario(lab):
    lab.mirrors = {1: f'fs = "ext4"\nmount_point = "/mnt/nmp1"\ninitial_mkfs = true\n{AUTO}'}
    lab.make_disks()
    lab.power_on()
    for n in (1, 2):
        lab.install(n)
        lab.run(n, f"install -D -m 644 {EXAMPLE} {PLACE} && systemctl daemon-reload")
    lab.wait(300, "the mirror is Normal", lab.all_normal)
    lab.wait(120, "server1 mounts by itself", lambda: lab.sh(1, "mountpoint -q /mnt/nmp1")[0] == 0)
    start_load(lab, 1)
    lab.goes_on()
    lab.run(1, "kill -KILL $(systemctl show -p MainPID --value clusterpro_md)")
    lab.wait(120, "server2 misses server1", lambda: lab.misses_peer(2))
    lab.activate(2)
    lab.records_are_there(2)
    start_load(lab, 2)
    lab.is_booted(1)
    lab.wait(300, "the mirror is Normal", lab.all_normal)
    lab.goes_on()

    lab.run(1, "systemctl stop clusterpro_md && echo nonsense >>/etc/clpmd/clpmd.toml", 120)
    code, said = lab.sh(1, "systemctl start clusterpro_md", 120)
    lab.check(code != 0, f"the agent does not start with such a file: {said}")
    same = lab.boots[1]
    lab.check(lab.run(1, "sleep 20; cat /proc/sys/kernel/random/boot_id") == same, "server1 is not rebooted for that")
    lab.goes_on()
