"""Build one image: put raw data and parts in their places, check the whole, give it its name.

Invariants of this file:
* A part is marked as being in place after the bytes there were hashed; where they came from is no matter.
* The image gets its name after every checksum known of it was found right; else it stays a `.tmp`.

All methods block, and may be called from any thread.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from jigdofs.build import account as origins
from jigdofs.build.account import Account
from jigdofs.build.blueprint import Blueprint, ImageSum
from jigdofs.build.raw_stream import RawStream
from jigdofs.build.unfinished import Replace, Unfinished
from jigdofs.build.whole import Frontier, WholeCheck
from jigdofs.errors import JigdofsError, NoRoom, Stopped, WrongImage
from jigdofs.format.checksum import Checksum
from jigdofs.format.part import Part
from jigdofs.image.layout import Layout
from jigdofs.image.raw_data import check_unchanged

MAX_THREADS = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that the image lacks.

    Attributes:
        part: what it is.
        indexes: the extents where it belongs, in image order; at least one.
        here: an extent where it is in place already, or None.
    """

    part: Part
    indexes: tuple[int, ...]
    here: int | None


class Builder:
    """One image being built.

    Args:
        blueprint: what it is to be.
        path: of the finished image; until then it is `path.tmp`.
        account: counts what comes from where.
        replace: what may be replaced where the `.tmp` is something else.

    Raises:
        InputError: the `.tmp` is something else, cannot be opened, or is being worked on.
        NoRoom: the disk is full.
    """

    def __init__(
        self, blueprint: Blueprint, path: str, account: Account, *, replace: Replace = Replace.NOTHING
    ) -> None:
        self.blueprint = blueprint
        self.path = path
        self.layout: Layout = blueprint.layout
        self.account = account
        self._stop = threading.Event()
        self.unfinished = Unfinished(f"{path}.tmp", self.layout, blueprint.desc, replace=replace)
        self._origins = [""] * len(self.layout)
        for index in range(len(self.layout)):
            if self.unfinished.is_written(index):
                self._note(index, origins.BEFORE)
        self._frontier, self._check = self._begin_check()

    def _begin_check(self) -> tuple[Frontier, WholeCheck]:
        frontier = Frontier(array("Q", (self.layout.start(index) for index in range(len(self.layout) + 1))))
        for index in range(len(self.layout)):
            there = self.unfinished.is_written(index) or (
                self.unfinished.raw_complete and self.layout.part(index) is None
            )
            if there:
                frontier.complete(index)
        check = WholeCheck(
            self.unfinished.fd, self.layout.length, self.blueprint.sums, frontier, self.account
        )
        if self.stopped:
            frontier.stop()
        return frontier, check

    def _note(self, index: int, origin: str) -> None:
        """Note that an extent is in place, and where from."""
        self._origins[index] = origin
        self.account.add(origin, self._length(index), origin != origins.TEMPLATE)

    def _lose(self, index: int) -> None:
        """Note that an extent is not in place after all."""
        origin, self._origins[index] = self._origins[index], ""
        if origin:
            self.account.add(origin, -self._length(index), -(origin != origins.TEMPLATE))

    def _length(self, index: int) -> int:
        return self.layout.start(index + 1) - self.layout.start(index)

    def stop(self) -> None:
        """Let all work end soon; what is in place stays. Never waits."""
        self._stop.set()
        self._frontier.stop()

    @property
    def stopped(self) -> bool:
        """Tell whether `stop` was called."""
        return self._stop.is_set()

    def close(self) -> None:
        """Let go of the file; nobody may be at work."""
        self.stop()
        self._check.join()
        self.unfinished.close()

    # -- raw data --------------------------------------------------------------------------------

    def write_raw(self) -> None:
        """Write all raw data, unless a run before did.

        Raises:
            FormatError: the template is damaged.
            NoRoom: the disk is full.
        """
        raw_indexes = array(
            "Q", (index for index in range(len(self.layout)) if self.layout.part(index) is None)
        )
        if self.unfinished.raw_complete:
            for index in raw_indexes:
                self._note(index, origins.TEMPLATE)
            return
        check_unchanged(self.blueprint.template_file)
        raw = RawStream(self.blueprint)
        for index in raw_indexes:
            at = self.layout.start(index)
            for piece in raw.read(self._length(index)):
                if self.stopped:
                    raise Stopped("stopped")
                self.unfinished.write(piece, at)
                at += len(piece)
            self._frontier.complete(index)
            self._note(index, origins.TEMPLATE)
        check_unchanged(self.blueprint.template_file)
        self.unfinished.complete_raw()

    # -- parts -----------------------------------------------------------------------------------

    def missing(self) -> list[Missing]:
        """Return every part that is not everywhere in place, in the order of first need."""
        lacking: dict[Part, list[int]] = {}
        here: dict[Part, int] = {}
        for index in range(len(self.layout)):
            part = self.layout.part(index)
            if part is None:
                continue
            if self.unfinished.is_written(index):
                here.setdefault(part, index)
            else:
                lacking.setdefault(part, []).append(index)
        return [Missing(part, tuple(indexes), here.get(part)) for part, indexes in lacking.items()]

    def count_lacking(self, missing: list[Missing]) -> int:
        """Count those of them that are not everywhere in place."""
        written = self.unfinished.is_written
        return sum(not all(map(written, wanted.indexes)) for wanted in missing)

    def place(self, missing: Missing, fd: int, offset: int, origin: str) -> Checksum | None:
        """Copy a part from an open file and verify it where it lies.

        Returns:
            The checksum of what was copied: the part is in place if it is the part's; None where the
            file ended too early.

        Raises:
            NoRoom: the disk is full.
            JigdofsError: reading or writing failed.
        """
        part = missing.part
        at = self.layout.start(missing.indexes[0])
        if self.unfinished.copy_in(fd, offset, at, part.length) != part.length:
            return None
        checksum = self.unfinished.checksum(at, part.length, part.checksum.algorithm)
        if checksum == part.checksum:
            self.placed(missing, origin)
        return checksum

    def placed(self, missing: Missing, origin: str) -> None:
        """Note that the first place of a part holds it, verified; fill its other places from there."""
        first, *others = missing.indexes
        length = missing.part.length
        for other in others:
            source, target = self.layout.start(first), self.layout.start(other)
            if self.unfinished.copy_in(self.unfinished.fd, source, target, length) != length:
                raise JigdofsError(f"{self.unfinished.path}: became shorter while it was written")
        self.unfinished.mark(missing.indexes)
        for index in missing.indexes:
            self._frontier.complete(index)
            self._note(index, origin)

    def fill(self, missing: list[Missing], obtain: Callable[[Missing], bool]) -> list[Missing]:
        """Let `obtain` place parts, several at once, in image order; return those it did not."""
        filled = self._in_threads(obtain, missing)
        return [wanted for wanted, done in zip(missing, filled, strict=True) if not done]

    def fill_from_itself(self, missing: list[Missing]) -> list[Missing]:
        """Fill what is missing in one place and there in another; return the rest."""

        def obtain(wanted: Missing) -> bool:
            if wanted.here is None:
                return False
            start = self.layout.start(wanted.here)
            return self.place(wanted, self.unfinished.fd, start, origins.BEFORE) == wanted.part.checksum

        return self.fill(missing, obtain)

    def _in_threads(self, work: Callable[[T], bool], items: Sequence[T]) -> bytearray:
        """Have each item worked on by one of a few threads, in order; return a byte a verdict.

        A future for each of 200,000 parts would take 200 MB.
        """
        verdicts = bytearray(len(items))
        numbers = iter(range(len(items)))  # one thread at a time takes the next: it is an iterator of C's
        failures: list[BaseException] = []

        def follow() -> None:
            try:
                for number in numbers:
                    if self.stopped or failures:
                        return
                    verdicts[number] = work(items[number])
            except BaseException as error:  # noqa: BLE001  raised again below
                failures.append(error)

        _run_threads(follow, min(MAX_THREADS, os.cpu_count() or 1, len(items)), self.stop)
        if failures:
            raise failures[0]
        if self.stopped:
            raise Stopped("stopped")
        return verdicts

    # -- room ------------------------------------------------------------------------------------

    def check_room(self, missing: list[Missing]) -> None:
        """Raise `NoRoom` now rather than in the middle, if the disk cannot hold what is missing."""
        needed = sum(wanted.part.length * len(wanted.indexes) for wanted in missing)
        needed += 0 if self.unfinished.raw_complete else self.layout.raw_length
        status = os.fstatvfs(self.unfinished.fd)
        free = status.f_bavail * status.f_frsize
        # a place may hold wrong bytes already, and thus take no more room
        allocated = self.unfinished.allocated_bytes()
        if needed > free and self.layout.length > free + allocated:
            raise NoRoom(
                f"{self.unfinished.path}: {needed} more bytes are needed there, {free} are free; make room"
                " and run the same command again: it goes on from here"
            )

    # -- the end ---------------------------------------------------------------------------------

    def wrong_sums(self) -> list[ImageSum]:
        """Wait for the check of the whole image; return the checksums it does not have."""
        return self._check.result()

    def unmark_damage(self) -> list[Missing]:
        """Look for what is wrong: verify each part in its place again; return the parts to be had again.

        Raw data is written anew in any case: that takes less time than comparing it.
        """
        written = array(
            "Q", (index for index in range(len(self.layout)) if self.unfinished.is_written(index))
        )

        def is_right(index: int) -> bool:
            part = self.layout.part(index)
            assert part is not None
            at = self.layout.start(index)
            return self.unfinished.checksum(at, part.length, part.checksum.algorithm) == part.checksum

        verdicts = self._in_threads(is_right, written)
        wrong = [index for index, right in zip(written, verdicts, strict=True) if not right]
        self.unfinished.unmark(wrong)
        self.unfinished.doubt_raw()
        for index in range(len(self.layout)):
            if not self.unfinished.is_written(index):
                self._lose(index)
        self._frontier, self._check = self._begin_check()
        return self.missing()

    def finish(self) -> None:
        """Give the image its name: it was verified whole.

        Raises:
            WrongImage: it was not.
        """
        wrong = self.wrong_sums()
        if wrong:
            first = wrong[0]
            raise WrongImage(
                f"{self.unfinished.path}: every part is right, but the whole image has not the"
                f" {first.algorithm} {first.hex} that {first.said_by} gives; that file is wrong"
            )
        self.unfinished.finish(self.path)


def _run_threads(work: Callable[[], None], count: int, stop: Callable[[], None]) -> None:
    """Run threads to their end; at Ctrl-C stop them first, so that whoever goes on finds nobody at work."""
    threads = [threading.Thread(target=work, name="jigdofs-fill", daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        stop()
        for thread in threads:
            thread.join()
        raise
