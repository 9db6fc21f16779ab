r"""Read .jigdo files: bytes in, values of `jigdo` out (format.md 2), in every dialect seen in the wild.

Rules of this file:
* Text is decoded as UTF-8 with surrogate escapes, so every name keeps its exact bytes.
* A line ends at LF; one CR before it is dropped; any other CR belongs to the name.
* Whatever jigdo-file would pass over with a message (a header without `]`, a line without `=`)
  is a `FormatError` here: going on would put entries into the wrong section.
"""

from __future__ import annotations

import codecs
import re
import zlib

from jigdofs.errors import FormatError
from jigdofs.format import words
from jigdofs.format.checksum import Checksum, InvalidChecksum
from jigdofs.format.jigdo import ImageSection, Include, JigdoFile, Mapping, PartLines, weight_of
from jigdofs.format.jigdo_limits import (
    MAX_BYTES,
    MAX_GZIP_MEMBERS,
    MAX_IMAGES,
    MAX_LINE_LENGTH,
    MAX_MAPPINGS,
    Budget,
)

NEWEST_MAJOR_VERSION = 2
_SLICE_BYTES = 64 << 10

_PART_LINES = re.compile(
    rb"(?:(?:[\w-]{21}[AQgw]|[\w-]{42}[AEIMQUYcgkosw048])="  # MD5 or SHA-256, as `Checksum.parse` wants it
    rb"(?:[^ \t#'\"\\\r\n]|['\"][^'\"\\\r\n]).{0,4094}\n){1,1024}"
)
"""Lines of [Parts] that need no second look: canonical, with a location that cannot be empty. Some at a time,
as the matcher remembers every line to come back to it; possessive ones go wrong before Python 3.11.5."""
_HEADER = re.compile(r"\[([^\]]*)\][ \t]*(?:#.*)?", re.DOTALL)
_COMMENT_SUM = re.compile(r"#[ \t]*(Image|Template) Hex (MD5|SHA1|SHA256|SHA512)Sum ([0-9a-fA-F]+)[ \t]*")
_COMMENT_SIZE = re.compile(r"#[ \t]*Image size ([0-9]{1,15}) bytes[ \t]*")
_HEX_LENGTH = {"MD5": 32, "SHA1": 40, "SHA256": 64, "SHA512": 128}


def gunzip(data: bytes, source: str) -> bytes | bytearray:
    """Return the text of a .jigdo that may be gzipped, wholly or in pieces (format.md 2.1).

    Raises:
        FormatError: the gzip data is damaged, or it inflates beyond `MAX_BYTES`.
    """
    if not data.startswith(b"\x1f\x8b") and len(data) <= MAX_BYTES:
        return data
    text = bytearray()
    at = members = 0
    while data[at : at + 2] == b"\x1f\x8b" and len(text) <= MAX_BYTES:
        at = _gunzip_member(data, at, text, source)
        members += 1
        if members > MAX_GZIP_MEMBERS:
            raise FormatError(f"more than {MAX_GZIP_MEMBERS} pieces of gzip data", source=source)
    text += data[at:]
    if len(text) > MAX_BYTES:
        raise FormatError(f"larger than {MAX_BYTES >> 20} MiB: no .jigdo is", source=source)
    return text


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
    text = gunzip(data, source)
    budget.spend_bytes(len(text), source)
    pieces: list[JigdoFile | Include] = []
    piece = _Piece(source, budget)
    generator = ""
    number = 0
    at = len(codecs.BOM_UTF8) if text.startswith(codecs.BOM_UTF8) else 0
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
        budget.spend_other(len(some), source, number)
        line = some.decode("utf-8", "surrogateescape").removesuffix("\r").lstrip(" \t")
        at = end + 1
        if len(line) > MAX_LINE_LENGTH or len(some) > 4 * MAX_LINE_LENGTH + 1:
            raise FormatError(f"a line of more than {MAX_LINE_LENGTH >> 10} KiB", source=source, line=number)
        if not line:
            continue
        if line.startswith("["):
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


def _section_name(line: str, source: str, number: int) -> str:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise FormatError(f"`{line[:60]}' is no section header", source=source, line=number)
    return match[1].strip(" \t")


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
        if not any(words.split(value)[:1]):
            raise self._error("a part without a location (nothing after `=')", number)
        self.parts.add(checksum, value)

    def _server(self, label: str, value: str, number: int) -> None:
        if not label or any(char in label for char in "[]#"):
            raise self._error(f"`{label[:60]}' is no label", number)
        target, *options = words.split(value) or [""]
        mappings = self.servers.setdefault(label, [])
        if len(mappings) < MAX_MAPPINGS:
            mappings.append(Mapping(target, weight_of(options), self.source))

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
