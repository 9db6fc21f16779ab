"""Add an image to a .jigdo that is there already, in the manner of `jigdo-file make-template --merge`.

Rules of this file:
* Every line of the file stays where it is, but for the entries of [Parts]: these move to the end, sorted.
* A line of [Parts] that no program can use stays as a comment.
* A section begins only where every reader sees a header; a header without its `]` is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from jigdofs.errors import FormatError
from jigdofs.format import words
from jigdofs.format.checksum import Checksum, InvalidChecksum
from jigdofs.format.jigdo_limits import Budget
from jigdofs.format.jigdo_reader import gunzip
from jigdofs.format.jigdo_writer import (
    HEADER,
    Description,
    as_bytes,
    checksum_comments,
    checksum_keys,
    image_lines,
    jigdo_section,
    part_entries,
    parts_section,
    server_lines,
)

_HEADER = re.compile(r"\[([^\]]*)\][ \t]*(#.*)?", re.DOTALL)
_SUMS = ("Template-MD5Sum", "Template-SHA256Sum")
_SUM_COMMENT = re.compile(r"#[ \t]*(Image|Template) (Hex [A-Z0-9]+Sum [0-9a-fA-F]+|size [0-9]+ bytes)[ \t]*")


@dataclass(slots=True)
class _Section:
    """A section as it stands: its header, if it is not what precedes the first one, and its lines."""

    name: str
    header: str
    lines: list[str] = field(default_factory=list)

    def entries(self) -> Iterator[tuple[int, str, str]]:
        """Yield number, label and value of its entries."""
        for number, line in enumerate(self.lines):
            label, equals, value = line.partition("=")
            if equals and not line.lstrip(" \t").startswith("#"):
                yield number, label.strip(" \t"), value.lstrip(" \t")

    def holds(self, keys: Collection[str]) -> bool:
        """Tell whether one of these entries is among its own."""
        return any(f"{label}={_first_word(value)}" in keys for _, label, value in self.entries())

    def end_with_blank(self) -> None:
        """End with exactly one empty line."""
        while self.lines and not self.lines[-1].strip(" \t"):
            self.lines.pop()
        if self.lines or self.header:
            self.lines.append("")

    def text(self) -> list[str]:
        return [self.header, *self.lines] if self.header else self.lines


def merge_jigdo(
    description: Description,
    into: bytes,
    source: str,
    *,
    image_section: bool = True,
    servers_section: bool = True,
) -> bytes:
    """Return a .jigdo with a description added; into nothing, that is a new one.

    Args:
        description: what is to be added. Of its parts those whose checksum is listed already are not;
            of its servers those are that any part needs then.
        into: the .jigdo that is there, gzipped or not.
        source: its name, for messages.
        image_section: add [Image], or fill in a checksum that is left empty in one.
        servers_section: add to [Servers].

    Raises:
        FormatError: what is there cannot be read as a .jigdo.
        InputError: a name has a line feed in it.
    """
    merged = _Merged(into, source, description.generator)
    if not merged.has("Jigdo"):
        merged.sections.insert(1, _Section("Jigdo", "[Jigdo]", [*jigdo_section(description)[1:], ""]))
    if image_section:
        merged.add_image(description)
    known = {key for key, _ in merged.parts}
    added = [part for part in description.parts if part[0].base64 not in known]
    if servers_section:
        known_locations = (_first_word(value) for _, value in merged.parts)
        new_locations = (location for _, location in added)
        merged.add_servers(_needed(description.servers, [*known_locations, *new_locations]))
    merged.parts += part_entries(added)
    merged.sections[-1].end_with_blank()
    lines = [line for section in merged.sections for line in section.text()]
    return as_bytes([*lines, *parts_section(merged.parts)])


def labels_in(into: bytes, source: str) -> frozenset[str]:
    """Return the labels that a .jigdo defines or uses; raise `FormatError` as `merge_jigdo` does."""
    merged = _Merged(into, source, "")
    defined = {label for section in merged.called("Servers") for _, label, _ in section.entries()}
    return frozenset(defined | {_label_of(_first_word(value)) for _, value in merged.parts} - {""})


def _needed(servers: Iterable[tuple[str, str]], locations: Iterable[str]) -> list[tuple[str, str]]:
    """Return the lines of [Servers] that locations need, directly or by way of another label."""
    servers = list(servers)
    labels = {label for label, _ in servers}
    needed: set[str] = set()
    pending = {_label_of(location) for location in locations} & labels
    while pending:
        needed |= pending
        targets = {_label_of(_first_word(value)) for label, value in servers if label in pending}
        pending = targets & labels - needed
    return [(label, value) for label, value in servers if label in needed]


def _label_of(location: str) -> str:
    label, colon, _ = location.partition(":")
    return label if colon else ""


def _first_word(value: str) -> str:
    return next(iter(words.split(value)), "")


class _Merged:
    """A .jigdo on its way: sections in order, the first being what precedes all headers, and all parts."""

    def __init__(self, data: bytes, source: str, generator: str) -> None:
        self.sections = [_Section("", "")]
        self.parts: list[tuple[str, str]] = []
        if data.startswith(b"JigsawDownload template "):
            raise FormatError("is a template, no .jigdo can be added to it", source=source)
        # a byte order mark would hide a header behind it from jigdo-file
        text = gunzip(data, source).decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        self._read(text, source)
        self._unite_dialects(generator)
        self.parts = list(dict.fromkeys(self.parts))
        first, *others = self.sections
        if not others and not "".join(first.lines).strip(" \t"):
            first.lines = list(HEADER)

    def _read(self, text: str, source: str) -> None:
        in_parts = False
        budget = Budget()
        lines = text.removesuffix("\n").split("\n")
        for number, raw in enumerate(lines, 1):
            line = raw.removesuffix("\r")
            bare = line.lstrip(" \t")
            if not bare.startswith("["):
                if in_parts and bare:
                    budget.spend_parts(1, source, number)
                else:
                    budget.spend_other(len(bare), source, number)
                if in_parts:
                    self._part(bare)
                else:
                    self.sections[-1].lines.append(line)
                continue
            budget.spend_other(len(bare), source, number)
            match = _HEADER.fullmatch(bare)
            if match is None:
                raise FormatError(f"`{bare[:60]}' is no section header", source=source, line=number)
            name = match[1].strip(" \t")
            in_parts = name == "Parts"
            if not in_parts:
                self.sections.append(_Section(name, line))
            elif match[2]:
                self.sections[-1].lines.append(match[2])

    def _part(self, line: str) -> None:
        """Take in a line of [Parts]; what is no entry stays with the section before."""
        key, _, value = line.partition("=")
        key, value = key.rstrip(" \t"), value.lstrip(" \t")
        if not line or line.startswith("#"):
            self.sections[-1].lines += [line] if line else []
        elif _is_checksum(key) and _first_word(value):
            self.parts.append((key, value))
        else:
            self.sections[-1].lines.append(f"# {line}")

    def _unite_dialects(self, generator: str) -> None:
        """Let quotes count in all of [Parts]: libjte writes names as they are (format.md 2.3)."""
        entries = [
            (section, number, value)
            for section in self.called("Jigdo")
            for number, label, value in section.entries()
            if label == "Generator" and _first_word(value)
        ]
        if entries and entries[-1][2].startswith("libjte"):
            self.parts = [(key, words.quote(value)) for key, value in self.parts]
            for section, number, _ in entries:
                section.lines[number] = f"Generator={generator}"

    def called(self, name: str) -> list[_Section]:
        """Return the sections of a name."""
        return [section for section in self.sections if section.name == name]

    def has(self, name: str) -> bool:
        """Tell whether there is such a section."""
        return bool(self.called(name))

    def add_image(self, description: Description) -> None:
        """Fill in the first [Image] that waits for its checksum, or add one behind the last.

        One with the same template is there already, whatever it calls it.
        """
        images = self.called("Image")
        keys = checksum_keys(description)
        same = [section for section in images if section.holds(keys)]
        if any(_fill(section, keys, checksum_comments(description)) for section in same or images) or same:
            return
        header, *lines = image_lines(description)
        # jigdo-lite offers those images only that follow each other
        last = self.sections.index(images[-1]) if images else len(self.sections) - 1
        self.sections[last].end_with_blank()
        self.sections.insert(last + 1, _Section("Image", header, [*lines, ""]))

    def add_servers(self, servers: list[tuple[str, str]]) -> None:
        """Add lines behind the last entry of the last [Servers], unless they are there."""
        known = {
            (label, *words.split(value))
            for section in self.called("Servers")
            for _, label, value in section.entries()
        }
        lines = server_lines(pair for pair in servers if (pair[0], *words.split(pair[1])) not in known)
        if not lines:
            return
        if not self.has("Servers"):
            self.sections[-1].end_with_blank()
            self.sections.append(_Section("Servers", "[Servers]"))
        section = self.called("Servers")[-1]
        behind = max((number + 1 for number, _, _ in section.entries()), default=0)
        section.lines[behind:behind] = lines


def _is_checksum(key: str) -> bool:
    try:
        Checksum.parse(key)
    except InvalidChecksum:
        return False
    return True


def _fill(section: _Section, keys: list[str], comments: list[str]) -> bool:
    """Write checksums into an [Image] that leaves one empty; say whether it did.

    One that has another checksum of its own already is another image. What comments tell of checksums and
    sizes goes: it is of what the section described before.
    """
    sums = dict(key.split("=", 1) for key in keys)
    empty: dict[int, str] = {}
    told: set[str] = set()
    for number, label, value in section.entries():
        if label in _SUMS and label in sums:
            told.add(label)
            if not _first_word(value):
                empty[number] = f"{label}={sums[label]} {value if value.startswith('#') else ''}".rstrip(" ")
            elif _first_word(value) != sums[label]:
                return False
    if not empty:
        return False
    new = [key for key in keys if key.partition("=")[0] not in told] + comments
    lines: list[str] = []
    for number, line in enumerate(section.lines):
        if not _SUM_COMMENT.fullmatch(line.lstrip(" \t")):
            lines.append(empty.get(number, line))
        if number == max(empty):
            lines += new
    section.lines = lines
    return True
