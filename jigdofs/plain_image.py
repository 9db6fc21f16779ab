"""An image that lies on this machine as a whole: a plain ISO file, read where it is.

Invariant of this file: a file that was changed since it was opened is not read any further.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from jigdofs.errors import InputError, SourceChanged
from jigdofs.fetch import url as urls
from jigdofs.format.part import Part
from jigdofs.format.template import UnmatchedData
from jigdofs.image.layout import Layout
from jigdofs.image.opener import ChunkSlice
from jigdofs.parts.open_file import Fingerprint, OpenFile
from jigdofs.sources.iso import looks_like_iso


class PlainImage:
    """An open image file, as what an `ImageReader` takes for raw data: one chunk, inflated already.

    Args:
        path: of the file, absolute.
        fd: its descriptor, now owned by this.
    """

    def __init__(self, path: str, fd: int) -> None:
        status = os.fstat(fd)
        self.path = path
        self.name = os.path.basename(path)
        self.layout = Layout([UnmatchedData(status.st_size)])
        self.mtime_ns = status.st_mtime_ns
        fingerprint = Fingerprint.of_status(status)
        self.identity = "-".join(f"{number:x}" for number in (*fingerprint, status.st_dev))
        self._file = OpenFile(fd, fingerprint)

    @property
    def bytes(self) -> int:
        """Bytes that can be read without fetching anything: all."""
        return self.layout.length

    def close(self) -> None:
        """Close the file once nobody reads it."""
        self._file.discard()

    def slices(self, offset: int, length: int) -> Iterator[ChunkSlice]:
        """Yield the one piece that holds a range."""
        yield ChunkSlice(0, offset, length)

    def peek(self, key: int) -> OpenFile | None:
        """Return the file, if it is what was opened."""
        return self._file if self._file.unchanged() else None

    async def open(self, key: int) -> OpenFile:
        """Return the file, pinned; raise `SourceChanged`."""
        if not self._file.unchanged():
            raise SourceChanged(f"{self.path}: changed since it was opened; mount it anew")
        self._file.pin()
        return self._file

    def hint(self, key: int) -> None:
        """Have nothing to do: the kernel reads local files ahead."""


def open_plain(source: str) -> PlainImage | None:
    """Open a local file that is an ISO 9660 image itself; None for anything else, a .jigdo above all. Blocks.

    Raises:
        InputError: it is an image, and cannot be read, or lies elsewhere.
    """
    if urls.is_http(source):
        if source.lower().endswith(".iso"):
            raise InputError(f"{source}: a plain image can only be shown where it lies on this machine")
        return None
    path = os.path.abspath(source)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None  # the loader of .jigdo files says what is wrong
    if not looks_like_iso(fd):
        os.close(fd)
        return None
    try:
        return PlainImage(path, fd)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


class NoParts:
    """The parts of an image that has none."""

    def peek(self, key: Part) -> OpenFile | None:
        """Have none open."""
        return None

    async def open(self, key: Part) -> OpenFile:
        """Have none at all."""
        raise InputError(f"part {key}: a plain image has no parts")

    def hint(self, key: Part) -> None:
        """Have nothing to fetch."""
