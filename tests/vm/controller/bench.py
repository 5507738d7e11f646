"""Writes through the mirror, through DRBD 8.4 of the same kernel, and to the disk alone: on the same
two machines, disks and network, in turns."""

import shutil
import statistics
import tempfile
from pathlib import Path

from . import network
from .lab import Lab

SPAN = 96  # MiB of each device that are written; DRBD keeps its own data behind them
CASES = [("4k qd1", 4096, 1), ("4k qd32", 4096, 32), ("1M qd4", 1 << 20, 4)]
DELAYS = ["none", "1ms"]
# Program of DRBD -> where it looks for it.
PROGRAMS = {"drbdadm": "/sbin/drbdadm", "drbdsetup": "/sbin/drbdsetup", "drbdmeta": "/sbin/drbdmeta"}
OLD = ["drbdadm-84", "drbdsetup-84"]  # for the kernel's 8.4; in /lib/drbd


def programs(tools):
    """(path here, path in the servers) of what DRBD needs."""
    tools.need({"drbdadm": "drbd-utils"})
    found = [(tools.find(name), target) for name, target in PROGRAMS.items()]
    for name in OLD:
        places = [Path(root) / "lib/drbd" / name for root in (tools.root, tools.root / "usr", "/", "/usr")]
        found.append((str(next(p for p in places if p.exists())), f"/lib/drbd/{name}"))
    return found


DRBD = """global { usage-count no; }
common { net { protocol C; } disk { c-plan-ahead 0; resync-rate 200M; } }
resource r0 { device /dev/drbd0; disk /dev/vda; meta-disk internal;
%s
}
"""


def _write_drbd_conf(lab):
    hosts = "\n".join(f"on server{n} {{ address {network.address('mirror', n)}:7789; }}" for n in (1, 2))
    for n in (1, 2):
        lab.run(n, f"mkdir -p /var/lock /var/lib/drbd; cat >/etc/drbd.conf <<'X'\n{DRBD % hosts}X\n"
                   "mod drbd:usermode_helper=/bin/true")


def _in_turn(lab, both, last):
    for n in (2, 1):
        lab.run(n, both)
    return lab.run(1, last)


class Raw:
    """The disk of server1, and nothing else."""

    device = "/dev/vda"

    def up(self, lab):
        """It is there."""

    def down(self, lab):
        """It stays."""


class Drbd:
    """Protocol C, as Debian ships it."""

    device = "/dev/drbd0"

    def __init__(self):
        self.made = False

    def up(self, lab):
        """Connected, in sync, primary on server1."""
        if not self.made:
            for n in (1, 2):
                lab.run(n, "drbdadm create-md --force r0 >/dev/null")
        _in_turn(lab, "drbdadm up r0", ":")
        connected = "grep -q cs:Connected /proc/drbd"
        lab.wait(30, "DRBD connects", lambda: lab.sh(1, connected)[0] == 0)
        if not self.made:
            lab.run(1, "drbdadm new-current-uuid --clear-bitmap r0")
            self.made = True
        in_sync = "grep -q UpToDate/UpToDate /proc/drbd"
        lab.wait(60, "DRBD is in sync", lambda: lab.sh(1, in_sync)[0] == 0)
        lab.run(1, "drbdadm primary r0")

    def down(self, lab):
        """Off."""
        _in_turn(lab, "drbdadm down r0", ":")


class Mirror:
    """Ours."""

    device = "/dev/NMP1"

    def up(self, lab):
        """In session, open on server1."""
        for n in (1, 2):
            lab.start_agent(n)
        lab.wait_normal()
        lab.activate(1, "-nomount")

    def down(self, lab):
        """Off."""
        lab.ctrl(1, "--deactive md1")
        for n in (1, 2):
            lab.stop_agent(n)


def measure(parts, front_end, rounds, seconds, say):
    """(delay, case, target) -> the figures of every round: writes per second, p50, p99 in us."""
    folder = Path(tempfile.mkdtemp(prefix="clpmd-vm.bench."))
    lab, figures = Lab(folder, parts, front_end), {}
    lab.data_mb, lab.mirror_lines = 128, ""
    targets = {"disk": Raw(), "DRBD": Drbd(), "mirror": Mirror()}
    try:
        lab.up()
        for n in (1, 2):
            lab.stop_agent(n)
        _write_drbd_conf(lab)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for name, target in targets.items():
                target.up(lab)
                for delay in DELAYS if name != "disk" else DELAYS[:1]:
                    _with_delay(lab, delay)
                    for case, size, depth in CASES:
                        command = f"lab-load bench {target.device} {SPAN} {seconds} {size} {depth}"
                        out = lab.run(1, command, 60 + 20 * seconds)
                        figures.setdefault((delay, case, name), []).append([float(w) for w in out.split()])
                lab.mend()
                target.down(lab)
    finally:
        lab.down()
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def _with_delay(lab, delay):
    if delay != "none":
        lab.degrade(f"delay {delay} limit 100000", "mirror")


def table(figures, rounds, seconds, say):
    """Medians and what they lie between; ratios to DRBD and to the disk, of the same round."""
    say("The mirror connect is encrypted, DRBD's is not.")
    say(f"Medians of {rounds} rounds of {seconds} s, lowest..highest in brackets; delay: of every packet, each way.\n")
    say("| case | delay | target | writes/s | p50 us | p99 us | x DRBD | x disk |")
    say("|---|---|---|---:|---:|---:|---:|---:|")
    for case, _, _ in CASES:
        for delay in DELAYS:
            for name in ("disk", "DRBD", "mirror"):
                rows = figures.get((delay, case, name))
                if rows:
                    _row(figures, (delay, case, name), rows, say)


def _spread(values, digits=0):
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}..{max(values):.{digits}f}]"


def _row(figures, key, rows, say):
    delay, case, name = key
    columns = [_spread(column) for column in zip(*rows)]

    def ratio(other):
        others = figures.get(other)
        if not others or other == key or name == "disk":
            return ""
        return _spread([row[0] / base[0] for row, base in zip(rows, others)], 2)

    columns += [ratio((delay, case, "DRBD")), ratio(("none", case, "disk"))]
    say(f"| {case} | {delay} | {name} | {' | '.join(columns)} |")
