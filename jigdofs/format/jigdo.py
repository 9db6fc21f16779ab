r"""The .jigdo file: bytes in, frozen values out (format.md 2), in every dialect seen in the wild.

Rules of this file:
* Text is decoded as UTF-8 with surrogate escapes, so every name keeps its exact bytes.
* A line ends at LF; one CR before it is dropped; any other CR belongs to the name.
* Whatever jigdo-file would pass over with a message (a header without `]`, a line without `=`)
  is a `FormatError` here: going on would put entries into the wrong section.
"""

from __future__ import annotations

import codecs
import collections
import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jigdofs.errors import FormatError
from jigdofs.format import words
from jigdofs.format.checksum import Checksum, InvalidChecksum

MAX_BYTES = 64 << 20
"""Largest .jigdo we read, inflated. The largest real one is 3.2 MB (format.md 6)."""
MAX_PART_LINES = 1_000_000
"""Most lines of [Parts] we keep. Debian's largest image has some 30,000."""
MAX_OTHER_LINES = 100_000
"""Most headers and entries outside [Parts]."""
MAX_IMAGES = 100
MAX_LINE_LENGTH = 64 << 10
"""Longest line; the longest real one has 271 bytes, jigdo's GUI cut lines at 16384."""
MAX_MAPPINGS = 64
"""Most locations kept for one part or label; no more would ever be tried."""
NEWEST_MAJOR_VERSION = 2
_SLICE_BYTES = 64 << 10

_PART_LINES = re.compile(
    rb"(?:(?:[\w-]{21}[AQgw]|[\w-]{42}[AEIMQUYcgkosw048])="  # MD5 or SHA-256, as `Checksum.parse` wants it
    rb"[^ \t#'\"\r\n].{0,4094}\n){1,1024}"
)
"""Lines of [Parts] that need no second look: canonical, with a location that cannot be empty. Some at a time,
as the matcher remembers every line to come back to it; possessive ones go wrong before Python 3.11.5."""
_LINE_END = re.compile(rb"\n")
_HEADER = re.compile(r"\[([^\]]*)\][ \t]*(?:#.*)?", re.DOTALL)
_COMMENT_SUM = re.compile(r"#[ \t]*(Image|Template) Hex (MD5|SHA1|SHA256|SHA512)Sum ([0-9a-fA-F]+)[ \t]*")
_COMMENT_SIZE = re.compile(r"#[ \t]*Image size ([0-9]{1,15}) bytes[ \t]*")
_TRY = re.compile(r"--try-(first|last)(?:=([0-9]{1,6}(?:\.[0-9]{0,6})?))?")
_HEX_LENGTH = {"MD5": 32, "SHA1": 40, "SHA256": 64, "SHA512": 128}


class Budget:
    """Bound what a .jigdo may hold together with all that it includes."""

    def __init__(self) -> None:
        self._bytes = MAX_BYTES
        self._parts = MAX_PART_LINES
        self._others = MAX_OTHER_LINES

    def spend_bytes(self, count: int, source: str) -> None:
        """Count text."""
        self._bytes -= count
        if self._bytes < 0:
            raise FormatError(f"larger than {MAX_BYTES >> 20} MiB: no .jigdo is", source=source)

    def spend_parts(self, count: int, source: str, number: int) -> None:
        """Count lines of [Parts], the first of which has this number."""
        if count > self._parts:
            message = f"more than {MAX_PART_LINES} parts: no .jigdo has so many"
            raise FormatError(message, source=source, line=number + self._parts)
        self._parts -= count

    def spend_other(self, source: str, number: int) -> None:
        """Count any other line that is kept."""
        self._others -= 1
        if self._others < 0:
            message = f"more than {MAX_OTHER_LINES} lines outside [Parts]: no .jigdo has so many"
            raise FormatError(message, source=source, line=number)


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
        keys = (bytes(line.partition(b"=")[0]) for line in self._text.split(b"\n")[:-1])
        return (Checksum.parse(key.decode()) for key in dict.fromkeys(keys))

    def all_mappings(self) -> Iterator[Mapping]:
        """Yield what stands in every line."""
        return (self._mapping(line.partition(b"=")[2]) for line in self._text.split(b"\n")[:-1])

    def mappings(self, checksum: Checksum) -> list[Mapping]:
        """Return where the part may be had, in file order."""
        if self._sorted is None:
            starts = [0, *(match.end() for match in _LINE_END.finditer(self._text))]
            self._sorted = array("I", sorted(starts[:-1], key=self._key))
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
        return Mapping(target, _weight(options), self.base)


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

    def labels(self) -> dict[str, int]:
        """Return the labels that parts are under, and how many lines each has; looks at every line."""
        counts = collections.Counter(
            mapping.target.partition(":")[0]
            for lines in self.parts
            for mapping in lines.all_mappings()
            if ":" in mapping.target
        )
        return dict(counts)


def gunzip(data: bytes, source: str) -> bytes:
    """Return the text of a .jigdo that may be gzipped, wholly or in pieces (format.md 2.1).

    Raises:
        FormatError: the gzip data is damaged, or it inflates beyond `MAX_BYTES`.
    """
    if not data.startswith(b"\x1f\x8b") and len(data) <= MAX_BYTES:
        return data
    text = bytearray()
    at = 0
    while data[at : at + 2] == b"\x1f\x8b" and len(text) <= MAX_BYTES:
        at = _gunzip_member(data, at, text, source)
    text += data[at:]
    if len(text) > MAX_BYTES:
        raise FormatError(f"larger than {MAX_BYTES >> 20} MiB: no .jigdo is", source=source)
    return bytes(text)


def _gunzip_member(data: bytes, at: int, text: bytearray, source: str) -> int:
    """Inflate the gzip member at an offset onto `text`, hardly beyond `MAX_BYTES`; return its end."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        while not inflater.eof and len(text) <= MAX_BYTES:
            fed = inflater.unconsumed_tail
            if not fed:
                fed = data[at : at + _SLICE_BYTES]
                at += len(fed)
                if not fed:
                    raise FormatError("gzip data is cut short", source=source)
            text += inflater.decompress(fed, _SLICE_BYTES * 16)
    except zlib.error as error:
        raise FormatError(f"damaged gzip data ({error})", source=source) from None
    return at - len(inflater.unused_data)


def parse(data: bytes, source: str, budget: Budget | None = None) -> tuple[JigdoFile | Include, ...]:
    """Read a .jigdo, gzipped or not; each [Include] splits it into a piece before and one after.

    Args:
        data: the file as it is on disk or on the wire.
        source: its path or URL, for messages and as the base of relative URLs.
        budget: what is left of the bounds where several files make one .jigdo.

    Raises:
        FormatError: it is malformed, or too large, or written for a newer jigdo.
    """
    if data.startswith(b"JigsawDownload template "):
        raise FormatError("is a template; give the .jigdo that belongs to it", source=source)
    budget = budget or Budget()
    plain = gunzip(data, source)
    budget.spend_bytes(len(plain), source)
    text = plain.removeprefix(codecs.BOM_UTF8)
    pieces: list[JigdoFile | Include] = []
    piece = _Piece(source, budget)
    generator = ""
    at = number = 0
    while at < len(text):
        if piece.section == "Parts" and (run := _PART_LINES.match(text, at)):
            lines = text.count(b"\n", at, run.end())
            piece.part_lines(memoryview(text)[at : run.end()], lines, number + 1)
            number += lines
            at = run.end()
            continue
        end = text.find(b"\n", at)
        end = len(text) if end < 0 else end
        number += 1
        some = text[at : min(end, at + 4 * MAX_LINE_LENGTH + 2)]  # of a longer one, enough to tell
        line = some.decode("utf-8", "surrogateescape").removesuffix("\r").lstrip(" \t")
        at = end + 1
        if len(line) > MAX_LINE_LENGTH or len(some) > 4 * MAX_LINE_LENGTH + 1:
            raise FormatError(f"a line of more than {MAX_LINE_LENGTH >> 10} KiB", source=source, line=number)
        if not line:
            continue
        if line.startswith("["):
            budget.spend_other(source, number)
            name = _section_name(line, source, number)
            if name.startswith(("Include ", "Include\t")):
                pieces += [piece.finish(generator), Include(name[8:].strip(" \t"), number)]
                piece = _Piece(source, budget)
            piece.enter(name, number)
        else:
            piece.entry(line, number)
        generator = piece.generator or generator
    pieces.append(piece.finish(generator))
    return tuple(pieces)


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


def _section_name(line: str, source: str, number: int) -> str:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise FormatError(f"`{line[:60]}' is no section header", source=source, line=number)
    return match[1].strip(" \t")


def _weight(options: Iterable[str]) -> float:
    """Add up `--try-first[=d]` and `--try-last[=d]`; unknown options are passed over (format.md 2.5)."""
    total = 0.0
    for option in options:
        match = _TRY.fullmatch(option)
        if match:
            amount = float(match[2] or 1)
            total += amount if match[1] == "first" else -amount
    return total


def _rest_of_line(value: str) -> str:
    """Read `Filename` and `Template`, which every writer leaves unquoted even with blanks in them."""
    if value.startswith(('"', "'")):
        return next(iter(words.split(value)), "")
    return value.rstrip(" \t")


class _ImageBuilder:
    """Collect one [Image] section."""

    def __init__(self, base: str, line: int) -> None:
        self.base = base
        self.line = line
        self.filename = ""
        self.templates: list[str] = []
        self.template_checksums: list[Checksum] = []
        self.image_sums: dict[str, str] = {}
        self.image_size: int | None = None
        self.texts = {"ShortInfo": "", "Info": ""}

    def comment(self, line: str) -> None:
        """Use what libjte tells in comments (format.md 2.5)."""
        if match := _COMMENT_SUM.fullmatch(line):
            subject, algorithm, digest = match.groups()
            if len(digest) != _HEX_LENGTH[algorithm]:
                return
            if subject == "Image":
                self.image_sums[algorithm.lower()] = digest.lower()
            elif algorithm in ("MD5", "SHA256"):
                self.template_checksums.append(Checksum(bytes.fromhex(digest)))
        elif match := _COMMENT_SIZE.fullmatch(line):
            self.image_size = int(match[1])

    def entry(self, label: str, value: str, number: int) -> None:
        """Take one `label=value` in; unknown labels are passed over."""
        if label == "Filename":
            self.filename = _rest_of_line(value).removeprefix("stdio:")
        elif label == "Template":
            self.templates.append(_rest_of_line(value))
        elif label in ("Template-MD5Sum", "Template-SHA256Sum"):
            text = next(iter(words.split(value)), "")
            if not text:
                return  # to be filled in by a --merge that is still to come
            try:
                self.template_checksums.append(Checksum.parse(text))
            except InvalidChecksum as error:
                raise FormatError(f"{label}: {error}", source=self.base, line=number) from None
        elif label in self.texts:
            self.texts[label] = value

    def finish(self) -> ImageSection:
        return ImageSection(
            filename=self.filename,
            templates=tuple(template for template in self.templates if template),
            template_checksums=tuple(dict.fromkeys(self.template_checksums)),
            image_sums=self.image_sums,
            image_size=self.image_size,
            short_info=self.texts["ShortInfo"],
            info=self.texts["Info"],
            base=self.base,
            line=self.line,
        )


class _Piece:
    """Collect the sections of one file up to an [Include] or its end."""

    def __init__(self, source: str, budget: Budget) -> None:
        self.source = source
        self._budget = budget
        self.section = ""
        self.version = ""
        self.generator = ""
        self.images: list[_ImageBuilder] = []
        self.parts = PartLines(source)
        self.servers: dict[str, list[Mapping]] = {}

    def enter(self, name: str, number: int) -> None:
        """Begin a section."""
        self.section = "Include" if name.startswith(("Include ", "Include\t")) else name
        if name == "Image":
            if len(self.images) >= MAX_IMAGES:
                raise self._error(f"more than {MAX_IMAGES} images", number)
            self.images.append(_ImageBuilder(self.source, number))

    def entry(self, line: str, number: int) -> None:
        """Take in a line that is no header."""
        section = self.section
        if line.startswith("#"):
            if section == "Image":
                self._budget.spend_other(self.source, number)
                self.images[-1].comment(line)
            return
        if section not in ("Parts", "Servers", "Image", "Jigdo", "Include"):
            return
        if section == "Include":
            raise self._error("only a new section may follow [Include]", number)
        label, equals, value = line.partition("=")
        if not equals:
            raise self._error(f"`{line[:60]}' is neither a section nor label=value", number)
        label = label.rstrip(" \t")
        value = value.lstrip(" \t")
        if section == "Parts":
            self._budget.spend_parts(1, self.source, number)
            self._part(label, value, number)
            return
        self._budget.spend_other(self.source, number)
        if section == "Servers":
            self._server(label, value, number)
        elif section == "Image":
            self.images[-1].entry(label, value, number)
        else:
            self._jigdo(label, value, number)

    def part_lines(self, text: memoryview, lines: int, number: int) -> None:
        """Take in lines of [Parts] that need no second look, the first of which has this number."""
        self._budget.spend_parts(lines, self.source, number)
        self.parts.add_text(text, lines)

    def _part(self, label: str, value: str, number: int) -> None:
        try:
            checksum = Checksum.parse(label)
        except InvalidChecksum as error:
            raise self._error(str(error), number) from None
        if not value or value.startswith("#") or value in ("''", '""'):
            raise self._error("a part without a location (nothing after `=')", number)
        self.parts.add(checksum, value)

    def _server(self, label: str, value: str, number: int) -> None:
        if not label or any(char in label for char in "[]#"):
            raise self._error(f"`{label[:60]}' is no label", number)
        target, *options = words.split(value) or [""]
        mappings = self.servers.setdefault(label, [])
        if len(mappings) < MAX_MAPPINGS:
            mappings.append(Mapping(target, _weight(options), self.source))

    def _jigdo(self, label: str, value: str, number: int) -> None:
        word = next(iter(words.split(value)), "")
        if label == "Version":
            digits = re.match("[0-9]*", word)
            major = digits[0] if digits else ""
            if len(major) > 4 or int(major or "0") > NEWEST_MAJOR_VERSION:
                raise self._error(f"written for jigdo {word}: upgrade required", number)
            self.version = word
        elif label == "Generator":
            self.generator = word

    def _error(self, message: str, number: int) -> FormatError:
        return FormatError(message, source=self.source, line=number)

    def finish(self, generator: str) -> JigdoFile:
        self.parts.unquoted = generator.startswith("libjte")
        return JigdoFile(
            source=self.source,
            version=self.version,
            generator=self.generator,
            images=tuple(image.finish() for image in self.images),
            parts=(self.parts,) if self.parts.lines else (),
            servers={label: tuple(mappings) for label, mappings in self.servers.items()},
        )
