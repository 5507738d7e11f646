"""A Debian 13 as it boots, with our package: the agent comes up by its unit, opens and mounts;
mount units wait for the device; LVM, multipath and blkid leave the partitions alone; a shutdown
unmounts and closes, so that nothing is settled at the next start; a reboot brings all of it back."""

CI = False
SYSTEMD = True
LIMIT = 2400

UNITS = "clusterpro_md.service clusterpro_md-watch.service"
# One that the agent mounts; one for a mount unit; one with a volume group inside.
AUTO = 'activate_at_start = "server1"'
MIRRORS = {
    1: f'fs = "ext4"\nmount_point = "/mnt/nmp1"\ninitial_mkfs = true\n{AUTO}',
    2: f'fs = "none"\n{AUTO}',
    3: 'fs = "none"',
}
FSTAB = "/dev/NMP2 /mnt/nmp2 ext4 x-systemd.wanted-by=dev-NMP2.device,x-systemd.requires=clusterpro_md.service"
FILTER = 'devices { global_filter = [ "r|^/dev/sda|", "r|^/dev/disk/|" ] }'
APPLICATION = f"systemd-run -q --unit=load --collect -p After=clusterpro_md.service lab-load write %s/records " \
              "/dev/virtio-ports/acks %d"


def start_load(lab, n, where="/mnt/nmp1"):
    begin = lab.last_ack() + 1
    lab.run(n, APPLICATION % (where, begin))
    lab.wait(60, "the application runs", lambda: lab.last_ack() >= begin + 5)


def are_mounted(lab):
    return lab.sh(1, "mountpoint -q /mnt/nmp1 && mountpoint -q /mnt/nmp2")[0] == 0


def left_alone(lab, n):
    """Nobody took what lies in a partition for its own."""
    for number in MIRRORS:
        for kind in ("data", "cluster"):
            said = lab.run(n, f"udevadm info -q property /dev/disk/by-partlabel/md{number}-{kind}")
            lab.check("ID_FS_TYPE=clusterpro_md_member" in said, f"the rules know md{number}-{kind}: {said}")
    said = lab.run(n, "dmsetup ls; multipath -ll 2>&1; cat /proc/mounts")
    lab.check("vgmd3" not in said and "mpath" not in said and "/dev/sda" not in said,
              f"no volume, no multipath map and no mount of a partition on server{n}: {said}")


def ended_well(lab, n):
    """What the journal of the boot before says of its end."""
    said = lab.journal(n, boot=-1)
    lab.check("Deactivated successfully" in said, f"the agent of server{n} ended in order: {said[-1500:]}")
    for word in ("Failed with result", "State 'stop", "SIGKILL"):
        lab.check(word not in said, f"no violence at the end: {said[-1500:]}")
    unmounted = lab.run(n, "journalctl -q -b -1 -o short-monotonic --no-hostname | grep -iE 'umount|unmount|I/O error|"
                           "EXT4-fs.*error' | tail -n 20; true", 120)
    lab.check("error" not in unmounted.lower(), f"no error while it went down: {unmounted}")


def nothing_settled(lab):
    """What one server wrote after the other had gone may have to be copied; that is no settling."""
    for n in (1, 2):
        said = lab.journal(n)
        lab.check("(settle" not in said and "NMP1 connected(" in said, f"nothing had to be settled: {said}")


def set_up(lab):
    lab.make_disks()
    lab.power_on()
    for n in (1, 2):
        lab.install(n)
    lab.wait(300, "every mirror is Normal", lab.all_normal)
    lab.wait(120, "server1 mounts by itself", lambda: lab.sh(1, "mountpoint -q /mnt/nmp1")[0] == 0)
    for n in (1, 2):
        lab.run(n, f"mkdir -p /mnt/nmp2; echo '{FSTAB}' >>/etc/fstab; systemctl daemon-reload")
    lab.run(1, "mkfs.ext4 -q -L inside /dev/NMP2")
    lab.run(1, "systemctl start mnt-nmp2.mount", 150)
    lab.ctrl(1, "--active md3")
    # The filter for these commands only: at the boot udev's rules must do without.
    lab.run(1, "for step in 'pvcreate /dev/NMP3' 'vgcreate vgmd3 /dev/NMP3' 'lvcreate -an -Zn -L 4M -n lv vgmd3'; do "
               f"$step -q --config '{FILTER}' || exit; done", 120)
    lab.ctrl(1, "--deactive md3")


def scenario(lab):
    lab.mirrors = MIRRORS
    set_up(lab)
    for n in (1, 2):
        said = lab.sh(n, f"systemd-analyze verify --man=no {UNITS} 2>&1; systemd-analyze security --no-pager clusterpro_md "
                         "clusterpro_md-watch | grep -i overall", 120)[1]
        lab.say(f"server{n}: {said}")
        lab.check("clusterpro_md" not in said.split("Overall")[0], f"systemd-analyze verify has nothing to say: {said}")
    start_load(lab, 1)
    lab.goes_on()

    lab.say("both reboot, with the application running")
    lab.reboot(1, 2)
    states = [lab.is_booted(n) for n in (1, 2)]
    lab.wait(300, "both are mounted again", lambda: are_mounted(lab))
    lab.wait(120, "every mirror is Normal", lab.all_normal)
    for n in (1, 2):
        lab.check(states[n - 1] == "running", f"no unit failed on server{n}: {lab.sh(n, 'systemctl --failed')[1]}")
        left_alone(lab, n)
        ended_well(lab, n)
        lab.say(f"server{n}: {lab.run(n, 'systemd-analyze time | head -n 1')}")
    nothing_settled(lab)
    links = lab.run(1, "readlink -f /dev/disk/by-label/inside /dev/NMP2")
    lab.check(len(set(links.split())) == 1, f"the label leads to the mirror's device: {links}")
    lab.records_are_there(1)

    lab.say("server1 alone reboots, then server2")
    start_load(lab, 1)
    lab.reboot(1)
    lab.is_booted(1)
    lab.wait(300, "both are mounted again", lambda: are_mounted(lab))
    ended_well(lab, 1)
    lab.records_are_there(1)
    start_load(lab, 1)
    lab.reboot(2)
    lab.goes_on()
    lab.is_booted(2)
    lab.wait(300, "every mirror is Normal", lab.all_normal)
    lab.goes_on()
    for n in (1, 2):
        lab.shut_down(n)
    lab.power_off(1, 2)
    for i, number in enumerate(MIRRORS):
        lab.check(lab.same_partition(i), f"the data partitions of md{number} are equal")
