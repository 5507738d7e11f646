"""A small machine whose memory is full of dirty pages of the mirror, and of what cannot be dropped:
they are written, nothing hangs, no process is ended."""

FRONT_ENDS = ("ublk", "nbd")
FREE = 110  # MiB that are left of the memory


def scenario(lab):
    lab.memory = {1: "320", 2: "320"}
    lab.data_mb = 100
    lab.up()
    lab.activate(1)
    lab.run(1, "echo 60 >/proc/sys/vm/dirty_ratio; echo 50 >/proc/sys/vm/dirty_background_ratio; "
               "echo 100000 >/proc/sys/vm/dirty_expire_centisecs; echo 3 >/proc/sys/vm/drop_caches")
    lab.say(lab.run(1, "echo agent: $(grep -E 'VmRSS|VmLck' /proc/$(cat /run/agent.pid)/status)"))
    free = int(lab.run(1, "sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) // 1024
    lab.run(1, f"mount -o remount,size=90% /tmp; dd if=/dev/zero of=/tmp/hog bs=1M count={free - FREE} 2>&1")
    lab.say(f"server1 had {free} MiB of free memory, and has {FREE} MiB")
    lab.start_load(1)
    for _ in range(2):
        lab.run(1, "dd if=/dev/urandom of=/mnt/nmp1/big bs=1M count=75 2>&1; sync", 200, "shell1")
        lab.goes_on()
    lab.say(lab.run(1, "echo agent, at most: $(grep VmHWM /proc/$(cat /run/agent.pid)/status)"))
    lab.say(f"longest pause of the application: {lab.longest_pause():.2f} s")
    lab.stop_load(1)
    lab.no_error()
    code, said = lab.sh(1, "dmesg | grep -iE 'out of memory|oom-kill|blocked for more'")
    lab.check(code == 1, f"the kernel ended nobody and saw no hang: {said}")
    lab.records_are_there(1)
    lab.equal_in_the_end()
