"""What the lab needs of this machine: a cache, programs, the kernel. All of it comes from the
machine's own Debian archive, by apt, and nothing is installed: packages are unpacked in the cache."""

import fcntl
import glob
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

GUEST_SUITE = "trixie"
KERNEL_META = "linux-image-cloud-amd64"
KEEP_INDEX = 6 * 3600  # s that the index of the archive is taken as current
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LeftOut(Exception):
    """This machine gives no ground to run on; the reason is the text."""


def cache():
    """The folder for what was downloaded and made; outside the source tree."""
    chosen = os.environ.get("CLPMD_LAB_CACHE")
    if not chosen:
        xdg = os.environ.get("XDG_CACHE_HOME")
        chosen = f"{xdg}/clpmd-lab" if xdg else "/var/cache/clpmd-lab"
    path = Path(chosen)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(name):
    """One at a time on this machine."""
    with open(cache() / f"{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(*command, **options):
    """The output of a command; an error says what it said."""
    done = subprocess.run(
        [str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, **options
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


# ---- programs


class Tools:
    """Programs of this machine, or unpacked beside it."""

    def __init__(self):
        self.root = cache() / "tools"
        self.libraries = [str(self.root / d / "x86_64-linux-gnu") for d in ("lib", "usr/lib")]

    def find(self, name):
        """The path of a program, or None."""
        beside = [f"{self.root}/{d}" for d in ("usr/bin", "usr/sbin", "bin", "sbin")]
        return shutil.which(name, path=":".join([PATH, *beside]))

    def need(self, wanted):
        """Unpacks the packages of the programs that are not there: program = package."""
        packages = [p for name, p in wanted.items() if not self.find(name)]
        if not packages:
            return
        if not shutil.which("apt-get"):
            raise LeftOut(f"no apt-get here to bring {', '.join(packages)}")
        with locked("tools"):
            self._unpack(packages)
        lacking = [n for n in wanted if not self.find(n)]
        if lacking:
            raise LeftOut(f"the packages brought no {', '.join(lacking)}")

    def _unpack(self, packages):
        debs = cache() / "debs"
        debs.mkdir(exist_ok=True)
        try:
            names = self._missing(packages)
            run("apt-get", "-qq", "download", *names, cwd=debs)
        except RuntimeError:
            try:
                run("apt-get", "-qq", "update")
                names = self._missing(packages)
                run("apt-get", "-qq", "download", *names, cwd=debs)
            except RuntimeError as e:
                raise LeftOut(f"no {' '.join(packages)} from the archive: {e}") from None
        self.root.mkdir(exist_ok=True)
        for name in names:
            for deb in glob.glob(f"{debs}/{glob.escape(name)}_*.deb"):
                run("dpkg-deb", "-x", deb, self.root)
                os.unlink(deb)

    @staticmethod
    def _missing(packages):
        """The packages and what they need beyond what is installed."""
        plan = run("apt-get", "-s", "install", "--no-install-recommends", *packages)
        return re.findall(r"^Inst (\S+)", plan, re.M)

    def environment(self):
        """For programs that were unpacked beside the machine."""
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(self.libraries)}


# ---- the kernel of the servers


def _apt_options(folder):
    return [
        *("-o", f"Dir::Etc::SourceList={folder}/sources.list"),
        *("-o", "Dir::Etc::SourceParts=/nonexistent"),
        *("-o", f"Dir::State::lists={folder}/lists"),
        *("-o", f"Dir::Cache={folder}/cache"),
        *("-o", "APT::Sandbox::User=root"),
        *("-o", "Acquire::Languages=none"),
    ]


def _os_release():
    with open("/etc/os-release", encoding="utf-8") as file:
        return dict(line.rstrip().split("=", 1) for line in file if "=" in line)


def guest_sources():
    """This machine's Debian sources, for the release of the servers."""
    codename = _os_release().get("VERSION_CODENAME", "").strip('"')
    sources = set()
    for name in glob.glob("/etc/apt/sources.list.d/*.sources"):
        for stanza in Path(name).read_text().split("\n\n"):
            field = {k.lower(): v.strip() for k, v in re.findall(r"^([\w-]+):\s*(.*)$", stanza, re.M)}
            for uri in field.get("uris", "").split():
                sources.update((uri, suite) for suite in field.get("suites", "").split())
    for name in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*.list")]:
        text = Path(name).read_text() if os.path.exists(name) else ""
        sources.update(re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)", text, re.M))
    own = [(u, s) for u, s in sources if codename and re.match(rf"{codename}(-|$)", s)]
    if not own or not os.path.exists(KEYRING):
        raise LeftOut("no Debian archive among this machine's apt sources")
    return sorted({(u, GUEST_SUITE + s[len(codename):]) for u, s in own if not s.endswith("-backports")})


def _refresh(folder):
    for sub in ("lists/partial", "cache/archives/partial"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    text = "".join(f"deb [signed-by={KEYRING}] {u} {s} main\n" for u, s in guest_sources())
    sources, stamp = folder / "sources.list", folder / "fresh"
    same = sources.exists() and sources.read_text() == text
    if same and stamp.exists() and time.time() - stamp.stat().st_mtime < KEEP_INDEX:
        return
    stamp.unlink(missing_ok=True)
    sources.write_text(text)
    run("apt-get", *_apt_options(folder), "-qq", "update")
    stamp.touch()


def kernel(tools, say):
    """The folder of the newest kernel: `vmlinux` and `modules/`."""
    with locked("kernel"):
        folder = cache() / "apt"
        have = sorted((cache() / "kernel").glob("*/vmlinux"), key=os.path.getmtime)
        try:
            _refresh(folder)
            shown = run("apt-cache", *_apt_options(folder), "depends", KERNEL_META)
            name = re.search(r"Depends: (linux-image-\S+)", shown).group(1)
        except (RuntimeError, AttributeError) as e:
            if not have:
                raise LeftOut(f"no kernel from the archive: {e}") from None
            say(f"note: the archive does not answer; the kernel is the one in the cache: {e}")
            return have[-1].parent
        made = cache() / "kernel" / name
        if not (made / "vmlinux").exists():
            say(f"fetching {name}")
            _fetch_kernel(tools, folder, name, made)
        return made


def _fetch_kernel(tools, folder, name, made):
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        run("apt-get", *_apt_options(folder), "-qq", "download", name, cwd=made)
    except RuntimeError as e:
        raise LeftOut(f"no kernel from the archive: {e}") from None
    (deb,) = made.glob("*.deb")
    run("dpkg-deb", "-x", deb, made / "deb")
    (modules,) = (made / "deb").glob("**/lib/modules/*")
    os.rename(modules, made / "modules")
    (image,) = (made / "deb/boot").glob("vmlinuz-*")
    _unpack_image(tools, image.read_bytes(), made / "vmlinux.new")
    shutil.rmtree(made / "deb")
    deb.unlink()
    os.rename(made / "vmlinux.new", made / "vmlinux")


def _unpack_image(tools, image, out):
    """The ELF file in a bzImage: QEMU starts it without the kernel's own, emulated, unpacking."""
    for magic, command in ((b"\x28\xb5\x2f\xfd", ["zstd", "-dcq"]), (b"\xfd7zXZ\x00", ["xz", "-dcq"])):
        program = tools.find(command[0])
        at = image.find(magic)
        while program and at >= 0:
            # What follows the packed part makes the program complain; only the beginning counts.
            made = subprocess.run([program, *command[1:]], input=image[at:], capture_output=True, check=False)
            if made.stdout[:4] == b"\x7fELF":
                out.write_bytes(made.stdout)
                return
            at = image.find(magic, at + 1)
    raise RuntimeError("no kernel found in its image")
