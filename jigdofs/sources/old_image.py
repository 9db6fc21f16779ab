"""What an old template says about the image beside it: where parts lie in it, and their checksums.

Rules of this file:
* It says where to look, no more: a checksum from a template is a promise about an image that may have
  been changed or badly written since.
* Names from inside a .jigdo are reduced to leaf names beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jigdofs.errors import FormatError, InputError
from jigdofs.format import jigdo, jigdo_limits, jigdo_reader
from jigdofs.format.checksum import Checksum
from jigdofs.format.template import (
    DESC_OVERHEAD,
    Entry,
    ImageInfo,
    MatchedFile,
    Template,
    read_entries,
)
from jigdofs.format.template_reader import has_header, read_desc, read_template
from jigdofs.sources.piece import open_regular

TEMPLATE_SUFFIX = ".template"
JIGDO_SUFFIXES = (".jigdo", ".jigdo.gz")
TMP_SUFFIX = ".tmp"
_IMAGE_SUFFIXES = tuple(
    " .iso .img .cdr .raw .tar .dmg .udf .squashfs .wim .swm .ufs .bin .ext4 .xz .zip".split(" ")
)
"""What images are called whose templates have the same stem: all of format.md 6, and what we test.
The first is empty: `debian.iso.template` belongs to `debian.iso`."""
_DESC_TAIL = 6  # the length that ends a DESC part


class Said(NamedTuple):
    """One part of an old image, as its template has it."""

    offset: int
    length: int
    checksum: Checksum


class Family(NamedTuple):
    """Files that may belong together.

    Attributes:
        templates: where the template may be.
        images: where the image may be.
    """

    templates: tuple[str, ...]
    images: tuple[str, ...]


def family_of_template(path: str) -> Family:
    """Return where the image of a template may lie: beside it, under the same stem."""
    stem = path.removesuffix(TEMPLATE_SUFFIX)
    return Family((path,), tuple(stem + suffix for suffix in _IMAGE_SUFFIXES if stem + suffix != path))


def family_of_image(path: str) -> Family:
    """Return where the template of an image may lie."""
    names = (os.path.splitext(path)[0] + TEMPLATE_SUFFIX, path + TEMPLATE_SUFFIX)
    return Family(tuple(dict.fromkeys(names)), (path,))


def families_of_jigdo(path: str) -> list[Family]:
    """Return where the images and templates lie that a .jigdo names: beside it, by their leaf names.

    Raises:
        InputError: it cannot be read.
        FormatError: it is malformed.
    """
    sections = [
        section
        for piece in jigdo_reader.parse(_read_jigdo(path), path)
        if isinstance(piece, jigdo.JigdoFile)
        for section in piece.images
    ]
    return [_family(path, section) for section in sections[: jigdo_limits.MAX_IMAGES]]


def _read_jigdo(path: str) -> bytes:
    try:
        with open(open_regular(path), "rb") as file:
            return file.read(jigdo_limits.MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _family(path: str, section: jigdo.ImageSection) -> Family:
    directory, name = os.path.split(path)
    own = name.removesuffix(".gz").removesuffix(".jigdo") + TEMPLATE_SUFFIX
    templates = _beside(directory, [*section.templates, own])
    images = _beside(directory, [section.filename])
    guesses = (guess for template in templates for guess in family_of_template(template).images)
    return Family(templates, tuple(dict.fromkeys((*images, *guesses))))


def _beside(directory: str, names: Iterable[str]) -> tuple[str, ...]:
    leaves = (name.rsplit("/", 1)[-1] for name in names)
    kept = (leaf for leaf in leaves if leaf not in ("", ".", "..") and "\0" not in leaf)
    return tuple(dict.fromkeys(os.path.join(directory, leaf) for leaf in kept))


def is_template(path: str) -> bool:
    """Tell whether a file begins like a template; raise `OSError`."""
    with open(open_regular(path), "rb") as file:
        return has_header(file)


def read_old_template(path: str) -> Template:
    """Read a template's entries; raise `InputError` or `FormatError`."""
    try:
        with open(open_regular(path), "rb") as file:
            return read_template(file, path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def said(entries: Iterable[Entry], *, written_only: bool = False) -> Iterator[Said]:
    """Yield where the parts of an image lie.

    Args:
        entries: of a template, in image order.
        written_only: only those whose bytes are in place, of an image under construction.
    """
    position = 0
    for entry in entries:
        if isinstance(entry, ImageInfo):
            continue
        if isinstance(entry, MatchedFile) and entry.length and (entry.written or not written_only):
            yield Said(position, entry.length, entry.checksum)
        position += entry.length


def read_tmp(path: str) -> list[Said]:
    """Return the parts that jigdo-file has written to an image under construction (format.md 1.4).

    Raises:
        InputError: it cannot be read.
        FormatError: it is no such file; most files called .tmp are none.
    """
    try:
        with open(open_regular(path), "rb") as file:
            offset, desc = read_desc(file, path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    image_length = offset - (DESC_OVERHEAD - _DESC_TAIL)
    infos = [
        entry for entry in read_entries(desc, source=path, offset=offset) if isinstance(entry, ImageInfo)
    ]
    if not infos or infos[-1].length != image_length:
        raise FormatError("is no image under construction", source=path)
    parts = list(said(read_entries(desc, source=path, offset=offset), written_only=True))
    if parts and parts[-1].offset + parts[-1].length > image_length:
        raise FormatError("its entries reach beyond the image", source=path)
    return parts
