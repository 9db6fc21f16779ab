"""Spool: a file being written never lacks a place, and what comes out is what went in."""

import contextlib
import errno
import functools
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jigdofs.errors import CacheError, NoRoom
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.cache import Cache
from jigdofs.parts.spool import MemoryPlace, Place, Spool, TemporaryPlace
from tests.kit.requirements import lack, require_root, tool

DATA = random.Random(1).randbytes(1_000_000)
SUM = Checksum.of(Algorithm.SHA256, DATA)
KEY = f"sha256-{SUM.hex}"
KIB = 1 << 10


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[[str, int], Path]]:
    """Mount filesystems of a few bytes: `tiny(name, bytes)`."""
    require_root()
    mounted: list[Path] = []

    def mount(name: str, size: int) -> Path:
        target = tmp_path / name
        target.mkdir(mode=0o700)
        command = [tool("mount"), "-t", "tmpfs", "-o", f"size={size},mode=0700", "kit", str(target)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            lack("mounting is not permitted here")
        mounted.append(target)
        return target

    yield mount
    for target in mounted:
        subprocess.run([tool("umount"), "-l", target], check=True)  # a failed test may hold it open


class Directory:
    """A place in a directory that finds out by writing how much room there is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept = self.abandoned = 0

    def create(self, length: int) -> int:
        return os.open(self.path / "spool", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)

    def keep(self, fd: int) -> None:
        self.kept += 1

    def abandon(self, fd: int) -> None:
        self.abandoned += 1
        (self.path / "spool").unlink()


class Broken:
    """A place that takes nothing."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def create(self, length: int) -> int:
        raise self.error

    def keep(self, fd: int) -> None:
        raise AssertionError

    def abandon(self, fd: int) -> None:
        raise AssertionError


def spool_of(*places: Place, length: int = len(DATA)) -> Spool:
    return Spool(length, places, Algorithm.SHA256.hasher)


def filled(spool: Spool, data: bytes = DATA, step: int = 64 * KIB) -> bytes:
    """Write everything, finish, and return what the file holds."""
    try:
        for at in range(0, len(data), step):
            spool.write(data[at : at + step])
        assert spool.received == len(data)
        assert spool.checksum() == Checksum.of(Algorithm.SHA256, data)
        file = spool.finish()
    finally:
        spool.abandon()
    try:
        assert file.unchanged()
        return os.pread(file.fd, len(data) + 1, 0)
    finally:
        file.discard()


@pytest.mark.parametrize("step", [1000, 64 * KIB, len(DATA)])
def test_first_place(tmp_path: Path, step: int) -> None:
    """The first place takes the file and keeps it."""
    place = Directory(tmp_path)
    assert filled(spool_of(place, Broken(AssertionError())), step=step) == DATA
    assert (place.kept, place.abandoned) == (1, 0)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), CacheError("no room"), OSError(errno.EROFS, "ro")]
)
def test_place_that_takes_nothing(error: Exception) -> None:
    """A place that takes nothing is passed over."""
    assert filled(spool_of(Broken(error), Broken(error), MemoryPlace(1 << 30))) == DATA


def test_nowhere() -> None:
    """Where no place takes the file the error says so, at the first byte and at every later one."""
    spool = spool_of(Broken(OSError(errno.ENOSPC, "full")))
    for _ in range(2):
        with pytest.raises(NoRoom, match="no room for 1000000 bytes"):
            spool.write(b"x")
    spool.abandon()


def test_restart(tmp_path: Path) -> None:
    """After a restart nothing of the former bytes is left, even if they were more."""
    place = Directory(tmp_path)
    spool = spool_of(place)
    spool.write(DATA)
    spool.restart()
    assert spool.received == 0
    assert filled(spool, DATA[5000:9000]) == DATA[5000:9000]


def test_too_many_bytes() -> None:
    """More bytes than the file may have are refused before any is written."""
    spool = spool_of(MemoryPlace(1 << 30), length=10)
    spool.write(b"12345")
    with pytest.raises(ValueError, match="more bytes"):
        spool.write(b"678901")
    assert spool.received == 5
    spool.abandon()


def test_empty_file(tmp_path: Path) -> None:
    """A file without a byte is one too."""
    place = Directory(tmp_path)
    assert filled(spool_of(place, length=0), b"") == b""
    assert place.kept == 1


def test_abandon(tmp_path: Path) -> None:
    """An abandoned spool leaves neither a file nor a descriptor; after finish() abandon() does nothing."""
    before = len(os.listdir("/proc/self/fd"))
    place = Directory(tmp_path)
    spool = spool_of(place)
    spool.write(b"x")
    spool.abandon()
    spool.abandon()
    assert place.abandoned == 1
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before
    spool_of(place).abandon()
    assert place.abandoned == 1


@pytest.mark.parametrize("room", [4 * KIB, 64 * KIB, 300 * KIB, 960 * KIB])
@pytest.mark.parametrize("step", [10_000, 64 * KIB, len(DATA)])
def test_disk_becomes_full(tiny: Callable[[str, int], Path], room: int, step: int) -> None:
    """When a real disk is full the spool goes on in memory with the bytes that were written already."""
    place = Directory(tiny("disk", room))
    assert filled(spool_of(place, MemoryPlace(1 << 30)), step=step) == DATA
    assert (place.kept, place.abandoned) == (0, 1)


def test_two_disks_become_full(tiny: Callable[[str, int], Path]) -> None:
    """A second disk that fills up while the first one's bytes are copied to it is passed over likewise."""
    places = Directory(tiny("first", 600 * KIB)), Directory(tiny("second", 300 * KIB))
    assert filled(spool_of(*places, MemoryPlace(1 << 30))) == DATA
    assert [place.abandoned for place in places] == [1, 1]


def test_both_places_on_one_disk(tiny: Callable[[str, int], Path]) -> None:
    """Room that comes and goes while bytes are copied on one full disk leaves no hole in the file."""
    disk = tiny("disk", 1000 * KIB)
    for name in ("first", "second"):
        (disk / name).mkdir()
    filler = disk / "filler"
    filler.write_bytes(bytes(300 * KIB))

    class SomeRoom(Directory):
        def create(self, length: int) -> int:
            os.truncate(filler, 200 * KIB)  # as if somebody had just removed something
            return super().create(length)

    places = Directory(disk / "first"), SomeRoom(disk / "second"), MemoryPlace(1 << 30)
    assert filled(spool_of(*places)) == DATA


def test_full_second_disk(tiny: Callable[[str, int], Path]) -> None:
    """A second disk without room for a single byte is passed over too."""
    places = Directory(tiny("first", 600 * KIB)), Directory(tiny("second", 4 * KIB))
    (places[1].path / "filler").write_bytes(bytes(4 * KIB))
    assert filled(spool_of(*places, MemoryPlace(1 << 30))) == DATA


def test_full_disk_and_nothing_else(tiny: Callable[[str, int], Path]) -> None:
    """A full disk without a second place is an error, and nothing is left behind on it."""
    place = Directory(tiny("disk", 64 * KIB))
    spool = spool_of(place)
    with pytest.raises(NoRoom):
        spool.write(DATA)
    spool.abandon()
    assert list(place.path.iterdir()) == []


def test_cache_on_a_full_disk(
    tiny: Callable[[str, int], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From a cache whose disk is full to the temporary directory, and from that to memory."""
    cache = Cache(tiny("cache", 900 * KIB), max_bytes=None, min_free_bytes=0)
    (tmp_path / "tmp").mkdir()
    small = tiny("small", 64 * KIB)
    for temporary in (tmp_path / "tmp", small):
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        places = cache.place(KEY, SUM), TemporaryPlace(), MemoryPlace(1 << 30)
        assert filled(spool_of(*places)) == DATA
        assert cache.open(KEY, len(DATA), SUM) is None
        assert list(temporary.iterdir()) == []
    assert list((cache.directory / "incoming").iterdir()) == []
    cache.close()


def test_disk_of_the_cache_fills_up(tiny: Callable[[str, int], Path]) -> None:
    """The cache's disk may be filled by others after the room was reserved."""
    cache = Cache(tiny("cache", 2000 * KIB), max_bytes=None, min_free_bytes=0)
    spool = spool_of(cache.place(KEY, SUM), MemoryPlace(1 << 30))
    spool.write(DATA[:100_000])
    with contextlib.suppress(OSError), (cache.directory / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4 * KIB)):
            pass
    spool.write(DATA[100_000:])
    file = spool.finish()
    assert os.pread(file.fd, len(DATA) + 1, 0) == DATA
    file.discard()
    assert list((cache.directory / "incoming").iterdir()) == []
    (cache.directory / "filler").unlink()
    cache.close()


def test_temporary_place_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the temporary directory has no name and is gone when it is closed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = spool_of(TemporaryPlace())
    spool.write(DATA)
    assert list(tmp_path.iterdir()) == []
    assert filled_rest(spool) == DATA


def filled_rest(spool: Spool) -> bytes:
    file = spool.finish()
    try:
        return os.pread(file.fd, len(DATA) + 1, 0)
    finally:
        file.discard()


def test_temporary_directory_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a temporary directory memory serves."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert filled(spool_of(TemporaryPlace(), MemoryPlace(1 << 30))) == DATA


def test_memory_is_limited() -> None:
    """All files in memory together keep to the limit, and room comes back when one is closed."""
    place = MemoryPlace(2_500_000)
    files = []
    for _ in range(2):
        spool = spool_of(place)
        spool.write(DATA)
        files.append(spool.finish())
    with pytest.raises(NoRoom, match="in memory"):
        spool_of(place).write(DATA)
    files.pop().discard()
    assert filled(spool_of(place)) == DATA
    files.pop().discard()


@pytest.mark.logs("cannot keep a file in the cache")
def test_cannot_be_kept(tmp_path: Path) -> None:
    """A file that its place cannot keep is served all the same."""

    class Refusing(Directory):
        def keep(self, fd: int) -> None:
            raise OSError(errno.EROFS, "read-only")

    place = Refusing(tmp_path)
    assert filled(spool_of(place)) == DATA
    assert place.abandoned == 1


def test_what_others_write_meanwhile(tmp_path: Path) -> None:
    """Where a file has a name while it is written, it is not kept once somebody else wrote to it."""

    class Named(TemporaryPlace):
        """A place where others can write, as on filesystems that know no file without a name."""

        def create(self, length: int) -> int:
            return os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR, 0o600)

    for again in (False, True):
        spool = Spool(len(DATA), (Named(),), Algorithm.SHA256.hasher)
        spool.write(DATA if again else DATA[:1000])
        status = (tmp_path / "file").stat()
        with (tmp_path / "file").open("r+b") as file:
            file.write(b"others")
        os.utime(tmp_path / "file", ns=(status.st_atime_ns, status.st_mtime_ns))
        go_on = spool.finish if again else functools.partial(spool.write, DATA[1000:])
        with pytest.raises(CacheError, match="changed by something else"):
            go_on()
        spool.abandon()
