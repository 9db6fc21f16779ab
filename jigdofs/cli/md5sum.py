"""`jigdofs md5sum`: MD5 checksums of files, in the format of jigdo-file."""

from __future__ import annotations

import argparse
import os
import sys

from jigdofs.cli import jigdo_file
from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_OK, printable
from jigdofs.format.checksum import Algorithm, to_base64
from jigdofs.hashing import hash_in_order
from jigdofs.named_files import named_files

EPILOG = """\
One line a file: checksum (in jigdo's base64), two blanks, name; of `/pool//main/a.deb' the name
is `main/a.deb'. Directories are searched, every file is read once, empty files are left out.
"""
SHOWN = ("files_from", "hex")


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = EPILOG
    jigdo_file.add_arguments(parser, shown=SHOWN, files_help="files and directories")


def run(arguments: argparse.Namespace) -> int:
    """Print MD5 checksums."""
    return print_sums(arguments, Algorithm.MD5)


def print_sums(arguments: argparse.Namespace, algorithm: Algorithm) -> int:
    """Print checksums; what cannot be read is reported, and no failure (format.md 3.1)."""
    options = jigdo_file.options(arguments)
    found = named_files(jigdo_file.files(options), _skip)
    for file, result in hash_in_order(found, lambda named: named.path, algorithm):
        if isinstance(result, OSError):
            _skip(file.path, result)
            continue
        text = result.hex() if options.hex else to_base64(result)
        jigdo_file.write_line(f"{text}  ".encode("ascii") + os.fsencode(file.name))
    return EXIT_OK


def _skip(path: str, error: OSError) -> None:
    print(f"Skipping object `{printable(path)}' ({error.strerror})", file=sys.stderr)
