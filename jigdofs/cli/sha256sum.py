"""`jigdofs sha256sum`: SHA-256 checksums of files, in the format of jigdo-file."""

from __future__ import annotations

import argparse

from jigdofs.cli import jigdo_file, md5sum
from jigdofs.cli.parser import Parser
from jigdofs.format.checksum import Algorithm


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = md5sum.EPILOG
    jigdo_file.add_arguments(parser, shown=md5sum.SHOWN, files_help="files and directories")


def run(arguments: argparse.Namespace) -> int:
    """Print SHA-256 checksums."""
    return md5sum.print_sums(arguments, Algorithm.SHA256)
