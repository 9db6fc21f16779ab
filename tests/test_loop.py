"""`jigdofs loop`: an image on a loop device, what is inside mounted by the kernel, and all of it undone."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jigdofs.errors import printable
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, Mounted, detach_everything, mounted_at
from tests.kit.requirements import require_fuse, require_root, tool
from tests.kit.scenes import Program, daemon_pid, detached, ended, loop_device, loop_devices, wait_until

ORDINARY = "nobody"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    require_root()
    require_fuse()
    return Program(tmp_path)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount on, of a name that hurts; at the end nothing is mounted there, or below."""
    directory = tmp_path / os.fsdecode(b"in side \xff")
    directory.mkdir()
    yield directory
    while mounted_at(directory):
        subprocess.run([tool("umount"), "--lazy", directory], check=True)


@contextmanager
def mounted(program: Program, *images: BuiltImage, at: Path, cache: Path | None = None) -> Iterator[Path]:
    """Mount images that are all here; at the end no loop device is left on them, and nothing mounted."""
    if not at.exists():
        at.mkdir()
    options = ["--cache-dir", str(cache or program.home / "cache")]
    try:
        with detached(program, *(image.jigdo for image in images), *options, mountpoint=at) as done:
            assert done.returncode == 0, done
            yield at
    finally:
        for device in loop_devices(at):
            subprocess.run([tool("losetup"), "--detach", device], check=False)
        detach_everything(at)


def shown_by(device: str) -> bytes | None:
    """Return the file that a loop device shows, whose name need not be text."""
    try:
        return (Path("/sys/block") / Path(device).name / "loop" / "backing_file").read_bytes()
    except FileNotFoundError:
        return None


def myself() -> str:
    """How this process is named as one that uses something."""
    return f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"


def test_mounted_with_direct_io_and_undone_in_order(
    program: Program, squashfs_md5: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """What is inside is there, read past the page cache and read-only; one umount takes all of it away."""
    with mounted(program, squashfs_md5, at=tmp_path / "mnt") as mnt:
        done = program("loop", mnt, inside)
        assert (done.returncode, done.stderr) == (0, "")
        (device,) = loop_devices(mnt)
        image = mnt / squashfs_md5.image.name
        assert done.stdout == f"mounted squashfs of {image} at {printable(str(inside))} ({device})\n"
        block = Path("/sys/block") / Path(device).name
        assert (block / "loop" / "dio").read_text().strip() == "1"
        assert (block / "ro").read_text().strip() == "1"
        for path in squashfs_md5.parts.values():
            assert (inside / "pool" / path).read_bytes() == (squashfs_md5.pool / path).read_bytes()
        pid = daemon_pid(mnt)
        assert program("umount", mnt).returncode == 0
        assert not mounted_at(inside)
        assert not mounted_at(mnt)
        wait_until(lambda: not loop_devices(mnt), "the device is detached")
        wait_until(lambda: ended(pid), "the daemon's end")


@pytest.mark.parametrize("ours", [True, False], ids=["jigdofs", "umount(8)"])
def test_only_what_is_inside_is_unmounted(
    program: Program, ext4_sha256: BuiltImage, inside: Path, tmp_path: Path, *, ours: bool
) -> None:
    """Unmounting the directory takes its loop device along and leaves the image mounted, whoever does it."""
    with mounted(program, ext4_sha256, at=tmp_path / "mnt") as mnt:
        assert program("loop", mnt / ext4_sha256.image.name, inside).returncode == 0
        if ours:
            assert program("umount", inside).returncode == 0
        else:
            subprocess.run([tool("umount"), inside], check=True)
        assert not mounted_at(inside)
        wait_until(lambda: not loop_devices(mnt), "the device is detached")
        assert mounted_at(mnt)


@pytest.mark.parametrize("single", [False, True], ids=["directory", "file"])
def test_only_a_device(program: Program, ext4_sha256: BuiltImage, tmp_path: Path, *, single: bool) -> None:
    """Without a directory the device is printed and holds the image; umount detaches it first."""
    at = tmp_path / "mnt"
    if single:
        at.touch()
    with mounted(program, ext4_sha256, at=at) as mnt:
        done = program("loop", mnt)
        (device,) = loop_devices(mnt)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{device}\n", "")
        with open(device, "rb") as file:
            assert file.read(1 << 20) == ext4_sha256.image.read_bytes()[: 1 << 20]
        assert program("umount", mnt).returncode == 0
        assert loop_devices(mnt) == []


def test_what_is_in_use_stays_as_it_is(
    program: Program, squashfs_md5: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """While somebody has a file inside open nothing is taken away, and he is named; lazily it all goes."""
    with mounted(program, squashfs_md5, at=tmp_path / "mnt") as mnt:
        assert program("loop", mnt, inside).returncode == 0
        pid = daemon_pid(mnt)
        with next(path for path in inside.rglob("*.deb")).open("rb") as file:
            line = program.fails("umount", mnt, code=4)
            assert line == f"jigdofs: {printable(str(inside))} is in use: {myself()}"
            assert mounted_at(inside)
            assert mounted_at(mnt)
            assert file.read(1)
            assert program("umount", "--lazy", mnt).returncode == 0
            assert not mounted_at(inside)
            assert not mounted_at(mnt)
        wait_until(lambda: ended(pid), "the daemon's end")


def test_a_device_that_somebody_reads(program: Program, squashfs_md5: BuiltImage, tmp_path: Path) -> None:
    """Who has a device itself open is named, and the image stays mounted until he is done."""
    with mounted(program, squashfs_md5, at=tmp_path / "mnt") as mnt:
        device = program("loop", mnt).stdout.strip()
        with open(device, "rb") as file:
            assert program.fails("umount", mnt, code=4) == f"jigdofs: {device} is in use: {myself()}"
            assert file.read(1)
        assert program("umount", mnt).returncode == 0


def test_images_in_images_go_deepest_first(
    program: Program, squashfs_md5: BuiltImage, ext4_sha256: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """A file system mounted below another, and a device over a file inside, are undone before that."""
    with mounted(program, squashfs_md5, ext4_sha256, at=tmp_path / "mnt") as mnt:
        assert program("loop", mnt / squashfs_md5.image.name, inside).returncode == 0
        file = max(inside.rglob("*.deb"), key=lambda path: path.stat().st_size)
        command = [tool("losetup"), "--find", "--show", "--read-only", str(file)]
        device = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        attached = shown_by(device)
        assert attached is not None
        try:
            assert program("loop", mnt / ext4_sha256.image.name, inside / "pool").returncode == 0
            assert len(loop_devices(mnt)) == 2
            assert program("umount", mnt).returncode == 0
            assert shown_by(device) != attached
        finally:
            if shown_by(device) == attached:
                subprocess.run([tool("losetup"), "--detach", device], check=True)
        assert loop_devices(mnt) == []
        assert not mounted_at(inside / "pool")
        assert not mounted_at(inside)
        assert not mounted_at(mnt)


def test_what_others_mounted_is_named_and_left_alone(
    program: Program, squashfs_md5: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """A tmpfs below the directory, or over it, is in the way: nothing is taken away."""
    with mounted(program, squashfs_md5, at=tmp_path / "mnt") as mnt:
        assert program("loop", mnt, inside).returncode == 0
        for place in (inside / "pool", inside):
            subprocess.run([tool("mount"), "-t", "tmpfs", "kit-in-the-way", place], check=True)
            try:
                line = program.fails("umount", mnt, code=4)
                assert "tmpfs is mounted" in line
                assert printable(str(place)) in line
                assert mounted_at(place)
            finally:
                subprocess.run([tool("umount"), place], check=True)
            assert mounted_at(inside)
            assert len(loop_devices(mnt)) == 1
        assert program("umount", mnt).returncode == 0
        assert not mounted_at(inside)


def test_nothing_hangs_while_the_daemon_hangs(
    program: Program, squashfs_md5: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """Of a stopped daemon's mount loop says that it does not answer; what is inside can be unmounted."""
    with mounted(program, squashfs_md5, at=tmp_path / "mnt") as mnt:
        assert program("loop", mnt, inside).returncode == 0
        image = mnt / squashfs_md5.image.name
        pid = daemon_pid(mnt)
        os.kill(pid, signal.SIGSTOP)
        try:
            done = program("loop", image, timeout_s=30)
            # by now the kernel has forgotten what it knew of the mount, and would ask
            assert program("umount", inside, timeout_s=30).returncode == 0
        finally:
            os.kill(pid, signal.SIGCONT)
        # which of them, depends on what the kernel remembers
        assert done.stderr in [f"jigdofs: {path}: does not answer\n" for path in (mnt, image)]
        assert done.returncode == 4
        assert not mounted_at(inside)
        wait_until(lambda: not loop_devices(mnt), "the device is detached")


def test_a_daemon_that_died_is_cleaned_up(
    program: Program, squashfs_md5: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """After kill -9 of the daemon umount takes away what is inside, the device and the dead mount."""
    with mounted(program, squashfs_md5, at=tmp_path / "mnt") as mnt:
        assert program("loop", mnt, inside).returncode == 0
        assert program("loop", mnt).returncode == 0
        assert len(loop_devices(mnt)) == 2
        pid = daemon_pid(mnt)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ended(pid), "the daemon's death")
        assert program.fails("loop", mnt, code=4) == (
            f"jigdofs: {mnt}: its daemon has ended; `jigdofs umount {mnt}' first"
        )
        done = program("umount", mnt)
        assert (done.returncode, done.stderr) == (0, "")
        assert loop_devices(mnt) == []
        assert not mounted_at(inside)
        assert not mounted_at(mnt)


def test_an_iso_needs_iso9660(program: Program, iso_md5: BuiltImage, inside: Path, tmp_path: Path) -> None:
    """Where the kernel knows iso9660 the ISO is mounted; where not, that is said and nothing is left."""
    with mounted(program, iso_md5, at=tmp_path / "mnt") as mnt:
        done = program("loop", mnt, inside)
        if done.returncode == 0:
            assert "mounted iso9660" in done.stdout
            assert program("umount", inside).returncode == 0
        else:
            assert done.returncode == 4
            assert done.stderr.startswith("jigdofs: the kernel knows no iso9660: `modprobe iso9660'")
            assert "jigdofs mount --contents" in done.stderr
            assert not mounted_at(inside)
        wait_until(lambda: not loop_devices(mnt), "the device is detached")


def test_what_cannot_be_meant(
    program: Program, iso_md5: BuiltImage, squashfs_md5: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """Each mistake is one line that says what to do, and leaves no device behind."""
    with mounted(program, iso_md5, squashfs_md5, at=tmp_path / "mnt") as mnt:
        names = ", ".join(sorted((iso_md5.image.name, squashfs_md5.image.name)))
        assert program.fails("loop", mnt, code=3).endswith(f"shows 2 images; name one: {names}")
        image = mnt / squashfs_md5.image.name
        assert program.fails("loop", image, tmp_path / "none", code=4).endswith(
            "is no directory; make it first"
        )
        assert program.fails("loop", image, squashfs_md5.jigdo, code=4).endswith("is no directory")
        assert "is mounted there already" in program.fails("loop", image, mnt, code=4)
        assert "No such file" in program.fails("loop", mnt / "none.iso", code=4)
        assert "is no mount point of jigdofs" in program.fails("loop", tmp_path, inside, code=4)
        assert loop_devices(mnt) == []


def test_without_the_means_for_it(
    program: Program, squashfs_md5: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """Where losetup or the kernel's loop devices are missing, that is said."""
    with mounted(program, squashfs_md5, at=tmp_path / "mnt") as mnt:
        bare = Program(tmp_path, environ={"PATH": str(tmp_path)})
        assert bare.fails("loop", mnt, inside, code=4).endswith("losetup is not installed (package mount)")
        without_dev = [tool("unshare"), "--mount", "--propagation=private", "sh", "-c"]
        without_dev += ['mount -t tmpfs none /dev && exec "$@"', "sh"]
        done = subprocess.run(
            [*without_dev, *PROGRAM, "loop", mnt, inside],
            env=program.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 4, done
        assert done.stderr.startswith("jigdofs: there is no /dev/loop-control: `modprobe loop'")
        assert not mounted_at(inside)


def test_an_ordinary_user_is_told_that_it_needs_root(
    program: Program, squashfs_md5: BuiltImage, public_dir: Path
) -> None:
    """A user who may look into the mount hears that loop devices are root's, and cannot take one away."""
    require_fuse(ORDINARY)
    other = Program(public_dir, ORDINARY)
    mnt = public_dir / "mnt"
    mnt.mkdir()
    options = ["--no-cache", "-o", "allow_other"]
    with detached(program, squashfs_md5.jigdo, *options, mountpoint=mnt) as done:
        assert done.returncode == 0, done
        assert other.fails("loop", mnt, code=4) == "jigdofs: loop devices need root: `sudo jigdofs loop ...'"
        with loop_device(mnt / squashfs_md5.image.name) as device:
            assert f"losetup -d {device}" in other.fails("umount", mnt, code=4)
            assert loop_devices(mnt) == [device]
            assert mounted_at(mnt)


def test_root_is_told_of_a_mount_that_lets_nobody_in(
    program: Program, squashfs_md5: BuiltImage, public_dir: Path
) -> None:
    """Root may not look into another user's mount; who that is and what to do is said."""
    require_fuse(ORDINARY)
    copy = squashfs_md5.with_servers(public_dir / "in", {"Debian": f"file:{squashfs_md5.pool}/"})
    with Mounted(copy.jigdo, public_dir / "mnt", ["--no-cache"], user=ORDINARY) as mounted_by_him:
        line = program.fails("loop", mounted_by_him.mountpoint, code=4)
        assert f"as {ORDINARY} mounted it; mount it again with -o allow_other" in line
