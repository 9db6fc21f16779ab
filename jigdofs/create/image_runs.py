"""The runs of an image, and the files that they lead to: those with a run in their beginning.

A run has no places to look at but its two borders. A file with something behind its run stands where the
image's run ends, one with something before it where the image's begins, and one that is nothing but a run
anywhere inside: side by side, from the beginning of the image's run and from where other files end in it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jigdofs.create.choose import Occurrence
from jigdofs.create.image_file import ImageFile
from jigdofs.create.index import Index, Numbers, RunningFile
from jigdofs.create.local_files import LocalFiles
from jigdofs.create.runs import Run, run_end, run_start
from jigdofs.errors import InputError

_PROBE_BYTES = 16
_MAX_REPEATS = 1 << 16
"""Most places of files that are nothing but a run. A small file of zeros stands anywhere in an empty disk's
gigabytes, where each place costs a template 31 bytes, and 1000 zeros cost one."""


@dataclass(frozen=True, slots=True)
class _FileRun:
    """A file and its run.

    Attributes:
        file: its number.
        length: of the file.
        run: where the run is in it.
        before: the last bytes before the run.
        lead: the first bytes of the run, one period of them.
        after: the first bytes behind the run.
    """

    file: int
    length: int
    run: Run
    before: bytes
    lead: bytes
    after: bytes

    @property
    def is_all(self) -> bool:
        """Whether the file is nothing but a run."""
        return self.run.start == 0 and self.run.end == self.length

    def start_for(self, found: Run) -> int | None:
        """Return where the file would begin, were this the image's run that its own is part of."""
        own, its = self.run.end - self.run.start, found.end - found.start
        if self.is_all or own > its:
            return None
        if self.run.start == 0:
            return found.end - self.run.end
        return found.start - self.run.start if self.run.end == self.length or own == its else None


class ImageRuns:
    """Collect the runs of an image, and say what follows from them.

    Args:
        image: the image.
        index: knows which windows belong to a run, and which files have one.
        files: the files.
        window: length of the index's windows.
    """

    def __init__(self, image: ImageFile, index: Index, files: LocalFiles, window: int) -> None:
        self._image = image
        self._index = index
        self._files = files
        self._window = window
        self._found: defaultdict[int, list[Run]] = defaultdict(list)
        self._known_until: defaultdict[int, int] = defaultdict(int)

    def note(self, at: Numbers, patterns: Numbers) -> None:
        """Take in that windows of the image, in ascending order, look like those of a pattern's runs."""
        for pattern in np.unique(patterns).tolist():
            period = len(self._index.patterns[pattern])
            places = at[patterns == pattern]
            # 1 GB of zeros has 16 million such windows and is one run
            while len(places := places[np.searchsorted(places, self._known_until[pattern]) :]):
                first = int(places[0])
                start = run_start(self._image.read, first, period)
                end = run_end(self._image.read, first, period, self._image.length)
                if end - start >= self._window:
                    self._found[pattern].append(Run(start, end, period))
                self._known_until[pattern] = max(first, end - self._window) + 1

    def candidates(self) -> Iterator[Occurrence]:
        """Yield where files that have more than a run may stand."""
        for runs, files in self._matching():
            by_borders: defaultdict[tuple[int, int], defaultdict[tuple[bytes, bytes], list[_FileRun]]]
            by_borders = defaultdict(lambda: defaultdict(list))
            for one in files:
                by_borders[len(one.before), len(one.after)][one.before, one.after].append(one)
            for run in runs:
                before = self._image.read(max(run.start - _PROBE_BYTES, 0), min(_PROBE_BYTES, run.start))
                after = self._image.read(run.end, min(_PROBE_BYTES, self._image.length - run.end))
                for (lead, tail), table in by_borders.items():
                    for one in table.get((before[len(before) - lead :], after[:tail]), ()):
                        start = one.start_for(run)
                        if start is not None:
                            yield Occurrence(start, one.length, one.file)

    def repeats(self, ends: list[int]) -> Iterator[Occurrence]:
        """Yield places of the files that are nothing but a run.

        Args:
            ends: where other files end, ascending.
        """
        yielded: set[Occurrence] = set()
        for place in self._repeats(ends):
            if place in yielded:
                continue
            if len(yielded) == _MAX_REPEATS:
                self._files.tell(place.file, f"behind the first {_MAX_REPEATS:,} places of such files")
                return
            yielded.add(place)
            yield place

    def _repeats(self, ends: list[int]) -> Iterator[Occurrence]:
        """Yield those places, some of them twice, those that cover most first."""
        patterns: list[tuple[list[Run], list[_FileRun]]] = []
        for runs, files in self._matching():
            whole = sorted((one for one in files if one.is_all), key=lambda one: (-one.length, one.file))
            yield from self._somewhere(runs, whole)
            patterns.append((runs, list({(one.lead, one.length): one for one in whole[::-1]}.values())[::-1]))
        for soonest in (False, True):
            for runs, whole in patterns:
                for run in runs:
                    turns = self._turns(run, whole)
                    yield from _side_by_side(run, turns, _anchors(run, ends), soonest=soonest)
        for runs, whole in patterns:
            for one in whole:
                for run in runs:
                    yield from _side_by_side(run, self._turns(run, [one]), _anchors(run, ends), soonest=False)

    def _somewhere(self, runs: list[Run], whole: list[_FileRun]) -> Iterator[Occurrence]:
        """Yield one place of each file that has any."""
        for run in runs:
            found = {one.file: turn for turn, files in self._turns(run, whole).items() for one in files}
            for one in whole:
                if one.file in found:
                    yield Occurrence(run.start + found[one.file], one.length, one.file)
            whole = [one for one in whole if one.file not in found]

    def _turns(self, run: Run, whole: list[_FileRun]) -> dict[int, list[_FileRun]]:
        """Return files that fit into a run, longest first as they come, by how far behind its start."""
        turns: defaultdict[int, list[_FileRun]] = defaultdict(list)
        fitting = whole[bisect_left(whole, run.start - run.end, key=lambda one: -one.length) :]
        ahead = self._image.read(run.start, min(2 * run.period, run.end - run.start)) if fitting else b""
        for one in fitting:
            turn = ahead.find(one.lead)
            if turn >= 0 and run.start + turn + one.length <= run.end:
                turns[turn].append(one)
        return turns

    def _matching(self) -> Iterator[tuple[list[Run], list[_FileRun]]]:
        """Yield the image's runs of each pattern with the files that have one."""
        by_pattern: defaultdict[int, list[RunningFile]] = defaultdict(list)
        for running in self._index.running:
            by_pattern[running.pattern].append(running)
        for pattern, runs in self._found.items():
            whole = [self._whole(running) for running in by_pattern[pattern]]
            yield runs, [one for one in whole if one is not None]

    def _whole(self, running: RunningFile) -> _FileRun | None:
        """Follow a file's run to its end; None for a file that cannot be read any more."""
        file, (start, end, period) = running.file, running.run
        length = self._files.files[file].length

        def read(offset: int, size: int) -> bytes:
            data = self._files.read(file, offset, size)
            if data is None:
                raise _Gone
            return data

        try:
            end = run_end(read, end - period, period, length)
            return _FileRun(
                file,
                length,
                Run(start, end, period),
                before=read(max(start - _PROBE_BYTES, 0), min(_PROBE_BYTES, start)),
                lead=read(start, period),
                after=read(end, min(_PROBE_BYTES, length - end)),
            )
        except _Gone:
            return None


def _anchors(run: Run, ends: list[int]) -> list[int]:
    return [run.start, *ends[bisect_right(ends, run.start) : bisect_left(ends, run.end)]]


def _side_by_side(
    run: Run, turns: dict[int, list[_FileRun]], anchors: list[int], *, soonest: bool
) -> Iterator[Occurrence]:
    """Yield places in a run one behind the other, as a program chooses that goes from left to right.

    Args:
        run: of the image.
        turns: files, longest first, by how far behind the run's start they stand.
        anchors: where to begin.
        soonest: take what is over first, and not the longest of what begins first.
    """
    seen: set[int] = set()
    for anchor in anchors:
        at: int | None = anchor
        while at is not None and at not in seen:
            seen.add(at)
            choice: list[tuple[tuple[int, int], Occurrence]] = []
            for turn, files in turns.items():
                start = at + (run.start + turn - at) % run.period
                fitting = bisect_left(files, start - run.end, key=lambda one: -one.length)
                if fitting < len(files):
                    one = files[-1 if soonest else fitting]
                    merit = (start + one.length, start) if soonest else (start, -one.length)
                    choice.append((merit, Occurrence(start, one.length, one.file)))
            at = None
            if choice:
                _, place = min(choice)
                yield place
                at = place.start + place.length


class _Gone(InputError):
    """Say that a file cannot be read any more; that was told."""
