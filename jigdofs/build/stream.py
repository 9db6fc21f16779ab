"""Write an image to where nothing can be taken back: a pipe.

Invariant of this file: nothing is written before every part was found and verified; each is verified
again while it is written, and the whole behind it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from jigdofs.build.blueprint import Blueprint
from jigdofs.build.raw_stream import RawStream
from jigdofs.errors import InputError, JigdofsError, SourceChanged, WrongImage
from jigdofs.format.part import Part
from jigdofs.image.raw_data import check_unchanged
from jigdofs.sources.piece import Piece, open_piece
from jigdofs.sources.sources import Sources

_READ_BYTES = 1 << 20


def write_image(blueprint: Blueprint, sources: Sources, output: BinaryIO) -> None:
    """Write an image whose every part is in the sources.

    Raises:
        InputError: a part is missing, and nothing was written; or a source changed meanwhile.
        WrongImage: the image, now written, has not the checksum it should have.
    """
    layout = blueprint.layout
    pieces = {part: sources.find(part) for part in dict.fromkeys(part for _, part in layout.parts())}
    missing = sum(piece is None for piece in pieces.values())
    if missing:
        raise InputError(f"{missing} of {len(pieces)} files are missing; nothing is written to a pipe then")
    hashers = {
        known.algorithm: hashlib.new(known.algorithm, usedforsecurity=False) for known in blueprint.sums
    }
    for data in _bytes(blueprint, pieces):
        for hasher in hashers.values():
            hasher.update(data)
        _write(output, data)
    check_unchanged(blueprint.template_file)
    for known in blueprint.sums:
        if hashers[known.algorithm].hexdigest() != known.hex:
            raise WrongImage(
                f"the image, which is written, has not the {known.algorithm} {known.hex}"
                f" that {known.said_by} gives"
            )


def _write(output: BinaryIO, data: bytes | memoryview) -> None:
    try:
        output.write(data)
        output.flush()
    except BrokenPipeError as error:
        raise JigdofsError("whoever read the image has gone; it is not whole") from error


def _bytes(blueprint: Blueprint, pieces: dict[Part, Piece | None]) -> Iterator[bytes | memoryview]:
    layout = blueprint.layout
    raw = RawStream(blueprint)
    for index in range(len(layout)):
        part = layout.part(index)
        if part is None:
            yield from raw.read(layout.start(index + 1) - layout.start(index))
        else:
            piece = pieces[part]
            assert piece is not None
            yield from _piece_bytes(part, piece)


def _piece_bytes(part: Part, piece: Piece) -> Iterator[bytes]:
    hasher = part.checksum.algorithm.hasher()
    fd = open_piece(piece)
    try:
        at, end = piece.offset, piece.offset + piece.length
        while at < end and (data := os.pread(fd, min(_READ_BYTES, end - at), at)):
            hasher.update(data)
            at += len(data)
            yield data
    finally:
        os.close(fd)
    if hasher.digest() != part.checksum.digest:
        raise SourceChanged(f"{piece}: changed while it was read; what was written is no image")
