"""`jigdofs umount` where the daemon is stopped or dead: it ends soon, and says what is left to do."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from jigdofs.cli import umount
from jigdofs.control import place
from tests.kit.faults import Stall
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted, detach_everything, mounted_at
from tests.kit.namespaces import in_namespace
from tests.kit.requirements import require_root, tool
from tests.kit.scenes import Program, ended, lonely, wait_until

PROMPTLY_S = 10.0


@pytest.fixture
def program(tmp_path: Path) -> Program:
    home = tmp_path / "home"
    home.mkdir()
    return Program(home)


def cache(tmp_path: Path) -> list[str]:
    return ["--cache-dir", str(tmp_path / "cache")]


def sockets(mount: Mounted) -> list[Path]:
    """Return the control sockets of a mount, which come a moment after it."""

    def found() -> list[Path]:
        return place.find(str(mount.mountpoint), os.geteuid())

    wait_until(found, "the socket")
    return found()


def test_a_stopped_daemon(iso_md5: BuiltImage, tmp_path: Path, program: Program) -> None:
    """The mount goes at once, and how the daemon goes is said; let go on, it ends well."""
    with Mounted(iso_md5.jigdo, tmp_path / "mnt", cache(tmp_path)) as mount:
        pid = mount.process.pid
        assert len(sockets(mount)) == 1
        mount.process.send_signal(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            done = program("umount", mount.mountpoint)
            assert time.monotonic() - begun < PROMPTLY_S
            assert not mounted_at(mount.mountpoint)
        finally:
            mount.process.send_signal(signal.SIGCONT)
        assert done.returncode == 0, done
        (line,) = done.stderr.splitlines()
        assert line.startswith(
            f"jigdofs: warning: {mount.mountpoint}: unmounted, but its daemon, process {pid}, "
        )
        assert f"`kill -CONT {pid}'" in line
        assert mount.process.wait(20) == 0


def test_a_stopped_daemon_without_a_socket(iso_md5: BuiltImage, tmp_path: Path, program: Program) -> None:
    """Where only the mount itself could tell who serves it, it is asked for some seconds at most."""
    with Mounted(iso_md5.jigdo, tmp_path / "mnt", cache(tmp_path)) as mount:
        for path in sockets(mount):
            path.unlink()
        mount.process.send_signal(signal.SIGSTOP)
        try:
            line = program.fails("umount", mount.mountpoint, code=4)
        finally:
            mount.process.send_signal(signal.SIGCONT)
        assert "does not answer" in line
        assert "--lazy" in line


def test_a_stopped_daemon_in_use(iso_md5: BuiltImage, tmp_path: Path, program: Program) -> None:
    """Who holds the mount is named, though the daemon answers nothing."""
    with Mounted(iso_md5.jigdo, tmp_path / "mnt", cache(tmp_path)) as mount:
        image = mount.mountpoint / iso_md5.image.name
        assert len(sockets(mount)) == 1
        # in a process of its own: closing the file asks the daemon
        command = ["sh", "-c", 'exec 3<"$0"; echo open; read line', str(image)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            mount.process.send_signal(signal.SIGSTOP)
            try:
                line = program.fails("umount", mount.mountpoint, code=4)
            finally:
                mount.process.send_signal(signal.SIGCONT)
                holder.communicate()
        assert f"process {holder.pid} (sh)" in line
        assert mounted_at(mount.mountpoint)


def test_a_dead_daemon_leaves_no_socket(iso_md5: BuiltImage, tmp_path: Path, program: Program) -> None:
    """What `kill -9` left is gone after umount: the mount, and the socket outside of it."""
    point = tmp_path / "mnt"
    point.mkdir()
    try:
        done = program("mount", iso_md5.jigdo, point, *cache(tmp_path))
        assert done.returncode == 0, done
        pid = int(os.getxattr(point, "user.jigdofs.pid"))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ended(pid), "its death")
        assert place.find(str(point), os.geteuid()) != []
        done = program("umount", point)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert not mounted_at(point)
        assert place.find(str(point), os.geteuid()) == []
    finally:
        detach_everything(point)


def test_a_read_that_nobody_waits_for(
    iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, program: Program
) -> None:
    """A reader was killed while a mirror hung: umount(8) ends mount and daemon all the same."""
    faulty_server.always("/pool/*", Stall())
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    options = [*cache(tmp_path), "--stall-timeout=60s"]
    with Mounted(built.jigdo, tmp_path / "mnt", options, allow_log=["is being stopped"]) as mount:
        part = lonely(iso_md5)[0]
        reader = subprocess.Popen(
            ["dd", f"if={mount.mountpoint}/kit.iso", "bs=1", f"skip={part.offset}", "count=1", "status=none"],
            stdout=subprocess.DEVNULL,
        )
        faulty_server.wait_stalled()
        reader.kill()
        reader.wait()
        subprocess.run([tool("umount"), str(mount.mountpoint)], check=True)
        assert mount.process.wait(PROMPTLY_S) == 0


def test_a_copy_in_another_namespace(iso_md5: BuiltImage, tmp_path: Path, program: Program) -> None:
    """A mount namespace that holds a copy keeps the kernel from telling the daemon: it ends all the same."""
    require_root()
    with Mounted(iso_md5.jigdo, tmp_path / "mnt", cache(tmp_path)) as mount:
        sockets(mount)
        holder = subprocess.Popen(
            in_namespace("echo", ["cat"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with holder:
            assert holder.stdout is not None
            holder.stdout.readline()  # the namespace is there
            done = program("umount", mount.mountpoint)
            assert (done.returncode, done.stderr) == (0, "")
            assert mount.process.wait(5) == 0
            assert holder.stdin is not None
            holder.stdin.close()


@pytest.mark.parametrize(("whose", "code"), [(0, -signal.SIGTERM), (1, 0)])
def test_only_processes_of_the_owner_are_asked_to_end(whose: int, code: int) -> None:
    """The number of the daemon is told by the user who mounted: it may not be that of anybody else."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        daemon = umount._Daemon(process.pid, os.pidfd_open(process.pid), os.geteuid() + whose)
        try:
            daemon.ask_to_end()
        finally:
            os.close(daemon.fd)
            assert process.stdin is not None
            process.stdin.close()
    assert process.returncode == code
