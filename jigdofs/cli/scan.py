"""`jigdofs scan`: compute checksums of local files now, so that later runs need not.

Rules of this file:
* What is known of a file, and still true by its size, time and inode, is not computed again.
* With a .jigdo or .template only files are read whose length one of its parts has.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jigdofs.cli import configured, jigdo_file, options
from jigdofs.cli.called_as import called_as_jigdo_file, program
from jigdofs.cli.jigdo_file import JigdoFileOptions, Report
from jigdofs.cli.parser import Parser
from jigdofs.cli.progress import showing
from jigdofs.errors import EXIT_OK, InputError, SourceChanged, UsageError, printable
from jigdofs.format.checksum import Algorithm
from jigdofs.format.part import Part
from jigdofs.format.template import MatchedFile, read_entries
from jigdofs.format.template_reader import read_desc
from jigdofs.parts.directories import make_private
from jigdofs.sources.piece import Piece
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.sources import Sources

_EPILOG = """\
Checksums are remembered in FILE (--cache), or where `download --scan' and `mount --scan' look for them:
scanned.db in their default --cache-dir.
With --template or --jigdo only files are read that may be parts of that image, and how many of its
parts there are is told; old images are then searched as well.
"""
_MAX_THREADS = 4


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    shown = ("jigdo", "template", "files_from", "report", "cache")
    jigdo_file.add_arguments(parser, shown=shown, files_help="files and directories to read")


def run(arguments: argparse.Namespace) -> int:
    """Scan files and remember what they are."""
    found = jigdo_file.options(arguments)
    parts = _parts(found)
    index = _index(found)
    remembered = Remembered(index, report=_say)
    if not remembered.usable:
        _say(f"{index}: cannot be used, so nothing is remembered")
    try:
        sources = Sources(list(jigdo_file.files(found)), remembered=remembered, report=_say)
        sources.scan(None if parts is None else {part.length for part in parts})
        algorithms: Collection[Algorithm] = tuple(Algorithm)
        pieces = list(sources.pieces())
        if parts is None:
            pieces = [piece for piece in pieces if piece.is_whole_file]
        else:
            algorithms = {part.checksum.algorithm for part in parts}
        total = len(algorithms) * sum(piece.length for piece in pieces)
        quiet = found.report is not Report.DEFAULT
        with showing("scanning", total, lambda: sources.counts.hashed_bytes, quiet=quiet):
            _identify(sources, pieces, algorithms)
        if found.report is not Report.QUIET:
            _tell(sources, parts)
    finally:
        remembered.close()
    return EXIT_OK


def _index(found: JigdoFileOptions) -> str:
    """Return where to remember; jigdo-file must be told."""
    if found.cache_file is not None:
        return found.cache_file
    if called_as_jigdo_file():
        raise UsageError("scan needs --cache FILE, or what it finds would be forgotten")
    directory = Path(configured.text_of("cache-dir") or options.default_cache_dir())
    make_private(directory)
    return os.path.join(directory, "scanned.db")


def _parts(found: JigdoFileOptions) -> set[Part] | None:
    """Return the parts of the image that was named; None if none was."""
    if not any(found.given) or found.names.template is None:
        return None
    name = found.names.template
    if found.given.template is None and not os.path.exists(name):
        return None  # it was only deduced; jigdo-file looks at none of these names
    try:
        with open(name, "rb") as file:
            offset, desc = read_desc(file, name)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    entries = read_entries(desc, source=name, offset=offset)
    return {Part(entry.checksum, entry.length) for entry in entries if isinstance(entry, MatchedFile)}


def _identify(sources: Sources, pieces: Iterable[Piece], algorithms: Collection[Algorithm]) -> None:
    """Have every checksum computed that is not known yet, several at once."""

    def identify(piece: Piece) -> None:
        for algorithm in algorithms:
            try:
                sources.identify(piece, algorithm)
            except SourceChanged:
                return  # it was reported

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for _ in pool.map(identify, pieces):
            pass


def _tell(sources: Sources, parts: set[Part] | None) -> None:
    found = ""
    if parts is not None:
        here = sum(_is_there(sources, part) for part in parts)
        found = f"; {here} of the {len(parts)} parts of the image are there"
    counts = sources.counts
    _say(f"{counts.files} files seen, {counts.pieces} looked at, {counts.hashed_bytes:,} bytes read{found}")


def _is_there(sources: Sources, part: Part) -> bool:
    """Tell by what is known by now: everything was identified, so nothing is read again."""
    found = sources.candidates(part)
    return bool(found) and found[0].checksum(part.checksum.algorithm) == part.checksum


def _say(text: str) -> None:
    print(f"{program()}: {printable(text)}", file=sys.stderr)
