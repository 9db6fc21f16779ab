"""The raw data: chunks inflated piece by piece, in bounded memory, or refused where they are damaged."""

import bz2
import hashlib
import itertools
import os
import random
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.errors import FormatError, InputError
from jigdofs.format.template import Chunk, Compression
from jigdofs.image.raw_data import RawData, TemplateFile, check_unchanged, inflate
from jigdofs.parts.flights import Flights
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.open_file import OpenFiles
from jigdofs.parts.spool import TemporaryPlace

JUNK = b"in front of the chunk"
PIECE_MAX = 1 << 20
BOTH = [Compression.ZLIB, Compression.BZIP2]
DATA = {
    "a byte": b"x",
    "text": b"some text " * 5000,
    "zeros": bytes(5_000_000),
    "noise": random.Random(4).randbytes(1_500_000),
    "mixed": random.Random(5).randbytes(700_000) + bytes(3_000_000) + b"end",
    "exactly a piece": bytes(PIECE_MAX),
    "a byte more": bytes(PIECE_MAX + 1),
}


def pack(data: bytes, compression: Compression, level: int = 9) -> bytes:
    return (
        zlib.compress(data, level) if compression is Compression.ZLIB else bz2.compress(data, max(level, 1))
    )


@contextmanager
def template_of(path: Path, content: bytes) -> Iterator[TemplateFile]:
    """Write a file and open it as a template that was verified."""
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    status = os.fstat(fd)
    try:
        yield TemplateFile(fd, "t.template", "0" * 32, (status.st_size, status.st_mtime_ns))
    finally:
        os.close(fd)


def inflated(tmp_path: Path, packed: bytes, compression: Compression, length: int) -> Iterator[bytes]:
    """Inflate one chunk that lies between other bytes."""
    with template_of(tmp_path / "t", JUNK + packed + b"DESC behind it") as template:
        yield from inflate(template, Chunk(compression, len(JUNK), len(packed), length))


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("level", [0, 9])
def test_inflate(tmp_path: Path, name: str, compression: Compression, level: int) -> None:
    """A chunk comes back to the byte, in pieces of at most 1 MiB, none of them empty."""
    data = DATA[name]
    pieces = list(inflated(tmp_path, pack(data, compression, level), compression, len(data)))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= PIECE_MAX for piece in pieces)


@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("mend", [-1, 1, -1000, 2**47])
def test_wrong_length(tmp_path: Path, compression: Compression, mend: int) -> None:
    """A chunk that inflates to more or less than it announces is an error, and no byte too many is given."""
    data = DATA["mixed"]
    got = bytearray()
    pieces = inflated(tmp_path, pack(data, compression), compression, len(data) + mend)
    with pytest.raises(FormatError, match="does not hold") as caught:
        got.extend(itertools.chain.from_iterable(pieces))
    assert (caught.value.source, caught.value.offset) == ("t.template", len(JUNK))
    assert len(got) <= len(data) + mend
    assert data.startswith(got)


@pytest.mark.parametrize("compression", BOTH)
def test_cut_short(tmp_path: Path, compression: Compression) -> None:
    """A chunk cut anywhere is an error at its offset, also where nothing but its checksum is missing."""
    data = b"some text " * 20
    packed = pack(data, compression)
    for size in range(len(packed)):
        with pytest.raises(FormatError) as caught:
            list(inflated(tmp_path, packed[:size], compression, len(data)))
        assert caught.value.offset == len(JUNK)


@pytest.mark.parametrize("compression", BOTH)
def test_damaged(tmp_path: Path, compression: Compression) -> None:
    """A chunk with any byte changed is an error at its offset, or all its bytes are right."""
    data = b"some text " * 20
    packed = pack(data, compression)
    refused = []
    for at in range(len(packed)):
        damaged = packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :]
        try:
            assert b"".join(inflated(tmp_path, damaged, compression, len(data))) == data
        except FormatError as error:
            refused.append(error.offset)
    assert set(refused) == {len(JUNK)}
    assert len(refused) >= len(packed) - 2


def test_the_other_compression(tmp_path: Path) -> None:
    """A chunk whose id lies about its compression is an error."""
    for compression, other in (BOTH, BOTH[::-1]):
        with pytest.raises(FormatError, match="damaged"):
            list(inflated(tmp_path, pack(b"x" * 99, compression), other, 99))


def test_the_template_ends_early(tmp_path: Path) -> None:
    """A template that became shorter than its chunks is an error, not an endless loop."""
    packed = pack(DATA["noise"], Compression.ZLIB)
    with (
        template_of(tmp_path / "t", packed[:-50_000]) as template,
        pytest.raises(FormatError, match="not hold"),
    ):
        list(inflate(template, Chunk(Compression.ZLIB, 0, len(packed), len(DATA["noise"]))))


@pytest.mark.parametrize("compression", BOTH)
def test_memory_is_bounded(tmp_path: Path, compression: Compression) -> None:
    """A chunk of 256 MiB in a quarter of a megabyte is inflated with 64 MiB more than Python needs."""
    packer = zlib.compressobj(9) if compression is Compression.ZLIB else bz2.BZ2Compressor(9)
    packed = b"".join(packer.compress(bytes(16 << 20)) for _ in range(16)) + packer.flush()
    (tmp_path / "t").write_bytes(packed)
    code = (
        "import os, resource, sys\n"
        "from jigdofs.format.template import Chunk, Compression\n"
        "from jigdofs.image.raw_data import TemplateFile, inflate\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "size = os.fstat(fd).st_size\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "chunk = Chunk(Compression(sys.argv[2].encode()), 0, size, 256 << 20)\n"
        "total = sum(map(len, inflate(TemplateFile(fd, 't', '', (0, 0)), chunk)))\n"
        "print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "t"), compression.value.decode()]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    total, kib = map(int, printed.split())
    assert total == 256 << 20
    assert kib < 64 << 10


@pytest.mark.parametrize("append", [b"x", b""])
def test_a_template_that_changes(tmp_path: Path, append: bytes) -> None:
    """A template that was written to since it was verified is refused, also where its size is the same."""
    with template_of(tmp_path / "t", b"content") as template:
        check_unchanged(template)
        with (tmp_path / "t").open("ab") as file:
            file.write(append)
        os.utime(tmp_path / "t", ns=(0, template.fingerprint[1] + 1))
        with pytest.raises(InputError, match=r"t\.template: .* changed"):
            check_unchanged(template)


def listed_as(chunks: list[tuple[bytes, Compression, int]]) -> tuple[Chunk, ...]:
    starts = itertools.accumulate((len(packed) for packed, _, _ in chunks), initial=0)
    return tuple(
        Chunk(compression, start, len(packed), length)
        for start, (packed, compression, length) in zip(starts, chunks, strict=False)
    )


@asynccontextmanager
async def raw_data(
    tmp_path: Path, chunks: list[tuple[bytes, Compression, int]]
) -> AsyncIterator[tuple[RawData, Path]]:
    """Put chunks (packed, compression, length) into a template; yield its raw data and its path."""
    listed = listed_as(chunks)
    with template_of(tmp_path / "t", b"".join(packed for packed, _, _ in chunks)) as template:
        async with trio.open_nursery() as nursery:
            store = ObjectStore(None, Flights(nursery), OpenFiles(8, 1 << 30), (TemporaryPlace(),))
            yield RawData(template, listed, store), tmp_path / "t"
            nursery.cancel_scope.cancel()


CHUNKS = [(pack(data, BOTH[n % 2]), BOTH[n % 2], len(data)) for n, data in enumerate(DATA.values())]


async def test_open(tmp_path: Path) -> None:
    """Each chunk opens as a file with exactly its bytes, is open from then on, and hinted ones come too."""
    async with raw_data(tmp_path, CHUNKS) as (raw, _):
        raw.hint(1)
        for number, data in enumerate(DATA.values()):
            file = await raw.open(number)
            assert os.pread(file.fd, len(data) + 1, 0) == data
            assert raw.peek(number) is file
            file.unpin()


async def test_open_what_is_damaged(tmp_path: Path) -> None:
    """A damaged chunk fails at its offset and hurts no other; a template that changed fails as such."""
    packed = CHUNKS[1][0]
    damaged = (packed[:-5] + bytes([packed[-5] ^ 255]) + packed[-4:], *CHUNKS[1][1:])
    async with raw_data(tmp_path, [CHUNKS[0], damaged, CHUNKS[2]]) as (raw, path):
        for _ in range(2):
            with pytest.raises(FormatError) as caught:
                await raw.open(1)
            assert caught.value.offset == len(CHUNKS[0][0])
        (await raw.open(0)).unpin()
        os.utime(path, ns=(0, 0))
        with pytest.raises(InputError, match="changed"):
            await raw.open(2)


@pytest.mark.parametrize("how", ["written to", "written to and hidden", "removed", "renamed"])
async def test_a_template_that_is_injured(
    tmp_path: Path, how: str, expected_log: Callable[[str], None]
) -> None:
    """What was done to a template does not get into the image: a wrong one is had anew, a right one used."""
    data = list(DATA.values())
    (tmp_path / "again").mkdir()
    packed = b"".join(packed for packed, _, _ in CHUNKS)
    digest = hashlib.md5(packed).hexdigest()
    renewed = []
    with (
        template_of(tmp_path / "t", packed) as template,
        template_of(tmp_path / "again" / "t", packed) as another,
    ):

        async def renew() -> TemplateFile:
            renewed.append(how)
            return another._replace(digest=digest)

        path = tmp_path / "t"
        async with trio.open_nursery() as nursery:
            store = ObjectStore(None, Flights(nursery), OpenFiles(8, 1 << 30), (TemporaryPlace(),))
            raw = RawData(template._replace(digest=digest), listed_as(CHUNKS), store, renew)
            status = path.stat()
            match how:
                case "removed":
                    path.unlink()
                case "renamed":
                    path.rename(tmp_path / "elsewhere")
                case _:
                    expected_log("was changed since it was read")
                    path.write_bytes(bytes(len(packed)))
                    if how.endswith("hidden"):
                        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            for number, wanted in enumerate(data):
                file = await raw.open(number)
                assert os.pread(file.fd, len(wanted) + 1, 0) == wanted
                file.unpin()
            nursery.cancel_scope.cancel()
    assert renewed == ([how] if how.startswith("written") else [])


def _idle_store() -> ObjectStore:
    """Return a store that nothing is asked of: `slices` is arithmetic."""

    async def make() -> ObjectStore:
        async with trio.open_nursery() as nursery:
            return ObjectStore(None, Flights(nursery), OpenFiles(8, 1 << 30), ())

    return trio.run(make)


IDLE = _idle_store()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.data())
def test_slices(lengths: list[int], data: st.DataObject) -> None:
    """The slices of any range are, byte by byte, where a naive model finds them."""
    rows = [(number, at) for number, length in enumerate(lengths) for at in range(length)]
    offset = data.draw(st.integers(0, len(rows) - 1))
    length = data.draw(st.integers(0, len(rows) - offset))
    template = TemplateFile(-1, "t", "", (0, 0))
    chunks = tuple(Chunk(Compression.ZLIB, 0, 0, length) for length in lengths)
    raw = RawData(template, chunks, IDLE)
    slices = list(raw.slices(offset, length))
    assert [(s.number, s.offset + at) for s in slices for at in range(s.length)] == rows[
        offset : offset + length
    ]
    assert all(s.length for s in slices)
