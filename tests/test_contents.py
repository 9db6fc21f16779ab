"""The files inside an image, without a mount: found out once, kept, tried again, never waited for in vain."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from jigdofs.config import CacheOptions, FetchOptions, InputOptions, ReadOptions
from jigdofs.contents.contents import ImageContents
from jigdofs.errors import FormatError, JigdofsError, PartUnavailable, ReadTimeout, SourceChanged, Stopped
from jigdofs.image.reader import ImageReader
from jigdofs.iso9660.tree import ROOT, Tree
from jigdofs.plain_image import NoParts, open_plain
from jigdofs.wiring.images import Images, open_images
from tests.kit.faults import Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage, _make_template
from tests.kit.isos import SECTOR, make_iso, tree_of
from tests.kit.nginx import Nginx

FAST = FetchOptions(connect_timeout_s=2, stall_timeout_s=1, rounds=1, backoff_s=0.01)
REAL_PYTHON = sys.executable


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("contents") / "tree"
    (top / "dir").mkdir(parents=True)
    (top / "dir" / "file").write_bytes(b"f" * 5000)
    (top / "top").write_bytes(b"t")
    return make_iso(top, "xorriso", "-R")


class Interpreter:
    """Stand in for the interpreter that reads directories: count its starts, and do what a script says."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._program = directory / "python"
        self._count = directory / "starts"
        self.become(f'exec "{REAL_PYTHON}" "$@"')
        monkeypatch.setattr(sys, "executable", str(self._program))

    def become(self, script: str) -> None:
        self._program.unlink(missing_ok=True)
        self._program.write_text(f"#!/bin/sh\necho >>'{self._count}'\n{script}\n")
        self._program.chmod(0o755)

    def vanish(self) -> None:
        self._program.unlink()

    @property
    def starts(self) -> int:
        return len(self._count.read_bytes()) if self._count.exists() else 0


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    return Interpreter(tmp_path, monkeypatch)


@asynccontextmanager
async def contents_of(
    path: Path, kept: dict[str, bytes], timeout_s: float = 20
) -> AsyncIterator[ImageContents]:
    """Open the contents of a plain image; what is kept is in `kept`, under "tree"."""
    image = open_plain(str(path))
    assert image is not None
    reader = ImageReader(image.layout, image, NoParts(), timeout_s=20, readahead_bytes=0)
    try:
        async with trio.open_nursery() as nursery:
            yield ImageContents(
                "kit.iso",
                reader,
                start_soon=nursery.start_soon,
                kept=lambda: kept.get("tree"),
                keep=lambda data: kept.__setitem__("tree", data),
                timeout_s=timeout_s,
            )
            nursery.cancel_scope.cancel()
    finally:
        image.close()


def has_tree(contents: ImageContents) -> bool:
    return contents.known is not None


async def test_found_out_once_however_many_ask(iso: Path, interpreter: Interpreter) -> None:
    """Twenty who ask at once, and one later, get the same tree, read by one process."""
    trees: list[Tree] = []
    async with contents_of(iso, {}) as contents:
        assert not has_tree(contents)

        async def ask() -> None:
            trees.append(await contents.tree())

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert has_tree(contents)
        await ask()
    assert len(trees) == 21
    assert {id(tree) for tree in trees} == {id(trees[0])}
    assert len(trees[0]) == len(tree_of(iso)) == 4
    assert interpreter.starts == 1


async def test_what_is_kept_is_not_read_again(iso: Path, interpreter: Interpreter) -> None:
    """The next one has the tree without a process."""
    kept: dict[str, bytes] = {}
    async with contents_of(iso, kept) as contents:
        first = await contents.tree()
    interpreter.vanish()
    async with contents_of(iso, kept) as contents:
        second = await contents.tree()
    assert [first.name(number) for number in range(4)] == [second.name(number) for number in range(4)]
    assert interpreter.starts == 1


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: data[:0], lambda data: data[:16] + b"\xff" + data[17:]],
    ids=["short", "empty", "changed"],
)
async def test_a_damaged_index_is_made_anew(
    iso: Path, interpreter: Interpreter, damage: Callable[[bytes], bytes]
) -> None:
    """An index that is not what was kept is not believed, and replaced."""
    kept: dict[str, bytes] = {}
    async with contents_of(iso, kept) as contents:
        await contents.tree()
    good = kept["tree"]
    kept["tree"] = damage(good)
    async with contents_of(iso, kept) as contents:
        assert len(await contents.tree()) == 4
    assert kept["tree"] == good
    assert interpreter.starts == 2


@pytest.mark.logs("cannot be shown")
async def test_what_fails_now_is_tried_again_later(
    iso: Path, interpreter: Interpreter, mock_clock: MockClock
) -> None:
    """Without a process there is an error, told again for a while without trying; then it is tried again."""
    async with contents_of(iso, {}) as contents:
        interpreter.vanish()
        with pytest.raises(JigdofsError, match="no process to read its directories"):
            await contents.tree()
        interpreter.become(f'exec "{REAL_PYTHON}" "$@"')
        mock_clock.jump(1)
        with pytest.raises(JigdofsError, match="no process"):
            await contents.tree()
        assert interpreter.starts == 0
        mock_clock.jump(60)
        assert len(await contents.tree()) == 4
        assert interpreter.starts == 1


@pytest.mark.logs("cannot be shown")
async def test_what_is_no_iso_stays_so(
    tmp_path: Path, interpreter: Interpreter, mock_clock: MockClock
) -> None:
    """A damaged directory is an error for good: nobody looks a second time."""
    broken = tmp_path / "broken.iso"
    broken.write_bytes(bytes(32768) + b"\x01CD001\x01" + bytes(100_000))
    async with contents_of(broken, {}) as contents:
        for _ in range(2):
            with pytest.raises(FormatError, match="cannot be read as an ISO 9660 image"):
                await contents.tree()
            mock_clock.jump(1_000_000)
    assert interpreter.starts == 1


async def asking(contents: ImageContents, errors: list[JigdofsError]) -> None:
    try:
        await contents.tree()
    except JigdofsError as error:
        errors.append(error)


async def test_waiting_ends_at_the_limit(iso: Path, interpreter: Interpreter, mock_clock: MockClock) -> None:
    """Who waits is told so in time, while the process goes on, and nobody starts a second one."""
    interpreter.become("exec sleep 1000")
    errors: list[JigdofsError] = []
    async with contents_of(iso, {}, timeout_s=20) as contents:
        for asked in (1, 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(asking, contents, errors)
                await wait_all_tasks_blocked(0.01)
                assert len(errors) == asked - 1
                mock_clock.jump(21)
    assert [type(error) for error in errors] == [ReadTimeout, ReadTimeout]
    assert interpreter.starts == 1


@pytest.mark.logs("cannot be shown")
async def test_a_process_without_end_is_given_up(
    iso: Path, interpreter: Interpreter, mock_clock: MockClock
) -> None:
    """A process that does not answer for minutes is ended, and that is an answer."""
    interpreter.become("exec sleep 1000")
    errors: list[JigdofsError] = []
    async with contents_of(iso, {}, timeout_s=10_000) as contents, trio.open_nursery() as nursery:
        nursery.start_soon(asking, contents, errors)
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(301)
    assert [str(error) for error in errors] == ["kit.iso: its directory takes too long to read"]


ASK_TWICE = """import socket, struct
end = socket.socket(fileno=0)
for _ in range(2):
    end.recv(8)
    end.sendall(struct.pack('<QI', 0, 2048))
end.recv(8)
end.recv(8)"""


@pytest.mark.logs("cannot be shown")
async def test_a_process_that_asks_again_after_an_error_does_not_wait(
    odd_names: Path, interpreter: Interpreter
) -> None:
    """Once the image cannot be read, nobody answers any more, and the process is not left waiting for it."""
    interpreter.become(f'exec "{REAL_PYTHON}" -c "{ASK_TWICE}"')
    async with contents_of(odd_names, {}) as contents:
        await trio.to_thread.run_sync(os.utime, odd_names, (1, 1))
        with trio.fail_after(15), pytest.raises(SourceChanged):
            await contents.tree()
    assert interpreter.starts == 1


async def test_stop_ends_waiting(iso: Path, interpreter: Interpreter) -> None:
    """At the end those who wait, and those who come later, are told so at once."""
    interpreter.become("exec sleep 1000")
    errors: list[JigdofsError] = []
    async with contents_of(iso, {}, timeout_s=1000) as contents:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(asking, contents, errors)
            await wait_all_tasks_blocked(0.01)
            assert errors == []
            contents.stop()
        await asking(contents, errors)
    assert [type(error) for error in errors] == [Stopped] * 4


@asynccontextmanager
async def opened(source: Path, cache: Path | None) -> AsyncIterator[Images]:
    options = None if cache is None else CacheOptions(cache, max_bytes=None, min_free_bytes=0)
    read = ReadOptions(timeout_s=20, readahead_bytes=0)
    with trio.fail_after(60):
        async with open_images(InputOptions((str(source),)), options, FAST, read) as images:
            yield images


async def test_directories_fetch_no_part(
    iso_md5: BuiltImage, nginx: Callable[..., Nginx], tmp_path: Path, interpreter: Interpreter
) -> None:
    """An ordinary image's directories are in the template; the next daemon has them from the cache."""
    server = nginx(iso_md5.pool)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
    for _ in range(2):
        async with opened(built.jigdo, tmp_path / "cache") as images:
            tree = await images.images[0].contents.tree()
            assert len(tree) == len(tree_of(iso_md5.image))
    assert server.access_log() == []
    assert interpreter.starts == 1


@pytest.fixture
def all_in_parts(iso: Path, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    """An image whose descriptors and directories are a part of it."""
    image = tmp_path / "kit.iso"
    data = iso.read_bytes()
    image.write_bytes(data)
    tree = tree_of(iso)
    begin = min(stretch[0] for number in range(4) for stretch in extents_of(tree, number))
    (tmp_path / "pool" / "main").mkdir(parents=True)
    (tmp_path / "pool" / "main" / "directories").write_bytes(data[16 * SECTOR : begin])
    built = _make_template(image, tmp_path / "pool", "md5", {"Debian": faulty_server.url("/")})
    assert list(built.parts.values()) == ["main/directories"]
    faulty_server.files = {"/main/directories": data[16 * SECTOR : begin]}
    return built


def extents_of(tree: Tree, number: int) -> list[tuple[int, int]]:
    return list(tree.extents(number)) if tree.node(number).mode >> 12 == 8 else []


@pytest.mark.logs("cannot be shown")
async def test_directories_that_are_a_part(
    all_in_parts: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, mock_clock: MockClock
) -> None:
    """They are read through the part, which is fetched once; what cannot be fetched now is tried again."""
    faulty_server.always("/main/directories", Status(404))
    async with opened(all_in_parts.jigdo, tmp_path / "cache") as images:
        contents = images.images[0].contents
        assert faulty_server.paths() == []
        with pytest.raises(PartUnavailable):
            await contents.tree()
        faulty_server.behave()
        faulty_server.forget_requests()
        mock_clock.jump(6)
        assert len(await contents.tree()) == 4
        assert faulty_server.paths() == ["/main/directories"]


@pytest.fixture
def odd_names(iso: Path, tmp_path: Path) -> Path:
    """An image with two names that are none."""
    image = tmp_path / "names.iso"
    data = iso.read_bytes().replace(b"NM\x09\x01\x00file", b"NM\x09\x01\x00fi/e")
    image.write_bytes(data.replace(b"NM\x08\x01\x00top", b"NM\x08\x01\x00t\0p"))
    return image


@pytest.mark.logs("2 entries of its directories are not shown")
async def test_what_is_left_out_is_told(odd_names: Path) -> None:
    """Names that are none are counted in the log."""
    async with contents_of(odd_names, {}) as contents:
        tree = await contents.tree()
    assert (len(tree), tree.child(ROOT, b"top")) == (2, None)
