"""The sources a user names, searched once and then asked for parts.

Invariants of this file:
* `find` vouches for what this process hashed itself: what an earlier run noted, and what an old template
  says, only decides what is tried first. `identify` believes an earlier run, too.
* A reader who copies checks as he copies, and opens a piece with `open_piece`, which tells whether its file
  is still the one that was hashed.
* A search reads names and what stat says; only images and templates are opened.
* Nothing is hashed twice in one run, and of many files of one length each is hashed once, not once for
  each part of that length.
* Memory grows with the pieces of wanted lengths, not with the trees they lie in.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from jigdofs.errors import InputError, printable
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.parts.open_file import Fingerprint
from jigdofs.sources.piece import Piece, hash_piece, open_piece
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.search import Search

_STRIPES = 64
"""Locks against hashing twice; with a few threads two pieces seldom share one."""

_MANY = 16
"""Of more pieces of one length than this all are identified, rather than tried one by one for each part."""

_Key = tuple[str, int, int, Fingerprint]


@dataclass(slots=True)
class Counts:
    """What was done so far.

    Attributes:
        files: regular files that were seen.
        pieces: pieces of wanted lengths that were kept.
        images: images whose directory or template was read.
        hashed_bytes: bytes that were read to compute checksums.
    """

    files: int = 0
    pieces: int = 0
    images: int = 0
    hashed_bytes: int = 0


class Sources:
    """Files, directories and old images that may hold parts. All methods but `close` are thread-safe.

    Args:
        paths: files and directories, as the user named them.
        remembered: what earlier runs found; it is closed with this.
        report: takes a line for the user, from any thread.
        besides: places to keep out of, such as the mount point to be.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        remembered: Remembered | None = None,
        report: Callable[[str], None],
        besides: Iterable[str] = (),
    ) -> None:
        self._paths = tuple(paths)
        self._besides = tuple(besides)
        self._remembered = remembered
        self._report = report
        self._lock = threading.Lock()
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._pieces: dict[int, dict[tuple[str, int], Piece]] = {}
        self._hashed: dict[Algorithm, set[_Key]] = {algorithm: set() for algorithm in Algorithm}
        self._catalogues: dict[tuple[int, Algorithm], dict[Checksum, Piece]] = {}
        self._cataloguing = threading.Lock()
        self._proven: dict[_Key, tuple[Checksum, ...]] = {}
        self._dropped: set[_Key] = set()
        self._reported: set[str] = set()
        self.counts = Counts()

    def scan(self, lengths: Collection[int] | None) -> None:
        """Search everything, anew if it was searched before.

        Args:
            lengths: of the parts that are wanted; None for all.
        """
        search = Search(lengths, self._remembered, self._report, self._besides)
        search.run(self._paths)
        with self._lock:
            self._pieces = search.pieces
            self._catalogues = {}
            self.counts.files += search.walker.seen
            self.counts.pieces = sum(map(len, search.pieces.values()))
            self.counts.images += search.images
        if self._remembered is not None:
            self._remembered.flush()

    def pieces(self) -> Iterator[Piece]:
        """Yield everything that was found, with what is known of it."""
        for group in list(self._pieces.values()):
            for piece in list(group.values()):
                yield self._known(piece)

    def candidates(self, part: Part, names: Collection[str] = ()) -> list[Piece]:
        """Return the pieces that may be a part, best first.

        Args:
            part: what is wanted.
            names: leaf names under which the .jigdo has it.
        """
        group = self._pieces.get(part.length, {})
        if len(group) > _MANY:
            piece = self._catalogue(part.length, part.checksum.algorithm).get(part.checksum)
            return [] if piece is None or _key(piece) in self._dropped else [self._known(piece)]
        ranked: list[tuple[int, Piece]] = []
        for found in list(group.values()):
            if _key(found) in self._dropped:
                continue
            piece = self._known(found)
            known = piece.checksum(part.checksum.algorithm)
            if known is None:
                named = piece.is_whole_file and os.path.basename(piece.path) in names
                ranked.append((2 if named else 3, piece))
            elif known == part.checksum:
                ranked.append((0 if known in self._proven.get(_key(piece), ()) else 1, piece))
        return [piece for _, piece in sorted(ranked, key=lambda row: row[0])]

    def find(self, part: Part, names: Collection[str] = ()) -> Piece | None:
        """Return a piece that is this part, or None; what this process has not hashed yet is hashed.

        Args:
            part: what is wanted. One of length 0 needs no piece.
            names: leaf names under which the .jigdo has it.
        """
        for piece in self.candidates(part, names):
            try:
                if self._prove(piece, part.checksum.algorithm) == part.checksum:
                    return self._known(piece)
            except InputError:  # reported, and dropped
                continue
        return None

    def _catalogue(self, length: int, algorithm: Algorithm) -> dict[Checksum, Piece]:
        """Return all pieces of a length by checksum; each is identified once."""
        with self._cataloguing:
            catalogue = self._catalogues.get((length, algorithm))
            if catalogue is None:
                catalogue = {}
                for piece in list(self._pieces.get(length, {}).values()):
                    with contextlib.suppress(InputError):  # reported, and dropped
                        catalogue.setdefault(self.identify(piece, algorithm), piece)
                self._catalogues[length, algorithm] = catalogue
        return catalogue

    def _prove(self, piece: Piece, algorithm: Algorithm) -> Checksum:
        """Return the checksum of a piece as this process computed it."""
        key = _key(piece)
        with self._stripes[hash(key) % _STRIPES]:
            if key not in self._hashed[algorithm]:
                return self._compute(piece, algorithm)
        return self.identify(piece, algorithm)

    def identify(self, piece: Piece, algorithm: Algorithm) -> Checksum:
        """Return the checksum of a piece: the one that is remembered, or else computed now.

        Raises:
            SourceChanged: it cannot be read, or changed; it is not offered again.
        """
        key = _key(piece)
        with self._stripes[hash(key) % _STRIPES]:
            for checksum in self._proofs(piece):
                if checksum.algorithm is algorithm:
                    return checksum
            return self._compute(piece, algorithm)

    def _compute(self, piece: Piece, algorithm: Algorithm) -> Checksum:
        try:
            checksum = self._hash(piece, algorithm)
        except InputError as error:
            self.drop(piece, str(error))
            raise
        self.learn(piece, checksum)
        return checksum

    def _hash(self, piece: Piece, algorithm: Algorithm) -> Checksum:
        fd = open_piece(piece)
        try:
            checksum = hash_piece(fd, piece, algorithm)
        finally:
            os.close(fd)
        with self._lock:
            self.counts.hashed_bytes += piece.length
        return checksum

    def learn(self, piece: Piece, checksum: Checksum) -> None:
        """Take in the checksum of a piece from somebody who read all of it, and remember it."""
        proofs = {known.algorithm: known for known in self._proofs(piece)} | {checksum.algorithm: checksum}
        key = _key(piece)
        with self._lock:
            self._proven[key] = tuple(proofs.values())
            self._hashed[checksum.algorithm].add(key)
        if self._remembered is not None:
            self._remembered.note(piece, checksum)

    def drop(self, piece: Piece, reason: str) -> None:
        """Never offer a piece again, as it cannot be read or changed; its file is reported once."""
        with self._lock:
            self._dropped.add(_key(piece))
            first = piece.path not in self._reported
            self._reported.add(piece.path)
        if first:
            text = reason if reason.startswith(printable(piece.path)) else f"{piece.path}: {reason}"
            self._report(printable(f"{text}; it is not used"))

    def close(self) -> None:
        """Write down what was learnt."""
        if self._remembered is not None:
            self._remembered.close()

    def _proofs(self, piece: Piece) -> tuple[Checksum, ...]:
        """Return what was computed of a piece, in this run or an earlier one."""
        key = _key(piece)
        proofs = self._proven.get(key)
        if proofs is None:
            proofs = () if self._remembered is None else self._remembered.checksums(piece)
            with self._lock:
                proofs = self._proven.setdefault(key, proofs)
        return proofs

    def _known(self, piece: Piece) -> Piece:
        """Return a piece with all that is known of it; what was computed counts, not what was said."""
        known = {checksum.algorithm: checksum for checksum in (*piece.checksums, *self._proofs(piece))}
        return piece._replace(checksums=tuple(known.values()))


def _key(piece: Piece) -> _Key:
    """Name a piece of a file as it was when it was found."""
    return piece.path, piece.offset, piece.length, piece.fingerprint
