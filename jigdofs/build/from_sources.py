"""Fill an image from local files and old images."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from jigdofs.build import account as origins
from jigdofs.build.blueprint import Blueprint
from jigdofs.build.builder import Builder, Missing
from jigdofs.errors import JigdofsError, NoRoom, SourceChanged
from jigdofs.format.part import Part
from jigdofs.format.rsync64 import Rsync64
from jigdofs.format.template import ImageInfo, MatchedFile, read_entries
from jigdofs.sources.piece import Piece, fingerprint_of, open_piece
from jigdofs.sources.sources import Sources

_MAX_BLOCK_BYTES = 1 << 20  # real ones have 1 KiB; summing is slow

Names = Callable[[Part], Collection[str]]
"""Leaf names that a part has in its .jigdo: which of several candidates to look at first."""


def fill_from_sources(
    builder: Builder, missing: list[Missing], sources: Sources, names: Names
) -> list[Missing]:
    """Place every part that a local file or an old image holds; return the rest."""

    def obtain(wanted: Missing) -> bool:
        part = wanted.part
        return any(
            _place_piece(builder, wanted, piece, sources)
            for piece in sources.candidates(part, names(part))
            if not builder.stopped
        )

    return builder.fill(missing, obtain)


def _place_piece(builder: Builder, wanted: Missing, piece: Piece, sources: Sources) -> bool:
    """Copy a piece into its place and look what it is; tell whether it is the part."""
    try:
        fd = open_piece(piece)
    except SourceChanged as error:
        sources.drop(piece, str(error))
        return False
    try:
        found = builder.place(wanted, fd, piece.offset, origins.LOCAL)
        if found is not None and fingerprint_of(os.fstat(fd)) == piece.fingerprint:
            sources.learn(piece, found)
    except NoRoom:
        raise
    except JigdofsError as error:
        sources.drop(piece, str(error))
        return False
    finally:
        os.close(fd)
    return found == wanted.part.checksum


def fill_from_copy(builder: Builder, missing: list[Missing], fd: int) -> list[Missing]:
    """Place every part that a damaged copy of the same image has in its place; return the rest."""

    def obtain(wanted: Missing) -> bool:
        start = builder.layout.start(wanted.indexes[0])
        return builder.place(wanted, fd, start, origins.LOCAL) == wanted.part.checksum

    return builder.fill(missing, obtain)


def find_damaged(blueprint: Blueprint, missing: list[Missing], sources: Sources) -> list[Piece]:
    """Return files that were probably meant for what is missing, but are damaged.

    They have the length and the rsync64 of a missing part, another checksum, and no better one was found.
    """
    wanted = {part.part.checksum for part in missing}
    lengths = {part.part.length for part in missing}
    hints: set[tuple[int, bytes]] = set()
    block_length = 0
    for entry in read_entries(blueprint.desc, source=blueprint.template_file.name):
        if isinstance(entry, ImageInfo):
            block_length = entry.block_length
        elif isinstance(entry, MatchedFile) and entry.checksum in wanted and entry.rsync64 is not None:
            hints.add((entry.length, entry.rsync64))
    if not block_length:
        return []
    found = (piece for piece in sources.pieces() if piece.length in lengths and piece.is_whole_file)
    return [piece for piece in found if (piece.length, _rsync64(piece, block_length)) in hints]


def _rsync64(piece: Piece, block_length: int) -> bytes:
    try:
        fd = open_piece(piece)
    except SourceChanged:
        return b""
    try:
        return Rsync64(os.pread(fd, min(block_length, piece.length, _MAX_BLOCK_BYTES), piece.offset)).digest()
    except OSError:
        return b""
    finally:
        os.close(fd)
