"""Two servers with Debian 13 as it boots: systemd, udev, LVM, multipath, and our package."""

from contextlib import suppress

from . import network
from .lab import PATIENCE, Lab
from .machine import Ended

SECTOR, MIB = 512, 1 << 20
DATA_MB, CLUSTER_MB, SPARE_MB = 24, 4, 1
IDENTITY = "6D646C61-6200-4000-8000-0000000000%02x"
NOT_UP = (Ended, TimeoutError, OSError)


class Systemd(Lab):
    """The servers; every mirror has a data partition of `DATA_MB` on /dev/sda, and a cluster partition."""

    def __init__(self, folder, parts, front_end, keep=False, say=None):
        super().__init__(folder, {**parts, **parts["systemd"]}, front_end, keep, say)
        self.mirrors = {}  # number -> further lines of its table
        self.boots = {}
        self.spare_shell = "shell0"

    def sh(self, n, command, limit=60, shell="shell0"):
        """As of any machine; with more time, since commands here ask systemd, and udev for all disks."""
        return super().sh(n, command, limit * 4 * PATIENCE, shell)

    # ---- disks and configuration

    def make_disks(self):
        """Partitions of a fixed place under their names, as an installation makes them."""
        count = len(self.mirrors)
        self.data_mb, self.cluster_mb = count * DATA_MB + 2 * SPARE_MB, count * CLUSTER_MB + 2 * SPARE_MB
        super().make_disks()

    def partition(self, n):
        """Makes the partitions on a server."""
        for disk, kind, size in (("/dev/sda", "data", DATA_MB), ("/dev/disk/by-id/virtio-cluster", "cluster", CLUSTER_MB)):
            lines = ["label: gpt", f"label-id: {IDENTITY % 0}"]
            for i, number in enumerate(self.mirrors):
                start = (SPARE_MB + i * size) * MIB // SECTOR
                lines.append(f"start={start}, size={size * MIB // SECTOR}, name=md{number}-{kind}, uuid={IDENTITY % (i + 1)}")
            text = "\n".join(lines)
            # The targets of a boot do not wait for drivers of disks that no mount asks for.
            self.wait(300, f"server{n} has {disk}", lambda d=disk: self.sh(n, f"test -b {d}")[0] == 0)
            self.run(n, f"sfdisk -q {disk} <<'X'\n{text}\nX\nudevadm settle")

    def config(self):
        """The configuration file of both servers."""
        lines = []
        for n in (1, 2):
            lines += ["[[server]]", f'name = "server{n}"', f'agent_address = "{network.address("agents", n)}"',
                      f'mirror_connect = ["{network.address("mirror", n)}"]']
        lines += ["[agent]", self.agent_lines]
        for number, more in self.mirrors.items():
            lines += ["[[mirror]]", f'name = "md{number}"', f'front_end = "{self.front_end}"',
                      f"peer_timeout = {int(10000 * PATIENCE)}", more]
            lines += [f'{kind}_partition = "/dev/disk/by-partlabel/md{number}-{kind}"' for kind in ("data", "cluster")]
        return "\n".join(lines) + "\n"

    def install(self, n):
        """What a person does after the package is there: partitions, configuration, secret, the service."""
        self.partition(n)
        self.run(n, f"umask 077; echo {self.secret} >/etc/clpmd/secret; cat >/etc/clpmd/clpmd.toml <<'X'\n{self.config()}X")
        code, said = self.sh(n, "clpmdagent --check")
        # 3: the module is not loaded yet; the unit does that.
        self.check(code in (0, 3), f"clpmdagent --check on server{n}: {code} {said}")
        self.run(n, "udevadm trigger --subsystem-match=block && udevadm settle", 120)
        self.run(n, "systemctl enable --now clusterpro_md", 300)

    # ---- boots

    def power_on(self, *numbers, agent=True):
        """Switches servers on, both if none is named, and waits until systemd has started what it has to."""
        numbers = numbers or (1, 2)
        for n in numbers:
            self.heard[n] = 0
            self.machines[n].start(self.memory.get(n))
        for n in numbers:
            self.is_booted(n)

    def is_booted(self, n, limit=300):
        """Waits until a server has booted, another time than before."""
        took = self.wait(limit, f"server{n} boots", lambda: self._other_boot(n))
        state = self.wait_started(n, limit)
        self.say(f"server{n}: {state}, {took:.0f} s until it answered")
        return state

    def _other_boot(self, n):
        with suppress(*NOT_UP):
            boot = self.run(n, "cat /proc/sys/kernel/random/boot_id", 5)
            if boot != self.boots.get(n):
                self.boots[n] = boot
                return True
        self.machines[n].shells = {}
        return False

    def wait_started(self, n, limit=300):
        """Until systemd has nothing more to start; its word for the result."""
        states = []

        def settled():
            states.append(self.sh(n, "systemctl is-system-running", 60)[1])
            return states[-1] in ("running", "degraded")

        self.wait(limit, f"systemd of server{n} has started everything", settled)
        return states[-1]

    def reboot(self, *numbers):
        """In good order, by systemd: the machines come up again by themselves."""
        for n in numbers:
            self.run(n, "systemctl --no-block reboot")

    def shut_down(self, n):
        """In good order, by systemd, and off."""
        self.run(n, "systemctl --no-block poweroff")
        self.machines[n].wait_off(300 * PATIENCE)

    # ---- what can be seen

    def status_of(self, n, name):
        """What `clpmdstat --json` says of a mirror."""
        was, self.mirror = self.mirror, name
        try:
            return self.status(n)
        finally:
            self.mirror = was

    def all_normal(self):
        """Whether every mirror is Normal, in contact, on both servers."""
        found = [self.status_of(n, f"md{number}") for n in (1, 2) for number in self.mirrors]
        return all(s.get("phase") == "normal" and s.get("link") == "session" for s in found)

    def journal(self, n, unit="clusterpro_md", boot=0):
        """What a unit has said in this boot, or in one before it (-1)."""
        return self.run(n, f"journalctl -q -o short-monotonic --no-hostname -b {boot} -u {unit}", 120)

    def same_partition(self, i):
        """Whether the i-th data partitions are equal."""
        pieces = []
        for n in (1, 2):
            with open(self.image(n, "data"), "rb") as file:
                file.seek((SPARE_MB + i * DATA_MB) * MIB)
                pieces.append(file.read(DATA_MB * MIB))
        return pieces[0] == pieces[1]
