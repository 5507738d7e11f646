"""Both data disks get larger, and the mirror with its device in use: where the kernel can do it (nbd;
ublk from 6.16 on) the mounted file system grows at once, elsewhere the answer says what to do."""

import re

FRONT_ENDS = ("ublk", "nbd")
CI_FRONT_ENDS = ("nbd",)  # whose device grows with the lab's kernel
MIB = 1 << 20


def can_grow(lab):
    """Whether this kernel's driver makes a device larger that is open."""
    version = tuple(map(int, re.match(r"(\d+)\.(\d+)", lab.run(1, "uname -r")).groups()))
    return lab.front_end == "nbd" or version >= (6, 16)


def scenario(lab):
    lab.data_mb, small, large = 48, 24, 48
    for n in (1, 2):
        lab.map_disk(n, "data", "linear", small)
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on()
    lab.refused(1, "--resize md1", 89, "the data partition of this server is not larger")
    for n in (1, 2):  # as `lvextend` does
        lab.map_disk(n, "data", "linear", large)
    answers = []

    def grown():
        code, said = lab.sh(1, "clpmdctrl --resize md1", 90)
        answers.append(said)
        # A slow machine may need longer to agree than the command waits.
        lab.check(code == 0 or "just agreeing" in said or "recovery" in said, f"it grows: {said}")
        return code == 0

    lab.wait(120, "the mirror grows", grown)
    said = answers[-1]
    lab.say(said)
    lab.check(f"md1 has {large * MIB} bytes now" in said, f"the size is said: {said}")
    # What was added is copied meanwhile, which takes a starved machine a while.
    lab.wait_normal(120)
    lab.goes_on(60)
    live = "keeps its size" not in said
    lab.check(live == can_grow(lab), f"what the kernel can do is done: {said}")
    if not live:
        lab.check(re.search(r"clpmdctrl --deactive md1, clpmdctrl --active md1, then resize2fs /dev/NMP1", said),
                  f"what to do is said: {said}")
        lab.stop_load(1)
        lab.ctrl(1, "--deactive md1")
        lab.activate(1)
        lab.start_load(1)
    shown = int(lab.run(1, "blockdev --getsize64 /dev/NMP1"))
    lab.check(shown == large * MIB, f"the device shows {shown} bytes")
    lab.run(1, "/usr/bin/resize2fs /dev/NMP1")
    blocks = int(lab.run(1, "stat -f -c %b /mnt/nmp1")) * int(lab.run(1, "stat -f -c %S /mnt/nmp1"))
    lab.check(blocks > 1.6 * small * MIB, f"the file system has {blocks} bytes")
    lab.goes_on()
    lab.wait_normal()
    # What was added is served over the connections that were there before.
    lab.run(1, "dd if=/dev/zero of=/mnt/nmp1/large bs=1M count=20 conv=fsync")
    lab.wait_normal()
    # The next agent goes on with the device as it is now.
    lab.kill_agent(1)
    lab.start_agent(1)
    lab.goes_on()
    lab.wait_normal()
    lab.equal_in_the_end()
