"""Templates written with all processors: read back by us, rebuilt by jigdo-file and jigit, and never half."""

import bz2
import errno
import io
import itertools
import os
import random
import resource
import subprocess
import tempfile
import threading
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.create.template_file import WrittenTemplate, write_template
from jigdofs.errors import UsageError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.jigdo_writer import Description, write_jigdo
from jigdofs.format.rsync64 import Rsync64
from jigdofs.format.template import (
    MAX_CHUNKS,
    MAX_PARTS,
    Compression,
    Entry,
    ImageInfo,
    MatchedFile,
    UnmatchedData,
)
from jigdofs.format.template_reader import read_template
from jigdofs.format.template_writer import CHUNK_LENGTH, chunk_length
from jigdofs.image.raw_data import TemplateFile, inflate
from tests.kit.requirements import tool

BLOCK = 1024
ZLIB, BZIP2 = Compression.ZLIB, Compression.BZIP2
PART_A, PART_B = (random.Random(seed).randbytes(size) for seed, size in ((1, 5000), (2, 200_000)))
PARTS = (PART_A, PART_B)


@dataclass(frozen=True, slots=True)
class Image:
    """An image in pieces: what is in `PARTS` is a part, everything else belongs to none."""

    pieces: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def gaps(self) -> list[bytes]:
        return [piece for piece in self.pieces if piece not in PARTS]

    def entries(self, algorithm: Algorithm) -> Iterator[Entry]:
        for piece in self.pieces:
            if piece in PARTS:
                checksum = Checksum.of(algorithm, piece)
                yield MatchedFile(len(piece), checksum, Rsync64(piece[:BLOCK]).digest())
            else:
                yield UnmatchedData(len(piece))
        yield ImageInfo(len(self.data), Checksum.of(algorithm, self.data), BLOCK)


def noise(length: int, seed: int = 3) -> bytes:
    return random.Random(seed).randbytes(length)


def write(
    out: BinaryIO,
    image: Image,
    algorithm: Algorithm = Algorithm.MD5,
    compression: Compression = ZLIB,
    *,
    level: int = 9,
    threads: int | None = None,
) -> WrittenTemplate:
    return write_template(
        out,
        image.gaps,
        image.entries(algorithm),
        algorithm=algorithm,
        compression=compression,
        level=level,
        creator="jigdofs/0",
        threads=threads,
    )


def write_endless(out: BinaryIO, raw: Iterable[bytes]) -> None:
    """Write the template of an image that is longer than any disk here, all of it unmatched."""
    length = 1 << 37
    entries: list[Entry] = [UnmatchedData(length), ImageInfo(length, Checksum(bytes(16)), BLOCK)]
    write_template(
        out, raw, entries, algorithm=Algorithm.MD5, compression=ZLIB, level=1, creator="x", threads=2
    )


def tidy(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that should come back: neighbouring gaps are one, empty ones none."""
    tidied: list[Entry] = []
    for entry in entries:
        if isinstance(entry, UnmatchedData):
            if not entry.length:
                continue
            if tidied and isinstance(tidied[-1], UnmatchedData):
                entry = UnmatchedData(tidied.pop().length + entry.length)  # noqa: PLW2901
        tidied.append(entry)
    return [UnmatchedData(0), *tidied] if len(tidied) == 1 else tidied


def read_back(template: bytes, bound: int) -> tuple[list[Entry], bytes]:
    """Read entries and raw data with our reader; no chunk may be empty or inflate to more than the bound."""
    with tempfile.TemporaryFile() as file:
        file.write(template)
        file.flush()
        status = os.fstat(file.fileno())
        opened = TemplateFile(file.fileno(), "t", "0", (status.st_size, status.st_mtime_ns))
        found = read_template(file, "t")
        assert all(0 < chunk.length <= bound for chunk in found.chunks)
        raw = b"".join(piece for chunk in found.chunks for piece in inflate(opened, chunk))
        return list(found.entries()), raw


SIZES = st.one_of(
    st.integers(0, 3000), st.sampled_from([0, 1, 99_949, 99_950, 99_951, CHUNK_LENGTH - 1, CHUNK_LENGTH + 1])
)
GAPS = st.builds(lambda size, seed: noise(size, seed) if seed else bytes(size), SIZES, st.integers(0, 3))
IMAGES = st.lists(st.one_of(GAPS, st.sampled_from(PARTS)), max_size=8).map(lambda p: Image(tuple(p)))


@settings(max_examples=60, deadline=None)
@given(IMAGES, st.sampled_from(Algorithm), st.sampled_from(Compression), st.integers(0, 9))
def test_read_back(image: Image, algorithm: Algorithm, compression: Compression, level: int) -> None:
    """Our reader gives back the tidied entries and the same raw data, with the checksums that were told."""
    out = io.BytesIO()
    written = write(out, image, algorithm, compression, level=level)
    template = out.getvalue()
    assert written == WrittenTemplate(
        len(template), Checksum.of(Algorithm.MD5, template), Checksum.of(Algorithm.SHA256, template)
    )
    entries, raw = read_back(template, chunk_length(compression, level))
    assert entries == tidy(image.entries(algorithm))
    assert raw == b"".join(image.gaps)


@settings(max_examples=20, deadline=None)
@given(IMAGES, st.sampled_from(Compression), st.data())
def test_same_bytes(image: Image, compression: Compression, data: st.DataObject) -> None:
    """One thread or four, a second run and other pieces of raw data: the template is the same."""
    first = io.BytesIO()
    write(first, image, compression=compression, level=1, threads=1)
    raw = b"".join(image.gaps)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    other = [raw[start:end] for start, end in itertools.pairwise([0, *cuts, len(raw)])]
    for pieces in (image.gaps, other):
        again = io.BytesIO()
        write_template(
            again,
            pieces,
            image.entries(Algorithm.MD5),
            algorithm=Algorithm.MD5,
            compression=compression,
            level=1,
            creator="jigdofs/0",
            threads=4,
        )
        assert again.getvalue() == first.getvalue()


def test_many_chunks_keep_their_order() -> None:
    """Chunks that take unlike times to compress stand in the template in the order of the image."""
    gaps = [noise(99_950, n) if n % 3 else bytes(99_950) for n in range(40)]
    image = Image(tuple(gaps))
    one, four = io.BytesIO(), io.BytesIO()
    write(one, image, compression=BZIP2, level=1, threads=1)
    write(four, image, compression=BZIP2, level=1, threads=4)
    assert one.getvalue() == four.getvalue()
    assert read_back(four.getvalue(), 99_950)[1] == image.data
    assert four.getvalue().count(b"BZIP") == 40


# -- other programs ----------------------------------------------------------------------------------


def scene(compression: Compression, level: int) -> dict[str, Image]:
    """Return the images that the other programs rebuild, by what is special about them."""
    full = chunk_length(compression, level)
    return {
        "all matched": Image((PART_A, PART_B, PART_A)),
        "all unmatched": Image((noise(2 * full + 77),)),
        "one byte": Image((b"x",)),
        "a byte less than a chunk": Image((noise(700), PART_A, noise(full - 701))),
        "one chunk": Image((noise(700), PART_A, noise(full - 700))),
        "a byte more than a chunk": Image((noise(700), PART_A, noise(full - 699))),
        "two chunks": Image((PART_B, noise(2 * full), PART_A)),
        "neighbours": Image((b"", b"ab", b"", bytes(2000), PART_A, b"", PART_B, b"c", b"", b"d")),
    }


class Site:
    """A directory with a template, its .jigdo and its parts."""

    def __init__(self, directory: Path, image: Image, algorithm: Algorithm) -> None:
        self.directory = directory
        self.image = image
        self.algorithm = algorithm
        directory.mkdir()
        self.parts = {f"part-{n}": part for n, part in enumerate(PARTS) if part in image.pieces}
        for name, part in self.parts.items():
            (directory / name).write_bytes(part)

    def write(self, compression: Compression, level: int) -> None:
        with (self.directory / "x.template").open("wb") as out:
            written = write(out, self.image, self.algorithm, compression, level=level)
        parts = tuple((Checksum.of(self.algorithm, part), f"A:{name}") for name, part in self.parts.items())
        servers = (("A", f"file:{self.directory}/"),)
        sums = (written.md5, written.sha256)
        checksums = tuple(checksum for checksum in sums if checksum.algorithm is self.algorithm)
        jigdo = Description("x.img", "x.template", checksums, parts, servers, "jigdofs/0")
        (self.directory / "x.jigdo").write_bytes(write_jigdo(jigdo))

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [tool(command[0]), *command[1:]], cwd=self.directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def jigdo_file(self, verb: str, *arguments: str) -> str:
        files = [] if verb == "list-template" else ["--image=x.img", "--report=quiet"]
        return self.run("jigdo-file", verb, *files, "--template=x.template", *arguments)

    def jigit(self) -> bytes:
        """Let jigit rebuild the image, and return it."""
        options = ["-v", "-j", "x.jigdo", "-t", "x.template", "-m", f"A={self.directory}/", "-o", "jigit.img"]
        self.run("jigit-mkimage", *options)
        return (self.directory / "jigit.img").read_bytes()


def listed(site: Site) -> list[tuple[str, int]]:
    """Return kind and length of every entry as jigdo-file lists them; without offsets."""
    lines = [line.split() for line in site.jigdo_file("list-template", "--hex").splitlines()]
    return [(words[0], int(words[1 if words[0].startswith("image-info") else 2])) for words in lines]


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("compression", Compression, ids=lambda c: c.name)
@pytest.mark.parametrize("algorithm", Algorithm, ids=lambda a: a.name)
def test_other_programs(tmp_path: Path, algorithm: Algorithm, compression: Compression, level: int) -> None:
    """jigdo-file lists, rebuilds and verifies each of our templates, jigit-mkimage rebuilds it too.

    Where no byte is unmatched, jigdo-file 0.8 dies of SIGSEGV with the image all written, also with
    templates of its own: there it only verifies what jigit made.
    """
    for number, (name, image) in enumerate(scene(compression, level).items()):
        site = Site(tmp_path / str(number), image, algorithm)
        site.write(compression, level)
        entries = tidy(image.entries(algorithm))
        words = {UnmatchedData: "in-template", MatchedFile: "need-file-", ImageInfo: "image-info-"}
        suffix = algorithm.short_name
        assert listed(site) == [
            (words[type(entry)] + (suffix if words[type(entry)].endswith("-") else ""), entry.length)
            for entry in entries
        ], name
        assert site.jigit() == image.data, name
        if image.gaps:
            site.jigdo_file("make-image", "--no-cache", *site.parts)
            assert (site.directory / "x.img").read_bytes() == image.data, name
        else:
            (site.directory / "jigit.img").rename(site.directory / "x.img")
        site.jigdo_file("verify")


@pytest.mark.parametrize("compression", Compression, ids=lambda c: c.name)
@pytest.mark.parametrize("algorithm", Algorithm, ids=lambda a: a.name)
@pytest.mark.parametrize("pieces", [(), (b"", b"")], ids=["nothing", "two empty gaps"])
def test_empty_image(
    tmp_path: Path, algorithm: Algorithm, compression: Compression, pieces: tuple[bytes, ...]
) -> None:
    """The template of an image of no bytes has no chunk; jigdo-file reads it and verifies the image."""
    site = Site(tmp_path / "site", Image(pieces), algorithm)
    site.write(compression, 9)
    with (site.directory / "x.template").open("rb") as file:
        template = read_template(file, "x.template")
    assert template.chunks == ()
    assert template.image_length == 0
    assert listed(site) == [("in-template", 0), (f"image-info-{algorithm.short_name}", 0)]
    (site.directory / "x.img").touch()
    site.jigdo_file("verify")
    assert site.jigit() == b""


# -- refused before anything is written --------------------------------------------------------------


def refused(entries: Iterable[Entry], compression: Compression = ZLIB) -> str:
    """Return why `write_template` takes no such entries; no byte may have been written or pulled."""
    out = io.BytesIO()
    raw = iter([b"never"])
    with pytest.raises((UsageError, ValueError)) as caught:
        write_template(
            out, raw, entries, algorithm=Algorithm.MD5, compression=compression, level=1, creator="x"
        )
    assert out.getvalue() == b""
    assert next(raw) == b"never"
    return str(caught.value)


def test_too_many_parts() -> None:
    """A table that our reader would refuse for its size is refused in one line that says what helps."""
    part = MatchedFile(5000, Checksum(bytes(32)), bytes(8))
    message = refused(itertools.repeat(part, MAX_PARTS + 1))
    assert message == f"more than {MAX_PARTS} parts: no reader takes so many; raise --min-length"


@pytest.mark.parametrize("compression", Compression, ids=lambda c: c.name)
def test_too_much_raw_data(compression: Compression) -> None:
    """More chunks than our reader takes are refused."""
    length = MAX_CHUNKS * chunk_length(compression, 1)
    message = refused([UnmatchedData(length), ImageInfo(length, Checksum(bytes(16)), BLOCK)], compression)
    assert message.startswith(f"{length} bytes belong to no part")


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [UnmatchedData(5)],
        [UnmatchedData(5), ImageInfo(6, Checksum(bytes(16)), BLOCK)],
        [ImageInfo(5, Checksum(bytes(16)), BLOCK), UnmatchedData(5)],
        [ImageInfo(0, Checksum(bytes(16)), BLOCK)] * 2,
    ],
    ids=["nothing", "no image info", "wrong length", "image info first", "two image infos"],
)
def test_entries_that_do_not_tile(entries: list[Entry]) -> None:
    """Entries that no reader would take are no template."""
    refused(entries)


@pytest.mark.parametrize("raw", [[b"1234"], [b"123", b"456"], [bytes(1 << 21)], []], ids=len)
def test_raw_data_of_another_length(raw: list[bytes]) -> None:
    """Raw data that is shorter or longer than the entries say makes no template."""
    out = io.BytesIO()
    entries: list[Entry] = [UnmatchedData(5), ImageInfo(5, Checksum(bytes(16)), BLOCK)]
    with pytest.raises(ValueError, match="5 bytes"):
        write_template(out, raw, entries, algorithm=Algorithm.MD5, compression=ZLIB, level=9, creator="x")
    assert b"DESC" not in out.getvalue()


# -- an end before the end ---------------------------------------------------------------------------


@contextmanager
def full_disk(buffering: int) -> Iterator[BinaryIO]:
    """Open a file on a disk without room; what its buffer holds at the end is dropped."""
    with open("/dev/full", "wb", buffering=0) as file:
        yield cast(BinaryIO, io.BufferedWriter(file, buffering) if buffering else file)


class Unreadable(Exception):
    """Say that the image cannot be read any further."""


def test_raw_data_that_raises() -> None:
    """What the raw data raises comes out as it is, and no thread is left."""

    def raw() -> Iterator[bytes]:
        for _ in range(9):
            yield noise(CHUNK_LENGTH)
        raise Unreadable

    before = set(threading.enumerate())
    with pytest.raises(Unreadable):
        write_endless(io.BytesIO(), raw())
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("buffering", [0, 3 * CHUNK_LENGTH], ids=["at once", "after some chunks"])
def test_full_disk(buffering: int) -> None:
    """A full disk ends the work at the write that fails, however much is to come; no thread is left."""
    pulled = 0

    def raw() -> Iterator[bytes]:
        nonlocal pulled
        piece = noise(CHUNK_LENGTH)
        while True:
            pulled += 1
            yield piece

    before = set(threading.enumerate())
    with full_disk(buffering) as out:
        with pytest.raises(OSError, match="No space") as caught:
            write_endless(out, raw())
        assert caught.value.errno == errno.ENOSPC
        assert set(threading.enumerate()) == before
    assert pulled == 0 if not buffering else 3 <= pulled <= 9


def test_full_disk_at_the_very_end() -> None:
    """Where the whole template fits into the buffer, a full disk is still an error of the writing."""
    with full_disk(CHUNK_LENGTH) as out, pytest.raises(OSError, match="No space"):
        write(out, Image((b"small",)))


def test_the_last_write_is_cut_short(tmp_path: Path) -> None:
    """A file without a buffer that takes less than the last write gives is an error, not half a table."""
    image = Image((b"small", PART_A))
    with (tmp_path / "whole").open("wb", buffering=0) as out:
        length = write(out, image).length
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "cut").open("wb", buffering=0) as out:
        resource.setrlimit(resource.RLIMIT_FSIZE, (length - 3, hard))
        try:
            with pytest.raises(OSError, match="too large") as caught:
                write(out, image)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / "cut").stat().st_size == length - 3


def test_memory_does_not_grow() -> None:
    """200 MB of raw data that compresses slowly needs the memory of a few chunks."""
    piece = noise(CHUNK_LENGTH)
    entries: list[Entry] = [UnmatchedData(200 << 20), ImageInfo(200 << 20, Checksum(bytes(16)), BLOCK)]
    with open(os.devnull, "wb") as out:
        tracemalloc.start()
        try:
            written = write_template(
                out,
                itertools.repeat(piece, (200 << 20) // CHUNK_LENGTH),
                entries,
                algorithm=Algorithm.MD5,
                compression=ZLIB,
                level=1,
                creator="x",
                threads=2,
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert written.length > 200 << 20
    assert peak < 32 << 20


def test_compressed_as_the_libraries_do() -> None:
    """The chunks of two threads are what one call of zlib makes of them: nothing of a level is lost."""
    data = b"".join(b"line %d\n" % n for n in range(300_000))
    out = io.BytesIO()
    write(out, Image((data,)), level=6, threads=2)
    template = read_template(out, "t")
    chunks = [out.getvalue()[chunk.offset : chunk.offset + chunk.size] for chunk in template.chunks]
    cuts = range(0, len(data), CHUNK_LENGTH)
    assert chunks == [zlib.compress(data[at : at + CHUNK_LENGTH], 6) for at in cuts]
    out = io.BytesIO()
    write(out, Image((data,)), compression=BZIP2, level=0, threads=2)
    template = read_template(out, "t")
    first = template.chunks[0]
    assert out.getvalue()[first.offset : first.offset + first.size] == bz2.compress(data[:99_950], 1)
