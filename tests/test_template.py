"""The .template: one table of entries for reader and writer, every version, and every way to be damaged."""

import bz2
import io
import os
import struct
import subprocess
import zlib
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.errors import FormatError
from jigdofs.format.checksum import Algorithm, Checksum, to_base64
from jigdofs.format.template import (
    MAX_IMAGE_INFOS,
    Chunk,
    Compression,
    Entry,
    ImageInfo,
    MatchedFile,
    Template,
    UnmatchedData,
    read_entries,
)
from jigdofs.format.template_reader import read_template
from jigdofs.format.template_writer import pack_desc, pack_entry
from jigdofs.image.layout import Layout
from tests.kit.images import BuiltImage
from tests.kit.requirements import tool

LENGTH = 0x060504030201
U48 = bytes((1, 2, 3, 4, 5, 6))
M, S = Checksum(bytes(range(16))), Checksum(bytes(range(100, 132)))
MD5, SHA256 = M.digest, S.digest
SUM = b"rsync_64"

# what jigdo programs still write: read and written by us
ENTRIES: list[tuple[Entry, bytes]] = [
    (UnmatchedData(LENGTH), b"\x02" + U48),
    (UnmatchedData(0), b"\x02" + bytes(6)),
    (MatchedFile(LENGTH, M), b"\x03" + U48 + MD5),
    (MatchedFile(LENGTH, M, None, written=True), b"\x04" + U48 + MD5),
    (ImageInfo(LENGTH, M, 0x04030201), b"\x05" + U48 + MD5 + U48[:4]),
    (ImageInfo(2**48 - 1, M, 0), b"\x05" + b"\xff" * 6 + MD5 + bytes(4)),
    (MatchedFile(LENGTH, M, SUM), b"\x06" + U48 + SUM + MD5),
    (MatchedFile(LENGTH, M, SUM, written=True), b"\x07" + U48 + SUM + MD5),
    (ImageInfo(LENGTH, S, 1024), b"\x08" + U48 + SHA256 + b"\x00\x04\x00\x00"),
    (MatchedFile(LENGTH, S, SUM), b"\x09" + U48 + SUM + SHA256),
    (MatchedFile(LENGTH, S, SUM, written=True), b"\x0a" + U48 + SUM + SHA256),
]
# format 1.0 is read, never written
OLD_INFO = (ImageInfo(LENGTH, M, 0), b"\x01" + U48 + MD5)


@pytest.mark.parametrize(("entry", "packed"), [*ENTRIES, OLD_INFO])
def test_reading_an_entry(entry: Entry, packed: bytes) -> None:
    """The bytes mean the entry; cut anywhere, or with junk behind, they are an error at the right offset."""
    assert list(read_entries(packed, source="t")) == [entry]
    assert list(read_entries(packed * 2, source="t")) == [entry] * 2
    for size in range(1, len(packed)):
        with pytest.raises(FormatError, match="cut short") as caught:
            list(read_entries(packed[:size], source="t", offset=500))
        assert (caught.value.source, caught.value.offset) == ("t", 500)
    for junk in (0, 11, 127, 255):
        with pytest.raises(FormatError, match=f"type {junk}") as caught:
            list(read_entries(packed + bytes([junk]), source="t"))
        assert caught.value.offset == len(packed)


@pytest.mark.parametrize(("entry", "packed"), ENTRIES)
def test_writing_an_entry(entry: Entry, packed: bytes) -> None:
    """The entry is written as these bytes, and the DESC part frames them."""
    assert pack_entry(entry) == packed
    size = struct.pack("<IH", len(packed) + 16, 0)
    assert pack_desc([entry]) == b"DESC" + size + packed + size


@pytest.mark.parametrize(
    "entry",
    [
        MatchedFile(1, S),
        UnmatchedData(2**48),
        UnmatchedData(-1),
        MatchedFile(1, M, b"short"),
        ImageInfo(1, M, -1),
    ],
)
def test_what_no_entry_can_say(entry: Entry) -> None:
    """A value that the format has no room for is refused, not written as something else."""
    with pytest.raises((ValueError, struct.error)):
        pack_entry(entry)


# templates put together by hand, independently of the writer


def u48(number: int) -> bytes:
    return number.to_bytes(6, "little")


def chunk(data: bytes, *, bzip2: bool = False, announced: int | None = None) -> bytes:
    packed = bz2.compress(data) if bzip2 else zlib.compress(data)
    length = len(data) if announced is None else announced
    return (b"BZIP" if bzip2 else b"DATA") + u48(len(packed) + 16) + u48(length) + packed


def desc(*entries: bytes) -> bytes:
    packed = b"".join(entries)
    return b"DESC" + u48(len(packed) + 16) + packed + u48(len(packed) + 16)


def unmatched(length: int) -> bytes:
    return b"\x02" + u48(length)


def part(length: int, checksum: Checksum = M) -> bytes:
    return (b"\x06" if checksum is M else b"\x09") + u48(length) + SUM + checksum.digest


def info(length: int, checksum: Checksum = M, block: int = 1024) -> bytes:
    return (b"\x05" if checksum is M else b"\x08") + u48(length) + checksum.digest + struct.pack("<I", block)


def old(kind: int, length: int) -> bytes:
    return bytes([kind]) + u48(length) + MD5


HEAD = b"JigsawDownload template 1.2 jigdo-file/0.8.0\r\nSee x for details.\r\n\r\n"
HEAD_LIBJTE = b"JigsawDownload template 1.1 libjte-2.0.0 \r\nSee x. \r\n\r\n"
EMPTY = chunk(b"")
GOOD: dict[str, tuple[bytes, str, int, list[int]]] = {
    # name: bytes, version, image length, lengths of the chunks
    "1.0": (
        b"JigsawDownload template 1.0 jigdo-file/0.6.2\r\n\r\n\r\n"
        + chunk(b"x" * 10)
        + desc(old(3, 5), unmatched(10), old(4, 7), old(1, 22)),
        "1.0",
        22,
        [10],
    ),
    "libjte": (
        HEAD_LIBJTE + chunk(b"x" * 3) + desc(unmatched(3), part(500), info(503)),
        "1.1",
        503,
        [3],
    ),
    "md5": (HEAD + chunk(b"x" * 3) + desc(unmatched(3), part(9), part(9), info(21)), "1.2", 21, [3]),
    "sha256": (
        HEAD.replace(b"1.2", b"2.0") + chunk(b"x") + desc(unmatched(1), part(9, S), info(10, S)),
        "2.0",
        10,
        [1],
    ),
    "version unheard of": (HEAD.replace(b"1.2", b"9.9") + desc(part(9), info(9)), "9.9", 9, []),
    "no version": (b"JigsawDownload template \r\n\r\n\r\n" + desc(part(9), info(9)), "", 9, []),
    "mixed chunks": (
        HEAD + chunk(b"ab") + chunk(b"cde", bzip2=True) + chunk(b"f") + desc(unmatched(6), info(6)),
        "1.2",
        6,
        [2, 3, 1],
    ),
    "empty chunks": (
        HEAD + EMPTY + chunk(b"ab") + EMPTY * 2 + chunk(b"c") + EMPTY + desc(unmatched(3), info(3)),
        "1.2",
        3,
        [2, 1],
    ),
    "chunk bounds are not gap bounds": (
        HEAD
        + chunk(b"abcd")
        + chunk(b"efg")
        + desc(unmatched(2), part(5), unmatched(4), part(6, S), unmatched(0), unmatched(1), info(18)),
        "1.2",
        18,
        [4, 3],
    ),
    "more raw data than needed": (HEAD + chunk(b"abcd") + desc(unmatched(1), info(1)), "1.2", 1, [4]),
    "block length 0": (HEAD + desc(part(9), info(9, M, 0)), "1.2", 9, []),
    "both algorithms": (
        HEAD + chunk(b"a") + desc(info(10), unmatched(1), part(9, S), info(10), info(10, S)),
        "1.2",
        10,
        [1],
    ),
    "empty image": (HEAD + EMPTY + desc(info(0)), "1.2", 0, []),
}


def read(data: bytes) -> Template:
    return read_template(io.BytesIO(data), "t")


@pytest.mark.parametrize("name", GOOD)
def test_good_templates(name: str) -> None:
    """Every version and habit is read, and each chunk is found where its compressed bytes are."""
    data, version, length, lengths = GOOD[name]
    template = read(data)
    assert (template.version, template.image_length) == (version, length)
    assert [found.length for found in template.chunks] == lengths
    layout = Layout(template.entries())
    assert layout.length == length
    raw = b""
    for found in template.chunks:
        packed = data[found.offset : found.offset + found.size]
        raw += zlib.decompress(packed) if found.compression is Compression.ZLIB else bz2.decompress(packed)
    assert layout.raw_length <= len(raw) == sum(lengths)
    assert pack_desc(template.entries()) == data[-len(template.desc) - 16 :] or version == "1.0"
    assert_columns_agree(template)


def assert_columns_agree(template: Template) -> None:
    """Hold the columns against the entries."""
    columns = template.columns
    found, position, raw = [], 0, 0
    for entry in template.entries():
        if isinstance(entry, ImageInfo) or not entry.length:
            continue
        checksum = entry.checksum if isinstance(entry, MatchedFile) else None
        found.append((position, -1 if checksum else raw, checksum))
        position += entry.length
        raw += 0 if checksum else entry.length
    assert (columns.starts[-1], columns.raw_length) == (position, raw)
    starts = columns.starts[:-1]
    checksums = [columns.checksum(index) for index in range(len(starts))]
    assert list(zip(starts, columns.raw_offsets, checksums, strict=True)) == found


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(UnmatchedData, st.integers(0, 3)),
            st.builds(
                MatchedFile, st.integers(0, 2**40), st.just(M), st.sampled_from([None, SUM]), st.booleans()
            ),
            st.builds(MatchedFile, st.integers(0, 2**40), st.just(S), st.just(SUM), st.booleans()),
        )
    )
)
def test_columns(entries: list[UnmatchedData | MatchedFile]) -> None:
    """The columns say what the entries say, in whatever order they come."""
    whole = ImageInfo(sum(entry.length for entry in entries), M)
    raw = sum(entry.length for entry in entries if isinstance(entry, UnmatchedData))
    data = HEAD + (chunk(bytes(raw)) if raw else b"") + pack_desc([*entries, whole])
    assert_columns_agree(read(data))


def test_what_a_template_says() -> None:
    """Creator, infos and entries come out as they stand in the file."""
    template = read(GOOD["both algorithms"][0])
    assert (template.source, template.creator) == ("t", "jigdo-file/0.8.0")
    assert read(HEAD_LIBJTE + desc(part(9), info(9))).creator == "libjte-2.0.0"
    assert template.images == (ImageInfo(10, M, 1024), ImageInfo(10, M, 1024), ImageInfo(10, S, 1024))
    assert list(template.entries())[1:3] == [UnmatchedData(1), MatchedFile(9, S, SUM)]
    assert template.chunks == (Chunk(Compression.ZLIB, len(HEAD) + 16, len(zlib.compress(b"a")), 1),)
    assert list(read(GOOD["1.0"][0]).entries()) == [
        MatchedFile(5, M),
        UnmatchedData(10),
        MatchedFile(7, M, None, written=True),
        ImageInfo(22, M, 0),
    ]


def test_many_descriptions_of_the_image() -> None:
    """Some thousand are read, more are refused: each is kept."""
    assert len(read(HEAD + pack_desc([ImageInfo(0, M)] * MAX_IMAGE_INFOS)).images) == MAX_IMAGE_INFOS
    with pytest.raises(FormatError, match="more descriptions"):
        read(HEAD + pack_desc([ImageInfo(0, M)] * (MAX_IMAGE_INFOS + 1)))


@pytest.mark.parametrize("name", GOOD)
def test_cut_or_with_junk_behind(name: str) -> None:
    """A template cut at any length, or with anything behind it, is refused."""
    data = GOOD[name][0]
    junk = [b"\0", b"\n", b"DESC", bytes(6), u48(16), u48(43), b"\xff" * 6, data[-6:], data[-6:-1]]
    for damaged in [data[:size] for size in range(len(data))] + [data + tail for tail in junk]:
        with pytest.raises(FormatError) as caught:
            read(damaged)
        assert caught.value.source == "t"


BODY = chunk(b"abc") + desc(unmatched(3), part(9), info(12))
END = desc(part(9), info(9))
DESC_AT = len(HEAD)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a template"),
        (b"\x1f\x8b\x08" + bytes(99), "not a template"),
        (HEAD.replace(b"\r\n", b"\n") + BODY, "not a template"),
        (HEAD[:-2] + b"\n" + BODY, "not a template"),
        (HEAD[:-2] + b"x\r\n" + BODY, "not a template"),
        (HEAD[1:] + BODY, "not a template"),
        (HEAD.replace(b"template ", b"template\t") + BODY, "not a template"),
        (HEAD.replace(b"1.2", b"1" * 2000) + BODY, "not a template"),
        (HEAD, "no DESC"),
        (HEAD + BODY[:-6] + u48(15), "invalid"),
        (HEAD + BODY[:-6] + u48(len(BODY) + 1), "invalid"),
        (HEAD + BODY[:-6] + b"\xff" * 6, "invalid"),
        (HEAD + BODY[:-6] + u48(16), "no DESC"),
        (HEAD + BODY[:-6] + u48(43), "no DESC"),
        (HEAD + END[:4] + u48(len(END) - 1) + END[10:], "no DESC"),
        (HEAD + b"DATA" + END[4:], "no DESC"),
        (HEAD + b"DATX" + BODY[4:], "no DATA"),
        (HEAD + b"DESC" + BODY[4:], "no DATA"),
        (HEAD + b"x" + END, "no DATA"),
        (HEAD + bytes(16) + END, "no DATA"),
        (HEAD + b"DATA" + u48(0) + u48(0) + END, "beyond"),
        (HEAD + b"DATA" + u48(15) + u48(0) + END, "beyond"),
        (HEAD + b"DATA" + u48(17) + u48(1) + END, "beyond"),
        (HEAD + b"DATA" + b"\xff" * 6 + u48(1) + END, "beyond"),
        (HEAD + b"BZIP" + u48(16 + len(END)) + u48(1) + END, "beyond"),
        (HEAD + desc(), "do not end"),
        (HEAD + desc(part(9)), "do not end"),
        (HEAD + desc(info(9), part(9)), "do not end"),
        (HEAD + desc(part(9), info(9), unmatched(0)), "do not end"),
        (HEAD + desc(part(9), info(8)), "cover 9 bytes"),
        (HEAD + desc(part(9), info(10)), "cover 9 bytes"),
        (HEAD + desc(part(9), info(8), info(9)), "cover 9 bytes"),
        (HEAD + desc(part(2**48 - 1), part(2**48 - 1), info(2**48 - 2)), "cover"),
        (HEAD + desc(unmatched(1), info(1)), "1 bytes of the image"),
        (HEAD + chunk(b"ab") + desc(unmatched(2), part(5), unmatched(1), info(8)), "3 bytes of the image"),
        (HEAD + desc(part(9), b"\x0b", info(9)), "type 11"),
        (HEAD + desc(part(9), info(9)[:-1]), "cut short"),
    ],
)
def test_damaged_templates(data: bytes, words: str) -> None:
    """Each way to contradict itself is an error with the place in it."""
    with pytest.raises(FormatError, match=words) as caught:
        read(data)
    assert caught.value.offset is not None
    assert 0 <= caught.value.offset <= len(data)


def test_a_sparse_giant(tmp_path: Path) -> None:
    """A file of a tebibyte that announces entries of its whole size is refused without being read."""
    with (tmp_path / "t").open("w+b") as file:
        file.write(HEAD)
        os.ftruncate(file.fileno(), 1 << 40)
        file.seek(0, 2)
        file.write(u48((1 << 40) - len(HEAD) + 6))
        with pytest.raises(FormatError, match="MiB of entries"):
            read_template(file, "t")


def _listing(entries: Iterable[Entry]) -> list[list[str]]:
    """Write entries as `jigdo-file list-template` does."""
    rows: list[list[str]] = []
    position = 0
    for entry in entries:
        if isinstance(entry, ImageInfo):
            name = entry.checksum.algorithm.short_name
            rows.append(
                [f"image-info-{name}", str(entry.length), str(entry.block_length), entry.checksum.base64]
            )
            continue
        row = ["in-template", str(position), str(entry.length)]
        if isinstance(entry, MatchedFile):
            suffix = "-md5" if entry.checksum.algorithm is Algorithm.MD5 else "-sha256"
            row[0] = f"need-file{suffix}"
            row += [entry.checksum.base64, to_base64(entry.rsync64 or bytes(8))]
        rows.append(row)
        position += entry.length
    return rows


def _list_template(template: Path) -> list[list[str]]:
    command = [tool("jigdo-file"), "list-template", f"--template={template}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split() for line in printed.splitlines()]


def test_real_templates(any_image: BuiltImage) -> None:
    """In the templates of jigdo-file and xorriso we see what `jigdo-file list-template` sees."""
    with any_image.template.open("rb") as file:
        template = read_template(file, str(any_image.template))
    assert _listing(template.entries()) == _list_template(any_image.template)
    assert template.image_length == any_image.image.stat().st_size
    image = any_image.image.read_bytes()
    assert all(found.checksum == Checksum.of(found.checksum.algorithm, image) for found in template.images)


@pytest.mark.parametrize("name", [name for name in GOOD if name not in ("1.0", "empty image")])
def test_templates_by_hand(name: str, tmp_path: Path) -> None:
    """jigdo-file sees the same in the templates of our table, so that the table itself is right."""
    (tmp_path / "t").write_bytes(GOOD[name][0])
    assert _list_template(tmp_path / "t") == _listing(read(GOOD[name][0]).entries())


@settings(max_examples=300, deadline=timedelta(seconds=5))
@given(data=st.data())
def test_mutated_templates(data: st.DataObject, iso_md5: BuiltImage, iso_jte_sha256: BuiltImage) -> None:
    """A real template with a few bytes changed, cut out or put in is read or refused, and quickly."""
    built = data.draw(st.sampled_from([iso_md5, iso_jte_sha256]))
    original = built.template.read_bytes()
    length = int.from_bytes(original[-6:], "little")
    starts = [0, 40, len(original) - length, len(original)]
    starts += [found.offset - 16 for found in read(original).chunks]
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = max(0, min(len(mutated), data.draw(st.sampled_from(starts)) + data.draw(st.integers(-40, 100))))
        mutated[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        template = read(bytes(mutated))
    except FormatError:
        return
    assert Layout(template.entries()).length == template.image_length
    assert all(found.offset + found.size <= len(mutated) for found in template.chunks)


@settings(max_examples=200, deadline=timedelta(seconds=5))
@given(
    st.lists(st.sampled_from([unmatched(1), part(3), info(4), info(4, S), old(1, 4), b"\x0b"]), max_size=6),
    st.data(),
)
def test_framed_noise(entries: list[bytes], data: st.DataObject) -> None:
    """Whatever stands between a good header and a good DESC frame, only a FormatError leaves the reader."""
    body = data.draw(st.binary(max_size=40) | st.just(chunk(b"x")))
    try:
        template = read(HEAD + body + desc(*entries))
    except FormatError:
        return
    assert template.image_length == 4
