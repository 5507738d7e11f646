"""What machines are made of: QEMU, the kernel, the image, the accelerator."""

import os
import platform
import tempfile
import time
from pathlib import Path

from . import host, image, network, process, root

GUEST = Path(__file__).resolve().parent.parent / "guest"
MEMORY = "384"  # MiB
PROBE_LIMIT = 15  # s for a machine to come up with the processor's help
# cmpxchg16b is emulated wrongly at times by QEMU 7.2: the servers' kernel panics.
EMULATED = {"accel": "tcg,thread=multi", "cpu": "max,-cx16"}
ASSISTED = {"accel": "kvm", "cpu": "host"}


def _check_ground():
    if os.geteuid():
        raise host.LeftOut("root is needed for networks between the machines")
    if platform.machine() != "x86_64":
        raise host.LeftOut("the lab is for x86-64")
    if not os.path.exists("/dev/net/tun"):
        raise host.LeftOut("there is no /dev/net/tun")


def parts(binaries, say, more=lambda tools: [], systemd=False):
    """What `Machine` takes; under "systemd" what one with systemd takes instead, if it is wanted.
    Call it before `own_network`: it may have to download."""
    _check_ground()
    tools = host.Tools()
    tools.need({"qemu-system-x86_64": "qemu-system-x86", "zstd": "zstd", "ip": "iproute2"})
    kernel = host.kernel(tools, say)
    made = image.build(tools, kernel, GUEST, binaries, say, more(tools))
    found = {
        "qemu": [tools.find("qemu-system-x86_64"), *_firmware(tools)],
        "environment": tools.environment(),
        "kernel": str(kernel / "vmlinux"),
        "image": str(made),
        "memory": MEMORY,
        "taps": network.taps,
        "release": kernel.name.removeprefix("linux-image-"),
    }
    found |= _accelerator(found, say)
    if systemd:
        found["systemd"] = root.parts(tools, kernel, binaries, say)
    return found


def _firmware(tools):
    folders = [f"{base}/usr/share/{name}" for base in (tools.root, "") for name in ("qemu", "seabios")]
    return [word for folder in folders if os.path.isdir(folder) for word in ("-L", folder)]


def _accelerator(found, say):
    """KVM where machines come up with it, which is tried once after each start of this machine."""
    chosen = os.environ.get("CLPMD_LAB_ACCEL", "auto")
    if chosen == "tcg" or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return EMULATED
    if chosen == "kvm":
        return ASSISTED
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    verdict = host.cache() / "kvm"
    with host.locked("kvm"):
        if not verdict.exists() or verdict.read_text().split()[0] != boot:
            verdict.write_text(f"{boot} {'yes' if _comes_up(found) else 'no'}\n")
    if verdict.read_text().split()[1] == "yes":
        return ASSISTED
    say("no use of KVM: machines do not come up with it here")
    return EMULATED


def _comes_up(found):
    with tempfile.TemporaryDirectory() as folder:
        console = Path(folder) / "console"
        command = [
            *found["qemu"], "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35",
            "-m", MEMORY, "-accel", "kvm", "-cpu", "host", "-kernel", found["kernel"], "-initrd", found["image"],
            "-append", "console=ttyS0 quiet panic=-1 server=1", "-serial", f"file:{console}",
        ]
        machine = process.start(command, f"{folder}/log", env=found["environment"])
        end = time.monotonic() + PROBE_LIMIT
        try:
            while machine.poll() is None and time.monotonic() < end:
                if console.exists() and "is up after" in console.read_text(errors="replace"):
                    return True
                time.sleep(0.1)
            return False
        finally:
            machine.kill()
            machine.wait()
