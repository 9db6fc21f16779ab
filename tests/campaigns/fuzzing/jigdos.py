""".jigdo files: parsing, gzip, what is written back, merging; and the words of a line."""

import atexit
import gzip
import os
import shutil
import tempfile
import urllib.parse
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import trio

from jigdofs.config import FetchOptions
from jigdofs.documents import Documents
from jigdofs.errors import FormatError, InputError, JigdofsError
from jigdofs.fetch.file import FileFetcher
from jigdofs.format import words
from jigdofs.format.checksum import Algorithm, Checksum, InvalidChecksum
from jigdofs.format.jigdo import Include, JigdoFile, Mapping, merge
from jigdofs.format.jigdo_limits import MAX_BYTES, MAX_IMAGES, MAX_MAPPINGS
from jigdofs.format.jigdo_merge import labels_in, merge_jigdo
from jigdofs.format.jigdo_reader import gunzip, parse
from jigdofs.format.jigdo_writer import Description, write_jigdo
from jigdofs.load import Loader, image_name
from jigdofs.names import directory_names, leaf_name, unique_name
from jigdofs.templates import Templates
from tests.campaigns.fuzzing.choices import Choices
from tests.campaigns.fuzzing.promises import one_line

SOURCE = "/srv/x.jigdo"
Pieces = tuple[JigdoFile | Include, ...]


def read(data: bytes) -> Pieces | FormatError:
    """Return what a .jigdo is read as, or why it is refused."""
    try:
        return parse(data, SOURCE)
    except FormatError as error:
        one_line(error)
        return error


def seen(pieces: Pieces) -> list[object]:
    """Return all that pieces say, as values that can be compared; look at it in every way there is."""
    found: list[object] = []
    for piece in pieces:
        if isinstance(piece, Include):
            found.append((piece.url, piece.line))
            continue
        lines = [list(one.all_mappings()) for one in piece.parts]
        keys = [list(one) for one in piece.parts]
        looked_up = [[one.mappings(key) for key in of] for one, of in zip(piece.parts, keys, strict=True)]
        for one, of, every, by_key in zip(piece.parts, keys, lines, looked_up, strict=True):
            assert len(every) == one.lines
            assert len(one) == len(of) == len(set(of))
            assert all(by_key)
            if all(len(mappings) < MAX_MAPPINGS for mappings in by_key):
                assert sorted(mapping for mappings in map(_plain, by_key) for mapping in mappings) == sorted(
                    _plain(every)
                )
        assert len(piece.images) <= MAX_IMAGES
        for image in piece.images:
            assert all(image.templates)
            leaf_name(image.filename)
        labels = piece.labels()
        assert sum(labels.values()) <= sum(one.lines for one in piece.parts)
        images = [
            (image.filename, image.templates, image.template_checksums, image.image_sums, image.image_size)
            for image in piece.images
        ]
        servers = {label: _plain(mappings) for label, mappings in piece.servers.items()}
        found.append((piece.version, piece.generator, images, keys, [_plain(of) for of in lines], servers))
    return found


def _plain(mappings: Iterable[Mapping]) -> list[tuple[str, float]]:
    return [(mapping.target, mapping.weight) for mapping in mappings]


def jigdo(data: bytes) -> None:
    """A .jigdo is read the same line by line, in runs and gzipped; pieces are parted by includes."""
    first = read(data)
    # a blank before each line means nothing, but has each line of [Parts] looked at by itself
    if not data.startswith((b"\x1f\x8b", b"\xef\xbb\xbf", b"JigsawDownload template ")):
        second = read(b" " + data.replace(b"\n", b"\n "))
        if isinstance(first, FormatError):
            assert str(second) == str(first)
        else:
            assert not isinstance(second, FormatError), second
            assert seen(second) == seen(first)
        if len(data) % 8 == 0:
            third = read(gzip.compress(data, 1))
            assert isinstance(third, FormatError) == isinstance(first, FormatError)
            if not isinstance(third, FormatError) and not isinstance(first, FormatError):
                assert seen(third) == seen(first)
    if isinstance(first, FormatError):
        return
    seen(first)
    assert all(isinstance(piece, Include) == bool(number % 2) for number, piece in enumerate(first))
    whole = merge(piece for piece in first if isinstance(piece, JigdoFile))
    assert whole.source == SOURCE
    for lines in whole.parts:
        for checksum in lines:
            assert whole.mappings(checksum)


def gz(data: bytes) -> None:
    """Pieces of gzip data, whole or damaged, inflate to what zlib says, and to no more than is allowed."""
    choices = Choices(data)
    packed = b""
    while choices and len(packed) < 1 << 16:
        kind = choices.number(8)
        if kind < 4:
            packed += gzip.compress(choices.block(64) * (1 + 50 * choices.number(40)), kind)
        elif kind == 4:
            packed = packed[: -choices.number(20) or None]
        elif kind == 5 and packed:
            at = choices.number(len(packed))
            packed = packed[:at] + choices.take(1) + packed[at + 1 :]
        elif kind == 6:
            packed += choices.block(16)
        else:
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
            packed += packer.compress(choices.block(100)) + packer.flush(zlib.Z_FULL_FLUSH) + packer.flush()
    try:
        text = bytes(gunzip(packed, "x"))
    except FormatError as error:
        one_line(error)
        assert _inflated(packed) is None
        return
    assert len(text) <= MAX_BYTES
    assert text == _inflated(packed)


def _inflated(packed: bytes) -> bytes | None:
    """Inflate without any care."""
    text = b""
    while packed.startswith(b"\x1f\x8b"):
        inflater = zlib.decompressobj(wbits=31)
        try:
            text += inflater.decompress(packed)
        except zlib.error:
            return None
        if not inflater.eof:
            return None
        packed = inflater.unused_data
    return text + packed


_DIRECTORY = ""


def _directory() -> Path:
    """Return a directory for files of this process, made when it is first wanted."""
    global _DIRECTORY  # noqa: PLW0603  one a process, for millions of runs
    if not _DIRECTORY:
        _DIRECTORY = tempfile.mkdtemp(prefix="fuzz-include-")
        atexit.register(shutil.rmtree, _DIRECTORY, ignore_errors=True)
    return Path(_DIRECTORY)


_NAMES = ("a.jigdo", "b", "c c", "d.gz")


def include(data: bytes) -> None:
    """Files that include each other are read as the one text would be; circles end in an error."""
    choices = Choices(data)
    directory = _directory()
    texts: list[bytes] = []
    for name in _NAMES:
        text = choices.block(400)
        texts.append(text)
        (directory / name).write_bytes(text)
    loader = Loader(
        Documents(FileFetcher(), None, FetchOptions()),
        Templates(FileFetcher(), None, (), FetchOptions()),
    )
    try:
        selection = trio.run(
            loader.select, str(directory / _NAMES[0]), choices.of(("first", "all", "1", "x"))
        )
    except JigdofsError as error:
        one_line(error)
        return
    for section in selection.sections:
        assert "/" not in image_name(selection, section)
        assert os.path.dirname(section.base) == str(directory)
    text = _put_together(texts, 0, 0)
    if b"libjte" in text or any(one.startswith((b"\x1f\x8b", b"\xef\xbb\xbf")) for one in texts):
        return  # whose reach ends with the file they are in
    pieces = read(text)
    assert not isinstance(pieces, FormatError), pieces
    (whole,) = [piece for piece in pieces if isinstance(piece, JigdoFile)]
    mine = selection.description
    assert [image.filename for image in whole.images] == [image.filename for image in mine.images]
    keys = [key for lines in whole.parts for key in lines]
    assert dict.fromkeys(keys) == dict.fromkeys(key for lines in mine.parts for key in lines)
    for key in keys:
        if len(whole.mappings(key)) < MAX_MAPPINGS:
            assert _plain(whole.mappings(key)) == _plain(mine.mappings(key))
    assert whole.servers.keys() == mine.servers.keys()


def _put_together(texts: list[bytes], number: int, depth: int) -> bytes:
    """Put the text of an included file where its name stands, as the loader is to have done."""
    assert depth < 64
    lines: list[bytes] = []
    for line in texts[number].split(b"\n"):
        pieces = read(line) if line.lstrip(b" \t").startswith(b"[Include") else ()
        if not isinstance(pieces, FormatError) and len(pieces) == 3 and isinstance(pieces[1], Include):
            path = urllib.parse.unquote(pieces[1].url, errors="surrogateescape").removeprefix("file:")
            name = os.path.basename(os.path.abspath(path))
            # sections end with the file they are in
            lines += [b"[-]", _put_together(texts, _NAMES.index(name), depth + 1), b"[-]"]
        else:
            lines.append(line)
    return b"\n".join(lines)


def merging(data: bytes) -> None:
    """A description is added to any text that can be read; what was there stays, and twice is once."""
    choices = Choices(data)
    algorithm = choices.of(tuple(Algorithm))
    parts = tuple(
        (Checksum.of(algorithm, bytes([choices.number(8)])), choices.text(40) or "A:x")
        for _ in range(choices.number(4))
    )
    description = Description(
        filename=choices.text(30),
        template=choices.text(30),
        template_checksums=(Checksum.of(algorithm, b"t"),),
        parts=parts,
        servers=(("A", choices.of(("B:x/", "http://h/", "'/a b/' --try-last"))), ("B", "http://b/")),
        generator="jigdofs/1",
        image_size=choices.number(1 << 20),
    )
    existing = choices.rest()
    try:
        merged = merge_jigdo(description, existing, SOURCE)
        labels_in(existing, SOURCE)
    except (FormatError, InputError) as error:
        one_line(error)
        return
    before, after = read(existing), read(merged)
    if isinstance(before, FormatError):
        return  # `merge_jigdo` keeps lines that are none; the reader says so
    assert not isinstance(after, FormatError), after
    assert _keys(before) <= _keys(after)
    assert {key for key, _ in parts} <= _keys(after)
    again = merge_jigdo(description, merged, SOURCE)
    if b"\r\r" not in existing:  # each time the end of a line of DOS is made one of ours
        assert again == merge_jigdo(description, again, SOURCE)
    with suppress(InputError):
        written = read(write_jigdo(description))
        assert not isinstance(written, FormatError), written
        (piece,) = written
        assert isinstance(piece, JigdoFile)
        for key, location in parts:
            assert location in [mapping.target for mapping in piece.mappings(key)]


def _keys(pieces: Pieces) -> set[Checksum]:
    return {key for piece in pieces if isinstance(piece, JigdoFile) for lines in piece.parts for key in lines}


def a_word(data: bytes) -> None:
    """Words survive being quoted, checksums being written; names are such as a directory takes."""
    text = data.decode("utf-8", "surrogateescape")
    split = words.split(text)
    if "\n" not in text and "\r" not in text:
        assert words.split(words.quote(text)) == [text]
        assert words.split(" ".join(map(words.quote, split))) == split
    try:
        checksum = Checksum.parse(text)
    except InvalidChecksum as error:
        one_line(error)
    else:
        assert checksum.base64 == text
    names = [leaf_name(name) for name in text.split("\n")]
    for name in names:
        assert len(os.fsencode(name)) <= 251
        assert "/" not in name
        assert "\0" not in name
        assert name not in (".", "..")
        assert leaf_name(name) == name
    taken: set[str] = set()
    for name in filter(None, names):
        unique = unique_name(name, taken)
        assert unique not in taken
        assert len(os.fsencode(unique)) <= 251
        taken.add(unique)
    directories = directory_names(sorted(taken))
    assert len({*directories, *taken}) == 2 * len(taken)
