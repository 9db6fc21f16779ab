"""Opening cached files without waiting: what can be opened so is right, whatever lies there."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts import notes
from jigdofs.parts.cache import Cache
from jigdofs.parts.open_at_once import can_open_at_once, open_at_once
from jigdofs.parts.spool import Spool
from jigdofs.parts.used import UsedTimes

DATA = b"a part" * 1000
CHECKSUM = Checksum.of(Algorithm.SHA256, DATA)
KEY = f"sha256-{CHECKSUM.hex}"


def open_cache(directory: Path) -> Cache:
    return Cache(directory, max_bytes=None, min_free_bytes=0)


def put(cache: Cache, data: bytes = DATA) -> str:
    checksum = Checksum.of(Algorithm.SHA256, data)
    key = f"sha256-{checksum.hex}"
    spool = Spool(len(data), (cache.place(key, checksum),), Algorithm.SHA256.hasher)
    spool.write(data)
    spool.finish().discard()
    return key


def content(cache: Cache, key: str = KEY, length: int = len(DATA)) -> bytes | None:
    """Return what is opened at once."""
    file = cache.open_at_once(key, length)
    if file is None:
        return None
    try:
        return os.pread(file.fd, length + 1, 0)
    finally:
        file.discard()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = open_cache(tmp_path / "cache")
    yield cache
    cache.close()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[int]:
    """Give an open directory with a file in it, one below, and links to both and to what lies outside."""
    (tmp_path / "outside").write_text("outside")
    directory = tmp_path / "tree"
    (directory / "below").mkdir(parents=True)
    (directory / "below" / "file").write_text("inside")
    (directory / "link").symlink_to("below/file")
    (directory / "directory-link").symlink_to("below")
    (directory / "out").symlink_to(tmp_path / "outside")
    for path in directory.rglob("*"):
        path.stat()  # its name is in the kernel's memory
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_open_below(tree: int) -> None:
    """A file that the kernel knows of is opened, for reading only, and not kept by programs that we start."""
    assert can_open_at_once(tree), "tests run on a kernel that has openat2"
    fd = open_at_once(tree, b"below/file")
    assert os.read(fd, 100) == b"inside"
    assert not os.get_inheritable(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    os.close(fd)


@pytest.mark.parametrize(
    "path", [b"link", b"directory-link/file", b"out", b"../outside", b"/etc/passwd", b"no"]
)
def test_nothing_else_is_opened(tree: int, path: bytes) -> None:
    """Neither a link, nor what lies outside, nor what is not there is opened."""
    with pytest.raises(OSError):
        open_at_once(tree, path)


def test_kept_file(cache: Cache) -> None:
    """A file that this process kept is opened at once, any other is not."""
    assert content(cache) is None
    put(cache)
    assert content(cache) == DATA
    assert content(cache, length=len(DATA) - 1) is None
    assert content(cache, f"sha256-{'0' * 64}") is None
    assert content(cache, "no key at all") is None


@pytest.mark.parametrize("how", ["byte", "shorter", "replaced", "link", "directory", "fifo", "gone"])
def test_changed_file(cache: Cache, tmp_path: Path, how: str) -> None:
    """Whatever somebody did to a file or put in its place is not opened."""
    put(cache)
    path = cache.path(KEY)
    if how == "byte":
        path.write_bytes(b"A" + DATA[1:])
    elif how == "shorter":
        os.truncate(path, 5)
    else:
        path.unlink()
        other = tmp_path / "other"
        other.write_bytes(DATA)
        match how:
            case "replaced":
                other.rename(path)
            case "link":
                path.symlink_to(other)
            case "directory":
                path.mkdir()
            case "fifo":
                os.mkfifo(path)
    assert content(cache) is None


def test_learnt_file(tmp_path: Path) -> None:
    """What an earlier session noted before it ended cleanly is opened at once when it was looked up."""
    cache = open_cache(tmp_path / "cache")
    put(cache)
    cache.close()
    cache = open_cache(tmp_path / "cache")
    assert content(cache) is None
    cache.learn([f"sha256-{'0' * 64}", KEY, "document"])
    assert content(cache) == DATA
    cache.close()


def test_opened_is_learnt(tmp_path: Path) -> None:
    """What was opened the slow way is opened at once the next time."""
    cache = open_cache(tmp_path / "cache")
    put(cache)
    cache.close()
    cache = open_cache(tmp_path / "cache")
    file = cache.open(KEY, len(DATA), CHECKSUM)
    assert file is not None
    file.discard()
    assert content(cache) == DATA
    cache.close()


def test_killed_session_is_not_learnt(tmp_path: Path) -> None:
    """What a session noted that did not end cleanly is verified first."""
    pid = os.fork()
    if not pid:
        cache = open_cache(tmp_path / "cache")
        put(cache)
        cache.flush()
        os._exit(0)  # like a kill: nothing is closed
    os.waitpid(pid, 0)
    cache = open_cache(tmp_path / "cache")
    cache.learn([KEY])
    assert content(cache) is None
    file = cache.open(KEY, len(DATA), CHECKSUM)
    assert file is not None
    file.discard()
    assert content(cache) == DATA
    cache.close()


def test_use_is_marked(cache: Cache) -> None:
    """A file that is opened at once counts as used, for the eviction, and stays believed."""
    put(cache)
    status = cache.path(KEY).stat()
    before = time.time_ns()
    assert content(cache) == DATA
    cache.flush()
    directory = os.open(cache.directory, os.O_RDONLY)
    times = UsedTimes(directory)
    assert before <= times.all().ns(KEY) <= time.time_ns()
    times.close()
    os.close(directory)
    assert cache.path(KEY).stat() == status
    assert content(cache) == DATA


def test_memory_is_bounded(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many files all are looked up anew: what is known does not grow with time."""
    monkeypatch.setattr(notes, "MAX_BELIEVED", 3)
    keys = [put(cache, bytes([number]) * 10) for number in range(10)]
    assert sum(content(cache, key, 10) is not None for key in keys) <= 3
    for number, key in enumerate(keys):
        file = cache.open(key, 10, Checksum.of(Algorithm.SHA256, bytes([number]) * 10))
        assert file is not None
        file.discard()
    assert content(cache, keys[-1], 10) == bytes([9]) * 10
