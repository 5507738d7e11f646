"""The command line: `scripts/lab`."""

import argparse
import importlib
import io
import json
import multiprocessing
import os
import pkgutil
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager, nullcontext
from pathlib import Path

from . import bench as measuring
from . import host, network, prepare, process
from .lab import HERE, PATIENCE, Lab, NotHeld, last_words
from .machine import CommandError, Ended, Machine
from .systemd import Systemd

LEFT_OUT = 77
USUAL_LIMIT = 300  # s for a scenario that says nothing else
JOBS = min(os.cpu_count() or 1, 8)
UP = Path(os.environ.get("TMPDIR", "/tmp")) / "clpmd-vm-up"


class TooLong(Exception):
    """A scenario's time is over."""


def say(text):
    """To the person who waits."""
    print(text, flush=True)


# ---- scenarios


def scenarios():
    """Name and module of each, in the order of names."""
    found = {}
    for info in pkgutil.iter_modules([str(HERE / "scenarios")]):
        found[info.name.replace("_", "-")] = importlib.import_module(f"scenarios.{info.name}")
    return found


def shows(module):
    """What a scenario shows, on one line."""
    return " ".join(module.__doc__.split())


def runs(names, chosen_front, ci):
    """(name, module, front end) of what is to be run."""
    known = scenarios()
    unknown = [n for n in names if n not in known]
    if unknown:
        raise SystemExit(f"no scenario {', '.join(unknown)}; `scripts/lab list` shows them")
    for name, module in known.items():
        if names and name not in names:
            continue
        if not names and not getattr(module, "CI", True):
            continue
        fronts = getattr(module, "FRONT_ENDS", ("ublk",))
        if ci:
            fronts = getattr(module, "CI_FRONT_ENDS", fronts)
        for front in [chosen_front] if chosen_front else fronts:
            yield name, module, front


def offered(planned):
    """What the agent under test has a front end for; the rest is said to be left out."""
    page = host.run(f"{binaries()}/clpmdagent", "--config-help")
    row = next(line for line in page.splitlines() if line.startswith("| `front_end` |"))
    words = row.split("|")[2].replace(",", " ").split()
    for name, module, front in planned:
        if front in words:
            yield name, module, front
        else:
            say(f"left out: {name} ({front}): the agent has no such front end")


def one(name, module, front, parts, keep_folder):
    """Whether the scenario held."""
    folder = Path(tempfile.mkdtemp(prefix=f"clpmd-vm.{os.getpid()}."))
    kind = Systemd if getattr(module, "SYSTEMD", False) else Lab
    lab, begin, held = kind(folder, parts, front), time.monotonic(), False
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    say(f"\n== {name} ({front}): {shows(module)}")
    try:
        signal.alarm(int(getattr(module, "LIMIT", USUAL_LIMIT) * PATIENCE))
        module.scenario(lab)
        held = True
    except (NotHeld, CommandError, TooLong, Ended, TimeoutError, OSError) as e:
        signal.alarm(0)
        where = traceback.extract_tb(e.__traceback__)
        line = next((f"{Path(f.filename).name}:{f.lineno}" for f in where if "scenarios" in f.filename), "?")
        say(f"    DID NOT HOLD ({line}): {type(e).__name__}: {e}")
        last_words(lab)
    finally:
        signal.alarm(0)
        lab.down()
        if keep_folder and not held:
            (folder / "kept").touch()
            say(f"    kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
    verdict = "held" if held else "FAILED"
    say(f"-- {name} ({front}): {verdict}, {time.monotonic() - begin:.0f} s, {used:.0f} s of processor time")
    return held


def sweep():
    """Removes the folders of runs that were killed; their processes died with them."""
    for folder in Path(tempfile.gettempdir()).glob("clpmd-vm.*.*"):
        pid = folder.name.split(".")[1]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}") and not (folder / "kept").exists():
            shutil.rmtree(folder, ignore_errors=True)


def on_alarm(*_):
    """The alarm of a scenario."""
    raise TooLong("the scenario's time is over")


def test(args):
    """Runs scenarios, each with servers and disks of its own."""
    planned = list(offered(runs(args.scenario, args.front_end, args.ci)))
    # The long ones first: nobody waits for one of them at the end.
    planned.sort(key=lambda run: -getattr(run[1], "LIMIT", USUAL_LIMIT))
    sweep()
    systemd = any(getattr(module, "SYSTEMD", False) for _, module, _ in planned)
    parts = prepare.parts(binaries(), say, systemd=systemd)
    say(f"kernel of the servers: {parts['release']}, {parts['accel'].split(',')[0]}")
    begin = time.monotonic()
    results = at_once(args.jobs or JOBS, planned, parts, args.keep)
    failed = [name for name, held in results if not held]
    for name in failed:
        say(f"failed: {name}")
    say(f"\nlab: {len(results) - len(failed)} held, {len(failed)} failed, {time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


def at_once(jobs, planned, parts, keep):
    """(name, whether it held) of each, so many at a time, each worker with networks of its own."""
    fork = multiprocessing.get_context("fork")
    left, results, order = fork.SimpleQueue(), fork.SimpleQueue(), fork.Lock()
    jobs = min(jobs, len(planned))
    for number in [*range(len(planned)), *[None] * jobs]:
        left.put(number)

    def work():
        process.die_with_parent()
        process.own_network()
        network.make()
        signal.signal(signal.SIGALRM, on_alarm)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        while (number := left.get()) is not None:
            name, module, front = planned[number]
            with together(order) if jobs > 1 else nullcontext():
                held = one(name, module, front, parts, keep)
            results.put((number, held))

    workers = [fork.Process(target=work) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    done = {}
    while not results.empty():
        number, held = results.get()
        done[number] = held
    return [(f"{name} ({front})", done.get(i, False)) for i, (name, _, front) in enumerate(planned)]


@contextmanager
def together(order):
    """What is said meanwhile comes out in one piece."""
    out, sys.stdout = sys.stdout, io.StringIO()
    try:
        yield
    finally:
        text, sys.stdout = sys.stdout.getvalue(), out
        with order:
            out.write(text)
            out.flush()


def show_list(_):
    """The scenarios."""
    for name, module in scenarios().items():
        fronts = ", ".join(getattr(module, "FRONT_ENDS", ("ublk",)))
        rest = "" if getattr(module, "CI", True) else ", only by name"
        say(f"{name:24} {shows(module)} ({fronts}{rest})")
    return 0


def bench(args):
    """The mirror beside DRBD 8.4 and the disk alone."""
    parts = prepare.parts(binaries(), say, measuring.programs)
    process.own_network()
    network.make()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    front = args.front_end or "ublk"
    figures = measuring.measure(parts, front, args.rounds, args.seconds, say)
    measuring.table(figures, args.rounds, args.seconds, say)
    say(f"front end {front}, kernel {parts['release']}, {parts['accel'].split(',')[0]}")
    if parts["accel"] != "kvm":
        say("Emulated: the figures themselves mean nothing, and since emulation slows code of the kernel")
        say("and of programs differently, the ratios are uncertain, too.")
    return 0


# ---- two machines that stay


def up(args):
    """Starts two servers with a constructed mirror that stay until `down`."""
    if UP.exists():
        raise SystemExit("it is up already; `scripts/lab down` ends it")
    parts = prepare.parts(binaries(), say)
    process.own_network()
    network.make()
    UP.mkdir(mode=0o700)
    lab = Lab(UP, parts, args.front_end or "ublk", keep=True, say=say)
    try:
        lab.up()
    except BaseException:
        last_words(lab)
        lab.down()
        shutil.rmtree(UP)
        raise
    started = [m.process.pid for m in lab.machines.values()] + [d.pid for d in lab.disks.values()]
    (UP / "processes").write_text(json.dumps([[pid, process.started_at(pid)] for pid in started]))
    say(f"two servers with {parts['release']}, the mirror md1 is Normal. Next: scripts/lab run 1 clpmdstat --mirror md1")
    return 0


def down(_):
    """Ends them."""
    if not UP.exists():
        return 0
    if (UP / "processes").exists():
        for pid, started in json.loads((UP / "processes").read_text()):
            process.kill(pid, started)
    shutil.rmtree(UP)
    return 0


def standing(number):
    """The machine of this number of those that are up."""
    if not UP.exists():
        raise SystemExit("nothing is up; `scripts/lab up` starts it")
    return Machine(number, UP, {})


def run(args):
    """A command on one of them."""
    code, out = standing(args.server).shell().run(" ".join(args.command), args.limit)
    if out:
        say(out)
    return code


def logs(args):
    """What a server and its agent have said."""
    machine = standing(args.server)
    for name in ("console", "agent"):
        say(f"--- {name}\n{machine.path(name).read_text(errors='replace')}")
    return 0


def event(args):
    """Something that happens to one of them."""
    machine = standing(args.server)
    links = {f"{word}-{net}": (net, word == "plug") for word in ("cut", "plug") for net in network.NETS}
    if args.what in ("freeze", "thaw"):
        machine.qmp({"freeze": "stop", "thaw": "cont"}[args.what])
    else:
        net, state = links[args.what]
        machine.qmp("set_link", name=net, up=state)
    return 0


# ----


def binaries():
    """The folder of the programs under test; `scripts/lab` has built them."""
    return os.environ["CLPMD_BIN"]


def arguments():
    """What the user wants."""
    parser = argparse.ArgumentParser(prog="scripts/lab", description="Two QEMU machines with a mirror")
    commands = parser.add_subparsers(required=True)

    def command(function, name=None):
        made = commands.add_parser(name or function.__name__, help=function.__doc__.strip().splitlines()[0])
        made.set_defaults(function=function)
        return made

    for function in (test, up, bench):
        made = command(function)
        made.add_argument("--front-end", help="ublk, nbd, ... instead of each that the scenario names")
        if function is test:
            made.add_argument("--ci", action="store_true", help="the shorter set of front ends")
            made.add_argument("--jobs", type=int, help="scenarios at a time (one for each processor, at most 8)")
            made.add_argument("--keep", action="store_true", help="keep the folder of what failed")
            made.add_argument("scenario", nargs="*", help="all of the usual ones if none is named")
        if function is bench:
            made.add_argument("--rounds", type=int, default=3)
            made.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    command(down)
    command(show_list, "list")
    for function in (run, logs, event):
        made = command(function)
        made.add_argument("server", type=int, choices=(1, 2))
        if function is run:
            made.add_argument("--limit", type=float, default=600, help="seconds")
            made.add_argument("command", nargs=argparse.REMAINDER)
        if function is event:
            words = [f"{w}-{net}" for w in ("cut", "plug") for net in network.NETS]
            made.add_argument("what", choices=["freeze", "thaw", *words])
    return parser.parse_args()


def main():
    """Ends with the scenarios' verdict; 77 if this machine gives no ground."""
    args = arguments()
    try:
        return args.function(args)
    except host.LeftOut as e:
        say(f"lab: left out, {e}")
        return LEFT_OUT
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
