"""`jigdofs print-missing-all`: every location of every part that an image still lacks."""

from __future__ import annotations

import argparse

from jigdofs.cli import jigdo_file, print_missing
from jigdofs.cli.parser import Parser

_EPILOG = """\
The locations of a part stand one below the other, best first, an empty line ends them; the last one
is its checksum, as `MD5Sum:...' unless a server for that label is known.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG + print_missing.EPILOG
    jigdo_file.add_arguments(parser, shown=print_missing.SHOWN)


def run(arguments: argparse.Namespace) -> int:
    """Print all locations of every missing part."""
    return print_missing.print_parts(arguments, all_locations=True)
