"""The whole stack without FUSE: every byte read is the real image's, each part is fetched once."""

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from jigdofs.config import CacheOptions, FetchOptions, InputOptions, ReadOptions
from jigdofs.errors import FormatError, InputError, JigdofsError, PartUnavailable, ReadTimeout
from jigdofs.format.template_reader import read_template
from jigdofs.image.reader import ImageReader
from jigdofs.wiring.images import Images, open_images
from tests.kit.faults import Drip, Reset, Stall, Status, Truncate, WrongBytes
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.nginx import Nginx

FAST = FetchOptions(connect_timeout_s=2, stall_timeout_s=1, rounds=2, backoff_s=0.01)
StartNginx = Callable[..., Nginx]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@asynccontextmanager
async def opened(
    built: BuiltImage,
    cache: Path | None,
    *,
    quota: int | None = None,
    fetch: FetchOptions = FAST,
    timeout_s: float = 20,
    readahead_bytes: int = 0,
) -> AsyncIterator[Images]:
    options = CacheOptions(cache, max_bytes=quota, min_free_bytes=0) if cache is not None else None
    read = ReadOptions(timeout_s=timeout_s, readahead_bytes=readahead_bytes)
    with trio.fail_after(60):
        async with open_images(InputOptions((str(built.jigdo),)), options, fetch, read) as images:
            images.tend()
            yield images


async def compare(reader: ImageReader, real: bytes, *, seed: int = 1, reads: int = 60) -> None:
    """Read random ranges, and those at the edges, four at a time; each must be what the real image has."""
    dice = random.Random(seed)
    length = len(real)
    ranges = [(0, 1), (length - 1, 1), (length - 1, 100), (length, 5), (length + 7, 5), (0, 0), (5, 0)]
    sizes = [1, 2047, 2048, 4096, 65536, 131072, 400_000]
    ranges += [(dice.randrange(length), dice.choice(sizes)) for _ in range(reads)]

    async def work(mine: list[tuple[int, int]]) -> None:
        for offset, size in mine:
            assert await reader.read(offset, size) == real[offset : offset + size], (offset, size)

    async with trio.open_nursery() as nursery:
        for first in range(4):
            nursery.start_soon(work, ranges[first::4])


async def read_all(reader: ImageReader, step: int = 131072) -> bytes:
    """Read everything from front to end as one sequential reader does."""
    ahead = reader.readahead()
    pieces = [bytes(await reader.read(at, step, ahead)) for at in range(0, reader.layout.length, step)]
    return b"".join(pieces)


def fetched(server: Nginx) -> Counter[str]:
    return Counter(access.path for access in server.access_log() if access.status in (200, 206))


def path_of(built: BuiltImage, name: str) -> str:
    """Return the URL path of the part whose name ends so."""
    (found,) = [path for path in built.parts.values() if path.endswith(name)]
    return f"/{found}"


def offset_of(built: BuiltImage, images: Images, name: str) -> int:
    """Return where in the image the part lies whose name ends so."""
    wanted = {checksum for checksum, path in built.parts.items() if path.endswith(name)}
    return next(at for at, part in images.images[0].layout.parts() if part.checksum.hex in wanted)


async def test_any_image(any_image: BuiltImage, nginx: StartNginx, tmp_path: Path) -> None:
    """Every kind of image is read exactly; no part is fetched twice, and none when opened again."""
    real = any_image.image.read_bytes()
    server = nginx(any_image.pool)
    built = any_image.with_servers(tmp_path / "in", {"Debian": server.url("/")})
    async with opened(built, tmp_path / "cache") as images:
        (image,) = images.images
        await compare(image.reader, real)
        assert await read_all(image.reader) == real
    counts = fetched(server)
    assert set(counts) == {f"/{path}" for path in built.parts.values()}
    assert set(counts.values()) == {1}
    server.clear_log()
    async with opened(built, tmp_path / "cache") as images:
        await compare(images.images[0].reader, real, seed=2)
    assert server.access_log() == []


async def test_presence(iso_md5: BuiltImage, nginx: StartNginx, tmp_path: Path) -> None:
    """What is present grows with what is fetched, to the whole image, and is known again next time."""
    server = nginx(iso_md5.pool)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
    async with opened(built, tmp_path / "cache") as images:
        (image,) = images.images
        assert image.present_bytes == image.layout.raw_length
        await image.reader.read(offset_of(built, images, "large.deb"), 1)
        assert image.present_bytes == image.layout.raw_length + 3_000_000
        await read_all(image.reader)
        assert image.present_bytes == image.layout.length


async def test_laziness(iso_md5: BuiltImage, nginx: StartNginx, tmp_path: Path) -> None:
    """Opening an image fetches nothing, reading a part fetches that part and no other."""
    server = nginx(iso_md5.pool)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
    async with opened(built, tmp_path / "cache", readahead_bytes=32 << 20) as images:
        reader = images.images[0].reader
        await reader.read(0, 65536, reader.readahead())  # volume descriptors
        assert server.access_log() == []
        await reader.read(offset_of(built, images, "large.deb") + 5, 10, reader.readahead())
        assert fetched(server) == {path_of(built, "large.deb"): 1}


async def test_many_readers_of_one_part(iso_md5: BuiltImage, nginx: StartNginx, tmp_path: Path) -> None:
    """Fifty who want the same part at once cause one transfer."""
    server = nginx(iso_md5.pool, "limit_rate 10m;")
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
    real = built.image.read_bytes()
    async with opened(built, tmp_path / "cache") as images:
        at = offset_of(built, images, "large.deb")

        async def read(where: int) -> None:
            assert await images.images[0].reader.read(where, 4096) == real[where : where + 4096]

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(read, at + number * 50_000)
    assert fetched(server) == {path_of(built, "large.deb"): 1}


async def test_readahead(iso_md5: BuiltImage, nginx: StartNginx, tmp_path: Path) -> None:
    """Reading through with readahead is exact and fetches nothing twice either."""
    server = nginx(iso_md5.pool)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
    async with opened(built, tmp_path / "cache", readahead_bytes=32 << 20) as images:
        assert await read_all(images.images[0].reader) == built.image.read_bytes()
    assert set(fetched(server).values()) == {1}


@pytest.mark.parametrize("quota", [1, 100_000, 1_000_000])
@pytest.mark.parametrize("readahead_bytes", [0, 32 << 20])
async def test_small_quota(
    iso_md5: BuiltImage, nginx: StartNginx, tmp_path: Path, quota: int, readahead_bytes: int
) -> None:
    """A quota much smaller than the image costs transfers, never a byte, and it holds."""
    server = nginx(iso_md5.pool)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
    real = built.image.read_bytes()
    cache = tmp_path / "cache"
    async with opened(built, cache, quota=quota, readahead_bytes=readahead_bytes) as images:
        assert await read_all(images.images[0].reader) == real
        await compare(images.images[0].reader, real)
        kept = sum(path.stat().st_size for path in (cache / "objects").rglob("*") if path.is_file())
        assert kept <= quota


async def test_without_cache(iso_sha256: BuiltImage, nginx: StartNginx, tmp_path: Path) -> None:
    """Without a cache everything works."""
    server = nginx(iso_sha256.pool)
    built = iso_sha256.with_servers(tmp_path / "in", {"Debian": server.url("/")})
    async with opened(built, None) as images:
        await compare(images.images[0].reader, built.image.read_bytes())


async def test_local_parts(any_image: BuiltImage, tmp_path: Path) -> None:
    """Parts in a local directory need no server at all."""
    async with opened(any_image, tmp_path / "cache") as images:
        await compare(images.images[0].reader, any_image.image.read_bytes(), reads=20)


async def test_everything_by_url(iso_jte_md5: BuiltImage, nginx: StartNginx, tmp_path: Path) -> None:
    """The .jigdo by URL, its template beside it, its parts from there; the second time but one question."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "pool").symlink_to(iso_jte_md5.pool)
    server = nginx(root)
    iso_jte_md5.with_servers(root, {"Debian": server.url("/pool/")})
    source = server.url(f"/{iso_jte_md5.jigdo.name}")
    options = CacheOptions(tmp_path / "cache", max_bytes=None, min_free_bytes=0)
    real = iso_jte_md5.image.read_bytes()
    for _ in range(2):
        server.clear_log()
        async with open_images(InputOptions((source,)), options, FAST, ReadOptions()) as images:
            assert await read_all(images.images[0].reader) == real
    assert [access.status for access in server.access_log()] == [304]


async def test_user_mirror(iso_md5: BuiltImage, nginx: StartNginx, tmp_path: Path) -> None:
    """A mirror that the user names is asked, and what the .jigdo names is not."""
    mine, theirs = nginx(iso_md5.pool), nginx(iso_md5.pool)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": theirs.url("/")})
    inputs = InputOptions((str(built.jigdo),), mirrors={"Debian": (mine.url("/"),)})
    async with open_images(inputs, None, FAST, ReadOptions()) as images:
        await compare(images.images[0].reader, built.image.read_bytes(), reads=20)
    assert theirs.access_log() == []


# -- trouble -----------------------------------------------------------------------------------------


@pytest.mark.logs("wrong content from mirror")
async def test_bad_mirrors(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """Between a mirror that lies and one that breaks off, a third one gives every byte."""
    with (
        FaultyServer(iso_md5.pool) as liar,
        FaultyServer(iso_md5.pool) as weak,
        FaultyServer(iso_md5.pool) as good,
    ):
        liar.always("*", WrongBytes())
        weak.always("*", Truncate(1000))
        built = iso_md5.with_servers(
            tmp_path / "in", {"Debian": [server.url("/") for server in (liar, weak, good)]}
        )
        async with opened(built, tmp_path / "cache") as images:
            assert await read_all(images.images[0].reader) == built.image.read_bytes()


async def test_part_that_nobody_has(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A part that is nowhere is an error for its bytes only, and a later read tries again."""
    with FaultyServer(iso_md5.pool) as server:
        missing = path_of(iso_md5, "large.deb")
        server.always(missing, Status(404))
        built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
        real = built.image.read_bytes()
        async with opened(built, tmp_path / "cache") as images:
            reader = images.images[0].reader
            at = offset_of(built, images, "large.deb")
            for offset in (at, at + 1_000_000, at - 100):
                with pytest.raises(PartUnavailable, match=r"large\.deb"):
                    await reader.read(offset, 4096)
            assert await reader.read(at - 100, 100) == real[at - 100 : at]
            asked = server.count(missing)
            assert asked == 1, "what failed a moment ago is not asked for again"
            server.behave()
            found = b""
            while not found:
                with suppress(PartUnavailable):
                    found = bytes(await reader.read(at, 4096))
            assert found == real[at : at + 4096]


async def test_read_timeout(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A read ends at its time limit; the transfer goes on and serves the next one."""
    with FaultyServer(iso_md5.pool) as server:
        path = path_of(iso_md5, "large.deb")
        server.script(path, Stall(100_000))
        built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
        fetch = FetchOptions(stall_timeout_s=20)
        async with opened(built, tmp_path / "cache", fetch=fetch, timeout_s=0.3) as images:
            reader = images.images[0].reader
            at = offset_of(built, images, "large.deb")
            start = trio.current_time()
            with pytest.raises(ReadTimeout, match=f"offset {at} could not be had within 0.3 s"):
                await reader.read(at, 10)
            assert 0.25 < trio.current_time() - start < 3
            await reader.read(0, 10)
            server.release()
            while True:
                try:
                    data = await reader.read(at, 10)
                except ReadTimeout:
                    continue
                break
            real = built.image.read_bytes()
            assert data == real[at : at + 10]
            assert server.count(path) == 1


async def test_stop(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """At the end whoever still waits gets an error at once."""
    with FaultyServer(iso_md5.pool) as server:
        server.always("*", Stall())
        built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
        async with opened(built, tmp_path / "cache", fetch=FetchOptions(stall_timeout_s=50)) as images:
            at = offset_of(built, images, "large.deb")
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    with pytest.raises(JigdofsError, match="stopped"):
                        await images.images[0].reader.read(at, 10)

                nursery.start_soon(wait)
                await trio.to_thread.run_sync(server.wait_stalled)
                images.stop()


async def test_cancelled_readers_leave_nothing(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """Readers that are cancelled at any moment lose no descriptor and spoil nothing."""
    with FaultyServer(iso_md5.pool) as server:
        server.always("*large.deb", Drip(20_000_000))
        built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
        real = built.image.read_bytes()
        dice = random.Random(3)
        async with opened(built, tmp_path / "cache", quota=2_000_000) as images:
            reader = images.images[0].reader
            for _ in range(60):
                with trio.move_on_after(dice.random() * 0.02):
                    await reader.read(dice.randrange(len(real)), 200_000)
            await compare(reader, real, reads=20)
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _exists(fd)]
    assert [link for link in links if str(tmp_path) in link and "/index/" not in link] == []


def _exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.mark.logs("gives no checksum for its template")
@pytest.mark.parametrize("kind", ["iso_md5", "iso_bzip2"])
async def test_damaged_chunk(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> None:
    """A chunk that does not inflate is an error with its place; all other bytes can be read."""
    built: BuiltImage = request.getfixturevalue(kind)
    real = built.image.read_bytes()
    copy = built.with_servers(tmp_path / "in", {"Debian": f"file:{built.pool}/"})
    lines = copy.jigdo.read_bytes().splitlines(keepends=True)
    copy.jigdo.write_bytes(b"".join(line for line in lines if not line.startswith(b"Template-MD5Sum")))
    with copy.template.open("rb") as template:
        chunks = read_template(template, str(copy.template)).chunks
    assert len(chunks) > 1
    broken = bytearray(copy.template.read_bytes())
    middle = chunks[-1].offset + chunks[-1].size // 2
    broken[middle : middle + 16] = bytes(16)
    copy.template.write_bytes(broken)
    async with opened(copy, tmp_path / "cache") as images:
        (image,) = images.images
        offsets = range(0, len(real), 65536)
        good = [at for at in offsets if await reads_well(image.reader, real, at, chunks[-1].offset)]
        assert 0 < len(offsets) - len(good) < len(good)


async def reads_well(reader: ImageReader, real: bytes, at: int, broken_chunk: int) -> bool:
    """Tell whether bytes can be read; they must be right, or the error tell the place in the template."""
    try:
        data = await reader.read(at, 65536)
    except FormatError as found:
        error = found
    else:
        assert data == real[at : at + 65536]
        return True
    assert error.offset == broken_chunk
    return False


@pytest.mark.logs("the template was changed")
async def test_template_changes_while_open(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A local template that is written to while it is in use is found out before its bytes are used.

    One that was only touched is right: it is hashed again.
    """
    copy = iso_md5.with_servers(tmp_path / "in", {"Debian": f"file:{iso_md5.pool}/"})
    async with opened(copy, None) as images:
        reader = images.images[0].reader
        os.utime(copy.template, ns=(1, 1))
        assert await reader.read(0, 4096) == copy.image.read_bytes()[:4096]
    async with opened(copy, None) as images:
        with copy.template.open("r+b") as template:
            template.write(b"X")
        with pytest.raises(InputError, match="changed since it was read"):
            await images.images[0].reader.read(0, 4096)


@pytest.mark.logs("is not what it was")
async def test_cache_is_changed_meanwhile(iso_md5: BuiltImage, nginx: StartNginx, tmp_path: Path) -> None:
    """Whatever happens to the files of the cache while the image is read, the bytes are right."""
    server = nginx(iso_md5.pool)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": server.url("/")})
    real = built.image.read_bytes()
    dice = random.Random(5)
    async with opened(built, tmp_path / "cache") as images:
        reader = images.images[0].reader
        assert await read_all(reader) == real
        for number in range(4):
            files = [path for path in (tmp_path / "cache" / "objects").rglob("*") if path.is_file()]
            for path in dice.sample(files, len(files) // 2):
                match dice.choice(["shorten", "write", "remove", "replace"]):
                    case "shorten":
                        os.truncate(path, dice.randrange(path.stat().st_size))
                    case "write":
                        path.write_bytes(dice.randbytes(path.stat().st_size))
                    case "remove":
                        path.unlink()
                    case _:
                        (tmp_path / "new").write_bytes(dice.randbytes(path.stat().st_size))
                        (tmp_path / "new").rename(path)
            await compare(reader, real, seed=number, reads=30)
            assert await read_all(reader) == real


async def test_hiccups(iso_sha256: BuiltImage, tmp_path: Path) -> None:
    """A single mirror with passing trouble at every third request gives every byte."""
    with FaultyServer(iso_sha256.pool) as server:
        for number, path in enumerate(iso_sha256.parts.values()):
            if number % 3 == 0:
                server.script(f"/{path}", Reset(500))
        built = iso_sha256.with_servers(tmp_path / "in", {"Debian": server.url("/")})
        async with opened(built, tmp_path / "cache") as images:
            assert await read_all(images.images[0].reader) == built.image.read_bytes()
