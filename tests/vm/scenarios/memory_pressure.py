"""A small machine fills its memory with dirty pages of the mirror: they are written, nothing hangs."""

LIMIT = 240
FRONT_ENDS = ("ublk", "nbd")


def scenario(lab):
    lab.memory = {1: "256", 2: "256"}
    lab.data_mb = 200
    lab.up()
    lab.activate(1)
    lab.run(1, "echo 90 >/proc/sys/vm/dirty_ratio; echo 80 >/proc/sys/vm/dirty_background_ratio; "
               "echo 100000 >/proc/sys/vm/dirty_expire_centisecs")
    lab.start_load(1)
    for _ in range(2):
        command = "dd if=/dev/urandom of=/mnt/nmp1/big bs=1M count=140 2>&1; sync; free -k | grep Mem"
        lab.say(lab.run(1, command, 200, "shell1").splitlines()[-1])
        lab.goes_on()
    lab.say(f"longest pause of the application: {lab.longest_pause():.2f} s")
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
    lab.equal_in_the_end()
