"""Lists of parts: which parts a run touched, in the order of the first touch. Pure.

A list is text, a part a line: checksum as `md5:HEX` or `sha256:HEX`, length in bytes, and for people the
name it has in the .jigdo. It names parts, not places in an image, so it serves for any image that has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from jigdofs.errors import FormatError, printable
from jigdofs.format.checksum import Checksum
from jigdofs.format.part import Part

FIRST_LINE = "# jigdofs part list 1\n"
MAX_BYTES = 64 << 20
"""No list is longer: 200,000 parts with long names take 40 MB."""
_LINE = re.compile(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})[ \t]+([0-9]{1,15})(?:[ \t].*)?", re.ASCII)
_WHOLE = re.compile(r"\s*\w+:[0-9a-f]+[ \t]+[0-9]+\s", re.ASCII)
"""How a line begins whose length is there to its last digit, whatever was cut behind."""


def line(part: Part, name: str) -> str:
    """Write one line of a list."""
    return f"{part.checksum} {part.length} {printable(name)}".rstrip() + "\n"


def parse(text: str, source: str) -> Iterator[Part]:
    """Yield the parts of a list, each once, in order.

    Raises:
        FormatError: it is no such list, or a line of it is malformed; a last line that was cut is left out.
    """
    # not `splitlines`, which ends lines at other characters, too
    first, *lines, last = [*text.split("\n"), ""] if "\n" not in text else text.split("\n")
    if first.rstrip("\r") != FIRST_LINE.rstrip("\n"):
        raise FormatError("is no list of parts that --record wrote", source=source)
    if _WHOLE.match(last):
        lines.append(last)
    seen: set[Part] = set()
    for number, one in enumerate(lines, 2):
        content = one.strip()
        if not content or content.startswith("#"):
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            raise FormatError("is no checksum and length", source=source, line=number)
        part = Part(Checksum(bytes.fromhex(match[1].partition(":")[2])), int(match[2]))
        if part not in seen:
            seen.add(part)
            yield part
