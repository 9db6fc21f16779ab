"""Templates we write: read back equal, and rebuilt to the very image by jigdo-file and jigit."""

import bz2
import io
import random
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.jigdo_writer import Description, write_jigdo
from jigdofs.format.rsync64 import Rsync64
from jigdofs.format.template import Compression, Entry, ImageInfo, MatchedFile, UnmatchedData
from jigdofs.format.template_reader import read_template
from jigdofs.format.template_writer import (
    CHUNK_LENGTH,
    ChunkCutter,
    TemplateWriter,
    chunk_length,
    header,
    pack_chunk,
    pack_u48,
)
from tests.kit.requirements import tool

BLOCK = 1024
BOTH = [(algorithm, compression) for algorithm in Algorithm for compression in Compression]


@dataclass(frozen=True, slots=True)
class Written:
    """An image and its template as we write it."""

    image: bytes
    raw: bytes
    parts: dict[Checksum, bytes]
    entries: tuple[Entry, ...]
    template: bytes


def write(algorithm: Algorithm, compression: Compression, *, level: int = 9, gaps: bool = True) -> Written:
    """Write an image of parts and gaps; the raw data makes three or four chunks that end amid a gap."""
    source = random.Random(3)
    names = ["part-a", "part-b", "part-a"]
    contents = {name: source.randbytes(size) for name, size in (("part-a", 5000), ("part-b", 200_000))}
    gap = [source.randbytes(1500) + bytes(CHUNK_LENGTH), b"\x01", source.randbytes(CHUNK_LENGTH), b"end"]
    gap = gap if gaps else [b""] * len(gap)
    image, raw, parts = b"", b"", {}
    entries: list[Entry] = []
    out = io.BytesIO()
    writer = TemplateWriter(
        out, algorithm, creator="jigdofs/0", comment="tests", compression=compression, level=level
    )
    for number, data in enumerate(gap):
        image += data
        raw += data
        entries += [UnmatchedData(len(data))] if data else []
        for at in range(0, len(data), 300_001):
            writer.raw_data(data[at : at + 300_001])
        if number < len(names):
            content = contents[names[number]]
            checksum = Checksum.of(algorithm, content)
            parts[checksum] = content
            entries.append(MatchedFile(len(content), checksum, Rsync64(content[:BLOCK]).digest()))
            image += content
    entries.append(ImageInfo(len(image), Checksum.of(algorithm, image), BLOCK))
    writer.finish(entries)
    return Written(image, raw, parts, tuple(entries), out.getvalue())


def inflate_all(template: bytes) -> bytes:
    raw = b""
    for chunk in read_template(io.BytesIO(template), "t").chunks:
        packed = template[chunk.offset : chunk.offset + chunk.size]
        inflated = (
            zlib.decompress(packed) if chunk.compression is Compression.ZLIB else bz2.decompress(packed)
        )
        assert len(inflated) == chunk.length
        raw += inflated
    return raw


@pytest.mark.parametrize(("algorithm", "compression"), BOTH)
def test_read_back(algorithm: Algorithm, compression: Compression) -> None:
    """Entries, raw data, version and creator come back; all chunks but the last are full, none is empty."""
    written = write(algorithm, compression)
    template = read_template(io.BytesIO(written.template), "t")
    assert tuple(template.entries()) == written.entries
    assert (template.version, template.creator) == (
        "1.2" if algorithm is Algorithm.MD5 else "2.0",
        "jigdofs/0",
    )
    lengths = [chunk.length for chunk in template.chunks]
    full, rest = divmod(len(written.raw), chunk_length(compression, 9))
    assert lengths == [chunk_length(compression, 9)] * full + [rest]
    assert {chunk.compression for chunk in template.chunks} == {compression}
    assert inflate_all(written.template) == written.raw


@given(st.lists(st.binary(max_size=50), max_size=20), st.sampled_from(list(Compression)), st.integers(0, 9))
def test_raw_data_in_any_pieces(pieces: list[bytes], compression: Compression, level: int) -> None:
    """The pieces in which raw data comes leave no trace, and there is no chunk where there is none."""
    out, whole = io.BytesIO(), io.BytesIO()
    raw = b"".join(pieces)
    for target, data in ((out, pieces), (whole, [raw])):
        writer = TemplateWriter(target, Algorithm.MD5, creator="x", compression=compression, level=level)
        for piece in data:
            writer.raw_data(piece)
        writer.finish([UnmatchedData(len(raw)), ImageInfo(len(raw), Checksum.of(Algorithm.MD5, raw))])
    assert out.getvalue() == whole.getvalue()
    assert inflate_all(out.getvalue()) == raw
    assert len(read_template(out, "t").chunks) == bool(raw)


@given(st.lists(st.binary(max_size=40)), st.integers(1, 20))
def test_cut(pieces: list[bytes], length: int) -> None:
    """However it comes, raw data is cut into full chunks and a last one that is never empty."""
    cutter = ChunkCutter(length)
    chunks = [bytes(chunk) for piece in pieces for chunk in cutter.add(piece)]
    assert {len(chunk) for chunk in chunks} <= {length}
    chunks += [bytes(chunk) for chunk in cutter.rest()]
    raw = b"".join(pieces)
    assert chunks == [raw[at : at + length] for at in range(0, len(raw), length)]
    assert list(cutter.rest()) == []


@pytest.mark.parametrize(
    ("compression", "level", "length"),
    [
        (Compression.ZLIB, 0, 2 << 20),
        (Compression.ZLIB, 9, 2 << 20),
        (Compression.BZIP2, 0, 99_950),
        (Compression.BZIP2, 1, 99_950),
        (Compression.BZIP2, 9, 899_950),
    ],
)
def test_chunk_length(compression: Compression, level: int, length: int) -> None:
    """A chunk of bzip2 has as many bytes as jigdo-file gives it, and makes one block of bzip2."""
    assert chunk_length(compression, level) == length <= CHUNK_LENGTH
    packed = pack_chunk(random.Random(1).randbytes(length), compression, level)
    inflater = bz2.BZ2Decompressor() if compression is Compression.BZIP2 else zlib.decompressobj()
    assert len(inflater.decompress(packed[16:])) == length
    assert inflater.eof
    if compression is Compression.BZIP2:
        # the end mark of a stream and its sum follow the one block: their sums differ where there are more
        block_sum = packed[16 + 10 : 16 + 14]
        bits = int.from_bytes(packed[16:], "big")
        stream_sums = {bits >> shift & 0xFFFFFFFF for shift in range(8)}
        assert int.from_bytes(block_sum, "big") in stream_sums


def test_exactly_one_chunk() -> None:
    """Raw data that ends at a chunk's end leaves no empty chunk behind (jigdo-file would die of it)."""
    out = io.BytesIO()
    writer = TemplateWriter(out, Algorithm.MD5, creator="x")
    writer.raw_data(bytes(CHUNK_LENGTH))
    writer.finish([UnmatchedData(CHUNK_LENGTH), ImageInfo(CHUNK_LENGTH, Checksum(bytes(16)))])
    assert out.getvalue().count(b"DATA") == 1
    with pytest.raises(ValueError, match="empty"):
        pack_chunk(b"", Compression.ZLIB)


@pytest.mark.parametrize(
    ("number", "packed"), [(0, "000000000000"), (0x060504030201, "010203040506"), (2**48 - 1, "ffffffffffff")]
)
def test_u48(number: int, packed: str) -> None:
    """Six bytes, little-endian."""
    assert pack_u48(number).hex() == packed


def test_header() -> None:
    """Three lines that end in CR LF, the last empty."""
    assert (
        header(Algorithm.MD5, "jigdofs/1", "note") == b"JigsawDownload template 1.2 jigdofs/1\r\nnote\r\n\r\n"
    )


def _site(tmp_path: Path, written: Written, algorithm: Algorithm) -> list[str]:
    """Write template, .jigdo and parts as files; return the names of the parts."""
    (tmp_path / "x.template").write_bytes(written.template)
    (tmp_path / "pool").mkdir()
    names = {checksum: f"pool/{number}" for number, checksum in enumerate(written.parts)}
    for checksum, data in written.parts.items():
        (tmp_path / names[checksum]).write_bytes(data)
    parts = tuple((checksum, f"A:{name}") for checksum, name in names.items())
    template_sum = Checksum.of(algorithm, written.template)
    servers = (("A", f"file:{tmp_path}/"),)
    jigdo = Description("x.img", "x.template", (template_sum,), parts, servers, "jigdofs/0")
    (tmp_path / "x.jigdo").write_bytes(write_jigdo(jigdo))
    return list(names.values())


@pytest.mark.parametrize("level", [0, 9])
@pytest.mark.parametrize(("algorithm", "compression"), BOTH)
def test_rebuilt_by_jigdo_file(
    tmp_path: Path, algorithm: Algorithm, compression: Compression, level: int
) -> None:
    """jigdo-file makes the image out of our template, and verifies it."""
    written = write(algorithm, compression, level=level)
    names = _site(tmp_path, written, algorithm)
    jigdo_file = tool("jigdo-file")
    files = ["--image=x.img", "--template=x.template", "--report=quiet"]
    for command in (["make-image", "--no-cache", *files, *names], ["verify", *files]):
        done = subprocess.run([jigdo_file, *command], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.img").read_bytes() == written.image


@pytest.mark.parametrize("gaps", [True, False], ids=["gaps", "no gaps"])
@pytest.mark.parametrize(("algorithm", "compression"), BOTH)
def test_rebuilt_by_jigit(
    tmp_path: Path, algorithm: Algorithm, compression: Compression, *, gaps: bool
) -> None:
    """jigit-mkimage makes the image out of our template and our .jigdo."""
    written = write(algorithm, compression, gaps=gaps)
    _site(tmp_path, written, algorithm)
    command = [tool("jigit-mkimage"), "-v", "-j", "x.jigdo", "-t", "x.template", "-m", f"A={tmp_path}/"]
    done = subprocess.run([*command, "-o", "x.img"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.img").read_bytes() == written.image
