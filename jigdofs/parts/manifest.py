"""The form of a manifest: what is said of an image, and its parts, as bytes. Knows no files.

    jigdofs image 1 ⏎      then one line of JSON, then for each part its checksum and its length (8 bytes,
                           little endian), MD5 ones first; last the SHA-256 of all that

Invariant of this file: whatever the bytes are, they end in a manifest or in `ManifestDamage`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jigdofs.errors import CacheError
from jigdofs.parts.object_files import split

Record = tuple[bytes, int]
"""Checksum and length of a part; one that lies in several places of the image comes as often."""

_MAGIC = b"jigdofs image 1\n"
_LENGTH = struct.Struct("<Q")
_MD5_BYTES, _SHA256_BYTES = 16, 32
_MOST_HEADER_BYTES = 64 << 10
_MOST_OTHERS = 64
_MOST = 1 << 62
_TEMPLATE = re.compile("[0-9a-f]{32,64}", re.ASCII)
_PARTS_BEFORE_PAUSE = 4096
_PAUSE_S = 0.001


class ManifestDamage(CacheError):
    """Say that a file is no manifest, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is said of an image.

    Attributes:
        name: its leaf name.
        source: the .jigdo it came from: absolute path, or URL without credentials.
        template: the hex checksum of its template.
        size: bytes of the image.
        raw_bytes: bytes of it that come from the template.
        md5: how many records have an MD5 checksum.
        sha256: how many have a SHA-256.
        others: keys of further files that belong to it: template, .jigdo, tree.
    """

    name: str
    source: str
    template: str
    size: int
    raw_bytes: int
    md5: int
    sha256: int
    others: tuple[str, ...]


class Packed(NamedTuple):
    """Parts of an image: how many have an MD5 checksum, how many a SHA-256, and all of them."""

    md5: int
    sha256: int
    records: bytes | bytearray


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image and its parts.

    Attributes:
        contents: what is said of it.
        records: packed.
    """

    contents: Contents
    records: bytes | bytearray

    @property
    def parts_count(self) -> int:
        """How many records there are."""
        return self.contents.md5 + self.contents.sha256

    def digests(self) -> Iterator[bytes]:
        """Yield the checksum of every record."""
        at = 0
        for count, size in ((self.contents.md5, _MD5_BYTES), (self.contents.sha256, _SHA256_BYTES)):
            step = size + _LENGTH.size
            end = at + count * step
            for begin in range(at, end, step):
                yield bytes(self.records[begin : begin + size])
            at = end

    def parts(self) -> Iterator[tuple[str, int]]:
        """Yield key and length of every record."""
        at = 0
        for digest in self.digests():
            at += len(digest)
            kind = "md5-" if len(digest) == _MD5_BYTES else "sha256-"
            yield kind + digest.hex(), _LENGTH.unpack_from(self.records, at)[0]
            at += _LENGTH.size


def pack(parts: Iterable[Record]) -> Packed:
    """Pack the parts of an image; pauses now and then, in which others run."""
    md5, sha256 = bytearray(), bytearray()
    for number, (digest, length) in enumerate(parts):
        packed = md5 if len(digest) == _MD5_BYTES else sha256
        packed += digest
        packed += _LENGTH.pack(length)
        if number % _PARTS_BEFORE_PAUSE == _PARTS_BEFORE_PAUSE - 1:
            time.sleep(_PAUSE_S)
    return Packed(
        len(md5) // (_MD5_BYTES + _LENGTH.size),
        len(sha256) // (_SHA256_BYTES + _LENGTH.size),
        md5 + sha256 if md5 and sha256 else md5 or sha256,  # not copied: of 200,000 parts they are 8 MB
    )


def dump(manifest: Manifest) -> tuple[bytes | bytearray, ...]:
    """Return the bytes of a manifest, in pieces."""
    header = _MAGIC + json.dumps(dataclasses.asdict(manifest.contents)).encode("ascii") + b"\n"
    hasher = hashlib.sha256(header)
    hasher.update(manifest.records)
    return header, manifest.records, hasher.digest()


def parse(data: bytes, template: str) -> Manifest:
    """Read what `dump` wrote, and the checksum; raise `ManifestDamage` for anything else.

    Args:
        data: all of it.
        template: whose manifest it is to be.
    """
    end = len(data) - _SHA256_BYTES
    line = data.find(b"\n", len(_MAGIC), len(_MAGIC) + _MOST_HEADER_BYTES)
    if not data.startswith(_MAGIC) or line < 0 or end <= line:
        raise ManifestDamage("it has not the form of a manifest")
    if hashlib.sha256(memoryview(data)[:end]).digest() != data[end:]:
        raise ManifestDamage("its checksum is wrong")
    contents = _contents(data[len(_MAGIC) : line])
    expected = contents.md5 * (_MD5_BYTES + _LENGTH.size) + contents.sha256 * (_SHA256_BYTES + _LENGTH.size)
    if contents.template != template or end - line - 1 != expected:
        raise ManifestDamage("it is of another image, or of another length")
    return Manifest(contents, data[line + 1 : end])


def _contents(header: bytes) -> Contents:
    try:
        value = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ManifestDamage("what it says of the image is no JSON") from error
    match value:
        case {
            "name": str(name),
            "source": str(source),
            "template": str(template),
            "size": int(size),
            "raw_bytes": int(raw),
            "md5": int(md5),
            "sha256": int(sha256),
            "others": [*others],
        } if _TEMPLATE.fullmatch(template) and all(
            0 <= number < _MOST for number in (size, raw, md5, sha256)
        ):
            if len(others) <= _MOST_OTHERS and all(map(_is_key, others)):
                return Contents(
                    name, source, template, int(size), int(raw), int(md5), int(sha256), tuple(others)
                )
    raise ManifestDamage("what it says of the image makes no sense")


def _is_key(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(split(value))
    except CacheError:
        return False
