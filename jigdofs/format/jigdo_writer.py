"""Write .jigdo files so that jigdo-file, jigit and we read the same names back (format.md 2.3).

Rules of this file:
* Both checksums of the template are told if they are known: jigdo-lite 0.8 fetches a template again
  unless it knows its MD5, and takes it if either matches; jigdo-file and jigit-mkimage look at neither.
* [Parts] comes last, in jigdo-file's order: by the value as written, byte by byte, then by key.
* What no reader could read back is an error that names it, never another name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jigdofs.errors import InputError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.words import quote

HEADER = ("# JigsawDownload", "")
"""What a .jigdo begins with; jigit-mkimage insists on it."""
_VERSION = {Algorithm.MD5: "1.2", Algorithm.SHA256: "2.0"}


@dataclass(frozen=True, slots=True)
class Description:
    """What a .jigdo is to say.

    Attributes:
        filename: leaf name of the image.
        template: where the template lies, relative to the .jigdo or absolute.
        template_checksums: of the template file; the first is of the algorithm that the parts have.
        parts: checksum and `Label:path` of each part; those of one checksum in order of preference.
        servers: label, and the rest of its line: URL prefix, quoted where it must be, and options.
        generator: the writing program.
        template_size: bytes, if known.
        image_checksums: of the image, as far as known.
        image_size: bytes, if known.
    """

    filename: str
    template: str
    template_checksums: tuple[Checksum, ...]
    parts: tuple[tuple[Checksum, str], ...]
    servers: tuple[tuple[str, str], ...]
    generator: str
    template_size: int | None = None
    image_checksums: tuple[Checksum, ...] = ()
    image_size: int | None = None


def write_jigdo(
    description: Description, *, image_section: bool = True, servers_section: bool = True
) -> bytes:
    """Return the text of a new .jigdo.

    Args:
        description: what it is to say.
        image_section: write [Image].
        servers_section: write [Servers].

    Raises:
        InputError: a name has a line feed in it, which no .jigdo can hold.
    """
    lines = [*HEADER, *jigdo_section(description), ""]
    if image_section:
        lines += [*image_lines(description), ""]
    if servers_section:
        lines += ["[Servers]", *server_lines(description.servers), ""]
    return as_bytes([*lines, *parts_section(part_entries(description.parts))])


def jigdo_section(description: Description) -> list[str]:
    """Return the lines of [Jigdo]."""
    version = _VERSION[description.template_checksums[0].algorithm]
    return ["[Jigdo]", f"Version={version}", f"Generator={description.generator}"]


def image_lines(description: Description) -> list[str]:
    """Return the lines of [Image]."""
    return [
        "[Image]",
        f"Filename={_rest_of_line(description.filename)}",
        f"Template={_rest_of_line(description.template)}",
        *checksum_keys(description),
        *checksum_comments(description),
    ]


def checksum_keys(description: Description) -> list[str]:
    """Return the lines that tell the template's checksums to all programs."""
    return [f"Template-{sum_.algorithm.value}={sum_.base64}" for sum_ in description.template_checksums]


def checksum_comments(description: Description) -> list[str]:
    """Return the comments in which libjte tells more of template and image."""
    subjects = (
        ("Template", description.template_checksums, description.template_size),
        ("Image", description.image_checksums, description.image_size),
    )
    lines: list[str] = []
    for subject, checksums, size in subjects:
        in_order = sorted(checksums, key=lambda checksum: len(checksum.digest))
        lines += [f"# {subject} Hex {checksum.algorithm.value} {checksum.hex}" for checksum in in_order]
        if size is not None:
            lines.append(f"# {subject} size {size} bytes")
    return lines


def server_lines(servers: Iterable[tuple[str, str]]) -> list[str]:
    """Return lines of [Servers]."""
    return [f"{label}={_checked(value)}" for label, value in servers]


def part_entries(parts: Iterable[tuple[Checksum, str]]) -> list[tuple[str, str]]:
    """Return key and value of lines of [Parts]."""
    return [(checksum.base64, quote(_checked(location))) for checksum, location in parts]


def parts_section(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Return the lines of [Parts]; several values of one key share its places in the order given."""
    values: dict[str, list[str]] = defaultdict(list)
    for key, value in reversed(entries):
        values[key].append(value)
    keys = [key for _, key in sorted((_raw(value), key) for key, value in entries)]
    return ["[Parts]", *(f"{key}={values[key].pop()}" for key in keys)]


def as_bytes(lines: Iterable[str]) -> bytes:
    """Return lines as they stand in a file."""
    return _raw("".join(f"{line}\n" for line in lines))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _rest_of_line(text: str) -> str:
    """Write `Filename` and `Template` bare, as all writers do, unless they could not be read back."""
    _checked(text)
    return quote(text) if text != text.strip(" \t\r") or text[:1] in ("'", '"', "") else text


def _checked(text: str) -> str:
    if "\n" in text:
        raise InputError(f"{text}: a name with a line feed in it cannot be written into a .jigdo")
    return text
