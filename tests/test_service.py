"""A service without systemd: a daemon without rights, root's part of it, and what either may meet."""

import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from jigdofs.config import MountOptions
from jigdofs.control import client, place
from jigdofs.demo import DemoImage, build
from jigdofs.errors import MountError
from jigdofs.fuse import attach, attachment, kernel
from jigdofs.fuse.mountpoint import mount_at, within
from tests.kit.mounts import detach_everything, mounted_at
from tests.kit.notify_socket import NotifySocket
from tests.kit.requirements import as_user, require_fuse, require_root, tool
from tests.kit.scenes import Program, ended, wait_until

USER, UID, GID = "nobody", 65534, 65534
SERVICES = Path("/run/jigdofs")


@dataclass
class Unit:
    """What the unit of a service is to its programs.

    Attributes:
        directory: which everybody can enter, and whose mounts other mount namespaces are told of.
        image: what is to be seen.
        runtime: where the control socket belongs.
    """

    directory: Path
    image: DemoImage
    runtime: Path

    @property
    def mountpoint(self) -> Path:
        return self.directory / "deep" / "mnt"

    @property
    def config(self) -> Path:
        return self.directory / "demo.toml"

    def write_config(self, mountpoint: Path | None = None) -> None:
        """Write the image set."""
        self.config.write_text(
            f'images = ["{self.directory}/site/demo.jigdo"]\nmountpoint = "{mountpoint or self.mountpoint}"\n'
            f'mirror = ["Demo={self.directory}/site/"]\ncache-dir = "{self.directory}/cache"\n'
        )

    def root(self, verb: str, pid: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run root's part as the unit does."""
        environ = {"RUNTIME_DIRECTORY": str(self.runtime)}
        if pid is not None:
            environ["MAINPID"] = str(pid)
        return self.program(environ)("service", verb, "--config", self.config)

    def program(self, environ: dict[str, str] | None = None) -> Program:
        return Program(self.directory, environ=environ)

    @contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[str]]:
        """Run the daemon as the unit does: without rights, in a mount namespace of its own."""
        command = [
            sys.executable,
            "-m",
            "jigdofs",
            "mount",
            "--hand-over",
            "--config",
            str(self.config),
            "-v",
        ]
        words = as_user(USER, command)
        words[1:1] = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        with NotifySocket() as manager:
            environ = {
                "RUNTIME_DIRECTORY": str(self.runtime),
                "NOTIFY_SOCKET": manager.address,
                "PATH": os.environ["PATH"],
            }
            process = subprocess.Popen(
                [tool("unshare"), "--mount", "--propagation", "slave", *words],
                env=environ,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                manager.wait_for("READY=1")
                yield process
            finally:
                process.kill()
                process.communicate()

    def content(self) -> str:
        """Return the checksum of what is to be read on the host."""
        return hashlib.sha256((self.mountpoint / self.image.name).read_bytes()).hexdigest()


@pytest.fixture
def unit(public_dir: Path) -> Iterator[Unit]:
    require_root()
    require_fuse()
    subprocess.run([tool("mount"), "--bind", str(public_dir), str(public_dir)], check=True)
    subprocess.run([tool("mount"), "--make-shared", str(public_dir)], check=True)
    site = public_dir / "site"
    site.mkdir()
    image = build(site, 2)
    subprocess.run(["chmod", "-R", "a+rX", str(public_dir)], check=True)
    (public_dir / "cache").mkdir(0o700)
    SERVICES.mkdir(exist_ok=True)
    SERVICES.chmod(0o755)
    runtime = SERVICES / f"kit-{secrets.token_hex(6)}"
    runtime.mkdir(0o700)
    for path in (runtime, public_dir / "cache"):
        os.chown(path, UID, GID)
    unit = Unit(public_dir, image, runtime)
    unit.write_config()
    try:
        yield unit
    finally:
        detach_everything(unit.mountpoint)
        attachment.forget(attachment.note_of(str(runtime)))
        shutil.rmtree(runtime)
        subprocess.run([tool("umount"), "--lazy", str(public_dir)], check=True)


def of_process(pid: int, name: str) -> str:
    found = re.search(rf"^{name}:\s*(\S+)", Path(f"/proc/{pid}/status").read_text("ascii"), re.MULTILINE)
    assert found is not None
    return found[1]


def test_a_service(unit: Unit) -> None:
    """The host reads what a daemon without any rights serves, until root's part takes the mount away."""
    with unit.daemon() as daemon:
        assert not unit.mountpoint.exists(), "nothing is mounted before somebody with the right does it"
        done = unit.root("attach", daemon.pid)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert unit.content() == unit.image.sha256
        assert [of_process(daemon.pid, name) for name in ("CapEff", "CapBnd")] == ["0" * 16] * 2
        assert [of_process(daemon.pid, name) for name in ("NoNewPrivs", "Uid")] == ["1", str(UID)]
        assert os.readlink(f"/proc/{daemon.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
        mount = mount_at(unit.mountpoint)
        assert mount is not None
        assert (mount.fstype, mount.source, mount.owner) == (
            "fuse.jigdofs",
            f"{unit.directory}/demo.toml",
            UID,
        )
        assert os.statvfs(unit.mountpoint).f_flag & 7 == os.ST_RDONLY | os.ST_NOSUID | 4  # and nodev
        assert unit.mountpoint.parent.stat().st_mode & 0o7777 == 0o755
        done = unit.root("detach", daemon.pid)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert not mounted_at(unit.mountpoint)
        assert daemon.wait(10) == 0
        assert unit.root("detach").returncode == 0, "there is nothing left to do"


def test_root_asks_prefetches_and_unmounts(unit: Unit) -> None:
    """The verbs for mounts find the daemon of a service."""
    program = unit.program()
    with unit.daemon() as daemon:
        assert unit.root("attach", daemon.pid).returncode == 0
        done = program("prefetch", unit.mountpoint, "--all")
        assert done.returncode == 0, done.stderr
        done = program("status", unit.mountpoint)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"process {daemon.pid}" in done.stdout
        assert "100.0 %" in done.stdout
        done = program("umount", unit.mountpoint)
        assert (done.returncode, done.stderr) == (0, "")
        assert daemon.wait(10) == 0


def test_killed_and_started_again(unit: Unit) -> None:
    """A killed daemon leaves a dead mount; the end of the unit, or else the next start, cleans it away."""
    for clean in (True, False):
        with unit.daemon() as daemon:
            assert unit.root("attach", daemon.pid).returncode == 0
            daemon.kill()
            daemon.wait(10)
        assert mounted_at(unit.mountpoint)
        if clean:
            done = unit.root("detach")
            assert (done.returncode, done.stderr) == (0, "")
            assert not mounted_at(unit.mountpoint)
    with unit.daemon() as daemon:
        done = unit.root("attach", daemon.pid)
        assert (done.returncode, done.stderr) == (0, "")
        assert unit.content() == unit.image.sha256
        assert unit.root("detach", daemon.pid).returncode == 0
        assert daemon.wait(10) == 0


def test_the_image_set_changes_meanwhile(unit: Unit) -> None:
    """What was mounted is taken away whatever the image set says by then, and if it is gone or broken."""
    elsewhere = unit.directory / "elsewhere"
    for change in (
        lambda: unit.write_config(elsewhere),
        unit.config.unlink,
        lambda: unit.config.write_text("mountpoint = "),
    ):
        with unit.daemon() as daemon:
            assert unit.root("attach", daemon.pid).returncode == 0
            change()
            done = unit.root("detach", daemon.pid)
            assert (done.returncode, done.stderr) == (0, "")
            assert not mounted_at(unit.mountpoint)
            assert daemon.wait(10) == 0
        unit.write_config()
    with unit.daemon() as daemon:
        assert unit.root("attach", daemon.pid).returncode == 0
        daemon.kill()
    unit.write_config(elsewhere)
    try:
        with unit.daemon() as daemon:
            done = unit.root("attach", daemon.pid)  # the end of the unit was left out
            assert (done.returncode, done.stderr) == (0, "")
            assert (mounted_at(unit.mountpoint), mounted_at(elsewhere)) == (False, True)
            assert unit.root("detach", daemon.pid).returncode == 0
    finally:
        detach_everything(elsewhere)


def test_noexec(unit: Unit) -> None:
    """Nothing can be run in the mount when the image set says so."""
    with unit.config.open("a") as file:
        file.write('fuse-options = ["noexec"]\n')
    with unit.daemon() as daemon:
        assert unit.root("attach", daemon.pid).returncode == 0
        assert os.statvfs(unit.mountpoint).f_flag & os.ST_NOEXEC
        assert unit.content() == unit.image.sha256
        assert unit.root("detach", daemon.pid).returncode == 0


def test_two_services_at_one_place(unit: Unit) -> None:
    """The second one fails, and its end leaves alone what the first one shows."""
    second = Unit(unit.directory, unit.image, SERVICES / f"kit-{secrets.token_hex(6)}")
    second.runtime.mkdir(0o700)
    os.chown(second.runtime, UID, GID)
    try:
        with unit.daemon() as daemon:
            assert unit.root("attach", daemon.pid).returncode == 0
            with second.daemon() as other:
                done = second.root("attach", other.pid)
                assert (done.returncode, "mounted there already" in done.stderr) == (4, True), done
                assert second.root("detach", other.pid).returncode == 0
            assert unit.content() == unit.image.sha256
            assert unit.root("attach", daemon.pid).returncode == 4, "nor is anything mounted twice"
            assert unit.content() == unit.image.sha256
            assert unit.root("detach", daemon.pid).returncode == 0
            assert daemon.wait(10) == 0
    finally:
        shutil.rmtree(second.runtime)


def test_a_note_of_somebody_else(unit: Unit) -> None:
    """What another user, or a link, says is no note."""
    note = attachment.note_of(str(unit.runtime))
    note.symlink_to("/etc/passwd")
    with pytest.raises(MountError):
        attachment.noted(note)
    note.unlink()
    note.write_bytes(b"/")
    os.chown(note, UID, GID)
    with pytest.raises(MountError, match="not written by root"):
        attachment.noted(note)
    with pytest.raises(MountError, match="only root can write"):
        attachment.note(unit.runtime / "x.mount", "/")
    assert os.listdir(unit.runtime) == []


def test_a_link_in_the_place_of_the_mount_point(unit: Unit) -> None:
    """Nothing is mounted where a link leads that was put there after the mount point was looked at."""
    (unit.directory / "target" / "mnt").mkdir(parents=True)
    unit.mountpoint.parent.symlink_to("target")
    descriptor = os.open("/dev/fuse", os.O_RDWR)
    try:
        for link in (unit.mountpoint, unit.mountpoint.parent):
            with pytest.raises(MountError, match="Not a directory"):
                attach._mount(attach.Service(UID, GID), MountOptions(link), descriptor, "x")
    finally:
        os.close(descriptor)
    assert not mounted_at(unit.directory / "target" / "mnt")
    assert not mounted_at(unit.directory / "target")


def test_a_descriptor_of_what_never_answers(unit: Unit) -> None:
    """What a descriptor is can be told without asking the file system it may be of."""
    unit.mountpoint.mkdir(parents=True)
    descriptor = os.open("/dev/fuse", os.O_RDWR)
    try:
        attach._mount(attach.Service(UID, GID), MountOptions(unit.mountpoint), descriptor, "silent")
        inside = os.open(unit.mountpoint, os.O_PATH)
        assert within(10, lambda: kernel.is_device(inside, (10, 229))) is False
        assert kernel.is_device(descriptor, (10, 229))
        assert not kernel.is_device(descriptor, (10, 228))
        os.close(inside)
    finally:
        os.close(descriptor)


def test_detached_in_use(unit: Unit) -> None:
    """What is read is detached all the same, and said; its reader goes on until the daemon is told to end."""
    with unit.daemon() as daemon:
        assert unit.root("attach", daemon.pid).returncode == 0
        with (unit.mountpoint / unit.image.name).open("rb") as reader:
            done = unit.root("detach", daemon.pid)
            assert done.returncode == 0
            assert "in use" in done.stderr
            assert str(os.getpid()) in done.stderr
            assert not mounted_at(unit.mountpoint)
            assert hashlib.sha256(reader.read()).hexdigest() == unit.image.sha256
            assert daemon.poll() is None
            daemon.terminate()
            assert daemon.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_before_it_is_mounted(unit: Unit, number: signal.Signals) -> None:
    """A daemon that waits for its mount ends well."""
    with unit.daemon() as daemon:
        daemon.send_signal(number)
        assert daemon.wait(10) == 0
        done = unit.root("attach", daemon.pid)
        assert done.returncode == 4, done
        assert len(done.stderr.splitlines()) == 1
        assert not mounted_at(unit.mountpoint)


def test_a_file_in_the_place_of_the_mount_point(unit: Unit) -> None:
    """A service shows a directory."""
    unit.mountpoint.parent.mkdir()
    unit.mountpoint.write_bytes(b"")
    with unit.daemon() as daemon:
        done = unit.root("attach", daemon.pid)
        assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
        assert "needs a directory" in done.stderr


def test_the_mount_of_another_user(unit: Unit) -> None:
    """Neither part touches what the service's own user did not mount."""
    unit.mountpoint.mkdir(parents=True)
    descriptor = os.open("/dev/fuse", os.O_RDWR)
    try:
        attach._mount(attach.Service(1, 1), MountOptions(unit.mountpoint), descriptor, "foreign")
        with unit.daemon() as daemon:
            done = unit.root("attach", daemon.pid)
            assert (done.returncode, "another user" in done.stderr) == (4, True), done
            assert unit.root("detach", daemon.pid).returncode == 0
            mount = mount_at(unit.mountpoint)
            assert mount is not None
            assert mount.source == "foreign"
    finally:
        os.close(descriptor)


def test_usage(unit: Unit) -> None:
    """Without its unit, or with a wrong one, root's part says so in a line."""
    message = unit.program().fails("service", "attach", "--config", unit.config, code=3)
    assert "RUNTIME_DIRECTORY" in message
    stray = unit.program({"RUNTIME_DIRECTORY": "/nowhere"})
    assert "/nowhere" in stray.fails("service", "attach", "--config", unit.config, code=4)
    missing = unit.program({"RUNTIME_DIRECTORY": str(unit.runtime)})
    missing.fails("service", "attach", "--config", unit.directory / "none.toml", code=3)
    missing.fails("service", "attach", "--config", unit.config, code=4)  # nobody listens


LIAR = """
    import array, os, socket, struct, sys
    path, how = sys.argv[1:]
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(path)
    bound.listen()
    print("listening", flush=True)
    held = []
    while True:
        stream, _ = bound.accept()
        held.append(stream)  # never hung up
        request = stream.recv(4096)
        if b"hand-over" in request and how != "silent":
            names = {"other": ["/dev/null"], "file": ["/etc/passwd"], "none": [], "two": ["/dev/fuse"] * 2}
            opened = [os.open(name, os.O_RDONLY if how == "file" else os.O_RDWR)
                      for name in names.get(how, ["/dev/fuse"])]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", opened))] if opened else []
            text = b"{}" if how == "nonsense" else b'{"event": "hand-over", "complete": false}'
            stream.sendmsg([text + b"\\n"], rights)
            held.append(opened)
        elif b"mounted" in request and how in ("idle", "begins"):
            stream.sendall(b'{"event": "end"}\\n')
            while how == "begins":  # answers the kernel's first question, takes the others, and says nothing
                asked = os.read(opened[0], 1 << 20)
                if struct.unpack_from("I", asked, 4)[0] == 26:
                    head = struct.pack("IiQ", 80, 0, *struct.unpack_from("Q", asked, 8))
                    os.write(opened[0], head + struct.pack("4I2H2I36x", 7, 31, 0, 0, 0, 0, 4096, 1))
        elif b"mounted" in request and how == "refuses":
            stream.sendall(b'{"event": "error", "message": "no", "exit_code": 1}\\n')
"""


@contextmanager
def liar(unit: Unit, how: str, user: str = USER) -> Iterator[subprocess.Popen[str]]:
    """Run somebody who answers instead of a daemon."""
    path = unit.runtime / place.socket_name(str(unit.mountpoint))
    command = as_user(user, [sys.executable, "-c", textwrap.dedent(LIAR), str(path), how])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("other", "something else than /dev/fuse"),
        ("file", "something else than /dev/fuse"),
        ("none", "hands nothing over"),
        ("two", "hands nothing over|mounted"),
        ("nonsense", "does not make sense"),
        ("silent", "does not answer"),
        ("hangs", "does not answer"),
        ("idle", "does not answer"),
        ("begins", "does not answer"),
        ("refuses", "no"),
    ],
)
def test_a_daemon_that_lies(unit: Unit, how: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it hands over or does not, root's part ends soon, in a word, and leaves no mount."""
    monkeypatch.setattr(client, "_HAND_OVER_S", 0.3)
    monkeypatch.setattr(attach, "_ANSWER_S", 0.3)
    with liar(unit, how) as process:
        before = set(os.listdir("/proc/self/fd"))
        threads = threading.active_count()
        service = attach.Service(UID, GID, process.pid)
        with pytest.raises(MountError, match=message):
            attach.attach(service, MountOptions(unit.mountpoint), "liar")
        assert not mounted_at(unit.mountpoint)
        wait_until(lambda: set(os.listdir("/proc/self/fd")) <= before, "no descriptor is kept", 5)
        wait_until(lambda: threading.active_count() <= threads, "no question waits any more", 5)


def test_somebody_else_answers(unit: Unit) -> None:
    """Neither another process of the user nor another user is taken for the daemon."""
    options = MountOptions(unit.mountpoint)
    with liar(unit, "idle") as process:
        with pytest.raises(MountError, match="another process"):
            attach.attach(attach.Service(UID, GID, os.getpid()), options, "liar")
        with pytest.raises(MountError, match="no control socket"):
            attach.attach(attach.Service(1, 1, process.pid), options, "liar")
        os.chown(unit.runtime, 1, 1)
        with pytest.raises(MountError, match="somebody else"):
            attach.attach(attach.Service(1, 1, process.pid), options, "liar")
        os.chown(unit.runtime, UID, GID)
        assert not ended(process.pid)
    assert not mounted_at(unit.mountpoint)
