"""The kernel's driver is not loaded: the agent says what to do next, and that names the command that
loads it."""

FRONT_ENDS = ("ublk", "nbd")
CI_FRONT_ENDS = ("ublk",)
MODULES = {"ublk": "ublk_drv", "nbd": "nbd"}


def scenario(lab):
    module = MODULES[lab.front_end]
    lab.mirror_lines = ""  # no file system to be made yet: that needs the device
    lab.load_modules = False
    lab.up()
    lab.check(lab.logged(1, "Next: clpmdagent --check"), "the agent says what to do next")
    code, said = lab.sh(1, "clpmdagent --check")
    lab.check(f"modprobe {module}" in said, f"clpmdagent --check names the command that helps: {code} {said}")
    code, said = lab.sh(1, "clpmdctrl --active -nomount md1")
    lab.check(code != 0 and not lab.is_active(1), f"the activation is refused: {code} {said}")
    lab.run(1, f"mod {module}")
    lab.activate(1, "-nomount")
    lab.equal_in_the_end()
