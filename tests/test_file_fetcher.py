"""FileFetcher: local files as a mirror; whatever lies in a file's place, only FetchError leaves it."""

import os
import socket
from pathlib import Path

import pytest
import trio

from jigdofs.errors import FetchError, NotThere, WrongContent
from jigdofs.fetch.fetcher import Answer, MemoryReceiver, Request
from jigdofs.fetch.file import FileFetcher

DATA = os.urandom(3_000_001)


async def fetched(path: Path | str, *, offset: int = 0, length: int | None = None) -> MemoryReceiver:
    receiver = MemoryReceiver()
    with trio.fail_after(10):
        await FileFetcher().fetch(Request(str(path), offset=offset, length=length), receiver)
    return receiver


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("offset", [0, 1, 1 << 20, len(DATA) - 1, len(DATA)])
async def test_rest_of_a_file(file: Path, offset: int) -> None:
    """A file arrives from any offset to its end, in exact bytes."""
    receiver = await fetched(file, offset=offset, length=len(DATA))
    assert bytes(receiver.data) == DATA[offset:]
    assert receiver.answer == Answer(offset=offset, length=len(DATA), url=str(file))


async def test_empty_file(tmp_path: Path) -> None:
    """An empty file is a file."""
    (tmp_path / "empty").touch()
    assert not (await fetched(tmp_path / "empty", length=0)).data


async def test_name_that_is_no_text(tmp_path: Path) -> None:
    """A name of any bytes is opened as these bytes."""
    path = tmp_path / os.fsdecode(b"latin-\xfc")
    path.write_bytes(b"x")
    assert bytes((await fetched(path)).data) == b"x"


@pytest.mark.parametrize("name", ["none", "none/below", "a/below-a-file"])
async def test_missing(file: Path, name: str) -> None:
    """What does not exist is NotThere, no trouble with the directory."""
    with pytest.raises(NotThere):
        await fetched(file.parent / name)


@pytest.mark.parametrize("length", [0, len(DATA) - 1, len(DATA) + 1])
async def test_wrong_length(file: Path, length: int) -> None:
    """A file of another length is not read at all."""
    receiver = MemoryReceiver()
    with pytest.raises(WrongContent, match="instead of"):
        await FileFetcher().fetch(Request(str(file), length=length), receiver)
    assert not receiver.data


async def test_too_long(file: Path) -> None:
    """A file beyond the limit is not read at all."""
    with pytest.raises(WrongContent, match="more than"):
        await FileFetcher().fetch(Request(str(file), max_length=5), MemoryReceiver())


async def test_no_regular_file(tmp_path: Path) -> None:
    """A FIFO, a directory, a device and a socket are refused at once, by a link too."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    places = [tmp_path / "fifo", tmp_path / "link", tmp_path, Path("/dev/zero"), Path("/dev/tty")]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in [*places, tmp_path / "socket"]:
            with pytest.raises(FetchError):
                await fetched(path)


@pytest.mark.parametrize("path", ["/x\0y", "/" + "a" * 300, "/a" * 3000, "/\udcff\0", "/\ud800"], ids=ascii)
async def test_impossible_name(path: str) -> None:
    """A name that no file can have, such as a hostile .jigdo may hold, is a FetchError."""
    with pytest.raises(FetchError):
        await fetched(path)


async def test_loop_of_links(tmp_path: Path) -> None:
    """A link to itself is a FetchError."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FetchError):
        await fetched(tmp_path / "loop")


async def test_file_becomes_shorter(file: Path) -> None:
    """A file that loses its end while it is read is wrong content."""

    class Shortening(MemoryReceiver):
        async def receive(self, data: bytes) -> None:
            await super().receive(data)
            os.truncate(file, 1 << 20)

    with pytest.raises(WrongContent, match="shorter"):
        await FileFetcher().fetch(Request(str(file)), Shortening())


async def test_descriptors_are_closed(file: Path) -> None:
    """Neither success nor failure leaves a descriptor open."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await fetched(file)
        with pytest.raises(FetchError):
            await fetched(file, length=1)
        with pytest.raises(FetchError):
            await fetched(file.parent)
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # trio's own, made on first use


# -- asking without reading --------------------------------------------------------------------------


async def test_ask(file: Path) -> None:
    """The length is told, and judged where it is known, by number and by limit."""
    for length in (None, len(DATA)):
        answer = await FileFetcher().ask(Request(str(file), length=length))
        assert answer == Answer(length=len(DATA), url=str(file))
    with pytest.raises(WrongContent, match="instead of"):
        await FileFetcher().ask(Request(str(file), length=5))
    with pytest.raises(WrongContent, match="more than"):
        await FileFetcher().ask(Request(str(file), max_length=5))


async def test_ask_for_what_is_no_file(file: Path) -> None:
    """What cannot be fetched is told at once, and nothing is left open."""
    os.mkfifo(file.parent / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await FileFetcher().ask(Request(str(file)))
        for name in ("none", "a/below-a-file", "fifo", "", "x\0y"):
            with pytest.raises(FetchError):
                await FileFetcher().ask(Request(f"{file.parent}/{name}"))
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # trio's own, made on first use
