"""What a .jigdo says, as frozen values (format.md 2); [Parts] stay the text they are."""

from __future__ import annotations

import collections
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jigdofs.format import words
from jigdofs.format.checksum import Checksum
from jigdofs.format.jigdo_limits import MAX_MAPPINGS

_LINE_END = re.compile(rb"\n")
_TRY = re.compile(r"--try-(first|last)(?:=([0-9]{1,6}(?:\.[0-9]{0,6})?))?")


@dataclass(frozen=True, slots=True)
class Include:
    """An [Include URL] line, to be replaced by what that URL holds."""

    url: str
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """The right side of a line of [Parts] or [Servers]: `Label:rest`, a URL or a path.

    Attributes:
        target: the text, a raw byte string (surrogate-escaped), never percent-decoded.
        weight: sum of `--try-first` and `--try-last` options; larger is tried earlier.
        base: path or URL of the .jigdo it stands in, for relative targets.
    """

    target: str
    weight: float
    base: str


@dataclass(frozen=True, slots=True)
class ImageSection:
    """One [Image] section.

    Attributes:
        filename: name of the image as written, without a `stdio:` prefix; not yet a leaf name.
        templates: where the template may be had, in order of preference.
        template_checksums: checksums of the template file, from keys and libjte's comments.
        image_sums: lower-case algorithm name -> hex digest of the image, from libjte's comments.
        image_size: bytes, from libjte's comment.
        short_info: one line about the image, may hold simple markup.
        info: more about it.
        base: path or URL of the .jigdo it stands in.
        line: 1-based line of its header.
    """

    filename: str
    templates: tuple[str, ...]
    template_checksums: tuple[Checksum, ...]
    image_sums: dict[str, str]
    image_size: int | None
    short_info: str
    info: str
    base: str
    line: int


class PartLines:
    """All lines of [Parts] of one file, looked up by checksum; values are split only when asked for.

    A Blu-ray's .jigdo has 30,000 lines of which a reader touches a few. So they stay the text they are, and
    the first who asks has them sorted: 4 bytes and 0.4 us a line.
    """

    __slots__ = ("_sorted", "_text", "base", "lines", "unquoted")

    def __init__(self, base: str) -> None:
        self.base = base
        self.unquoted = False  # libjte writes names as they are (format.md 2.3)
        self.lines = 0
        self._text = bytearray()  # lines as in a file, each with its key first and nothing before the value
        self._sorted: array[int] | None = None  # where lines begin, by key; those of one key in file order

    def add(self, checksum: Checksum, value: str) -> None:
        """Take one line in."""
        raw = value.encode("utf-8", "surrogateescape")
        # what ends in CR gets one more, as reading drops one
        self.add_text(
            b"%b=%b%b\n" % (checksum.base64.encode(), raw, b"\r" if raw.endswith(b"\r") else b""), 1
        )

    def add_text(self, text: bytes | memoryview, lines: int) -> None:
        """Take in so many lines that need no second look."""
        self.lines += lines
        self._text += text
        self._sorted = None

    def __len__(self) -> int:
        """Count the parts, not the lines."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Checksum]:
        """Yield every part once, in file order; looks at every line."""
        keys = (bytes(line.partition(b"=")[0]) for line in self._each())
        return (Checksum.parse(key.decode()) for key in dict.fromkeys(keys))

    def all_mappings(self) -> Iterator[Mapping]:
        """Yield what stands in every line."""
        return (self._mapping(line.partition(b"=")[2]) for line in self._each())

    def _each(self) -> Iterator[bytearray]:
        """Yield the lines one by one: as a list of objects, 500,000 take 60 MiB."""
        start = 0
        while (end := self._text.find(b"\n", start)) >= 0:
            yield self._text[start:end]
            start = end + 1

    @property
    def is_sorted(self) -> bool:
        """Tell whether a look-up finds its way at once."""
        return self._sorted is not None

    def sort(self) -> None:
        """Sort the lines by key, as look-ups need it; 500,000 take some 0.5 s, so have a thread do it.

        By first characters, as other threads have no turn during one call of `sorted`.
        """
        begin_with: dict[int, array[int]] = {}
        start = 0
        for match in _LINE_END.finditer(self._text):
            begin_with.setdefault(self._text[start], array("I")).append(start)
            start = match.end()
        by_key = array("I")
        for _, starts in sorted(begin_with.items()):
            by_key.extend(sorted(starts, key=self._key))
        self._sorted = by_key

    def mappings(self, checksum: Checksum) -> list[Mapping]:
        """Return where the part may be had, in file order."""
        if self._sorted is None:
            self.sort()
        assert self._sorted is not None
        key = checksum.base64.encode()
        first = bisect_left(self._sorted, key, key=self._key)
        found = []
        for start in self._sorted[first : first + MAX_MAPPINGS]:
            if self._key(start) != key:
                break
            found.append(self._mapping(self._text[start + len(key) + 1 : self._text.index(b"\n", start)]))
        return found

    def _key(self, start: int) -> bytes:
        return bytes(self._text[start : self._text.index(b"=", start)])

    def _mapping(self, raw: bytearray) -> Mapping:
        value = raw.removesuffix(b"\r").decode("utf-8", "surrogateescape")
        if self.unquoted:
            return Mapping(value, 0.0, self.base)
        target, *options = words.split(value)
        return Mapping(target, weight_of(options), self.base)


@dataclass(frozen=True, slots=True)
class JigdoFile:
    """What one .jigdo says, or several merged by [Include].

    Attributes:
        source: path or URL of the (outermost) file.
        version: the format version as written, or "".
        generator: the program that wrote it, or "".
        images: the [Image] sections in order; since jigdo 0.7.1 the first is *the* image.
        parts: the [Parts] of each file that was merged, in order of preference.
        servers: label -> its mappings in order of preference.
    """

    source: str
    version: str = ""
    generator: str = ""
    images: tuple[ImageSection, ...] = ()
    parts: tuple[PartLines, ...] = ()
    servers: dict[str, tuple[Mapping, ...]] = field(default_factory=dict)

    def mappings(self, checksum: Checksum) -> list[Mapping]:
        """Return where the part may be had, in order of preference."""
        return [mapping for lines in self.parts for mapping in lines.mappings(checksum)]

    @property
    def is_sorted(self) -> bool:
        """Tell whether a look-up finds its way at once."""
        return all(lines.is_sorted for lines in self.parts)

    def sort(self) -> None:
        """Sort all lines; blocks (see `PartLines.sort`)."""
        for lines in self.parts:
            if not lines.is_sorted:
                lines.sort()

    def labels(self) -> dict[str, int]:
        """Return the labels that parts are under, and how many lines each has; looks at every line."""
        counts = collections.Counter(
            mapping.target.partition(":")[0]
            for lines in self.parts
            for mapping in lines.all_mappings()
            if ":" in mapping.target
        )
        return dict(counts)


def merge(pieces: Iterable[JigdoFile]) -> JigdoFile:
    """Put pieces together as if one file held them all; the first piece names the whole."""
    pieces = list(pieces)
    servers: dict[str, tuple[Mapping, ...]] = {}
    for piece in pieces:
        for label, mappings in piece.servers.items():
            servers[label] = servers.get(label, ()) + mappings
    return JigdoFile(
        source=pieces[0].source,
        version=next((piece.version for piece in pieces if piece.version), ""),
        generator=next((piece.generator for piece in pieces if piece.generator), ""),
        images=tuple(image for piece in pieces for image in piece.images),
        parts=tuple(lines for piece in pieces for lines in piece.parts),
        servers=servers,
    )


def weight_of(options: Iterable[str]) -> float:
    """Add up `--try-first[=d]` and `--try-last[=d]`; unknown options are passed over (format.md 2.5)."""
    total = 0.0
    for option in options:
        match = _TRY.fullmatch(option)
        if match:
            amount = float(match[2] or 1)
            total += amount if match[1] == "first" else -amount
    return total
