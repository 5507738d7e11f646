"""One direction is dead: what the active server sends, on the mirror connect; then what the other one
sends, on every network. The active side goes on."""


def scenario(lab):
    lab.up()
    lab.activate(1)
    lab.start_load(1)
    for sender, net in ((1, "mirror"), (2, "all")):
        mark = lab.last_ack()
        lab.degrade("loss 100%", net, senders=[sender])
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
