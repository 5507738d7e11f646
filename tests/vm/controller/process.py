"""Processes of the lab: they end with it, whatever ends it."""

import ctypes
import os
import signal
import subprocess
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000


def own_network():
    """Puts this process, and what it starts, into a network namespace of its own."""
    if _LIBC.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace of its own")


def die_with_parent():
    """This process ends when the thread that started it does."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def start(command, log, keep=False, **options):
    """A process that dies with this one, unless it is to be kept. For the main thread only: a
    process dies with the thread that started it."""

    with open(log, "ab") as out:
        return subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, preexec_fn=None if keep else die_with_parent, **options,
        )


def started_at(pid):
    """What tells a process from a later one with its number; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def kill(pid, started):
    """Ends exactly this process."""
    if started_at(pid) != started:
        return
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while started_at(pid) == started and time.monotonic() < end:
        time.sleep(0.01)
