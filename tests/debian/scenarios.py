"""What an administrator does with the units, and what must come of it; each function is one scenario."""

import hashlib
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jigdofs.demo import DemoImage, build
from tests.debian.tree import Tree
from tests.kit.faults import Stall
from tests.kit.faulty_server import FaultyServer
from tests.kit.scenes import wait_until

MOST_EXPOSURE = 3.0
_UNITS = ("jigdofs@.service", "jigdofs-update@.service")


@dataclass
class Scene:
    """A booted tree, a server on loopback, and what it serves.

    Attributes:
        tree: the Debian.
        server: on this machine's loopback, which the tree shares.
        images: by directory of the server.
    """

    tree: Tree
    server: FaultyServer
    images: dict[str, DemoImage]

    def configure(self, name: str, site: str, mirror: str) -> None:
        """Write an image set."""
        self.tree.write(
            f"/etc/jigdofs/images.d/{name}.toml",
            f'images = ["{self.server.url(f"/{site}/demo.jigdo")}"]\nmountpoint = "/srv/{name}"\n'
            f'mirror = ["Demo={self.server.url(f"/{mirror}/")}"]\n',
        )

    def property(self, unit: str, name: str) -> str:
        """Return what systemd says of a unit."""
        return self.tree("systemctl", "show", "--property", name, "--value", unit).strip()

    def mounts(self, place: str) -> list[str]:
        """Return the ids of our mounts at a place, as process 1 sees them."""
        table = self.tree("cat", "/proc/1/mountinfo").splitlines()
        return [line.split()[0] for line in table if line.split()[4] == place and " - fuse.jigdofs " in line]

    def is_right(self, place: str, site: str) -> None:
        """Assert that the host reads the image as it should be."""
        digest = self.tree.does("sha256sum", f"{place}/demo.img").split()[0]
        assert digest == self.images[site].sha256, f"{place}/demo.img has another checksum"


def publish(directory: Path, server: FaultyServer) -> dict[str, DemoImage]:
    """Make a small and a larger image, and serve them with two mirrors of their parts."""
    images = {}
    files: dict[str, bytes] = {}
    for site, part_count in (("small", 4), ("large", 16)):
        (directory / site).mkdir()
        images[site] = build(directory / site, part_count)
        for path in (path for path in (directory / site).rglob("*") if path.is_file()):
            name = str(path.relative_to(directory / site))
            for prefix in ("first", "second") if name.startswith("pool/") else (site,):
                files[f"/{prefix}/{name}"] = path.read_bytes()
    server.files = files
    return images


def starts_at_boot(scene: Scene) -> str:
    """The enabled unit is active after the boot, and the image can be read."""
    scene.configure("demo", "small", "first")
    tree = scene.tree
    tree.does("systemctl", "daemon-reload")
    tree.does("systemctl", "enable", "jigdofs@demo")
    tree.shutdown()
    began = time.monotonic()
    tree.boot()
    wait_until(lambda: scene.property("jigdofs@demo", "ActiveState") == "active", "active after the boot", 60)
    seconds = time.monotonic() - began
    scene.is_right("/srv/demo", "small")
    return f"active {seconds:.1f} s after the start of process 1"


def active_once_readable(scene: Scene) -> str:
    """While the template is on its way the unit is not active, and nothing hangs; then it can be read."""
    tree = scene.tree
    scene.configure("slow", "large", "first")
    scene.server.always("/large/demo.template", Stall())
    starting = threading.Thread(target=tree.run, args=("systemctl", "start", "jigdofs@slow"))
    starting.start()
    try:
        wait_until(
            lambda: any(request.path == "/large/demo.template" for request in scene.server.requests),
            "the template is asked for",
        )
        assert scene.property("jigdofs@slow", "ActiveState") == "activating"
        assert scene.mounts("/srv/slow") == []
        tree.does("ls", "-l", "/srv", timeout_s=5)
        assert starting.is_alive(), "`systemctl start' returned before the image could be read"
    finally:
        scene.server.behave()
        scene.server.release()
        starting.join()
    assert scene.property("jigdofs@slow", "ActiveState") == "active"
    assert tree.does("stat", "--format=%s", "/srv/slow/demo.img").strip() == str(scene.images["large"].size)
    return "activating while the template stalled, active after it"


def without_privileges(scene: Scene) -> str:
    """The daemon has no rights and a mount namespace of its own, and the host reads what it serves."""
    pid = scene.property("jigdofs@demo", "MainPID")
    status = dict(re.findall(r"^(\w+):\s*(\S+)", scene.tree.does("cat", f"/proc/{pid}/status"), re.MULTILINE))
    assert status["CapEff"] == status["CapBnd"] == status["CapPrm"] == "0" * 16, status
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), status
    assert status["Uid"] == scene.tree.does("id", "-u", "jigdofs").strip() != "0"
    namespaces = scene.tree.does("readlink", f"/proc/{pid}/ns/mnt", "/proc/1/ns/mnt").split()
    assert namespaces[0] != namespaces[1]
    scene.is_right("/srv/demo", "small")
    text = scene.property("jigdofs@demo", "StatusText")
    assert "demo.img" in text, f"STATUS= says {text!r}"
    told = scene.tree.does("jigdofs", "status", "/srv/demo")
    assert f"process {pid}" in told
    return f"CapEff=0, NoNewPrivs=1, own mount namespace; STATUS: {text}"


def reloads(scene: Scene) -> str:
    """After a reload another mirror is asked, by the same process in the same mount; a mistake fails it."""
    before = scene.property("jigdofs@slow", "MainPID"), scene.mounts("/srv/slow")
    scene.tree.write("/etc/jigdofs/images.d/slow.toml", "conections = 3\n")
    assert scene.tree.run("systemctl", "reload", "jigdofs@slow").returncode != 0
    assert (scene.property("jigdofs@slow", "MainPID"), scene.mounts("/srv/slow")) == before
    scene.configure("slow", "large", "second")
    scene.tree.does("systemctl", "reload", "jigdofs@slow")
    # the signal was sent; that it was heard the journal tells, and what is read then
    wait_until(lambda: _next_part_comes_from_second(scene), "another mirror is asked", 20)
    scene.is_right("/srv/slow", "large")
    assert (scene.property("jigdofs@slow", "MainPID"), scene.mounts("/srv/slow")) == before
    assert scene.property("jigdofs@slow", "ActiveState") == "active"
    return "a mistake is refused; the new mirror was asked; same process, same mount"


def _next_part_comes_from_second(scene: Scene) -> bool:
    """Read a byte of a part that nobody asked for, and tell where it came from."""
    asked = {request.path.partition("/pool/")[2] for request in scene.server.requests}
    left = [part for part in scene.images["large"].parts if part.path.removeprefix("pool/") not in asked]
    assert left, "all parts came from the mirror of old"
    part = left[0]
    skip = f"skip={part.offset + 10_000}"
    scene.tree.does("dd", "if=/srv/slow/demo.img", "of=/dev/null", "bs=1", "count=1", skip, "status=none")
    return any(request.path == f"/second/{part.path}" for request in scene.server.requests)


def survives_kill(scene: Scene) -> str:
    """After kill -9 of the daemon it is started again, and there is one mount, which works."""
    pid = scene.property("jigdofs@demo", "MainPID")
    scene.tree.does("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "jigdofs@demo")
    began = time.monotonic()
    wait_until(
        lambda: (
            scene.property("jigdofs@demo", "ActiveState") == "active"
            and scene.property("jigdofs@demo", "MainPID") not in (pid, "0")
        ),
        "it is active again",
        60,
    )
    seconds = time.monotonic() - began
    assert len(scene.mounts("/srv/demo")) == 1, scene.mounts("/srv/demo")
    scene.is_right("/srv/demo", "small")
    return f"readable again after {seconds:.1f} s, one mount"


def survives_hanging(scene: Scene) -> str:
    """A daemon that does not answer any more is ended by the watchdog, and started again."""
    drop_in = "/etc/systemd/system/jigdofs@demo.service.d/watchdog.conf"
    scene.tree.write(drop_in, "[Service]\nWatchdogSec=3\nRestartSec=1\n")
    scene.tree.does("systemctl", "daemon-reload")
    scene.tree.does("systemctl", "restart", "jigdofs@demo")
    pid = scene.property("jigdofs@demo", "MainPID")
    scene.tree.does("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "jigdofs@demo")
    wait_until(
        lambda: (
            scene.property("jigdofs@demo", "ActiveState") == "active"
            and scene.property("jigdofs@demo", "MainPID") not in (pid, "0")
        ),
        "it is active again",
        60,
    )
    assert "watchdog" in scene.tree("journalctl", "--unit=jigdofs@demo", "--output=cat", "--no-pager").lower()
    assert len(scene.mounts("/srv/demo")) == 1
    scene.is_right("/srv/demo", "small")
    scene.tree.path(drop_in).unlink()
    scene.tree.does("systemctl", "daemon-reload")
    return "ended by the watchdog, readable again"


def stops_clean(scene: Scene) -> str:
    """Stopped, there is no mount and no failure; also if it is in use, looped, or was killed."""
    tree = scene.tree
    reader = ("sh", "-c", "exec sleep 60 </srv/demo/demo.img")
    tree.does("systemd-run", "--unit=reader", "--property=Type=exec", *reader)
    loop = tree.does("losetup", "--find", "--show", "--read-only", "/srv/slow/demo.img").strip()
    listing = ("losetup", "--list", "--noheadings", "--output", "BACK-MAJ:MIN")
    backing = tree.does(*listing, loop).strip()  # others on this machine may take the device when it is free
    assert backing
    tree.does("systemctl", "stop", "jigdofs@slow", "jigdofs@demo")
    tree.does("systemctl", "stop", "reader")
    assert loop not in tree("losetup", "--list", "--noheadings", "--output", "NAME").split()
    assert "in use" in tree("journalctl", "--unit=jigdofs@demo", "--output=cat", "--no-pager")
    for name in ("slow", "demo"):
        assert scene.mounts(f"/srv/{name}") == []
        assert scene.property(f"jigdofs@{name}", "ActiveState") == "inactive"
        assert scene.property(f"jigdofs@{name}", "Result") == "success"
    assert not tree("find", "/proc", "-maxdepth", "1", "-user", "jigdofs").strip(), "a process is left"
    tree.does("systemctl", "start", "jigdofs@demo")
    tree.does("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "jigdofs@demo")
    wait_until(lambda: scene.property("jigdofs@demo", "SubState") == "auto-restart", "it waits", 20)
    assert scene.mounts("/srv/demo") == [], "a stale mount while it waits to be started again"
    tree.does("systemctl", "stop", "jigdofs@demo")
    assert tree.run("test", "-e", "/run/jigdofs/demo").returncode == 1
    return "inactive, Result=success, no mount, no process"


def says_what_is_wrong(scene: Scene) -> str:
    """An unknown key is told in one line of the journal, and not tried again."""
    scene.tree.write("/etc/jigdofs/images.d/wrong.toml", 'images = ["/x.jigdo"]\nmountpiont = "/srv/x"\n')
    assert scene.tree.run("systemctl", "start", "jigdofs@wrong").returncode != 0
    wait_until(lambda: scene.property("jigdofs@wrong", "ActiveState") == "failed", "it has failed", 20)
    journal = scene.tree("journalctl", "--unit=jigdofs@wrong", "--output=cat", "--no-pager")
    assert "mountpiont" in journal, journal[-500:]
    assert "Traceback" not in journal
    return "failed at once; the journal names the key"


def automounts(scene: Scene) -> str:
    """A line of fstab mounts at the first access, and goes after its idle time."""
    options = (
        "noauto,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=2s,x-systemd.mount-timeout=60s"
        f",allow_other,mirror=Demo={scene.server.url('/first/')}"
    )
    scene.tree.write(
        "/etc/fstab", f"{scene.server.url('/small/demo.jigdo')} /srv/auto jigdofs {options} 0 0\n"
    )
    scene.tree.does("systemctl", "daemon-reload")
    scene.tree.does("systemctl", "start", "srv-auto.automount")
    assert scene.mounts("/srv/auto") == []
    scene.is_right("/srv/auto", "small")
    assert len(scene.mounts("/srv/auto")) == 1
    began = time.monotonic()
    wait_until(lambda: scene.mounts("/srv/auto") == [], "it goes when nobody uses it", 60)
    seconds = time.monotonic() - began
    scene.is_right("/srv/auto", "small")
    scene.tree.does("systemctl", "stop", "srv-auto.automount")
    scene.tree.write("/etc/fstab", "")
    return f"mounted at the first access, gone after {seconds:.1f} s, mounted again"


def updates(scene: Scene) -> str:
    """The update unit builds what is new."""
    jigdo, mirror = scene.server.url("/small/demo.jigdo"), scene.server.url("/first/")
    scene.tree.write("/etc/jigdofs/update.d/demo.conf", f"JIGDOS={jigdo}\nOPTIONS=--mirror Demo={mirror}\n")
    scene.tree.does("systemctl", "start", "jigdofs-update@demo")
    data = scene.tree.path("/var/lib/jigdofs/demo/demo.img").read_bytes()
    assert hashlib.sha256(data).hexdigest() == scene.images["small"].sha256
    scene.tree.does("systemctl", "start", "jigdofs-update@demo.timer")
    assert scene.property("jigdofs-update@demo.timer", "ActiveState") == "active"
    return "built in /var/lib/jigdofs/demo; the timer waits"


def in_a_user_manager(scene: Scene) -> str:
    """A user's own unit mounts with fusermount3, and leaves nothing when it is stopped."""
    tree = scene.tree
    if tree.run("id", "-u", "reader").returncode:
        tree.does("useradd", "--create-home", "reader")
    user = tree.does("id", "-u", "reader").strip()
    tree.does("loginctl", "enable-linger", "reader")
    wait_until(lambda: scene.property(f"user@{user}.service", "ActiveState") == "active", "its manager", 30)
    scene.configure("own", "small", "first")
    text = tree.path("/etc/jigdofs/images.d/own.toml").read_text().replace("/srv/own", "/home/reader/own")
    tree.path("/etc/jigdofs/images.d/own.toml").unlink()
    tree.write("/home/reader/.config/jigdofs/images.d/own.toml", text)
    tree.path("/home/reader/own").mkdir(exist_ok=True)
    tree.does("chown", "-R", "reader", "/home/reader")
    identity = ("setpriv", "--reuid", "reader", "--regid", "reader", "--init-groups")
    as_reader = (*identity, "env", "HOME=/home/reader", f"XDG_RUNTIME_DIR=/run/user/{user}")
    manager = (*as_reader, "systemctl", "--user")
    tree.does(*manager, "start", "jigdofs@own")
    digest = tree.does(*as_reader, "sha256sum", "/home/reader/own/demo.img").split()[0]
    assert digest == scene.images["small"].sha256
    tree.does(*manager, "kill", "--kill-whom=main", "--signal=KILL", "jigdofs@own")
    wait_until(lambda: scene.mounts("/home/reader/own") == [], "the dead mount is taken away", 20)
    tree.does(*manager, "stop", "jigdofs@own")
    assert scene.mounts("/home/reader/own") == []
    tree.does("loginctl", "disable-linger", "reader")
    return "active and readable; nothing left after kill -9"


def verified(scene: Scene) -> str:
    """`systemd-analyze verify` has nothing to say, and the exposure is low."""
    names = ("jigdofs@demo.service", "jigdofs-update@demo.service", "jigdofs-update@demo.timer")
    done = scene.tree.run("systemd-analyze", "verify", "--man=no", *names)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
    figures = []
    for unit in _UNITS:
        path = f"/usr/lib/systemd/system/{unit}"
        told = scene.tree.run("systemd-analyze", "security", "--offline=true", "--no-pager", path).stdout
        found = re.search(r"exposure level for \S+: ([0-9.]+)", told)
        assert found is not None, told[-300:]
        assert float(found[1]) <= MOST_EXPOSURE, f"{unit}: {found[1]}"
        figures.append(f"{unit} {found[1]}")
    return f"verify: nothing; exposure: {', '.join(figures)}"


SCENARIOS: tuple[Callable[[Scene], str], ...] = (
    starts_at_boot,
    active_once_readable,
    without_privileges,
    reloads,
    survives_kill,
    survives_hanging,
    stops_clean,
    says_what_is_wrong,
    automounts,
    updates,
    in_a_user_manager,
    verified,
)


def tidy(scene: Scene) -> None:
    """Stop whatever a scenario left running."""
    scene.server.behave()
    scene.server.release()
    with suppress(Exception):
        scene.tree("systemctl", "stop", "jigdofs@*", "srv-auto.automount", timeout_s=60)
