"""The page that lists a directory. Pure."""

from __future__ import annotations

import html
import os
import urllib.parse
from collections.abc import Iterable
from typing import NamedTuple


class Row(NamedTuple):
    """What is listed: a name, whether it is a directory, the bytes of a file, and whether to link to it."""

    name: bytes
    is_directory: bool
    size: int
    leads: bool = True


def link(name: bytes) -> str:
    """Return a name as a relative reference: escaped, and never taken for a scheme or a host."""
    return "./" + urllib.parse.quote(name, safe="")


END = b"</table></body></html>\n"


def begin(path: bytes) -> bytes:
    """Return how the page of a directory begins, in UTF-8; `lines` and `END` follow."""
    title = html.escape(_text(path))
    lines = [
        "<!DOCTYPE html>",
        '<html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{title}</title></head><body><h1>{title}</h1><table>",
    ]
    if path.strip(b"/"):
        lines.append('<tr><td><a href="../">../</a></td><td></td></tr>')
    return "".join(f"{line}\n" for line in lines).encode()


def lines(rows: Iterable[Row]) -> bytes:
    """Return the lines of links to what is in a directory, in UTF-8."""
    text = []
    for row in rows:
        slash = "/" if row.is_directory else ""
        size = "" if row.is_directory else f"{row.size:,}"
        shown = f"{html.escape(_text(row.name))}{slash}"
        if row.leads:
            shown = f'<a href="{html.escape(link(row.name))}{slash}">{shown}</a>'
        text.append(f'<tr><td>{shown}</td><td align="right">{size}</td></tr>\n')
    return "".join(text).encode()


def _text(name: bytes) -> str:
    return os.fsdecode(name).encode("utf-8", "replace").decode("utf-8")
