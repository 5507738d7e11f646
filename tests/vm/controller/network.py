"""The lab's networks: a bridge each, in a network namespace that holds nothing else."""

from . import host

# name: the last but one part of its addresses, the letter of its taps
NETS = {"mirror": (1, "m"), "agents": (2, "a")}


def make():
    """Both bridges and a tap of each server on them. In a namespace of our own only."""
    host.run("ip", "link", "set", "lo", "up")
    for net in NETS:
        host.run("ip", "link", "add", net, "type", "bridge", "forward_delay", "0", "stp_state", "0")
        host.run("ip", "link", "set", net, "up")
        for server in (1, 2):
            tap = f"{NETS[net][1]}{server}"
            host.run("ip", "tuntap", "add", tap, "mode", "tap", "vnet_hdr")
            host.run("ip", "link", "set", tap, "master", net, "up")


def taps(server):
    """Network and tap of a server, in the order of its interfaces."""
    return [(net, f"{letter}{server}") for net, (_, letter) in NETS.items()]


def address(net, server):
    """Of a server."""
    return f"10.92.{NETS[net][0]}.{server}"


def interface(net):
    """What the network is called in a server."""
    return f"eth{list(NETS).index(net)}"
