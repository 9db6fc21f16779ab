"""A Debian in a directory: made with debootstrap, booted in namespaces of its own, ended again.

Its systemd is process 1 of new pid, mount, uts, ipc and cgroup namespaces, with the directory as root: it
sees nothing of this machine's files and mounts, but its loopback network and /dev/fuse. Never start a systemd
without a root of its own: at boot it empties /tmp.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.kit.mounts import REPOSITORY
from tests.kit.scenes import ended, wait_until

_PACKAGES = (
    "systemd systemd-sysv dbus libpam-systemd dbus-user-session python3 python3-venv python3-dev gcc"
    " libc6-dev pkg-config libfuse3-dev fuse3 mount util-linux ca-certificates"
).split()
_FIRST = "systemd,systemd-sysv,dbus,python3,ca-certificates"
_SHARED = ("/etc/pip.conf", "/root/.config/pip/pip.conf", "/etc/resolv.conf", "/etc/hosts")
"""What says how this machine gets packages, so that the tree can, too."""
_DEVICES = "null zero full random urandom tty fuse autofs loop-control".split()
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INIT = """
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
mkdir dev/pts dev/shm
for name in "$@" $(cd /dev && ls -d loop[0-9]*); do
  if [ -e "/dev/$name" ]; then touch "dev/$name"; mount --bind "/dev/$name" "dev/$name"; fi
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 run run
mount -t tmpfs tmp tmp
mkdir -p outside
pivot_root . outside
umount -l /outside
mount --make-rshared /
exec env -i container=jigdofs-tests PATH="$PATH" /lib/systemd/systemd --system --log-target=journal
"""


class Tree:
    """A Debian in a directory.

    Args:
        directory: where it is, or will be made.
        suite: which Debian.
    """

    def __init__(self, directory: Path, suite: str) -> None:
        self.directory = directory
        self._suite = suite
        self._outer: subprocess.Popen[bytes] | None = None
        self._init = 0

    def make(self) -> None:
        """Make it, unless it is there; takes some minutes."""
        if (self.directory / "lib/systemd/systemd").exists():
            return
        print(f"debootstrap {self._suite} {self.directory} ...", file=sys.stderr, flush=True)
        # debootstrap takes the first of alternatives, whether it is there or not: the rest is left to apt
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={_FIRST}"]
        words = [*command, self._suite, str(self.directory), _mirror()]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            shutil.rmtree(self.directory)
            raise RuntimeError(f"debootstrap: {done.stdout.strip()[-300:]}")
        for name in (*_SHARED, *map(str, Path("/etc/apt/apt.conf.d").glob("99*"))):
            if Path(name).exists():
                self.path(name).parent.mkdir(parents=True, exist_ok=True)
                self.path(name).unlink(missing_ok=True)
                shutil.copy(name, self.path(name))
        certificates = "/etc/ssl/certs/ca-certificates.crt"
        shutil.copy(certificates, self.path(certificates))
        self.path("/etc/hostname").write_text("debian\n")
        self.path("/etc/machine-id").write_text("")
        masked = self.path("/etc/systemd/system/systemd-udevd.service")  # the devices are this machine's
        masked.unlink(missing_ok=True)
        masked.symlink_to("/dev/null")

    def path(self, name: str) -> Path:
        """Return where a path of the tree lies for us."""
        return self.directory / name.lstrip("/")

    def write(self, name: str, text: str) -> None:
        """Write a file of the tree."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text)

    def install(self) -> None:
        """Have this repository's jigdofs at /usr/bin/jigdofs, and the units where a package puts them."""
        source = self.path("/opt/jigdofs-source")
        shutil.rmtree(source, ignore_errors=True)
        for name in ("jigdofs", "pyproject.toml", "README.md", "LICENSE"):
            if (REPOSITORY / name).is_dir():
                shutil.copytree(
                    REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                source.mkdir(exist_ok=True)
                shutil.copy(REPOSITORY / name, source / name)
        installed = self.chroot("dpkg-query", "--show", "--showformat=${Package} ").split()
        if missing := set(_PACKAGES).difference(installed):  # in a tree that somebody else made
            self.chroot("apt-get", "update", "-qq")
            self.chroot("apt-get", "install", "-qq", "--yes", "--no-install-recommends", *sorted(missing))
        if not self.path("/opt/jigdofs/bin/pip").exists():
            self.chroot("python3", "-m", "venv", "/opt/jigdofs")
        pip = ("/opt/jigdofs/bin/pip", "install", "--quiet", "--disable-pip-version-check")
        self.chroot(*pip, "--editable", "/opt/jigdofs-source")
        for link in ("/usr/bin/jigdofs", "/usr/sbin/mount.jigdofs"):
            self.path(link).unlink(missing_ok=True)
            self.path(link).symlink_to("/opt/jigdofs/bin/jigdofs")
        units = REPOSITORY / "systemd"
        for pattern, target in (
            ("*.service", "/usr/lib/systemd/system"),
            ("*.timer", "/usr/lib/systemd/system"),
            ("user/*", "/usr/lib/systemd/user"),
            ("sysusers.d/*", "/usr/lib/sysusers.d"),
            ("tmpfiles.d/*", "/usr/lib/tmpfiles.d"),
        ):
            for file in units.glob(pattern):
                self.path(target).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, self.path(target))
        for old in self.path("/etc/systemd/system").glob("jigdofs*"):  # would hide the new ones
            old.unlink() if old.is_file() or old.is_symlink() else shutil.rmtree(old)
        for kept in ("/etc/jigdofs", "/var/lib/jigdofs", "/var/cache/jigdofs", "/var/cache/jigdofs-images"):
            shutil.rmtree(self.path(kept), ignore_errors=True)  # of an earlier run
        self.chroot("systemd-sysusers")

    def chroot(self, *command: str) -> str:
        """Run a command in the tree that is not booted, and return what it printed."""
        environ = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        bound = 'mount --bind /dev "$1/dev"; mount -t proc proc "$1/proc"; exec chroot "$@"'
        words = ["unshare", "--mount", "sh", "-euc", bound, "sh", str(self.directory), *command]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def boot(self) -> None:
        """Start its systemd, and wait until it is up."""
        command = "unshare --pid --mount --fork --uts --ipc --cgroup --kill-child sh -euc".split()
        self._outer = subprocess.Popen(
            [*command, _INIT, "sh", str(self.directory), *_DEVICES],
            env={"PATH": _PATH},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        wait_until(lambda: children.read_text().split(), "a process 1")
        self._init = int(children.read_text().split()[0])
        wait_until(lambda: Path(f"/proc/{self._init}/comm").read_text() == "systemd\n", "systemd")
        states = ("running", "degraded", "starting")
        wait_until(lambda: self("systemctl", "is-system-running").strip() in states, "systemd answers", 60)

    def __call__(self, *command: str, timeout_s: float = 120) -> str:
        """Run a command in the booted tree, and return what it printed, also if it failed."""
        return self.run(*command, timeout_s=timeout_s).stdout

    def run(self, *command: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in the booted tree."""
        environ = ["env", "-i", f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8"]
        words = ["nsenter", "--target", str(self._init), "--all", *environ, *command]
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )

    def does(self, *command: str, timeout_s: float = 120) -> str:
        """Run a command in the booted tree that must not fail; return what it printed."""
        done = self.run(*command, timeout_s=timeout_s)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}: {done.stderr.strip()[-500:]}"
        return done.stdout

    def shutdown(self) -> None:
        """Stop all its services, and end it."""
        if self._outer is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self.run("systemctl", "poweroff", timeout_s=60)
            self._outer.wait(60)
        if self._outer.poll() is None:
            if not ended(self._init):
                os.kill(self._init, 9)  # the process 1 of the namespaces: all in them goes with it
            self._outer.wait(30)
        self._outer = None


def _mirror() -> str:
    """Return where this machine gets its Debian packages."""
    sites: Sequence[str] = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    return sites[0] if sites else "http://deb.debian.org/debian"
