"""`jigdofs list-template`: where every byte of an image comes from, in jigdo-file's own columns."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from jigdofs.cli import jigdo_file
from jigdofs.cli.called_as import program
from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_OK, UsageError
from jigdofs.format.checksum import Algorithm, Checksum, to_base64
from jigdofs.format.template import Entry, ImageInfo, MatchedFile, UnmatchedData, read_entries
from jigdofs.format.template_reader import has_header, read_desc

_EPILOG = """\
One line an extent, in image order: kind, offset, length, checksum, rsync64. A .tmp file of
jigdo-file may be given as well: what it holds already is listed as `have-file'.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    shown = ("template", "jigdo", "image", "hex")
    jigdo_file.add_arguments(parser, shown=shown, files_help="the template, if no option names it")


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    options = jigdo_file.options(arguments)
    name = _template(options)
    with jigdo_file.opened(name) as file:
        if not has_header(file):
            jigdo_file.warn(f"{name}: is not a template file")
        offset, desc = read_desc(file, name)
    for line in _lines(read_entries(desc, source=name, offset=offset), use_hex=options.hex):
        print(line)
    return EXIT_OK


def _template(options: jigdo_file.JigdoFileOptions) -> str:
    """Return the template's name; jigdo-file knows none but that of the options."""
    name = options.names.template
    if name is None and len(options.operands) == 1:
        (name,) = options.operands
        if name.endswith(".jigdo"):
            name = name.removesuffix(".jigdo") + ".template"
    if name is None:
        raise UsageError(f"which template? give its name; see `{program()} list-template --help'")
    if name == jigdo_file.STDIN:
        raise UsageError("a template is not listed from stdin; give the name of a file")
    return name


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
        rsync64 = _text(entry.rsync64 or bytes(8), use_hex=use_hex)  # format 1.0 has none
        yield f"{_kind(entry, name)} {position:>12} {entry.length:>12} {checksum} {rsync64:>12}"
        position += entry.length


def _kind(part: MatchedFile, name: str) -> str:
    """Pad as jigdo-file does: a written part has a column less, and no md5 in its kind."""
    if part.written:
        return f"{'have-file' if name == 'md5' else f'have-file-{name}':<16}"
    return f"{f'need-file-{name}':<17}"


def _checksum(checksum: Checksum, *, use_hex: bool) -> str:
    return f"{_text(checksum.digest, use_hex=use_hex):>{_WIDTH}}"


def _text(data: bytes, *, use_hex: bool) -> str:
    return data.hex() if use_hex else to_base64(data)


_WIDTH = 46  # of a checksum column: SHA-256 in base64 has 43 characters
