"""Documents: .jigdo files by path or URL, with a copy that saves a transfer and bridges an outage."""

import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from jigdofs.config import FetchOptions
from jigdofs.documents import Document, Documents
from jigdofs.errors import InputError
from jigdofs.fetch.fetcher import SchemeFetcher
from jigdofs.fetch.file import FileFetcher
from jigdofs.fetch.http import HttpFetcher
from jigdofs.parts.cache import Cache
from tests.kit.faults import Changed, Chunked, Close, Gzip, Redirect, Stall, Status, TooLong, Truncate
from tests.kit.faulty_server import FaultyServer

PATH = "/kit.jigdo"
DATA = random.Random(1).randbytes(50_000)
MAX = 60_000
FAST = FetchOptions(connect_timeout_s=2, stall_timeout_s=0.3, rounds=3, backoff_s=0.001)
DATE = 1_700_000_000.0


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server(faulty_server: FaultyServer) -> FaultyServer:
    faulty_server.files = {PATH: DATA}
    return faulty_server


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path / "cache", max_bytes=None, min_free_bytes=0)
    yield cache
    cache.close()


@asynccontextmanager
async def documents(cache: Cache | None) -> AsyncIterator[Documents]:
    http = HttpFetcher(FAST)
    try:
        with trio.fail_after(20):
            yield Documents(SchemeFetcher(http, FileFetcher()), cache, FAST)
    finally:
        await http.close()


async def read(source: str, cache: Cache | None = None) -> Document:
    async with documents(cache) as all_of_them:
        return await all_of_them.read(source, MAX)


async def test_local(tmp_path: Path) -> None:
    """A local file is read whole, with its date."""
    path = tmp_path / "a.jigdo"
    path.write_bytes(DATA)
    os.utime(path, (1, DATE))
    assert await read(str(path)) == Document(DATA, DATE)


async def test_local_refused(tmp_path: Path) -> None:
    """What is no regular file, is too long or cannot exist is refused, and nothing hangs."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "long").write_bytes(bytes(MAX + 1))
    for name in ("none", "fifo", "long", ".", "long/x", "nul\0"):
        with pytest.raises(InputError):
            await read(str(tmp_path / name))
    with pytest.raises(InputError, match="larger than"):
        await read("/dev/../" + str(tmp_path / "long"))


async def test_url(server: FaultyServer) -> None:
    """A URL without a cache is fetched each time, with its date."""
    for _ in range(2):
        assert await read(server.url(PATH)) == Document(DATA, DATE)
    assert [request.status for request in server.requests] == [200, 200]


async def test_copy_is_asked_about(server: FaultyServer, cache: Cache) -> None:
    """An unchanged file costs one answer without a body, a changed one is fetched anew."""
    for _ in range(2):
        assert await read(server.url(PATH), cache) == Document(DATA, DATE)
    assert [(request.status, request.body_bytes) for request in server.requests] == [
        (200, len(DATA)),
        (304, 0),
    ]
    server.files = {PATH: DATA[:-1]}
    for _ in range(2):
        assert (await read(server.url(PATH), cache)).data == DATA[:-1]
    assert [request.status for request in server.requests[2:]] == [200, 304]


async def test_copy_survives_the_process(server: FaultyServer, tmp_path: Path) -> None:
    """The copy serves the next process too."""
    for _ in range(2):
        cache = Cache(tmp_path / "cache", max_bytes=None, min_free_bytes=0)
        assert (await read(server.url(PATH), cache)).data == DATA
        cache.close()
    assert [request.status for request in server.requests] == [200, 304]


@pytest.mark.logs("using the copy of an earlier time")
@pytest.mark.parametrize("outage", ["down", "busy", "stalled"])
async def test_outage(server: FaultyServer, cache: Cache, outage: str) -> None:
    """While the server cannot be used the copy serves, with a warning."""
    await read(server.url(PATH), cache)
    if outage == "down":
        server.stop()
    else:
        server.always(PATH, Status(503) if outage == "busy" else Stall())
    assert await read(server.url(PATH), cache) == Document(DATA, DATE)


async def test_outage_without_copy(server: FaultyServer, cache: Cache) -> None:
    """Without a copy an outage is an error that names the URL."""
    server.stop()
    with pytest.raises(InputError, match=server.url(PATH)):
        await read(server.url(PATH), cache)


async def test_gone(server: FaultyServer, cache: Cache) -> None:
    """A file that the server says is gone is gone: the copy does not hide it."""
    await read(server.url(PATH), cache)
    server.files = {}
    with pytest.raises(InputError, match="404"):
        await read(server.url(PATH), cache)


async def test_hiccups(server: FaultyServer) -> None:
    """Trouble that passes is not seen."""
    server.script(PATH, Truncate(1000), Close())
    assert (await read(server.url(PATH))).data == DATA


@pytest.mark.parametrize("fault", [TooLong(MAX), TooLong(1 << 40), Gzip()], ids=str)
async def test_refused(server: FaultyServer, fault: TooLong | Gzip, cache: Cache) -> None:
    """An over-long or encoded answer is refused, and leaves no copy."""
    server.script(PATH, fault)
    with pytest.raises(InputError):
        await read(server.url(PATH), cache)
    assert (await read(server.url(PATH), cache)).data == DATA
    assert server.requests[-1].status == 200


async def test_over_long_without_announcement(server: FaultyServer) -> None:
    """An answer that never says how long it is ends at the limit."""
    server.files = {PATH: bytes(MAX + 1)}
    server.script(PATH, Chunked())
    with pytest.raises(InputError):
        await read(server.url(PATH))


@pytest.mark.logs("is not what it was")
async def test_damaged_copy(server: FaultyServer, cache: Cache) -> None:
    """A copy that was changed behind our back is not used."""
    await read(server.url(PATH), cache)
    for path in (cache.directory / "objects" / "doc").rglob("*"):
        if path.is_file():
            path.write_bytes(DATA[::-1])
    assert (await read(server.url(PATH), cache)).data == DATA
    assert [request.status for request in server.requests] == [200, 200]


@pytest.mark.parametrize("note", ["", "{", "[]", '{"etag": 1}', '{"etag": "x"}'])
async def test_damaged_note(server: FaultyServer, cache: Cache, note: str) -> None:
    """What the index says of a copy is not trusted to be well-formed."""
    await read(server.url(PATH), cache)
    cache.note_document(server.url(PATH), note)
    assert (await read(server.url(PATH), cache)).data == DATA


async def test_copy_and_its_validators_belong_together(server: FaultyServer, cache: Cache) -> None:
    """Validators of one version never stand beside the bytes of another."""
    await read(server.url(PATH), cache)
    server.script(PATH, Changed())
    changed = (await read(server.url(PATH), cache)).data
    assert changed != DATA
    assert (await read(server.url(PATH), cache)).data == DATA


async def test_redirected(server: FaultyServer, cache: Cache) -> None:
    """A file that lies elsewhere is kept by the URL that was asked for."""
    server.files = {"/there": DATA}
    server.always(PATH, Redirect("/there"))
    for _ in range(2):
        assert (await read(server.url(PATH), cache)).data == DATA
    assert [request.status for request in server.requests] == [302, 200, 302, 304]


async def test_upper_case_scheme(server: FaultyServer) -> None:
    """The scheme of a URL may be written in any case."""
    assert (await read(server.url(PATH).replace("http", "HTTP"))).data == DATA
