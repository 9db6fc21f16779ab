"""What `make-template` made: for the .jigdo, for people and for scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from jigdofs.create.local_files import GivenFiles
from jigdofs.create.make import Matches
from jigdofs.create.template_file import WrittenTemplate
from jigdofs.format.checksum import Algorithm, Checksum

_SHOWN_NAMES = 10


class Names(NamedTuple):
    """Image, .jigdo and template, all known; `-` is stdin or stdout."""

    image: str
    jigdo: str
    template: str


@dataclass(frozen=True, slots=True)
class Made:
    """A template that was made.

    Attributes:
        names: of the files.
        found: what of the image lies in files.
        written: the template.
        parts: checksum and location of each part.
        servers: what the .jigdo says in [Servers].
        given: the files that were given.
    """

    names: Names
    found: Matches
    written: WrittenTemplate
    parts: tuple[tuple[Checksum, str], ...]
    servers: tuple[tuple[str, str], ...]
    given: GivenFiles

    @property
    def not_found(self) -> list[str]:
        """Paths of files that stand nowhere in the image in one piece, sorted."""
        return sorted((*self.found.not_found, *self.given.too_long))

    @property
    def share_in_parts(self) -> float:
        """How much of the image is in parts, from 0 to 1."""
        return self.found.bytes_in_parts / self.found.length if self.found.length else 0.0


def as_json(made: Made) -> dict[str, Any]:
    """Return the account for scripts; every size is in bytes."""
    found, written = made.found, made.written
    servers: dict[str, list[str]] = {}
    for label, value in made.servers:
        servers.setdefault(label, []).append(value)
    return {
        "image": made.names.image,
        "size": found.length,
        "checksums": {algorithm.short_name: found.sums[algorithm].hex for algorithm in Algorithm},
        "jigdo": made.names.jigdo,
        "template": made.names.template,
        "template_size": written.length,
        "template_checksums": {"md5": written.md5.hex, "sha256": written.sha256.hex},
        "parts": len(made.parts),
        "places": len(found.matches),
        "bytes_in_parts": found.bytes_in_parts,
        "bytes_in_template": found.length - found.bytes_in_parts,
        "share_in_parts": round(made.share_in_parts, 4),
        "files": made.given.count,
        "files_too_short": made.given.too_short,
        "not_found": made.not_found,
        "servers": servers,
    }


def as_lines(made: Made) -> list[str]:
    """Return the account for people."""
    found = made.found
    places = f" in {len(found.matches)} places" if len(found.matches) != len(made.parts) else ""
    in_parts = f"{found.bytes_in_parts:,} ({made.share_in_parts:.1%})"
    in_template = f"{found.length - found.bytes_in_parts:,} bytes of the image"
    lines = [
        f"{made.names.image}: {found.length:,} bytes, {in_parts} of them in {len(made.parts)} parts{places}",
        f"{made.names.template}: {made.written.length:,} bytes, for {in_template}",
    ]
    if made.not_found:
        names = ", ".join(made.not_found[:_SHOWN_NAMES])
        more = ", ..." if len(made.not_found) > _SHOWN_NAMES else ""
        lines.append(
            f"not in the image, in one piece: {len(made.not_found)} of {made.given.count} files:"
            f" {names}{more}"
        )
    if made.given.too_short:
        short = f"{made.given.too_short} of {made.given.count} files"
        lines.append(f"too short for a part (--min-length): {short}")
    if found.length and found.bytes_in_parts == found.length:
        lines.append("nothing is left for the template; jigdo-file 0.8 crashes when it builds such an image")
    elsewhere = {
        label for label, value in made.servers if not value.startswith(("file:", "'file:", '"file:'))
    }
    local = dict.fromkeys(label for label, _ in made.servers if label not in elsewhere)
    if local:
        which = ", ".join(local)
        lines.append(
            f"the .jigdo names files of this machine ({which}); for others give each directory a server:"
            " --label NAME=DIRECTORY --uri NAME=URL"
        )
    return lines
