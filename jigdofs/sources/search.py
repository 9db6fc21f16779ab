"""Search what the user named, once: every piece of a wanted length, and what old templates say of it.

Rules of this file:
* Names and stat decide; only images, templates and what may be an image under construction are opened.
* What is damaged is reported and left out, and the search goes on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from jigdofs.errors import FormatError, InputError
from jigdofs.format.checksum import Checksum
from jigdofs.sources import iso, old_image
from jigdofs.sources.old_image import JIGDO_SUFFIXES, TEMPLATE_SUFFIX, TMP_SUFFIX, Family, Said
from jigdofs.sources.own_mounts import OwnMounts
from jigdofs.sources.piece import Piece, fingerprint_of, open_regular
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.walk import Found, Reports, Walker

_ISO_SUFFIXES = frozenset({".iso", ".img", ".cdr", ".raw"})
_MIN_ISO_BYTES = 18 * 2048  # 16 sectors for the system, two descriptors
_MIN_NAMELESS_BYTES = 1 << 20
"""From which size a file without a suffix, of whole sectors, is looked at: rarely anything but an image."""


class Search:
    """One search through everything that the user named.

    Attributes:
        pieces: what was found, by length.
        images: how many images were read.
        walker: how many files it saw.
    """

    def __init__(
        self,
        lengths: Collection[int] | None,
        remembered: Remembered | None,
        report: Callable[[str], None],
        besides: Iterable[str],
    ) -> None:
        self._lengths = None if lengths is None else frozenset(lengths)
        self._remembered = remembered
        self._reports = Reports(report)
        self._isos: set[tuple[int, int]] = set()
        self.walker = Walker(OwnMounts.now(besides), self._reports, self._matters)
        self.pieces: dict[int, dict[tuple[str, int], Piece]] = {}
        self.images = 0

    def run(self, paths: Sequence[str]) -> None:
        """Search these files and directories."""
        for found in self.walker.walk(paths):
            self._add(found.path, found.status, 0, found.status.st_size)
            try:
                self._look_inside(found)
            except FormatError as error:
                self._reports.line(error.source, f"{error.message}; what it holds is not used")
            except InputError as error:
                self._reports.say(str(error))
            except OSError as error:
                self._reports.line(found.path, error.strerror or str(error))
        self._reports.finish()

    def _matters(self, name: str, size: int) -> bool:
        return (
            self._lengths is None
            or size in self._lengths
            or name.endswith((TEMPLATE_SUFFIX, TMP_SUFFIX))
            or _may_be_iso(name, size)
        )

    def _add(
        self, path: str, status: os.stat_result, offset: int, length: int, checksum: Checksum | None = None
    ) -> None:
        """Keep a piece if its length is wanted; what is said of it twice is put together."""
        if not length or (self._lengths is not None and length not in self._lengths):
            return
        checksums = () if checksum is None else (checksum,)
        piece = Piece(path, offset, length, fingerprint_of(status), checksums)
        group = self.pieces.setdefault(length, {})
        known = group.get((path, offset))
        if known is not None and known.fingerprint == piece.fingerprint:
            piece = known._replace(checksums=tuple(dict.fromkeys((*known.checksums, *checksums))))
        group[path, offset] = piece

    def _look_inside(self, found: Found) -> None:
        """Find the pieces in an image, or in the image that a template or a .jigdo speaks of."""
        name = found.path
        if name.endswith(TEMPLATE_SUFFIX):
            if found.named or old_image.is_template(name):  # the name is popular with others, too
                self._family(old_image.family_of_template(name), wanted=found.named)
        elif name.endswith(JIGDO_SUFFIXES):
            if found.named:
                for family in old_image.families_of_jigdo(name):
                    self._family(family, wanted=True)
        elif name.endswith(TMP_SUFFIX):
            self._tmp(found)
        elif found.named or _may_be_iso(name, found.status.st_size):
            self._iso(name, found.status)
            if found.named:
                self._family(old_image.family_of_image(name), wanted=False)

    def _tmp(self, found: Found) -> None:
        try:
            parts = old_image.read_tmp(found.path)
        except FormatError:  # most files of that name are something else
            return
        self.images += 1
        self._add_said(found.path, found.status, parts)

    def _add_said(self, path: str, status: os.stat_result, parts: Iterable[Said]) -> None:
        for said in parts:
            if said.offset + said.length <= status.st_size:
                self._add(path, status, said.offset, said.length, said.checksum)

    def _family(self, family: Family, *, wanted: bool) -> None:
        """Use the templates and images that are there and belong together.

        Args:
            family: where they may be.
            wanted: whether the user named one of them that is of no use alone.
        """
        templates = [path for path, _ in self._files(family.templates)]
        images = list(self._files(family.images)) if templates else []
        met = False
        for path in templates:
            template = old_image.read_old_template(path)
            for image, status in images:
                if status.st_size == template.image_length:
                    met = True
                    self.images += 1
                    self._add_said(image, status, old_image.said(template.entries()))
                    self._iso(image, status)
        if wanted and not met:
            self._reports.line(family.templates[0], "no complete image of it lies beside it")

    def _files(self, paths: Iterable[str]) -> Iterator[tuple[str, os.stat_result]]:
        for path in paths:
            found = self.walker.look(path, must_exist=False)
            if found is not None and stat.S_ISREG(found[1].st_mode):
                yield found

    def _iso(self, path: str, status: os.stat_result) -> None:
        """Find the pieces in an image by its own directory, once."""
        key = (status.st_dev, status.st_ino)
        if status.st_size < _MIN_ISO_BYTES or key in self._isos:
            return
        self._isos.add(key)
        for offset, length in self._extents(path, status):
            self._add(path, status, offset, length)

    def _extents(self, path: str, status: os.stat_result) -> Sequence[tuple[int, int]]:
        fingerprint = fingerprint_of(status)
        known = None if self._remembered is None else self._remembered.extents(path, fingerprint)
        if known is not None:
            self.images += 1
            return known
        fd = open_regular(path)
        try:
            if not iso.looks_like_iso(fd):
                return []
            self.images += 1
            extents = iso.extents(fd, path)
            unchanged = fingerprint_of(os.fstat(fd)) == fingerprint
        finally:
            os.close(fd)
        if not unchanged:
            raise InputError(f"{path}: changed while its directory was read")
        if self._remembered is not None:
            self._remembered.note_extents(path, fingerprint, extents)
        return extents


def _may_be_iso(name: str, size: int) -> bool:
    if size < _MIN_ISO_BYTES:
        return False
    suffix = os.path.splitext(name)[1].lower()
    return suffix in _ISO_SUFFIXES or (not suffix and size >= _MIN_NAMELESS_BYTES and size % 2048 == 0)
