"""Write .jigdo files so that jigdo-file, jigit and we read the same names back (format.md 2.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.words import quote

_VERSION = {Algorithm.MD5: "1.2", Algorithm.SHA256: "2.0"}


@dataclass(frozen=True, slots=True)
class Description:
    """What a .jigdo is to say.

    Attributes:
        filename: leaf name of the image.
        template: where the template lies, relative to the .jigdo or absolute.
        template_checksum: of the template file.
        parts: checksum and `Label:path` of each part.
        servers: label and URL prefix, in order of preference.
        generator: the writing program.
    """

    filename: str
    template: str
    template_checksum: Checksum
    parts: tuple[tuple[Checksum, str], ...]
    servers: tuple[tuple[str, str], ...]
    generator: str


def write_jigdo(description: Description) -> bytes:
    """Return the text of the .jigdo; raise `ValueError` for a name with a line feed in it."""
    algorithm = description.template_checksum.algorithm
    lines = [
        "# JigsawDownload",
        "",
        "[Jigdo]",
        f"Version={_VERSION[algorithm]}",
        f"Generator={description.generator}",
        "",
        "[Image]",
        f"Filename={_one_line(description.filename)}",
        f"Template={_one_line(description.template)}",
        f"Template-{algorithm.value}={description.template_checksum.base64}",
        "",
        "[Parts]",
        *(f"{checksum.base64}={quote(location)}" for checksum, location in description.parts),
        "",
        "[Servers]",
        *_server_lines(description.servers),
        "",
    ]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _server_lines(servers: Iterable[tuple[str, str]]) -> Iterable[str]:
    return (f"{label}={quote(prefix)}" for label, prefix in servers)


def _one_line(text: str) -> str:
    """Write `Filename` and `Template` bare, as all writers do, unless they could not be read back."""
    if "\n" in text:
        raise ValueError("a line feed cannot be written into a .jigdo")
    return quote(text) if text != text.strip(" \t\r") or text[:1] in ("'", '"', "") else text
