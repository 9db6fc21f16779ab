"""`jigdofs loop`: an image on a loop device, what is inside mounted by the kernel, and all of it undone."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted, detach_everything, mounted_at
from tests.kit.requirements import require_fuse, require_root, tool
from tests.kit.scenes import Program, daemon_pid, detached, ended, loop_devices, wait_until

ORDINARY = "nobody"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    require_root()
    require_fuse()
    return Program(tmp_path)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount on; at the end nothing is mounted there."""
    directory = tmp_path / "inside"
    directory.mkdir()
    yield directory
    while mounted_at(directory):
        subprocess.run([tool("umount"), "--lazy", str(directory)], check=True)


@contextmanager
def mounted(program: Program, *images: BuiltImage, at: Path, cache: Path | None = None) -> Iterator[Path]:
    """Mount images that are all here; at the end no loop device is left on them, and nothing mounted."""
    at.mkdir(exist_ok=True)
    options = ["--cache-dir", str(cache or program.home / "cache")]
    try:
        with detached(program, *(image.jigdo for image in images), *options, mountpoint=at) as done:
            assert done.returncode == 0, done
            yield at
    finally:
        for device in loop_devices(at):
            subprocess.run([tool("losetup"), "--detach", device], check=False)
        detach_everything(at)


def test_mounted_with_direct_io_and_undone_in_order(
    program: Program, squashfs_md5: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """What is inside is there, read past the page cache and read-only; one umount takes all of it away."""
    with mounted(program, squashfs_md5, at=tmp_path / "mnt") as mnt:
        done = program("loop", mnt, inside)
        assert (done.returncode, done.stderr) == (0, "")
        (device,) = loop_devices(mnt)
        image = mnt / squashfs_md5.image.name
        assert done.stdout == f"mounted squashfs of {image} at {inside} ({device})\n"
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
            subprocess.run([tool("umount"), str(inside)], check=True)
        assert not mounted_at(inside)
        wait_until(lambda: not loop_devices(mnt), "the device is detached")
        assert mounted_at(mnt)


def test_only_a_device(program: Program, ext4_sha256: BuiltImage, tmp_path: Path) -> None:
    """Without a directory the device is printed and holds the image; umount detaches it first."""
    with mounted(program, ext4_sha256, at=tmp_path / "mnt") as mnt:
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
            assert (
                line == f"jigdofs: {inside} is in use: process {os.getpid()} (pytest)"
                or str(os.getpid()) in line
            )
            assert mounted_at(inside)
            assert mounted_at(mnt)
            assert file.read(1)
            assert program("umount", "--lazy", mnt).returncode == 0
            assert not mounted_at(inside)
            assert not mounted_at(mnt)
        wait_until(lambda: ended(pid), "the daemon's end")


def test_a_daemon_that_died_is_cleaned_up(
    program: Program, squashfs_md5: BuiltImage, inside: Path, tmp_path: Path
) -> None:
    """After kill -9 of the daemon umount takes away what is inside, the device and the dead mount."""
    with mounted(program, squashfs_md5, at=tmp_path / "mnt") as mnt:
        assert program("loop", mnt, inside).returncode == 0
        pid = daemon_pid(mnt)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ended(pid), "the daemon's death")
        assert program.fails("loop", mnt, code=4) == (
            f"jigdofs: {mnt}: its daemon has ended; `jigdofs umount {mnt}' first"
        )
        done = program("umount", mnt)
        assert (done.returncode, done.stderr) == (0, "")
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


def test_an_ordinary_user_is_told_that_it_needs_root(
    program: Program, squashfs_md5: BuiltImage, public_dir: Path, tmp_path: Path
) -> None:
    """A user who may look into the mount hears that loop devices are root's."""
    require_fuse(ORDINARY)
    (tmp_path / "mnt").mkdir()
    other = Program(public_dir, ORDINARY)
    mnt = public_dir / "mnt"
    mnt.mkdir()
    options = ["--no-cache", "-o", "allow_other"]
    with detached(program, squashfs_md5.jigdo, *options, mountpoint=mnt) as done:
        assert done.returncode == 0, done
        assert other.fails("loop", mnt, code=4) == "jigdofs: loop devices need root: `sudo jigdofs loop ...'"


def test_root_is_told_of_a_mount_that_lets_nobody_in(
    program: Program, squashfs_md5: BuiltImage, public_dir: Path
) -> None:
    """Root may not look into another user's mount; who that is and what to do is said."""
    require_fuse(ORDINARY)
    copy = squashfs_md5.with_servers(public_dir / "in", {"Debian": f"file:{squashfs_md5.pool}/"})
    with Mounted(copy.jigdo, public_dir / "mnt", ["--no-cache"], user=ORDINARY) as mounted_by_him:
        line = program.fails("loop", mounted_by_him.mountpoint, code=4)
        assert f"as {ORDINARY} mounted it; mount it again with -o allow_other" in line
