"""Where files stand: every place that something hints at, looked at."""

from __future__ import annotations

from collections import Counter, defaultdict

from jigdofs.create.choose import Occurrence
from jigdofs.create.image_file import ImageFile
from jigdofs.create.local_files import LocalFiles
from jigdofs.errors import InputError

MAX_OCCURRENCES = 1 << 20
"""Most places: a template with more than 1.3 million parts we could not read again (`template`)."""
MAX_TIMES = 1 << 16
"""Most places of one file: a block that fills a disk must not keep other files from being published."""
_PROBE_WITHIN = 64 << 10
_PROBE_BYTES = 16


class Places:
    """Look where files may stand, and keep where they do.

    Args:
        image: the image.
        files: the files.
        groups: numbers of files that begin alike.
    """

    def __init__(self, image: ImageFile, files: LocalFiles, groups: list[list[int]]) -> None:
        self.found: set[Occurrence] = set()
        self.twins: dict[int, int] = {}
        """Number of a file -> an earlier one with the same bytes, which occurs in its place."""
        self._image = image
        self._files = files
        self._groups = groups
        self._probes: dict[int, dict[int, dict[bytes, list[int]]]] = {}
        self._ends: dict[int, bytes | None] = {}
        self._times: Counter[int] = Counter()

    def look(self, group: int, start: int) -> None:
        """Look for all files of a group at one place.

        Raises:
            SourceChanged: the image cannot be read.
            InputError: the files stand in too many places.
        """
        room = self._image.length - start
        if start < 0:
            return
        originals: dict[int, int] = {}
        for file in self._alike(group, start, room):
            length = self._files.files[file].length
            if length > room or file in self.twins or self._times[file] == MAX_TIMES:
                continue
            if not self._files.stands_at(file, self._image, start):
                continue
            original = originals.setdefault(length, file)
            if original == file:
                self._add(Occurrence(start, length, file))
            else:
                self.twins[file] = original

    def _alike(self, group: int, start: int, room: int) -> list[int]:
        """Return the files of a group that some bytes speak for, those with the same bytes in their order."""
        files = self._groups[group]
        if len(files) == 1:
            return files
        if group not in self._probes:
            self._probes[group] = self._probes_of(files)
        piece = self._image.read(start, min(_PROBE_WITHIN, room))
        alike: list[int] = []
        for at, by_bytes in self._probes[group].items():
            alike += by_bytes.get(piece[at : at + _PROBE_BYTES], ())
        lengths = {self._files.files[file].length for file in alike}
        ends = {
            length: self._image.read(start + length - _PROBE_BYTES, _PROBE_BYTES)
            for length in lengths
            if length <= room
        }
        return [file for file in alike if self._end_of(file) == ends.get(self._files.files[file].length)]

    def _end_of(self, file: int) -> bytes | None:
        if file not in self._ends:
            length = self._files.files[file].length
            self._ends[file] = self._files.read(file, length - _PROBE_BYTES, _PROBE_BYTES)
        return self._ends[file]

    def _probes_of(self, files: list[int]) -> dict[int, dict[bytes, list[int]]]:
        """Read bytes of files that begin alike, from near the end; of such files there may be thousands.

        They come from a few dozen offsets, so that looking at a place does not mean looking at every file.
        """
        probes: defaultdict[int, defaultdict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
        for file in files:
            within = min(self._files.files[file].length, _PROBE_WITHIN)
            step = 1 << within.bit_length() - 4
            at = within // step * step - _PROBE_BYTES
            data = self._files.read(file, at, _PROBE_BYTES)
            if data is not None:
                probes[at][data].append(file)
        return {at: dict(by_bytes) for at, by_bytes in probes.items()}

    def look_for(self, place: Occurrence) -> None:
        """Look for one file at one place; raise what `look` does."""
        within = 0 <= place.start <= self._image.length - place.length
        if within and place not in self.found and self._files.stands_at(place.file, self._image, place.start):
            self._add(place)

    def believe(self, place: Occurrence) -> None:
        """Keep a place of a file that follows from another place of it; raise what `look` does."""
        if self._files.was_found(place.file):
            self._add(place)
        else:
            self.look_for(place)

    def _add(self, place: Occurrence) -> None:
        self.found.add(place)
        self._times[place.file] += 1
        if self._times[place.file] == MAX_TIMES:
            self._files.tell(place.file, f"behind its first {MAX_TIMES:,} places")
        if len(self.found) > MAX_OCCURRENCES:
            raise InputError(
                f"{self._image.name}: the files stand in more than {MAX_OCCURRENCES:,} places; "
                "use a larger --min-length"
            )
