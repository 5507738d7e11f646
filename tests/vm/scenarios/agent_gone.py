"""The active server's agent dies and does not come back: its device waits for the set time, then
fails; nobody hangs, and the other server takes over with every record."""

WAIT = 10  # s


def scenario(lab):
    lab.agent_lines = f"agent_timeout = {WAIT}"
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    lab.goes_on()
    lab.kill_agent(1)
    waited = lab.wait(60, "the application ends with an error", lambda: lab.acks()[1] and not lab.load_runs(1))
    lab.say(f"the application got its error {waited:.1f} s after the agent's death; {WAIT} s were set")
    lab.check(waited > WAIT / 2, "the device waited before it failed")
    lab.run(1, "umount -l /mnt/nmp1")
    lab.wait(30, "server2 misses server1", lambda: lab.misses_peer(2))
    lab.fail_over(2)
    lab.records_are_there(2)
    lab.start_agent(1)
    lab.wait_normal()
    lab.equal_in_the_end()
