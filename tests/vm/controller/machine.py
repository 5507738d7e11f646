"""One QEMU machine: its start and its end, its monitor, its shells."""

import json
import os
import re
import socket
import subprocess
import time

from . import host, process

BOOT_LIMIT = 90  # s; some 4 s alone on an idle machine, emulated
BOOT_LIMIT_SYSTEMD = 300


class Ended(Exception):
    """The machine is off, or the channel to it is."""


class CommandError(Exception):
    """A command failed that must not."""


def connect(path, limit):
    """A connection to a unix socket that may not be there yet."""
    end = time.monotonic() + limit
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


class Shell:
    """A shell in the machine, over one of its channels. One command at a time."""

    def __init__(self, path, limit=BOOT_LIMIT):
        self.connection, self.data, self.number = connect(path, 10), b"", 0
        self.base = f"{os.getpid():x}{time.monotonic_ns():x}"
        # The shell may be there later than the channel, and something may be left in it.
        end = time.monotonic() + limit
        while True:
            try:
                self.run(":", 2)
                return
            except TimeoutError:
                if time.monotonic() > end:
                    raise

    def send(self, command):
        """Begins a command."""
        self.number += 1
        mark = f"<{self.base}.{self.number}"
        text = f"{{ {command}\n}} </dev/null 2>&1; echo \"{mark[:1]}\"\"{mark[1:]} $?>\"\n"
        try:
            self.connection.settimeout(10)
            self.connection.sendall(text.encode())
        except OSError as e:
            raise Ended(str(e)) from None

    def receive(self, limit=60):
        """The exit code and the output of the command that was begun."""
        end = time.monotonic() + limit
        pattern = re.compile(rf"<{self.base}\.{self.number} (\d+)>\r?\n".encode())
        while True:
            found = pattern.search(self.data)
            if found:
                out, self.data = self.data[:found.start()], self.data[found.end():]
                return int(found.group(1)), out.decode(errors="replace").strip()
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer within {limit} s: {self.data[-300:]!r}")
            self.connection.settimeout(left)
            try:
                data = self.connection.recv(65536)
            except TimeoutError:
                continue
            except OSError as e:
                raise Ended(str(e)) from None
            if not data:
                raise Ended("the channel is closed")
            self.data += data

    def run(self, command, limit=60):
        """The exit code and the output of a command."""
        self.send(command)
        return self.receive(limit)


class Monitor:
    """QEMU's monitor (QMP)."""

    def __init__(self, path):
        self.connection = connect(path, 10)
        self.connection.settimeout(20)
        self.file = self.connection.makefile("rw")
        self.file.readline()
        self.run("qmp_capabilities")

    def run(self, command, **arguments):
        """What the command gives."""
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise Ended("the monitor is closed")
            answer = json.loads(line)
            if "error" in answer:
                raise CommandError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


class Machine:
    """A server. `parts` says what it is made of (see `Lab`)."""

    def __init__(self, number, folder, parts, keep=False):
        self.number, self.folder, self.parts, self.keep = number, folder, parts, keep
        self.process = self.monitor = None
        self.shells = {}

    def path(self, name):
        """A file of this machine on the host."""
        return self.folder / f"server{self.number}.{name}"

    def start(self, memory=None):
        """Switches it on; `wait` waits until it is up. For the main thread only."""
        self.shells, self.monitor = {}, None
        for name in ("shell0", "shell1", "monitor"):
            self.path(name).unlink(missing_ok=True)
        command = [*self.parts["qemu"], *self._base(memory), *self._channels(), *self._root(), *self._disks(),
                   *self._nets()]
        self.process = process.start(command, self.path("qemu"), self.keep, env=self.parts["environment"])

    def _base(self, memory):
        p = self.parts
        words = f"console=ttyS0 quiet panic=-1 reboot=t server={self.number} systemd.hostname=server{self.number} audit=0"
        return [
            *("-nodefaults", "-no-user-config", "-display", "none", "-M", "q35"),
            *(() if p.get("root") else ("-no-reboot",)),
            *("-m", memory or p["memory"], "-smp", "1", "-accel", p["accel"], "-cpu", p["cpu"]),
            *("-kernel", p["kernel"], "-initrd", p["image"], "-append", words),
            *("-chardev", f"file,id=con,path={self.path('console')},append=on", "-serial", "chardev:con"),
            *("-chardev", f"file,id=log,path={self.path('agent')},append=on", "-serial", "chardev:log"),
            *("-qmp", f"unix:{self.path('monitor')},server=on,wait=off"),
            *("-device", "virtio-rng-pci"),
        ]

    def _channels(self):
        words = ["-device", "virtio-serial-pci"]
        for name in ("shell0", "shell1"):
            words += ["-chardev", f"socket,id={name},path={self.path(name)},server=on,wait=off"]
            words += ["-device", f"virtserialport,chardev={name},name={name}"]
        words += ["-chardev", f"file,id=acks,path={self.path('acks')},append=on"]
        return [*words, "-device", "virtserialport,chardev=acks,name=acks"]

    def _root(self):
        """A disk with a root file system, if it has one; what is changed there lasts as long as the lab."""
        disk, path = self.parts.get("root"), self.path("root")
        if not disk:
            return []
        if not path.exists():
            host.run(self.parts["qemu-img"], "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", path)
        return ["-drive", f"if=none,id=root,format=qcow2,file={path},cache=unsafe",
                "-device", "virtio-blk-pci,drive=root,serial=root"]

    def _disks(self):
        words = []
        scsi = self.parts.get("scsi", ())
        if scsi:
            words += ["-device", "virtio-scsi-pci"]
        for name in self.parts["disks"]:
            source = f"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={self.path(name)}"
            options = "cache.direct=on,discard=unmap,detect-zeroes=off,werror=report,rerror=report"
            words += ["-drive", f"if=none,id={name},{source},{options}"]
            kind = "scsi-hd" if name in scsi else "virtio-blk-pci"
            words += ["-device", f"{kind},drive={name},serial={name}"]
        return words

    def _nets(self):
        words = []
        for i, (net, tap) in enumerate(self.parts["taps"](self.number)):
            words += ["-netdev", f"tap,id={net},ifname={tap},script=no,downscript=no"]
            mac = f"52:54:00:92:{i:02x}:{self.number:02x}"
            words += ["-device", f"virtio-net-pci,netdev={net},mac={mac},romfile="]
        return words

    def wait(self):
        """Until it is up."""
        self.shell("shell0")

    def shell(self, name="shell0"):
        """One of its shells."""
        if name not in self.shells:
            try:
                self.shells[name] = Shell(self.path(name), BOOT_LIMIT_SYSTEMD if self.parts.get("root") else BOOT_LIMIT)
            except (OSError, Ended, TimeoutError) as e:
                raise Ended(f"server{self.number} does not come up: {e}; {self.last_words()}") from None
        return self.shells[name]

    def last_words(self):
        """The end of what it said on its console, and of what QEMU said."""
        texts = []
        for name in ("qemu", "console"):
            path = self.path(name)
            if path.exists():
                lines = path.read_text(errors="replace").splitlines()
                texts += [line for line in lines[:-6] if re.search("panic|Out of memory|BUG:", line)] + lines[-6:]
        return "\n".join(texts)

    def qmp(self, command, **arguments):
        """A command to QEMU."""
        if not self.monitor:
            self.monitor = Monitor(self.path("monitor"))
        return self.monitor.run(command, **arguments)

    def is_on(self):
        """Whether QEMU runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """Takes its power away."""
        if self.process:
            self.process.kill()
            self.process.wait()
        self.shells, self.monitor = {}, None

    def wait_off(self, limit):
        """Until it has switched itself off."""
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"server{self.number} is still on after {limit} s") from None
        self.shells, self.monitor = {}, None
