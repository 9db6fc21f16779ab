"""Which parts to fetch ahead, and in which order."""

from __future__ import annotations

import fnmatch
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from jigdofs.contents.namespace import Contents, walk
from jigdofs.errors import FormatError, JigdofsError, NoSuchFile, UsageError
from jigdofs.format.part import Part
from jigdofs.image.layout import Layout
from jigdofs.image.reader import ImageReader
from jigdofs.in_thread import GIVE_UP
from jigdofs.iso9660 import tree
from jigdofs.iso9660.tree import Extent, Tree
from jigdofs.parts.store import PartStore
from jigdofs.prefetch.fill import Wanted
from jigdofs.sources.iso import MAGIC, MAGIC_OFFSET

_log = logging.getLogger(__name__)

_MATCHING = trio.CapacityLimiter(1)  # one at a time: it keeps a processor busy

_INSTALLER_FIRST = (".disk", "dists", "boot", "isolinux", "syslinux", "efi", "install*")
"""What an installer reads before it knows what to install, in this order; whatever the case of the names."""
_SMALL_BYTES = 1 << 20
"""Files of that size at the top (README, md5sum.txt, autorun) are read early, and cost little."""


@dataclass(frozen=True, slots=True)
class FillRequest:
    """What to have in the cache; of several wishes the first in this order goes first.

    Attributes:
        parts: of a list; what an image lacks is passed over.
        metadata: what an installer reads first.
        globs: files inside the image.
        range: begin and end in the image, in bytes, None for its end; None for none.
        everything: the whole image.
        image: the name of the one that is meant; "" for all.
    """

    parts: tuple[Part, ...] = ()
    metadata: bool = False
    globs: tuple[str, ...] = ()
    range: tuple[int, int | None] | None = None
    everything: bool = False
    image: str = ""


class PartedImage(Protocol):
    """An image whose parts can be fetched."""

    @property
    def name(self) -> str:
        """Its leaf name."""

    @property
    def layout(self) -> Layout:
        """Where its parts lie."""

    @property
    def reader(self) -> ImageReader:
        """How its bytes are had."""

    @property
    def contents(self) -> Contents:
        """The files inside."""

    @property
    def store(self) -> PartStore | None:
        """Where its parts are had; None for an image that has none."""


async def plan(request: FillRequest, images: Sequence[PartedImage]) -> list[Wanted]:
    """Return what a request means, in the order in which it is to be fetched; a part may come repeatedly.

    Raises:
        NoSuchFile: a glob matches in no image, or there is no image of that name.
        UsageError: the range lies outside of the image, or is one of several images.
        JigdofsError: the files inside an image are needed, and cannot be told.
    """
    chosen = [image for image in images if request.image in ("", image.name)]
    if not chosen:
        names = ", ".join(image.name for image in images)
        raise NoSuchFile(f"there is no image `{request.image}'; there is {names}")
    if request.range is not None and len(chosen) > 1:
        raise UsageError("a range is of one image: name it, as MOUNTPOINT/IMAGE")
    wanted = _listed(request.parts, chosen)
    if request.metadata:
        wanted += await _metadata(chosen, needed=not (wanted or request.everything))
    if request.globs:
        wanted += await _matched(request.globs, chosen)
    for image in chosen:
        if request.range is not None:
            begin, end = request.range
            end = image.layout.length if end is None else end
            if not 0 <= begin < end <= image.layout.length:
                raise UsageError(
                    f"{begin}-{end} is no range of {image.name}, which has {image.layout.length} bytes"
                )
            wanted += _of(image, parts_in(image.layout, [Extent(begin, end - begin)]))
        if request.everything:
            wanted += _of(image, image.layout.distinct_parts().values())
    return wanted


def _of(image: PartedImage, parts: Iterable[Part]) -> list[Wanted]:
    """Return parts as what is wanted of an image; of one that lies here as a whole, nothing is."""
    return [] if image.store is None else [Wanted(image.store, part) for part in parts]


def _listed(parts: Sequence[Part], images: Sequence[PartedImage]) -> list[Wanted]:
    """Return those parts of a list that images have, in the order of the list."""
    known: dict[Part, PartStore] = {}
    if parts:
        for image in images:
            for part in image.layout.distinct_parts().values():
                if image.store is not None:
                    known.setdefault(part, image.store)
    wanted = [Wanted(known[part], part, expected=True) for part in parts if part in known]
    if parts and not wanted and any(image.store is not None for image in images):
        _log.warning("none of the %d parts of the list is in these images", len(parts))
    return wanted


async def _metadata(images: Sequence[PartedImage], *, needed: bool) -> list[Wanted]:
    """Return what an installer reads first; raise `JigdofsError` if that is needed and of no image known."""
    wanted: list[Wanted] = []
    trouble: JigdofsError | None = None
    for image in images:
        if image.store is None:
            continue
        try:
            early = await trio.to_thread.run_sync(metadata, await _files(image), limiter=_MATCHING)
            wanted += _of(image, parts_in(image.layout, early))
        except FormatError as error:  # most probably no ISO: nobody installs from it
            _log.info("%s", error)
        except JigdofsError as error:
            _log.info("what installers read first is not known of %s: %s", image.name, error)
            trouble = error
    if trouble is not None and needed and not wanted:
        raise trouble
    return wanted


async def _matched(globs: Sequence[str], images: Sequence[PartedImage]) -> list[Wanted]:
    """Return what the globs mean in all images together; raise `NoSuchFile` for one that means nothing."""
    wanted: list[Wanted] = []
    left = dict.fromkeys(globs)
    for image in images:
        try:
            files = await _files(image)
        except FormatError:
            if len(images) == 1:
                raise
            continue  # no ISO: there are no files in it
        # a pattern for 30,000 paths takes 0.2 s
        matched = await trio.to_thread.run_sync(matching, files, globs, limiter=_MATCHING, **GIVE_UP)
        for glob, extents in matched.items():
            left.pop(glob, None)
            wanted += _of(image, parts_in(image.layout, extents))
    if left:
        where = ", ".join(image.name for image in images)
        raise NoSuchFile(f"nothing in {where} matches `{next(iter(left))}'")
    return wanted


async def _files(image: PartedImage) -> Tree:
    """Return the files in an image.

    Raises:
        FormatError: it is no ISO, or a damaged one.
        JigdofsError: its directories cannot be read.
    """
    # asked here, as `contents` takes it for an error worth a line in the log
    if image.contents.known is None and await image.reader.read(MAGIC_OFFSET, len(MAGIC)) != MAGIC:
        raise FormatError("is no ISO 9660 image, so the files in it are not known", source=image.name)
    return await image.contents.tree()


def parts_in(layout: Layout, extents: Iterable[Extent]) -> Iterator[Part]:
    """Yield the parts that stretches of an image touch, in their order; a part may come repeatedly."""
    for offset, length in extents:
        for piece in layout.slices(offset, length):
            if piece.part is not None:
                yield piece.part


def metadata(files: Tree) -> list[Extent]:
    """Return where `.disk`, `dists`, boot files and small files at the top lie: read first by installers."""
    found: list[Extent] = []
    top = [(files.name(number).lower(), number) for number in files.children(tree.ROOT)]
    for pattern in _INSTALLER_FIRST:
        for name, number in top:
            if fnmatch.fnmatchcase(os.fsdecode(name), pattern):
                found += _below(files, number)
    for _, number in top:
        node = files.node(number)
        if stat.S_ISREG(node.mode) and node.size <= _SMALL_BYTES:
            found += files.extents(number)
    return found


def matching(files: Tree, globs: Iterable[str]) -> dict[str, list[Extent]]:
    """Return where the files lie whose path matches, by glob; a glob that nothing matches is left out.

    A path has no slash in front; `*` matches slashes, too; a directory means all that is below it.
    """
    paths = [(os.fsdecode(files.path(number)), number) for number in walk(files)]
    found: dict[str, list[Extent]] = {}
    for glob in globs:
        pattern = glob.strip("/") or "*"
        matched = {number for path, number in paths if fnmatch.fnmatchcase(path, pattern)}
        if matched:
            found[glob] = _below(files, *matched)
    return found


def _below(files: Tree, *numbers: int) -> list[Extent]:
    """Return where files lie, and all files below directories, in the order of the image."""
    wanted = set(numbers)
    for number in numbers:
        if stat.S_ISDIR(files.node(number).mode):
            wanted.update(walk(files, number))
    regular = [number for number in wanted if stat.S_ISREG(files.node(number).mode)]
    return sorted(extent for number in regular for extent in files.extents(number))
