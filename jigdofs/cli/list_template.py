"""`jigdofs list-template`: where every byte of an image comes from, in jigdo-file's own columns."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_OK, InputError, UsageError
from jigdofs.format.checksum import Algorithm, Checksum, to_base64
from jigdofs.format.template import Entry, ImageInfo, UnmatchedData, has_header, read_desc, read_entries

_EPILOG = """\
One line an extent, in image order: kind, offset, length, checksum, rsync64. A .tmp file of
jigdo-file may be given as well: what it holds already is listed as `have-file'.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options; those of jigdo-file that name files are understood."""
    parser.epilog = _EPILOG
    parser.add_argument("file", nargs="?", type=Path, metavar="TEMPLATE", help="a .template or .tmp file")
    parser.add_argument("-t", "--template", type=Path, metavar="FILE", help="the same")
    parser.add_argument("-j", "--jigdo", type=Path, metavar="FILE", help="deduce the template's name from it")
    parser.add_argument("-i", "--image", type=Path, metavar="FILE", help="deduce the template's name from it")
    parser.add_argument("--hex", action="store_true", help="write checksums in hexadecimal, not base64")
    parser.add_argument("--no-hex", dest="hex", action="store_false", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    path = _template(arguments)
    try:
        with path.open("rb") as file:
            if not has_header(file):
                print(f"jigdofs: warning: {path}: is not a template file", file=sys.stderr)
            offset, desc = read_desc(file, str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    for line in _lines(read_entries(desc, source=str(path), offset=offset), use_hex=arguments.hex):
        print(line)
    return EXIT_OK


def _template(arguments: argparse.Namespace) -> Path:
    given: Path | None = arguments.file or arguments.template
    if arguments.file is not None and arguments.file.suffix == ".jigdo":
        given = arguments.file.with_suffix(".template")
    if given is None:
        for other in (arguments.image, arguments.jigdo):
            if other is not None:
                given = Path(other).with_suffix(".template")
                break
    if given is None:
        raise UsageError("which template? give its name; see `jigdofs list-template --help'")
    return given


def _lines(entries: Iterator[Entry], *, use_hex: bool) -> Iterator[str]:
    """Yield the columns of jigdo-file 0.8 (format.md 3.2)."""
    position = 0
    for entry in entries:
        if isinstance(entry, UnmatchedData):
            yield f"{'in-template':<17} {position:>12} {entry.length:>12}"
            position += entry.length
            continue
        name = "sha256" if entry.checksum.algorithm is Algorithm.SHA256 else "md5"
        checksum = _checksum(entry.checksum, use_hex=use_hex)
        if isinstance(entry, ImageInfo):
            yield f"image-info-{name:<6} {entry.length:>12} {entry.block_length:>12} {checksum}"
            continue
        kind = "have-file" if entry.written else "need-file"
        # jigdo-file 0.8 leaves the md5 out of the kind of a written file
        kind += "" if entry.written and name == "md5" else f"-{name}"
        rsync64 = "" if entry.rsync64 is None else f" {_text(entry.rsync64, use_hex=use_hex):>12}"
        yield f"{kind:<17} {position:>12} {entry.length:>12} {checksum}{rsync64}"
        position += entry.length


def _checksum(checksum: Checksum, *, use_hex: bool) -> str:
    return f"{_text(checksum.digest, use_hex=use_hex):>{_WIDTH}}"


def _text(data: bytes, *, use_hex: bool) -> str:
    return data.hex() if use_hex else to_base64(data)


_WIDTH = 46  # of a checksum column: SHA-256 in base64 has 43 characters
