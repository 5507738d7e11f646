"""The servers' first and only file system: busybox, programs with their libraries, kernel modules,
in one archive that the kernel unpacks into memory."""

import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

from . import host

# Drivers of the machine itself, then what scenarios ask for.
BOOT_MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng"]
MODULES = [*BOOT_MODULES, "ublk_drv", "nbd", "sch_netem", "softdog", "loop", "drbd", "dm_mod", "dm_flakey"]
# Of this machine, with their libraries: program = package that has it.
PROGRAMS = {"mke2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "resize2fs": "e2fsprogs", "tc": "iproute2", "sqlite3": "sqlite3",
            "blkid": "util-linux", "mount": "mount", "umount": "mount",
            "dmsetup": "dmsetup"}
# Other names of them.
LINKS = {"mkfs.ext4": "mke2fs", "fsck.ext4": "e2fsck", "fsck": "e2fsck"}
KEEP_UNUSED = 6 * 3600  # s; another run may still start machines from an image
OURS = ["clpmdagent", "clpmdstat", "clpmdctrl", "clpmdinit", "clpmdchng", "clpmdwatch", "lab-load"]


class Archive:
    """An archive in the format that the kernel takes (cpio, newc)."""

    def __init__(self):
        self.parts, self.names = [], set()

    def _entry(self, name, mode, data=b"", rdev=(0, 0)):
        if name in self.names:
            return
        parent = os.path.dirname(name)
        if parent and parent not in self.names:
            self.folder(parent)
        self.names.add(name)
        raw = name.encode() + b"\0"
        fields = [len(self.names), mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(raw), 0]
        head = b"070701" + b"".join(b"%08X" % f for f in fields) + raw
        self.parts += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]

    def folder(self, name):
        self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name, data, mode=0o755):
        self._entry(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def char_device(self, name, major, minor):
        self._entry(name, stat.S_IFCHR | 0o600, rdev=(major, minor))

    def bytes(self):
        end = b"070701" + b"%08X" * 13 % (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0) + b"TRAILER!!!\0"
        return b"".join([*self.parts, end, bytes(-len(end) % 4)])


# ---- kernel modules


def _packed(path):
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


class Modules:
    """The modules of a kernel, by name; each knows what it needs."""

    def __init__(self, folder):
        self.paths = {p.name.split(".ko")[0].replace("-", "_"): p for p in folder.rglob("*.ko*")}
        builtin = (folder / "modules.builtin").read_text().split()
        self.builtin = {Path(p).stem.replace("-", "_") for p in builtin}
        self.read = {}

    def chain(self, name):
        """The module and what it needs, what is needed first first; empty if it is built in."""
        if name in self.builtin:
            return []
        if name not in self.paths:
            raise RuntimeError(f"the kernel has no module {name}")
        if name not in self.read:
            self.read[name] = _packed(self.paths[name])
        found = re.search(rb"\0depends=([^\0]*)\0", self.read[name])
        needed = found.group(1).decode().replace("-", "_").split(",") if found else []
        chain = []
        for other in filter(None, needed):
            chain += [m for m in self.chain(other) if m not in chain]
        return [*chain, name]

    def chain_if_any(self, name):
        """The same; empty if this kernel has none of that name."""
        try:
            return self.chain(name)
        except RuntimeError:
            return []


def _add_modules(archive, kernel):
    """Where any program looks for them, with the lists that it reads."""
    modules = Modules(kernel / "modules")
    folder = f"lib/modules/{kernel.name.removeprefix('linux-image-')}"
    order, needs = [], {}
    for name in MODULES:
        try:
            chain = modules.chain(name)
        except RuntimeError:
            continue  # a scenario that needs it says so
        order.append(" ".join([name, *chain]))
        for i, part in enumerate(chain):
            archive.file(f"{folder}/kernel/{part}.ko", modules.read[part], 0o644)
            needs.setdefault(part, chain[:i])
    dep = [f"kernel/{n}.ko: {' '.join(f'kernel/{m}.ko' for m in reversed(rest))}" for n, rest in needs.items()]
    archive.file(f"{folder}/modules.dep", ("\n".join(dep) + "\n").encode(), 0o644)
    archive.file(f"{folder}/modules.builtin", (kernel / "modules/modules.builtin").read_bytes(), 0o644)
    archive.file("etc/modules.order", ("\n".join(order) + "\n").encode(), 0o644)


# ---- programs


def _stripped(path):
    """A program without what only a debugger reads: the kernel unpacks it at every start."""
    data = Path(path).read_bytes()
    if data[:4] != b"\x7fELF":
        return data
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([shutil.which("strip"), "-o", f"{folder}/out", path], check=True)
        return Path(f"{folder}/out").read_bytes()


def _libraries(path, environment):
    made = subprocess.run(["ldd", path], capture_output=True, text=True, env=environment, check=False)
    return re.findall(r"(/\S+\.so\S*)", made.stdout)


def _add_program(archive, path, target, environment):
    archive.file(target.lstrip("/"), _stripped(path))
    for library in _libraries(path, environment):
        # Where the loader looks, whatever the folder on this machine is.
        place = library if "/ld-linux" in library else f"/lib/x86_64-linux-gnu/{os.path.basename(library)}"
        archive.file(place.lstrip("/"), Path(library).read_bytes())


def _add_busybox(archive, busybox):
    archive.file("bin/busybox", Path(busybox).read_bytes())
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in applets:
        if name not in PROGRAMS and name not in LINKS and name != "busybox":
            archive.link(f"bin/{name}", "busybox")


def build(tools, kernel, guest, binaries, say, more=()):
    """The path of the archive for these programs; made once for each set of them. `more`: further
    programs, as (path here, path in the servers)."""
    tools.need({"busybox": "busybox-static", "strip": "binutils", **PROGRAMS})
    found = [(tools.find(name), f"/usr/bin/{name}") for name in PROGRAMS]
    found += [(f"{binaries}/{name}", f"/usr/bin/{name}") for name in OURS]
    found += [(str(p), f"/usr/bin/{p.name}") for p in sorted(Path(guest).iterdir()) if p.name != "init"]
    found += more
    seal = hashlib.sha256(f"{kernel}{Path(__file__).stat().st_mtime_ns}".encode())
    for path, _ in [*found, (f"{guest}/init", "init")]:
        seal.update(f"{path}{os.stat(path).st_mtime_ns}{os.stat(path).st_size}".encode())
    out = host.cache() / "image" / f"{seal.hexdigest()[:16]}.cpio"
    with host.locked("image"):
        if not out.exists():
            say("making the image of the servers")
            _write(out, tools, kernel, guest, found)
        os.utime(out)
    return out


def _write(out, tools, kernel, guest, found):
    archive, environment = Archive(), tools.environment()
    for name in ("proc", "sys", "dev", "run", "tmp", "mnt/nmp1", "etc", "sbin", "root", "var/lib"):
        archive.folder(name)
    archive.char_device("dev/console", 5, 1)
    archive.file("init", Path(f"{guest}/init").read_bytes())
    for path, target in found:
        _add_program(archive, path, target, environment)
    for name, target in LINKS.items():
        archive.link(f"usr/bin/{name}", target)
    _add_busybox(archive, tools.find("busybox"))
    _add_modules(archive, kernel)
    out.parent.mkdir(exist_ok=True)
    for old in out.parent.glob("*.cpio"):
        if time.time() - old.stat().st_mtime > KEEP_UNUSED:
            old.unlink()
    out.with_suffix(".new").write_bytes(archive.bytes())
    os.rename(out.with_suffix(".new"), out)
