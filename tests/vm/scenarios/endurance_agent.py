"""The active server's agent is killed and started again a hundred times, under load."""

from scenarios import agent_killed_active

CI = False
LIMIT = 5400
FRONT_ENDS = ("ublk", "nbd")


def scenario(lab):
    agent_killed_active.scenario(lab, rounds=100)
