"""Templates: verified whatever they come from, fetched once, resumed, found beside their .jigdo."""

import hashlib
import os
import random
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import jigdofs.templates
from jigdofs.config import FetchOptions
from jigdofs.errors import InputError
from jigdofs.fetch.fetcher import SchemeFetcher
from jigdofs.fetch.file import FileFetcher
from jigdofs.fetch.http import HttpFetcher
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.cache import Cache
from jigdofs.parts.spool import MemoryPlace, TemporaryPlace
from jigdofs.templates import Progress, Templates, TemplateSource
from tests.kit.faults import (
    Changed,
    Chunked,
    Close,
    Fault,
    Gzip,
    Html,
    IgnoreRange,
    Status,
    Truncate,
    WrongBytes,
)
from tests.kit.faulty_server import FaultyServer
from tests.kit.requirements import lack, require_root, tool

PATH = "/kit.template"
DATA = random.Random(1).randbytes(2_500_000)
MD5 = Checksum.of(Algorithm.MD5, DATA)
SHA256 = Checksum.of(Algorithm.SHA256, DATA)
OTHER = Checksum.of(Algorithm.SHA256, b"other")
FAST = FetchOptions(connect_timeout_s=2, stall_timeout_s=0.3, rounds=3, backoff_s=0.001)


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
async def templates(cache: Cache | None, progress: Progress | None = None) -> AsyncIterator[Templates]:
    http = HttpFetcher(FAST)
    try:
        with trio.fail_after(20):
            fallbacks = TemporaryPlace(), MemoryPlace(64 << 20)
            yield Templates(SchemeFetcher(http, FileFetcher()), cache, fallbacks, FAST, progress)
    finally:
        await http.close()


async def opened(
    *candidates: str,
    checksums: tuple[Checksum, ...] = (SHA256,),
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Return what the template holds that is opened."""
    async with templates(cache, progress) as all_of_them:
        file = await all_of_them.open(TemplateSource(candidates, checksums, "kit.jigdo:7"))
        try:
            assert file.digest == (checksums[0].hex if checksums else hashlib.sha256(DATA).hexdigest())
            assert file.fingerprint[0] == len(DATA)
            return os.pread(file.fd, len(DATA) + 1, 0)
        finally:
            os.close(file.fd)


@pytest.mark.parametrize("checksums", [(), (MD5,), (SHA256,), (MD5, SHA256)], ids=len)
async def test_local(tmp_path: Path, checksums: tuple[Checksum, ...]) -> None:
    """A local template is verified by every checksum there is, and used where it lies."""
    (tmp_path / "t").write_bytes(DATA)
    assert await opened(str(tmp_path / "t"), checksums=checksums) == DATA


@pytest.mark.parametrize("checksums", [(), (MD5,), (SHA256,), (MD5, SHA256)], ids=len)
@pytest.mark.parametrize("fault", [Fault(), Chunked()], ids=str)
async def test_fetched(
    server: FaultyServer, checksums: tuple[Checksum, ...], fault: Fault, cache: Cache
) -> None:
    """A template by URL is verified likewise, with a cache and without."""
    server.always(PATH, fault)
    for where in (None, cache):
        assert await opened(server.url(PATH), checksums=checksums, cache=where) == DATA


@pytest.mark.parametrize("checksums", [(OTHER,), (MD5, OTHER), (OTHER, MD5)], ids=["only", "second", "first"])
async def test_wrong_checksum(
    server: FaultyServer, tmp_path: Path, checksums: tuple[Checksum, ...], cache: Cache
) -> None:
    """A template that misses one of its checksums is refused, with both sums named, and not kept."""
    (tmp_path / "t").write_bytes(DATA)
    for candidate in (str(tmp_path / "t"), server.url(PATH)):
        with pytest.raises(InputError, match=f"kit.jigdo:7.*its sha256 is {SHA256.hex}, not {OTHER.hex}"):
            await opened(candidate, checksums=checksums, cache=cache)
    assert cache.present([f"sha256-{OTHER.hex}", f"md5-{MD5.hex}"]) == set()


async def test_cached_template_meets_all_checksums(server: FaultyServer, cache: Cache) -> None:
    """A template kept for the sake of one checksum still has to match the others of the next .jigdo."""
    assert await opened(server.url(PATH), checksums=(MD5,), cache=cache) == DATA
    with pytest.raises(InputError, match="cannot be had"):
        await opened(server.url(PATH), checksums=(MD5, OTHER), cache=cache)


async def test_cached_template_is_hashed_once(
    server: FaultyServer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a template in the cache was held against is remembered as long as it is that file."""
    verified = []
    verify = jigdofs.templates._verify

    def noting(fd: int, name: str, checksums: tuple[Checksum, ...]) -> Checksum:
        verified.append(checksums)
        return verify(fd, name, checksums)

    monkeypatch.setattr(jigdofs.templates, "_verify", noting)
    for expected in ([], [(SHA256,)], []):
        verified.clear()
        assert await opened(server.url(PATH), checksums=(MD5, SHA256), cache=cache) == DATA
        assert verified == expected
    with pytest.raises(InputError, match="cannot be had"):
        await opened(server.url(PATH), checksums=(MD5, SHA256, OTHER), cache=cache)
    os.utime(cache.path(f"md5-{MD5.hex}"))
    verified.clear()
    assert await opened(server.url(PATH), checksums=(MD5, SHA256), cache=cache) == DATA
    assert verified == [(SHA256,)]


@pytest.mark.parametrize(
    "fault", [WrongBytes(), Changed(), Html(), Gzip(), Status(404), Status(500), Close()], ids=str
)
async def test_second_candidate(server: FaultyServer, fault: Fault) -> None:
    """Where the first candidate is not it, the second one is asked."""
    assert isinstance(server.files, dict)
    server.files["/bad"] = DATA
    server.always("/bad", fault)
    assert await opened(server.url("/bad"), "/none/t", server.url(PATH)) == DATA


async def test_no_candidate(server: FaultyServer) -> None:
    """Of candidates that all fail, the one that exists is told rather than those that do not."""
    server.always(PATH, WrongBytes())
    with pytest.raises(InputError) as caught:
        await opened("/none/t", server.url(PATH), server.url("/none"))
    assert "not the template that belongs to the .jigdo" in str(caught.value)
    assert "404 Not Found" not in str(caught.value)
    with pytest.raises(InputError, match="404"):
        await opened(server.url("/none"))
    with pytest.raises(InputError, match=r"the \.jigdo names none"):
        await opened()


async def test_hostile_candidates(tmp_path: Path, server: FaultyServer) -> None:
    """A FIFO, a directory, a device or a name that no file can have is passed over."""
    os.mkfifo(tmp_path / "fifo")
    hostile = [str(tmp_path / "fifo"), str(tmp_path), "/dev/zero", "/x\0y", "/" + "x" * 300, "http://["]
    assert await opened(*hostile, server.url(PATH)) == DATA


async def test_resumed(server: FaultyServer, cache: Cache) -> None:
    """A broken transfer goes on where it stopped."""
    server.script(PATH, Truncate(1_000_000), Truncate(1_000_000))
    assert await opened(server.url(PATH), cache=cache) == DATA
    assert [request.range for request in server.requests] == [None, "bytes=1000000-", "bytes=2000000-"]


@pytest.mark.parametrize("fault", [IgnoreRange(), Chunked()], ids=str)
async def test_resumed_otherwise(server: FaultyServer, fault: Fault) -> None:
    """A server that sends everything again, or does not say how much, is dealt with."""
    server.script(PATH, Truncate(1_500_000), fault)
    assert await opened(server.url(PATH)) == DATA


async def test_cached(server: FaultyServer, cache: Cache) -> None:
    """A template in the cache costs no request, whatever its candidates."""
    assert await opened(server.url(PATH), cache=cache) == DATA
    server.forget_requests()
    assert await opened(server.url(PATH), cache=cache) == DATA
    assert await opened("/none", cache=cache) == DATA
    assert server.requests == []


async def test_cached_template_is_kept_while_open(server: FaultyServer, tmp_path: Path) -> None:
    """A template in use is not evicted."""
    cache = Cache(tmp_path / "small", max_bytes=3_000_000, min_free_bytes=0)
    async with templates(cache) as all_of_them:
        file = await all_of_them.open(TemplateSource((server.url(PATH),), (SHA256,), "x"))
        with pytest.raises(Exception, match="no room"):
            cache.reserve(1_000_000)
        os.close(file.fd)
        cache.reserve(1_000_000)
        cache.release(1_000_000)
    cache.close()


async def test_larger_than_the_cache(server: FaultyServer, tmp_path: Path) -> None:
    """A template that the cache does not take is fetched all the same."""
    cache = Cache(tmp_path / "small", max_bytes=1000, min_free_bytes=0)
    assert await opened(server.url(PATH), cache=cache) == DATA
    cache.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 8 MiB."""
    require_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [tool("mount"), "-t", "tmpfs", "-o", "size=8m", "kit", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        lack("mounting is not permitted here")
    yield disk
    subprocess.run([tool("umount"), "-l", str(disk)], check=True)  # a failed test may hold it open


@pytest.mark.parametrize("fault", [Fault(), Chunked()], ids=str)
async def test_little_room(
    server: FaultyServer, small_disk: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """A small disk is enough for a small template, whether its length is announced or not."""
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    server.always(PATH, fault)
    assert await opened(server.url(PATH)) == DATA


async def test_progress(server: FaultyServer) -> None:
    """Whoever wants to know is told how far a transfer is."""
    told: list[tuple[str, int, int | None]] = []
    await opened(server.url(PATH), progress=lambda url, done, total: told.append((url, done, total)))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1] == (server.url(PATH), len(DATA), len(DATA))


async def test_nothing_is_left_behind(server: FaultyServer, cache: Cache) -> None:
    """Failures leave neither files nor descriptors."""
    server.always(PATH, WrongBytes())
    with pytest.raises(InputError):
        await opened(server.url(PATH), cache=cache)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(InputError):
            await opened(server.url(PATH), cache=cache)
    # a worker thread that is new meanwhile keeps a connection to the index: three descriptors
    assert len(os.listdir("/proc/self/fd")) < before + 20
    assert list((cache.directory / "incoming").iterdir()) == []
    assert [path for path in (cache.directory / "objects").rglob("*") if path.is_file()] == []


async def test_credentials_stay_out_of_messages(server: FaultyServer) -> None:
    """The password in a URL is shown in no error."""
    secret = server.url(PATH).replace("http://", "http://joe:secret@")
    for fault in (WrongBytes(), Status(404), Status(500), Gzip()):
        server.behave()
        server.always(PATH, fault)
        with pytest.raises(InputError) as caught:
            await opened(secret)
        assert "secret" not in str(caught.value)
