"""What an image is to be: its layout, its template, and every checksum that is known of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from jigdofs.errors import InputError
from jigdofs.format.template import Chunk, ImageInfo, Template
from jigdofs.format.template_reader import read_template
from jigdofs.image.layout import Layout
from jigdofs.image.raw_data import TemplateFile

SUM_ALGORITHMS = ("md5", "sha1", "sha256", "sha512")
"""Checksums of a whole image that may be known; names as hashlib has them."""


class ImageSum(NamedTuple):
    """One checksum that the whole image must have.

    Attributes:
        algorithm: one of `SUM_ALGORITHMS`.
        hex: lower case.
        said_by: the file that says so.
    """

    algorithm: str
    hex: str
    said_by: str


@dataclass(frozen=True, slots=True)
class Blueprint:
    """An image that can be built.

    Attributes:
        layout: where its bytes come from.
        desc: the template's packed entries; an unfinished image carries a copy.
        template_file: open, and verified as far as anybody knows its checksum.
        chunks: of the template.
        sums: every checksum the image must have.
    """

    layout: Layout
    desc: bytes
    template_file: TemplateFile
    chunks: tuple[Chunk, ...]
    sums: tuple[ImageSum, ...]


def read_blueprint(template_file: TemplateFile, image_sums: Mapping[str, str], said_by: str) -> Blueprint:
    """Read a template as a plan to build from.

    Args:
        template_file: open; stays the caller's.
        image_sums: further checksums of the image, by algorithm.
        said_by: the file that says these.

    Raises:
        InputError: the template cannot be read.
        FormatError: it is malformed.
    """
    template = _read(template_file)
    return Blueprint(
        layout=Layout.of(template.columns),
        desc=template.desc,
        template_file=template_file,
        chunks=template.chunks,
        sums=(*_info_sums(template.images, template_file.name), *_other_sums(image_sums, said_by)),
    )


def open_template(path: str) -> TemplateFile:
    """Open a local template that nobody knows a checksum of; the caller closes it. Raise `InputError`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    status = os.fstat(fd)
    return TemplateFile(fd, path, "", (status.st_size, status.st_mtime_ns))


def _read(template_file: TemplateFile) -> Template:
    try:
        with open(os.dup(template_file.fd), "rb") as file:
            return read_template(file, template_file.name)
    except OSError as error:
        raise InputError(f"{template_file.name}: {error.strerror or error}") from error


def _info_sums(infos: Iterable[ImageInfo], said_by: str) -> Iterable[ImageSum]:
    return (ImageSum(info.checksum.algorithm.short_name, info.checksum.hex, said_by) for info in infos)


def _other_sums(sums: Mapping[str, str], said_by: str) -> Iterable[ImageSum]:
    return (ImageSum(name, sums[name], said_by) for name in SUM_ALGORITHMS if name in sums)
