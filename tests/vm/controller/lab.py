"""Two servers with a mirror between them, and everything that can happen to them."""

import json
import os
import re
import secrets
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from . import network, process
from .machine import CommandError, Ended, Machine

HERE = Path(__file__).resolve().parent.parent
MOUNT, LOGS = "/mnt/nmp1", "/run/clpmd/log"
RECORDS, ROWS = f"{MOUNT}/records", f"{MOUNT}/db.sqlite"
PATIENCE = float(os.environ.get("CLPMD_LAB_PATIENCE", "1"))
KERNEL_SAYS = "dmesg | grep -iE 'oom|killed process|blocked for|segfault' | tail -n 6; dmesg | tail -n 6"
MODULE = {"ublk": "ublk_drv", "nbd": "nbd"}


class NotHeld(Exception):
    """Something that a scenario demands is not so."""


class Lab:
    """The two servers. `parts` is what machines are made of; sizes are in MiB."""

    def __init__(self, folder, parts, front_end, keep=False, say=None):
        self.folder, self.front_end, self.keep = Path(folder), front_end, keep
        self.parts = {"disks": ["data", "cluster"], **parts}
        self.begin = time.monotonic()
        self.say = say or (lambda text: print(f"    {time.monotonic() - self.begin:5.1f}  {text}", flush=True))
        self.machines = {n: Machine(n, self.folder, self.parts, keep) for n in (1, 2)}
        self.disks, self.seed = {}, secrets.randbelow(10**6)
        self.secret = secrets.token_hex(24)
        self.data_mb, self.cluster_mb = 24, 4
        self.agent_lines, self.mirror_lines = "", "initial_mkfs = true"
        self.memory, self.load_modules = {}, True
        self.heard = {1: 0, 2: 0}
        self.mirror, self.spare_shell = "md1", "shell1"
        self.mapped = {}  # (server, disk) -> the kind of device-mapper target above it
        self.map_mb = {}  # the same -> how much of it that shows; else all
        self.var_mb = 0  # of a disk for what must outlive a restart; none

    # ---- machines

    def make_disks(self):
        """Blank disks of both servers, each a process."""
        sizes = {"data": self.data_mb, "cluster": self.cluster_mb, **({"var": self.var_mb} if self.var_mb else {})}
        self.parts["disks"][:] = sizes
        for n in (1, 2):
            for name, size in sizes.items():
                self.image(n, name).touch()
                os.truncate(self.image(n, name), size << 20)
                socket_path, control = self.machines[n].path(name), self.machines[n].path(f"{name}.control")
                command = [sys.executable, "-m", "controller.disk", self.image(n, name), socket_path, control]
                self.disks[n, name] = process.start(command, self.folder / "disks.log", self.keep, cwd=HERE)
        self.wait(20, "the disks are served", lambda: all(self.machines[n].path(d).exists() for n, d in self.disks))

    def image(self, n, name):
        """The file under a disk."""
        return self.folder / f"server{n}.{name}.img"

    def power_on(self, *numbers, agent=True):
        """Switches servers on, both if none is named, and starts their agents."""
        numbers = numbers or (1, 2)
        for n in numbers:
            self.heard[n] = 0
            self.machines[n].path("agent").write_bytes(b"")
            self.machines[n].start(self.memory.get(n))
        for n in numbers:
            self.machines[n].wait()
            self._configure(n)
        for n in numbers if agent else ():
            self.start_agent(n)

    def power_off(self, *numbers):
        """Takes the power of servers away: at once, and their disks lose what was not flushed."""
        for n in numbers:
            self.machines[n].kill()
        for n in numbers:
            for name in self.parts["disks"]:
                self.seed += 1
                cached, lost = self.disk(n, name, f"lose {self.seed}").split()
                if name == "data" and cached != "0":
                    self.say(f"server{n}: {cached} blocks of 4 KiB were not flushed, {lost} of them are lost")

    def reset(self, *numbers):
        """Restarts servers without a word to them; the disks keep their power."""
        for n in numbers:
            self.machines[n].kill()

    def shut_down(self, n):
        """Ends the agent in good order, then the machine."""
        self.stop_agent(n)
        self.sh(n, "sync; (sleep 0.2; poweroff -f) >/dev/null 2>&1 &")
        self.machines[n].wait_off(30)
        self.power_off(n)

    def freeze(self, n):
        """Stops a server between two of its instructions."""
        self.machines[n].qmp("stop")

    def thaw(self, n):
        """Lets it go on."""
        self.machines[n].qmp("cont")

    def disk(self, n, name, command):
        """A word to a disk (see `disk.py`)."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        with connection:
            end = time.monotonic() + 10
            while True:
                try:
                    connection.connect(str(self.machines[n].path(f"{name}.control")))
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.02)
            connection.sendall(command.encode())
            return connection.recv(100).decode()

    # ---- disks below a layer of the kernel's (device mapper)

    def map_disk(self, n, name, kind, mb=None):
        """What lies above a disk from now on: `linear`, as if nothing did; `error`, nothing works;
        `bad-writes`, it can only be read. It shows so many MiB of it, else all. Restarts do not change it."""
        known = (n, name) in self.mapped
        self.mapped[n, name] = kind
        self.map_mb[n, name] = mb
        if self.machines[n].is_on():
            self._map(n, name, "reload" if known else "create")

    def _map(self, n, name, how):
        disk = {"data": "/dev/vda", "cluster": "/dev/vdb"}[name]
        target = {"linear": f"linear {disk} 0", "error": "error", "bad-writes": f"flakey {disk} 0 0 60 1 error_writes"}
        modules = "mod dm_mod dm_flakey"
        mb = self.map_mb[n, name]
        table = f"0 {mb * 2048 if mb else f'$(blockdev --getsz {disk})'} {target[self.mapped[n, name]]}"
        # Not suspended with a flush: that would wait for the disk, or for who writes to it.
        change = f"dmsetup reload {name} --table \"{table}\" && dmsetup suspend --nolockfs --noflush {name} && dmsetup resume {name}"
        # There is no udev here that would make the name.
        create = (f"dmsetup create {name} --noudevsync --noudevrules --table \"{table}\" && mkdir -p /dev/mapper &&"
                  f" ln -sf /dev/dm-$(dmsetup info -c --noheadings -o minor {name}) /dev/mapper/{name}")
        self.run(n, f"{modules} && {create if how == 'create' else change}")

    def _partition(self, name, plain):
        """What the configuration names; both servers have the same."""
        return f"/dev/mapper/{name}" if any(disk == name for _, disk in self.mapped) else plain

    def wait_reset(self, n, limit=60):
        """Until a server has reset itself. It stays off until it is switched on."""
        self.wait(limit, f"server{n} resets itself", lambda: not self.machines[n].is_on())
        self.machines[n].kill()

    # ---- links

    def cut(self, net="all"):
        """Pulls the plug of a network: both servers see it."""
        self._plug(net, False)

    def plug(self, net="all"):
        """Puts it back."""
        self._plug(net, True)

    def _plug(self, net, up):
        for name in network.NETS if net == "all" else [net]:
            for n in (1, 2):
                if self.machines[n].is_on():
                    self.machines[n].qmp("set_link", name=name, up=up)

    def degrade(self, rule, net="all", senders=(1, 2)):
        """What these servers send on a network is treated so: `loss 100%`, `delay 100ms`."""
        for name in network.NETS if net == "all" else [net]:
            for n in senders:
                self.run(n, f"mod sch_netem; /usr/bin/tc qdisc replace dev {network.interface(name)} root netem {rule}")

    def mend(self):
        """The networks are as they were."""
        for n in (1, 2):
            for name in network.NETS:
                self.sh(n, f"/usr/bin/tc qdisc del dev {network.interface(name)} root")
        self.plug()

    # ---- commands

    def sh(self, n, command, limit=60, shell="shell0"):
        """Exit code and output of a command on a server."""
        return self.machines[n].shell(shell).run(command, limit)

    def run(self, n, command, limit=60, shell="shell0"):
        """The output of a command that must not fail."""
        code, out = self.sh(n, command, limit, shell)
        if code:
            raise CommandError(f"server{n}# {command}: code {code}: {out}")
        return out

    def ctrl(self, n, arguments, limit=90):
        """`clpmdctrl`, which must succeed."""
        return self.run(n, f"clpmdctrl {arguments}", limit)

    def refused(self, n, arguments, code, text=""):
        """`clpmdctrl`, which must end with this code and say this."""
        got, said = self.sh(n, f"clpmdctrl {arguments}")
        self.check(got == code and text in said, f"clpmdctrl {arguments} on server{n}: {got} {said}")
        return said

    # ---- agents

    def config(self):
        """The configuration file of both servers."""
        lines = []
        for n in (1, 2):
            lines += ["[[server]]", f'name = "server{n}"', f'agent_address = "{network.address("agents", n)}"',
                      f'mirror_connect = ["{network.address("mirror", n)}"]']
        lines += ["[agent]", 'secret_file = "/etc/clpmd.secret"', f'log_dir = "{LOGS}"', self.agent_lines,
                  "[[mirror]]", 'name = "md1"', f'front_end = "{self.front_end}"']
        if not re.search(r"^fs =", self.mirror_lines, re.M):
            lines += ['fs = "ext4"', f'mount_point = "{MOUNT}"']
        # A machine that is starved by its neighbours is no failed server.
        lines += [f"peer_timeout = {int(5000 * PATIENCE)}", self.mirror_lines,
                  f'data_partition = "{self._partition("data", "/dev/vda")}"',
                  f'cluster_partition = "{self._partition("cluster", "/dev/vdb")}"']
        return "\n".join(lines) + "\n"

    def _configure(self, n):
        self.run(n, "mkdir -p /etc/clpmd; umask 077; "
                    f"echo {self.secret} >/etc/clpmd.secret; cat >/etc/clpmd/clpmd.toml <<'X'\n{self.config()}X")
        module = MODULE.get(self.front_end)
        if module and self.load_modules:
            self.run(n, f"mod {module}")
        for at, name in self.mapped:
            if at == n:
                self._map(n, name, "create")
        if self.var_mb:
            self.run(n, f"mkdir -p {LOGS}; mount /dev/vdc {LOGS} 2>/dev/null || {{ /usr/bin/mke2fs -q -t ext4 /dev/vdc && mount /dev/vdc {LOGS}; }}")

    def start_agent(self, n, program="clpmdagent"):
        """Starts the agent and waits until it answers."""
        # As its service does: the last to go when memory runs out.
        begin = "echo $$ >/run/agent.pid; echo -1000 >/proc/self/oom_score_adj"
        self.run(n, f"setsid sh -c '{begin}; exec {program}' </dev/null >/dev/ttyS1 2>&1 &")
        self.wait(60, f"the agent of server{n} answers", lambda: self._answers(n))

    def _answers(self, n):
        if "phase" in self.status(n):
            return True
        self.check(self.agent_runs(n), f"the agent of server{n} starts")
        return False

    def agent_runs(self, n):
        """Whether its process is there."""
        return self.sh(n, "kill -0 $(cat /run/agent.pid)")[0] == 0

    def stop_agent(self, n):
        """Ends the agent in good order."""
        self.run(n, "kill -TERM $(cat /run/agent.pid)")
        self.wait(120, f"the agent of server{n} ends", lambda: not self.agent_runs(n))

    def hand_over(self, n):
        """Ends the agent so that the next one goes on with its device."""
        self.run(n, "kill -USR2 $(cat /run/agent.pid)")
        self.wait(60, f"the agent of server{n} ends", lambda: not self.agent_runs(n))

    def kill_agent(self, n):
        """Ends the agent at once."""
        self.run(n, "kill -KILL $(cat /run/agent.pid)")
        self.wait(20, f"the agent of server{n} is dead", lambda: not self.agent_runs(n))

    def logged(self, n, pattern):
        """Whether the agent has said this since `forget_log`."""
        return re.search(pattern, self.log(n)[self.heard[n]:]) is not None

    def log(self, n):
        """What the agent has said since the server was switched on."""
        text = self.machines[n].path("agent").read_text(errors="replace")
        return re.sub(r"\r|\x1b\[\d*m", "", text)

    def forget_log(self, n):
        """From here on."""
        self.heard[n] = len(self.log(n))

    # ---- states

    def status(self, n):
        """What `clpmdstat --json` says of the mirror, or nothing."""
        out = self.sh(n, f"clpmdstat --mirror {self.mirror} --json 2>/dev/null")[1]
        with suppress(ValueError, KeyError):
            return json.loads(out)["status"] or {}
        return {}

    def colors(self, n):
        """The colours of both sides as server n sees them."""
        return " ".join(side["color"] for side in self.status(n).get("sides", []))

    def is_normal(self, n):
        """In a session, and equal."""
        status = self.status(n)
        return status.get("phase") == "normal" and status.get("link") == "session"

    def is_active(self, n):
        """Whether it serves the device."""
        sides = self.status(n).get("sides") or [{}, {}]
        return sides[n - 1].get("active") is True

    def misses_peer(self, n):
        """Out of contact."""
        return self.status(n).get("link") == "down"

    def disk_error(self, n, side):
        """Whether server n shows a disk error of this side."""
        sides = self.status(n).get("sides") or [{}, {}]
        return sides[side - 1].get("disk_error") is True

    # ---- waiting and demanding

    def check(self, holds, what):
        """Ends the scenario unless it is so."""
        if not holds:
            raise NotHeld(what)

    def wait(self, limit, what, condition):
        """Until it is so. The time that it took, in seconds. Each look costs an emulated machine
        as much as a good part of what is waited for, so they grow rarer."""
        begin, pause = time.monotonic(), 0.05
        while not condition():
            if time.monotonic() - begin > limit * PATIENCE:
                raise NotHeld(f"not within {limit * PATIENCE:.0f} s: {what}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.7)
        return time.monotonic() - begin

    def wait_normal(self, limit=90):
        """Until both are equal and in contact."""
        return self.wait(limit, "both servers are Normal", lambda: self.is_normal(1) and self.is_normal(2))

    def wait_colors(self, n, colors, limit=45):
        """Until server n shows these."""
        return self.wait(limit, f"server{n} shows {colors}", lambda: self.colors(n) == colors)

    # ---- the whole

    def up(self):
        """From nothing to a constructed mirror."""
        self.make_disks()
        self.power_on()
        self.say("both agents answer")
        self.wait_normal(120)
        self.say("constructed")
        if "initial_mkfs = true" in self.mirror_lines:
            self.wait(60, "the file system is made", lambda: self.logged(1, "md1 is constructed"))

    def activate(self, n, options=""):
        """Opens and mounts the mirror on a server."""
        return self.ctrl(n, f"--active {options} md1")

    def fail_over(self, n, options=""):
        """Takes over on server n: opens, replays the journal, checks everything, mounts. The full
        check is of what the journal left."""
        self.activate(n, f"-nomount {options}")
        self.fsck(n)
        self.ctrl(n, "--deactive md1")
        self.activate(n, options)

    def fsck(self, n):
        """The journal is replayed, and a full check finds nothing to correct."""
        code, said = self.sh(n, "e2fsck -p /dev/NMP1", 120)
        self.check(code in (0, 1), f"the journal is replayed: {code} {said}")
        code, said = self.sh(n, "e2fsck -fn /dev/NMP1", 120)
        self.check(code == 0, f"a full check finds nothing: {code} {said}")

    def equal_in_the_end(self):
        """Everything ends in good order, both servers lose their power, and the disks are equal."""
        for n in (1, 2):
            if self.is_active(n):
                self.ctrl(n, "--deactive md1")
        for n in (1, 2):
            self.stop_agent(n)
        self.power_off(1, 2)
        self.check(self.same_data(), "the data partitions are equal")
        self.say(f"both data partitions of {self.data_mb} MiB are equal to the byte")

    def same_data(self):
        """Whether the files under the data partitions are equal."""
        with open(self.image(1, "data"), "rb") as one, open(self.image(2, "data"), "rb") as two:
            while True:
                a, b = one.read(1 << 20), two.read(1 << 20)
                if a != b:
                    return False
                if not a:
                    return True

    def down(self):
        """Ends all processes."""
        for machine in self.machines.values():
            machine.kill()
        for disk in self.disks.values():
            disk.kill()
            disk.wait()

    # ---- the application

    def acks(self):
        """Number and milliseconds of every acknowledged record, on either server, in order; and
        the errors."""
        found, errors = [], []
        for n in (1, 2):
            path = self.machines[n].path("acks")
            for line in path.read_text().splitlines() if path.exists() else []:
                words = line.split()
                if words[0] == "error":
                    errors.append(line)
                elif len(words) == 2:
                    found.append((int(words[0]), int(words[1])))
        return sorted(found), errors

    def last_ack(self):
        """The number of the last acknowledged record."""
        found = self.acks()[0]
        return found[-1][0] if found else 0

    def start_load(self, n, program="lab-load write", file=RECORDS):
        """The application writes its records on server n."""
        # The number after the last may be there without its acknowledgement.
        begin = self.last_ack() + 1
        self.run(n, f"rm -f {file}.stop; setsid {program} {file} /dev/lab/acks {begin} "
                    "</dev/null >/tmp/load.log 2>&1 & echo $! >/run/load.pid")
        self.wait(30, "the application runs", lambda: self.last_ack() >= begin + 5)

    def start_sqlite(self, n):
        """SQLite writes rows on server n."""
        self.start_load(n, "sqlite-load", ROWS)

    def goes_on(self, limit=30, records=10):
        """The application writes further records."""
        now = self.last_ack()
        return self.wait(limit, "the application goes on", lambda: self.last_ack() >= now + records)

    def load_runs(self, n):
        """Whether the application does."""
        return self.sh(n, "kill -0 $(cat /run/load.pid)")[0] == 0

    def stop_load(self, n, file=RECORDS):
        """Ends the application in good order."""
        self.run(n, f"touch {file}.stop")
        self.wait(60, "the application ends", lambda: not self.load_runs(n))

    def stop_sqlite(self, n):
        """Ends SQLite in good order."""
        self.stop_load(n, ROWS)

    def no_error(self):
        """The application has seen none."""
        errors = self.acks()[1]
        self.check(not errors, f"the application saw an error: {errors[:3]}")

    def longest_pause(self, since=0):
        """The longest time between two acknowledgements from this record on, in seconds."""
        times = [t for number, t in self.acks()[0] if number >= since]
        return max((b - a for a, b in zip(times, times[1:])), default=0) / 1000

    def records_are_there(self, n):
        """Every acknowledged record is in the file, read from the disk."""
        last = self.last_ack()
        self.run(n, "echo 3 >/proc/sys/vm/drop_caches")
        said = self.run(n, f"lab-load check {RECORDS} {last}", 120)
        self.say(f"server{n}: record {last} was the last acknowledged; {said}")

    def rows_are_there(self, n):
        """Every row that SQLite called durable is in the database, and the database is whole."""
        last = self.last_ack()
        said = self.run(n, f"sqlite3 {ROWS} 'PRAGMA integrity_check; SELECT count(*) FROM t WHERE n <= {last}'", 120)
        self.say(f"server{n}: {last} rows were acknowledged; the database: {' '.join(said.split())}")
        self.check(said.split() == ["ok", str(last)], f"every row is there: {said}")


def last_words(lab):
    """For the report of a failure."""
    for n in (1, 2):
        lab.say(f"--- server{n}, its agent's last words:")
        for line in lab.log(n).splitlines()[-15:]:
            lab.say(f"  {line}")
        with suppress(Ended, TimeoutError, OSError):
            if lab.machines[n].is_on():
                code, out = lab.sh(n, f"clpmdstat --mirror md1; {KERNEL_SAYS}", 15, lab.spare_shell)
                for line in out.splitlines():
                    lab.say(f"  {line}")
                continue
        for line in lab.machines[n].last_words().splitlines():
            lab.say(f"  {line}")
