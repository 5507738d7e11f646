"""The kernel's driver is not loaded: the refusal names it and the command that loads it."""

FRONT_ENDS = ("ublk", "nbd")
MODULES = {"ublk": "ublk_drv", "nbd": "nbd"}


def scenario(lab):
    module = MODULES[lab.front_end]
    lab.mirror_lines = ""  # no file system to be made yet: that needs the device
    lab.load_modules = False
    lab.up()
    said = lab.sh(1, "clpmdctrl --active -nomount md1")
    lab.check(said[0] != 0, f"the activation is refused: {said}")
    lab.check(f"modprobe {module}" in said[1], f"the refusal names the command that helps: {said}")
    lab.check(not lab.is_active(1), "the mirror is not active")
    lab.run(1, f"mod {module}")
    lab.activate(1, "-nomount")
    lab.equal_in_the_end()
