"""OpenFile and OpenFiles: what is pinned stays open, what was touched is forgotten, limits hold."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.parts.open_file import Fingerprint, OpenFile, OpenFiles


def new_file(size: int = 10) -> OpenFile:
    fd = os.memfd_create("kit")
    os.write(fd, bytes(size))
    return OpenFile(fd, Fingerprint.of(fd))


def is_open(file: OpenFile) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{file.fd}").startswith("/memfd:kit")
    except FileNotFoundError:
        return False


def test_discard() -> None:
    """A file that nobody pins is closed at once, and only once."""
    file = new_file()
    file.discard()
    assert not is_open(file)
    other = new_file()  # very likely of the same number
    file.discard()
    assert is_open(other)
    other.discard()


def test_discard_while_pinned() -> None:
    """A pinned file is closed when the last pin goes."""
    file = new_file()
    file.pin()
    file.pin()
    file.discard()
    file.unpin()
    assert is_open(file)
    file.unpin()
    assert not is_open(file)


def test_unpin_keeps_open() -> None:
    """A file that is not discarded survives its pins."""
    file = new_file()
    file.pin()
    file.unpin()
    assert is_open(file)
    file.discard()


@pytest.mark.parametrize("change", ["write", "shorten", "lengthen", "touch", "write and hide"])
def test_unchanged(tmp_path: Path, change: str) -> None:
    """Every way to change a file shows."""
    path = tmp_path / "a"
    path.write_bytes(b"content")
    os.utime(path, ns=(1, 1))
    fd = os.open(path, os.O_RDONLY)
    file = OpenFile(fd, Fingerprint.of(fd))
    assert file.unchanged()
    match change:
        case "write":
            path.write_bytes(b"CONTENT")
        case "shorten":
            os.truncate(path, 3)
        case "lengthen":
            os.truncate(path, 30)
        case "write and hide":
            path.write_bytes(b"CONTENT")
            os.utime(path, ns=(1, 1))
        case _:
            os.utime(path, ns=(1, 2))
    assert not file.unchanged()
    file.discard()


def test_least_recently_used_goes_first() -> None:
    """Beyond the number of files the one goes that was not asked for the longest."""
    files = OpenFiles(2, 1000)
    a, b, c = (new_file() for _ in range(3))
    files.add("a", a)
    files.add("b", b)
    assert files.get("a") is a
    files.add("c", c)
    assert files.get("b") is None
    assert not is_open(b)
    assert (files.get("a"), files.get("c"), len(files)) == (a, c, 2)
    files.close()
    assert not is_open(a)
    assert not is_open(c)


def test_bytes_count() -> None:
    """Beyond the bytes files go until the rest fits; a single one may always stay."""
    files = OpenFiles(100, 50)
    small = [new_file(10) for _ in range(5)]
    for number, file in enumerate(small):
        files.add(str(number), file)
    assert len(files) == 5
    large = new_file(45)
    files.add("large", large)
    assert len(files) == 1
    assert not any(is_open(file) for file in small)
    huge = new_file(1000)
    files.add("huge", huge)
    assert files.get("huge") is huge
    assert not is_open(large)
    files.close()


def test_same_key_again() -> None:
    """A file takes the place of the former one of its key."""
    files = OpenFiles(10, 1000)
    first, second = new_file(), new_file()
    files.add("a", first)
    files.add("a", second)
    assert not is_open(first)
    assert files.get("a") is second
    assert len(files) == 1
    files.close()


def test_changed_file_is_forgotten() -> None:
    """A file that somebody wrote to is not given out again, and its bytes no longer count."""
    files = OpenFiles(10, 30)
    touched, other = new_file(20), new_file(10)
    files.add("touched", touched)
    files.add("other", other)
    os.pwrite(touched.fd, b"x", 0)
    os.utime(touched.fd, ns=(5, 5))
    assert files.get("touched") is None
    assert not is_open(touched)
    files.add("third", new_file(20))
    assert len(files) == 2
    files.close()


def test_pinned_file_falls_out() -> None:
    """A file that falls out while it is read stays open for its reader."""
    files = OpenFiles(1, 1000)
    file = new_file()
    files.add("a", file)
    file.pin()
    files.add("b", new_file())
    assert files.get("a") is None
    assert is_open(file)
    file.unpin()
    assert not is_open(file)
    files.close()


_step = st.tuples(
    st.sampled_from(["add", "get", "drop", "touch"]), st.sampled_from("abcd"), st.integers(0, 40)
)


@given(steps=st.lists(_step, max_size=40), max_files=st.integers(1, 4), max_bytes=st.integers(0, 60))
def test_limits_hold(steps: list[tuple[str, str, int]], max_files: int, max_bytes: int) -> None:
    """After any steps the limits hold, exactly the files that are kept are open, and close() ends all."""
    files = OpenFiles(max_files, max_bytes)
    ever: dict[int, OpenFile] = {}
    last: dict[str, OpenFile] = {}
    for what, key, size in steps:
        if what == "add":
            last[key] = new_file(size)
            ever[id(last[key])] = last[key]
            files.add(key, last[key])
        elif what == "get":
            assert files.get(key) in (None, last.get(key))
        elif what == "drop":
            files.drop(key)
        elif key in last and is_open(last[key]):
            os.utime(last[key].fd, ns=(7, 7))
            assert files.get(key) is None
        kept = [file for file in map(files.get, "abcd") if file is not None]
        assert len(files) == len(kept) <= max_files
        assert len(kept) == 1 or sum(file.size for file in kept) <= max_bytes
    files.close()
    assert len(files) == 0
    still_open = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _exists(fd)}
    assert not any(link.startswith("/memfd:kit") for link in still_open)


def _exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
