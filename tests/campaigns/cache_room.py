"""A cache that has no room, no inodes, no rights or no descriptors: every read goes on all the same.

Each scene mounts the image, reads it as a whole and at random places, and reads it again.
"""

import contextlib
import random
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jigdofs.wiring.foundation import LEAST_DESCRIPTORS
from tests.campaigns.cache_image import MountedImage
from tests.kit.mounts import PROGRAM
from tests.kit.requirements import tool

_RANDOM_READS = 20
_USER = "nobody"
_DESCRIPTORS = (24, 32, 48, 64, 96, 128, 192, 256)
_RIGHTS = (
    ("", 0o500),
    ("objects", 0o000),
    ("objects/md5", 0o500),
    ("incoming", 0o500),
    ("sessions", 0o500),
    ("index", 0o500),
    ("index/cache.db", 0o400),
    ("index/cache.db", 0o000),
    ("used", 0o000),
    ("turns", 0o000),
)

Scene = Callable[[MountedImage], None]


@contextlib.contextmanager
def tmpfs(options: str) -> Iterator[Path]:
    """Mount a small tmpfs (root only)."""
    directory = Path(tempfile.mkdtemp(prefix="campaign-tmpfs-"))
    mount = [tool("mount"), "-t", "tmpfs", "-o", f"mode=0700,{options}", "campaign", str(directory)]
    subprocess.run(mount, check=True)
    try:
        yield directory
    finally:
        subprocess.run([tool("umount"), "--lazy", str(directory)], check=True)
        directory.rmdir()


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(64 << 10))


def read_all(image: MountedImage, what: str) -> None:
    """Read the whole, then here and there, then the whole again."""
    source = random.Random(what)
    image.read_whole(what)
    for _ in range(_RANDOM_READS):
        image.read_somewhere(source, what)
    image.read_whole(f"{what}, again")


def full_from_the_start(image: MountedImage) -> None:
    """The disk of the cache has not a byte left."""
    with tmpfs("size=4m") as disk:
        fill(disk / "filler")
        with image.mounted(disk / "cache", "--cache-min-free=0"):
            read_all(image, "full from the start")


def full_meanwhile(image: MountedImage) -> None:
    """The disk fills, and empties, and fills while parts are being written."""
    with tmpfs("size=6m") as disk:
        filler, stop = disk / "filler", threading.Event()

        def fill_and_empty() -> None:
            while not stop.is_set():
                fill(filler)
                filler.unlink(missing_ok=True)

        with image.mounted(disk / "cache", "--cache-min-free=0", "--cache-max-size=off"):
            other = threading.Thread(target=fill_and_empty)
            other.start()
            try:
                for number in range(3):
                    read_all(image, f"full now and then {number}")
            finally:
                stop.set()
                other.join()


def small_disk(image: MountedImage) -> None:
    """The disk is smaller than the image; what nobody has open makes way."""
    with tmpfs("size=5m") as disk, image.mounted(disk / "cache", "--cache-min-free=0"):
        read_all(image, "a small disk")


def no_inodes(image: MountedImage) -> None:
    """The disk has room, and no inodes left: from the start, or after a few files."""
    for count in (3, 12, 30, 60):
        with tmpfs(f"size=64m,nr_inodes={count}") as disk, image.mounted(disk / "cache"):
            read_all(image, f"{count} inodes")


def small_quota(image: MountedImage) -> None:
    """The quota is smaller than one part, or than all of them."""
    for size in ("0", "4K", "100K", "2M"):
        cache = image.directory / f"cache-{size}"
        with image.mounted(cache, f"--cache-max-size={size}"):
            read_all(image, f"a quota of {size}")
            kept = sum(path.lstat().st_size for path in (cache / "objects").rglob("*") if path.is_file())
            limit = int(size.replace("K", "000").replace("M", "000000")) * 1.05
            if kept > limit:
                image.found.ended.append(f"a quota of {size}: {kept} bytes are kept")


def read_only(image: MountedImage) -> None:
    """A cache that was filled lies on a read-only mount."""
    cache, view = image.directory / "cache-ro", image.directory / "view"
    with image.mounted(cache):
        read_all(image, "to be read-only")
    view.mkdir()
    subprocess.run([tool("mount"), "--bind", str(cache), str(view)], check=True)
    try:
        subprocess.run([tool("mount"), "-o", "remount,ro,bind", str(view)], check=True)
        with image.mounted(view):
            read_all(image, "read-only")
    finally:
        subprocess.run([tool("umount"), "--lazy", str(view)], check=True)


def rights_of_a_user(image: MountedImage) -> None:
    """A user may not read, enter or write to what is in his cache, or to all of it."""
    cache = image.directory / "cache-user"
    cache.mkdir(mode=0o700)
    shutil.chown(cache, _USER)
    with image.mounted(cache, user=_USER):
        image.read_whole_of(_USER, "of a user")
    for name, mode in _RIGHTS:
        path = cache / name
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        with image.mounted(cache, user=_USER):
            image.read_whole_of(_USER, f"of a user, {name} {mode:#o}")
        if path.exists():
            path.chmod(before)
    for file in sorted((cache / "objects").rglob("*")):
        file.chmod(0o000 if file.is_file() else 0o700)
    with image.mounted(cache, user=_USER):
        image.read_whole_of(_USER, "of a user, unreadable files")


def few_descriptors(image: MountedImage, counts: Sequence[int] = _DESCRIPTORS) -> None:
    """With too few descriptors it is refused in one line that says how many are needed; else all is read."""
    point = image.directory / "mnt"
    point.mkdir(exist_ok=True)
    for count in counts:
        limited = ("sh", "-c", f'ulimit -n {count}; exec "$@"', "sh", *PROGRAM)
        command = [*limited, "mount", image.url, str(point), "--foreground", "--no-cache"]
        if count < LEAST_DESCRIPTORS:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            lines = done.stderr.splitlines()
            if done.returncode == 0 or len(lines) != 1 or "ulimit -n" not in lines[0]:
                image.found.ended.append(f"{count} descriptors: {done.returncode}, {lines[-5:]}")
            continue
        with image.mounted(image.directory / f"cache-{count}", program=limited):
            what = f"{count} descriptors"
            threads = [threading.Thread(target=read_all, args=(image, f"{what}, {n}")) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


SCENES: tuple[Scene, ...] = (
    full_from_the_start,
    full_meanwhile,
    small_disk,
    no_inodes,
    small_quota,
    read_only,
    rights_of_a_user,
    few_descriptors,
)
