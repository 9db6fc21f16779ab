"""Images of any size that need no disk: every part is zeros, a sparse file with a length of its own.

So no two parts have the same checksum, and one running hasher gives them all. What lies between the parts
is random, so that the template is about as large as that. Parts are named as Debian's are.
"""

import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.jigdo_writer import Description, write_jigdo
from jigdofs.format.part import Part
from jigdofs.format.template import Entry, ImageInfo, MatchedFile, UnmatchedData
from jigdofs.format.template_writer import TemplateWriter
from jigdofs.parts.cache import Cache
from jigdofs.parts.store import cache_key

LABEL = "Debian"
_ARCHITECTURES = ("amd64", "all")
_NO_RSYNC64 = bytes(8)
_BLOCK_LENGTH = 1024
_BLOCK_BYTES = 1 << 20
_HASHED_AT_ONCE = bytes(_BLOCK_BYTES)


@dataclass(frozen=True)
class SparseImage:
    """What an image is to be; nothing of it is on disk yet.

    Attributes:
        parts: how many.
        mean_bytes: of a part; lengths are spread evenly from a tenth of it to nineteen tenths.
        gap_bytes: random bytes after every part.
        head_bytes: random bytes in front of all.
        algorithm: of the parts' checksums.
    """

    parts: int
    mean_bytes: int
    gap_bytes: int = 1000
    head_bytes: int = 2 << 20
    algorithm: Algorithm = Algorithm.MD5

    def __post_init__(self) -> None:
        if len(set(self._sorted_lengths)) != self.parts:
            raise ValueError("so many parts of such a length cannot all differ")

    @property
    def _sorted_lengths(self) -> list[int]:
        least = self.mean_bytes // 10
        span = 2 * (self.mean_bytes - least)
        return [least + span * number // max(1, self.parts - 1) for number in range(self.parts)]

    @cached_property
    def in_order(self) -> list[Part]:
        """The parts in the order of the image."""
        hasher = hashlib.new(self.algorithm.short_name, usedforsecurity=False)
        parts, hashed = [], 0
        for length in self._sorted_lengths:
            while hashed < length:
                step = min(_BLOCK_BYTES, length - hashed)
                hasher.update(memoryview(_HASHED_AT_ONCE)[:step])
                hashed += step
            parts.append(Part(Checksum(hasher.copy().digest()), length))
        random.Random(1).shuffle(parts)
        return parts

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self.head_bytes + sum(self._sorted_lengths) + self.parts * self.gap_bytes

    def offsets(self) -> Iterator[tuple[int, Part]]:
        """Yield where each part begins in the image."""
        offset = self.head_bytes
        for part in self.in_order:
            yield offset, part
            offset += part.length + self.gap_bytes

    def content(self) -> Iterator[bytes]:
        """Yield the bytes of the image, as this file says they are: nothing is read for it."""
        raw = self._raw()
        yield next(raw)
        for part, gap in zip(self.in_order, raw, strict=True):
            for at in range(0, part.length, _BLOCK_BYTES):
                yield _HASHED_AT_ONCE[: part.length - at]
            yield gap

    def _raw(self) -> Iterator[bytes]:
        """Yield the unmatched data: the head, then the gaps."""
        chance = random.Random(2)
        yield chance.randbytes(self.head_bytes)
        for _ in range(self.parts):
            yield chance.randbytes(self.gap_bytes)

    def _entries(self) -> Iterator[Entry]:
        if self.head_bytes:
            yield UnmatchedData(self.head_bytes)
        for part in self.in_order:
            yield MatchedFile(part.length, part.checksum, _NO_RSYNC64)
            if self.gap_bytes:
                yield UnmatchedData(self.gap_bytes)
        # to hash 50 GB takes minutes, and no mount looks at it
        anything = Checksum.of(self.algorithm, repr(self).encode())
        yield ImageInfo(self.size, anything, _BLOCK_LENGTH)

    def publish(self, directory: Path, name: str = "sparse") -> Path:
        """Write .jigdo and .template into a new directory, and return the path of the .jigdo."""
        directory.mkdir(parents=True)
        template = directory / f"{name}.template"
        with template.open("wb") as file:
            writer = TemplateWriter(file, self.algorithm, creator="sparse_image", level=1)
            for data in self._raw():
                writer.raw_data(data)
            writer.finish(self._entries())
        jigdo = directory / f"{name}.jigdo"
        named = tuple(
            (part.checksum, f"{LABEL}:{path}") for part, path in zip(self.in_order, self.names(), strict=True)
        )
        description = Description(
            filename=f"{name}.iso",
            template=template.name,
            template_checksums=(Checksum.of(self.algorithm, template.read_bytes()),),
            parts=named,
            servers=((LABEL, "http://127.0.0.1:9/debian/"),),
            generator="sparse_image",
        )
        jigdo.write_bytes(write_jigdo(description))
        return jigdo

    def names(self) -> Iterator[str]:
        """Yield the path of each part in a mirror, in the order of the image."""
        chance = random.Random(3)
        for number in range(self.parts):
            source = f"{_word(chance, 2)}{number // 4:x}"
            version = f"{chance.randrange(9)}.{chance.randrange(30)}.{chance.randrange(9)}"
            name = f"{source}{number % 4}_{version}-{chance.randrange(1, 9)}_{chance.choice(_ARCHITECTURES)}"
            yield f"pool/main/{source[0]}/{source}/{name}.deb"

    def fill_mirror(self, directory: Path) -> None:
        """Make a directory that has every part where the .jigdo says."""
        for part, name in zip(self.in_order, self.names(), strict=True):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.truncate(part.length)

    def fill_cache(self, directory: Path, jigdo: Path | None = None) -> None:
        """Put every part, and the template beside a .jigdo, into a cache as a mount would that had them."""
        cache = Cache(directory, max_bytes=None, min_free_bytes=0)
        try:
            for part in self.in_order:
                _keep(cache, cache_key(part), part.checksum, part.length, b"")
            if jigdo is not None:
                data = jigdo.with_suffix(".template").read_bytes()
                checksum = Checksum.of(self.algorithm, data)
                key = f"{checksum.algorithm.short_name}-{checksum.hex}"
                _keep(cache, key, checksum, len(data), data)
        finally:
            cache.close()


def _keep(cache: Cache, key: str, checksum: Checksum, length: int, data: bytes) -> None:
    """Keep a file of so many bytes that begins with some data and has zeros behind it."""
    place = cache.place(key, checksum)
    fd = place.create(length)
    try:
        os.ftruncate(fd, length)
        os.pwrite(fd, data, 0)
        place.keep(fd)
    finally:
        os.close(fd)


def _word(chance: random.Random, syllables: int) -> str:
    return "".join(chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(syllables))
