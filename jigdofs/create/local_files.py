"""The files that may be parts: their beginnings, their repeats, and whether they stand at an offset.

Invariants of this file:
* A file is a part only after every byte of it was equal to the image's; its checksums are computed from
  those very bytes, so nobody can change it in between.
* A file that cannot be read, or changes, is told of once and is no part from then on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jigdofs.create.image_file import ImageFile
from jigdofs.create.windows import Bytes
from jigdofs.format.checksum import Algorithm, Checksum, Hasher
from jigdofs.named_files import NamedFile
from jigdofs.sources.piece import Piece, fingerprint_of, open_regular

_HEADS_AT_ONCE = 512
_FIRST_PIECE = 16 << 10
_PIECE = 1 << 20
_TAIL = 16


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that may be a part.

    Attributes:
        path: as the user typed it, with what was found below.
        length: bytes.
    """

    path: str
    length: int


@dataclass(frozen=True, slots=True)
class GivenFiles:
    """The files that were given, sorted out.

    Attributes:
        may_be_parts: those that are long enough, shorter than the image, and not what we work on.
        too_short: how many are shorter than a part may be.
        as_long: paths of those as long as the image: a copy of it, which would be its only part.
        too_long: paths of those longer than the image.
    """

    may_be_parts: tuple[LocalFile, ...]
    too_short: int
    as_long: tuple[str, ...]
    too_long: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many files there are."""
        return len(self.may_be_parts) + self.too_short + len(self.as_long) + len(self.too_long)


def sort_out(
    files: Iterable[NamedFile], *, min_length: int, image_length: int, besides: frozenset[tuple[int, int]]
) -> GivenFiles:
    """Find out which files may be parts.

    Args:
        files: all that there are.
        min_length: of a part, bytes.
        image_length: bytes.
        besides: device and inode of the image and of what is written.
    """
    found: list[LocalFile] = []
    as_long: list[str] = []
    too_long: list[str] = []
    too_short = 0
    for file in files:
        length = file.status.st_size
        if (file.status.st_dev, file.status.st_ino) in besides:
            continue
        if length < min_length:
            too_short += 1
        elif length < image_length:
            found.append(LocalFile(file.path, length))
        elif length == image_length:
            as_long.append(file.path)
        else:
            too_long.append(file.path)
    return GivenFiles(tuple(found), too_short, tuple(as_long), tuple(too_long))


class LocalFiles:
    """Read files by their number.

    Args:
        files: all of them.
        algorithms: of the checksums that are wanted of parts.
        skipped: told of a file that cannot be read, and why.
    """

    def __init__(
        self,
        files: Sequence[LocalFile],
        algorithms: Iterable[Algorithm],
        skipped: Callable[[str, str], None],
    ) -> None:
        self.files = files
        self._algorithms = tuple(algorithms)
        self._skipped = skipped
        self._bad: set[int] = set()
        self._given_up = False
        self._found: dict[int, Piece] = {}

    def __len__(self) -> int:
        return len(self.files)

    def piece(self, file: int) -> Piece:
        """Return a file that was found to stand somewhere, with the checksums that were wanted."""
        return self._found[file]

    def is_bad(self, file: int) -> bool:
        """Tell whether a file could not be read or changed, and so was not looked for to the end."""
        return file in self._bad

    def was_found(self, file: int) -> bool:
        """Tell whether a file stands anywhere, as far as is known."""
        return file in self._found

    def give_up(self) -> None:
        """Let whoever compares just now, in another thread, find nothing and stop."""
        self._given_up = True

    def heads(self, length: int) -> Iterator[tuple[list[int], Bytes]]:
        """Yield files and a row with the beginning of each, some hundred at a time."""
        for first in range(0, len(self.files), _HEADS_AT_ONCE):
            numbers: list[int] = []
            rows = bytearray()
            for file in range(first, min(first + _HEADS_AT_ONCE, len(self.files))):
                head = self.read(file, 0, length)
                if head is not None:
                    numbers.append(file)
                    rows += head
            if numbers:
                yield numbers, np.frombuffer(rows, np.uint8).reshape(len(numbers), length)

    def read(self, file: int, offset: int, length: int) -> bytes | None:
        """Return bytes of a file, or None if it does not have them any more."""
        opened = self._open(file)
        if opened is None:
            return None
        try:
            data = os.pread(opened, length, offset)
        except OSError as error:
            self.skip(file, error.strerror)
            return None
        finally:
            os.close(opened)
        if len(data) != length:
            self.skip(file, "became shorter meanwhile")
            return None
        return data

    def stands_at(self, file: int, image: ImageFile, start: int) -> bool:
        """Tell whether a whole file stands at an offset of the image; if so, know its checksums.

        Raises:
            SourceChanged: the image cannot be read.
        """
        opened = self._open(file)
        if opened is None:
            return False
        wanted = () if file in self._found else self._algorithms
        hashers = {algorithm: algorithm.hasher() for algorithm in wanted}
        try:
            before = fingerprint_of(os.fstat(opened))
            equal = self._equal(opened, file, image, start, list(hashers.values()))
            after = fingerprint_of(os.fstat(opened))
        except OSError as error:
            self.skip(file, error.strerror)
            return False
        finally:
            os.close(opened)
        if after != before or after.size != self.files[file].length:
            self.skip(file, "changed meanwhile")
            return False
        if equal and hashers:
            sums = tuple(Checksum(hasher.digest()) for hasher in hashers.values())
            self._found[file] = Piece(os.path.abspath(self.files[file].path), 0, after.size, after, sums)
        return equal

    def _equal(self, opened: int, file: int, image: ImageFile, start: int, hashers: list[Hasher]) -> bool:
        length, at, piece = self.files[file].length, 0, _FIRST_PIECE
        tail = length - _TAIL
        # what repeats a longer pattern has hints in every period, most of them wrong at the end only
        if length > piece and os.pread(opened, _TAIL, tail) != image.read(start + tail, _TAIL):
            return False
        while at < length:
            size = min(piece, length - at)
            data = image.read(start + at, size)
            if self._given_up or os.pread(opened, size, at) != data:
                return False
            for hasher in hashers:
                hasher.update(data)
            at += size
            piece = _PIECE
        return True

    def _open(self, file: int) -> int | None:
        if file in self._bad:
            return None
        try:
            return open_regular(self.files[file].path)
        except OSError as error:
            self.skip(file, error.strerror)
            return None

    def tell(self, file: int, remark: str) -> None:
        """Tell where a file is passed over that is used elsewhere."""
        self._skipped(self.files[file].path, remark)

    def skip(self, file: int, reason: str | None) -> None:
        """Tell that a file is not used, or not used any more, and why."""
        if file not in self._bad:
            self._bad.add(file)
            self._skipped(self.files[file].path, reason or "cannot be read")
