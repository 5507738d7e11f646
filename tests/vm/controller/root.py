"""A Debian 13 with systemd and our package on a disk, for what busybox cannot show: units, udev
rules, the order of boot and shutdown. Made in the cache, by debootstrap."""

import hashlib
import os
import shutil
from pathlib import Path

from . import host, image

PACKAGES = ["systemd-sysv", "udev", "dbus", "kmod", "lvm2", "multipath-tools", "e2fsprogs", "fdisk", "iproute2",
            "libgcc-s1"]
SIZE = "1500M"  # sparse
# What is there before the root file system: its disk, and that of the data, as if both were of one kind.
BOOT = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_scsi", "sd_mod", "ext4", "crc32c_generic"]
# What is asked for later, by names of the hardware and of our units.
MORE = ["virtio_net", "virtio_console", "virtio_rng", "virtio_scsi", "sd_mod", "ublk_drv", "nbd", "loop", "fuse",
        "dm_mod", "dm_multipath", "dm_flakey", "sch_netem", "autofs4"]
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t sysfs sys /sys
while read -r module; do /bin/busybox insmod "$module"; done </order
for disk in /sys/block/vd*; do
    [ "$(/bin/busybox cat "$disk/serial")" = root ] && root=/dev/${disk##*/}
done
/bin/busybox mount -t ext4 "$root" /root
/bin/busybox mount --move /dev /root/dev
/bin/busybox umount /sys
exec /bin/busybox switch_root /root /sbin/init
"""
# A shell for the controller, for as long as anything runs. Its port reads as ended while nobody is
# connected.
SHELL = """[Unit]
Description=Shell of the laboratory
DefaultDependencies=no
Before=shutdown.target
[Service]
ExecStart=/usr/local/bin/lab-shell
Restart=always
KillMode=process
[Install]
WantedBy=sysinit.target
"""
# By the port's name in /sys: udev makes its link late.
SHELL_LOOP = """#!/bin/sh
until port=$(grep -lx shell0 /sys/class/virtio-ports/*/name); do sleep 1; done
port=${port%/name}
while :; do
    sh <>/dev/${port##*/} >&0 2>&0
    sleep 1
done
"""
FILES = {
    "etc/systemd/system/lab-shell.service": SHELL,
    "usr/local/bin/lab-shell": SHELL_LOOP,
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nForwardToConsole=yes\n"
                                            "TTYPath=/dev/ttyS1\nMaxLevelConsole=info\nRateLimitBurst=0\n",
    # Questions to disks that emulated ones do not answer: a second of an emulated processor each.
    "etc/udev/rules.d/55-scsi-sg3_id.rules": "",
    "etc/udev/rules.d/58-scsi-sg3_symlink.rules": "",
    "etc/fstab": "",
    "etc/multipath.conf": "defaults {\n}\n",
}
# Nothing that starts by itself and costs an emulated machine its time.
MASKED = ["systemd-logind.service", "systemd-pcrphase.service", "systemd-hostnamed.service",
          "systemd-user-sessions.service", "lvm2-lvmpolld.socket",
          "getty@tty1.service", "serial-getty@ttyS0.service", "apt-daily.timer", "apt-daily-upgrade.timer",
          "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer", "e2scrub_reap.service"]


def _seal(*parts):
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def _base(tools, say):
    """The folder with a Debian without anything of ours."""
    tools.need({"debootstrap": "debootstrap"})
    uri = next(u for u, suite in host.guest_sources() if suite == host.GUEST_SUITE)
    base = host.cache() / "root" / f"base.{_seal(PACKAGES)}"
    if base.exists():
        return base
    base.parent.mkdir(exist_ok=True)
    for old in base.parent.glob("base.*"):
        shutil.rmtree(old)
    say("fetching a Debian with systemd")
    new = base.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    environment = tools.environment()
    if (tools.root / "usr/share/debootstrap").exists():
        environment["DEBOOTSTRAP_DIR"] = f"{tools.root}/usr/share/debootstrap"
    try:
        host.run(tools.find("debootstrap"), "--variant=minbase", f"--keyring={host.KEYRING}",
                 f"--include={','.join(PACKAGES)}", host.GUEST_SUITE, new, uri, env=environment)
    except RuntimeError as e:
        raise host.LeftOut(f"no Debian {host.GUEST_SUITE} can be had: {str(e)[-300:]}") from None
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(new / folder)
    os.rename(new, base)
    return base


def _chroot(tree, *command):
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    return host.run("chroot", tree, "/usr/bin/env", f"PATH={path}", "LC_ALL=C.UTF-8", *command)


def _networks():
    """By the hardware addresses, so that one disk does for both servers."""
    for server in (1, 2):
        for i in (0, 1):
            yield (f"etc/systemd/network/lab{server}{i}.network",
                   f"[Match]\nMACAddress=52:54:00:92:{i:02x}:{server:02x}\n"
                   f"[Network]\nAddress=10.92.{i + 1}.{server}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n")


def _modules(tree, kernel):
    modules = image.Modules(kernel / "modules")
    release = kernel.name.removeprefix("linux-image-")
    folder = tree / "usr/lib/modules" / release
    (folder / "kernel").mkdir(parents=True)
    for name in [*BOOT, *MORE]:
        for part in modules.chain_if_any(name):
            (folder / "kernel" / f"{part}.ko").write_bytes(modules.read[part])
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(kernel / "modules" / name, folder)
    _chroot(tree, "depmod", release)


def _write_tree(tree, kernel, package, binaries):
    _modules(tree, kernel)
    for name, text in [*FILES.items(), *_networks()]:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "etc/hostname").unlink(missing_ok=True)  # the kernel's command line says it
    (tree / "etc/machine-id").write_text("")  # "uninitialized" would enable every unit at the first boot
    (tree / "var/log/journal").mkdir(exist_ok=True)
    (tree / "usr/local/bin/lab-shell").chmod(0o755)
    shutil.copy(Path(binaries) / "lab-load", tree / "usr/local/bin")
    shutil.copy(package, tree / "package.deb")
    _chroot(tree, "dpkg", "-i", "/package.deb")
    (tree / "package.deb").unlink()
    _chroot(tree, "systemctl", "-q", "enable", "systemd-networkd", "systemd-networkd-wait-online",
            "lab-shell")
    _chroot(tree, "systemctl", "-q", "mask", *MASKED)


def _initrd(tools, kernel, out):
    archive, modules, order = image.Archive(), image.Modules(kernel / "modules"), []
    archive.file("bin/busybox", Path(tools.find("busybox")).read_bytes())
    archive.char_device("dev/console", 5, 1)
    archive.file("init", INIT.encode())
    for name in BOOT:
        for part in modules.chain_if_any(name):
            if f"/{part}.ko" not in order:
                order.append(f"/{part}.ko")
                archive.file(f"{part}.ko", modules.read[part], 0o644)
    archive.file("order", ("\n".join(order) + "\n" if order else "").encode(), 0o644)
    out.write_bytes(archive.bytes())


def parts(tools, kernel, binaries, say):
    """What a machine with this root takes beside or instead of the usual parts."""
    tools.need({"qemu-img": "qemu-utils", "mke2fs": "e2fsprogs", "busybox": "busybox-static"})
    inputs = [f"{p.name}{p.stat().st_size}{p.stat().st_mtime_ns}" for p in sorted(Path(binaries).glob("*")) if p.is_file()]
    repository = Path(__file__).resolve().parents[3]
    inputs += [f"{p}{p.stat().st_mtime_ns}" for p in sorted((repository / "packaging").rglob("*")) if p.is_file()]
    inputs += [Path(__file__).stat().st_mtime_ns, kernel]
    with host.locked("root"):
        base = _base(tools, say)
        disk = base.parent / f"{_seal(base, *inputs)}.img"
        initrd = disk.with_suffix(".initrd")
        if not disk.exists():
            say("making the servers' disk with systemd")
            for old in [*base.parent.glob("*.img"), *base.parent.glob("*.initrd")]:
                old.unlink()
            _make(tools, kernel, base, binaries, repository, disk)
        _initrd(tools, kernel, initrd)
    return {"image": str(initrd), "root": str(disk), "qemu-img": tools.find("qemu-img"), "memory": "512",
            "scsi": ("data",)}


def _make(tools, kernel, base, binaries, repository, disk):
    work = disk.with_suffix(".tree")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        environment = {**os.environ, "CLPMD_BIN": str(binaries)}
        package = host.run(repository / "scripts/package", work, env=environment).strip()
        tree = work / "tree"
        host.run("cp", "-a", "--reflink=auto", base, tree)
        _write_tree(tree, kernel, package, binaries)
        new = disk.with_suffix(".new")
        new.unlink(missing_ok=True)
        host.run(tools.find("mke2fs"), "-q", "-t", "ext4", "-L", "root", "-d", tree, new, SIZE, env=tools.environment())
        os.rename(new, disk)
    finally:
        shutil.rmtree(work, ignore_errors=True)
