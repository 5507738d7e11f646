"""The mirror connect is dead in one direction only, then in the other: the active side goes on."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    for sender in (1, 2):
        mark = lab.last_ack()
        lab.degrade("loss 100%", "mirror", senders=[sender])
        lab.wait_colors(1, "GREEN RED")
        lab.goes_on()
        lab.say(f"nothing from server{sender} arrives: longest pause {lab.longest_pause(mark):.2f} s")
        lab.mend()
        lab.wait_normal()
        lab.goes_on()
    lab.stop_load(1)
    lab.no_error()
    lab.records_are_there(1)
    lab.equal_in_the_end()
