"""Make a template: find what of an image lies in files, then write down the rest.

Rules of this file:
* Between search and writing nobody may change the image: that is checked, and then nothing is published.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from jigdofs import __version__
from jigdofs.create.choose import Occurrence, choose
from jigdofs.create.first_block import rsync64
from jigdofs.create.image_file import ImageFile
from jigdofs.create.local_files import LocalFiles
from jigdofs.create.search import search
from jigdofs.create.template_file import Writable, WrittenTemplate, write_template
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.template import Compression, Entry, ImageInfo, MatchedFile, UnmatchedData
from jigdofs.sources.piece import Piece

GENERATOR = f"jigdofs/{__version__}"
_PIECE = 1 << 20
_LEAVE_BYTES = 1 << 20

Progress = Callable[[int], None]
"""Told how many bytes are done."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to make a template.

    Attributes:
        algorithm: of the checksums of parts and image.
        compression: of the raw data.
        level: of compression, 0 to 9.
        min_length: of a part, bytes; at least 256.
    """

    algorithm: Algorithm
    compression: Compression
    level: int
    min_length: int


@dataclass(frozen=True, slots=True)
class Match:
    """A stretch of the image that is a part.

    Attributes:
        start: where it begins in the image.
        path: of the file, as the user typed it.
        piece: the file, with its checksums.
    """

    start: int
    path: str
    piece: Piece

    @property
    def end(self) -> int:
        """Where it ends in the image."""
        return self.start + self.piece.length

    def checksum(self, algorithm: Algorithm) -> Checksum:
        """Return a checksum that was asked for when the files were opened."""
        found = self.piece.checksum(algorithm)
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class Matches:
    """What of an image lies in files.

    Attributes:
        length: of the image, bytes.
        sums: of the image, in every algorithm.
        matches: the parts, in order; they do not overlap.
        not_found: paths of files that stand nowhere in the image in one piece.
    """

    length: int
    sums: dict[Algorithm, Checksum]
    matches: tuple[Match, ...]
    not_found: tuple[str, ...]

    @property
    def bytes_in_parts(self) -> int:
        """How much of the image need not be in the template."""
        return sum(match.piece.length for match in self.matches)

    def parts(self, algorithm: Algorithm) -> dict[Checksum, Match]:
        """Return the first match of each part, in order."""
        first: dict[Checksum, Match] = {}
        for match in self.matches:
            first.setdefault(match.checksum(algorithm), match)
        return first


def find_matches(image: ImageFile, files: LocalFiles, min_length: int, progress: Progress) -> Matches:
    """Find the parts of an image; raise what `search` does."""
    found = search(image, files, min_length, progress)
    chosen = _leave_something(found.occurrences, image.length)
    matches = tuple(Match(one.start, files.files[one.file].path, files.piece(one.file)) for one in chosen)
    seen = {one.file for one in found.occurrences} | found.twins.keys()
    not_found = [
        file.path
        for number, file in enumerate(files.files)
        if number not in seen and not files.is_bad(number)
    ]
    return Matches(image.length, found.image, matches, tuple(not_found))


def _leave_something(found: Collection[Occurrence], length: int) -> list[Occurrence]:
    """Choose parts so that something is left for the template: jigdo-file 0.8 dies where nothing is.

    It crashes in make-image unless the template has raw data (SIGSEGV, after all is written; also with
    templates of its own). Where even the shortest part is large, that is not worth its bytes.
    """
    best = chosen = choose(found)
    left_out: set[Occurrence] = set()
    while chosen and sum(one.length for one in chosen) == length:
        shortest = min(chosen, key=lambda one: one.length)
        if shortest.length > _LEAVE_BYTES:
            return best
        left_out.add(shortest)
        chosen = choose([one for one in found if one not in left_out])
    return chosen


def write(
    out: Writable, image: ImageFile, found: Matches, settings: Settings, progress: Progress
) -> WrittenTemplate:
    """Write the template.

    Args:
        out: where to.
        image: what was searched.
        found: what of it lies in files.
        settings: how to write.
        progress: told how many bytes of raw data were taken.

    Raises:
        SourceChanged: the image cannot be read, or is not what it was.
        UsageError: no template can say this much.
    """
    written = write_template(
        out,
        _raw_data(image, found, progress),
        _entries(image, found, settings),
        algorithm=settings.algorithm,
        compression=settings.compression,
        level=settings.level,
        creator=GENERATOR,
    )
    image.check_unchanged()
    return written


def _entries(image: ImageFile, found: Matches, settings: Settings) -> Iterator[Entry]:
    known: dict[Checksum, bytes] = {}
    at = 0
    for match in found.matches:
        checksum = match.checksum(settings.algorithm)
        if checksum not in known:
            known[checksum] = rsync64(image.read(match.start, settings.min_length))
        yield UnmatchedData(match.start - at)
        yield MatchedFile(match.piece.length, checksum, known[checksum])
        at = match.end
    yield UnmatchedData(found.length - at)
    yield ImageInfo(found.length, found.sums[settings.algorithm], settings.min_length)


def _raw_data(image: ImageFile, found: Matches, progress: Progress) -> Iterator[bytes]:
    at = taken = 0
    for match in (*found.matches, None):
        end = found.length if match is None else match.start
        while at < end:
            piece = image.read(at, min(_PIECE, end - at))
            yield piece
            at += len(piece)
            taken += len(piece)
            progress(taken)
        at = at if match is None else match.end
