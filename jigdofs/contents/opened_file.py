"""A file as one reader reads it: an image, or a file inside of one."""

from __future__ import annotations

from collections.abc import Sequence

from jigdofs.image.read_account import Waited
from jigdofs.image.readahead import Readahead
from jigdofs.image.reader import ImageReader
from jigdofs.iso9660.tree import Extent


class OpenedFile:
    """A file that one reader reads.

    Attributes:
        size: bytes of it.
        label: for messages.
        account: of the image that it is in.

    Args:
        reader: of the image.
        extents: where its bytes lie in the image, in order.
        label: for messages: what it is, of which image.
    """

    def __init__(self, reader: ImageReader, extents: Sequence[Extent], label: str) -> None:
        self.size = sum(extent.length for extent in extents)
        self.label = label
        self.account = reader.account
        self._reader = reader
        self._pieces = [(extent, self._ahead(extent)) for extent in extents]

    def _ahead(self, extent: Extent) -> Readahead:
        return self._reader.readahead(extent.offset + extent.length)

    async def read(self, offset: int, size: int, waited: Waited | None = None) -> bytearray:
        """Return the bytes at `offset`; fewer than `size` only at the end. Raises `JigdofsError`.

        `waited` is told whether this waited for a mirror.
        """
        if len(self._pieces) == 1:  # nearly always: no second buffer
            extent, ahead = self._pieces[0]
            size = max(0, min(size, extent.length - offset))
            return await self._reader.read(extent.offset + offset, size, ahead, waited)
        data = bytearray()
        for extent, ahead in self._pieces:
            if size and offset < extent.length:
                taken = min(size, extent.length - offset)
                data += await self._reader.read(extent.offset + offset, taken, ahead, waited)
                size -= taken
            offset = max(0, offset - extent.length)
        return data

    def read_now(self, offset: int, size: int, scratch: memoryview) -> memoryview | None:
        """Return what `read` would, in a buffer that is there already, if nothing has to be waited for."""
        if len(self._pieces) > 1:
            return None
        extent, ahead = self._pieces[0]
        view = scratch[: max(0, min(size, extent.length - offset))]
        return view if self._reader.read_now(extent.offset + offset, view, ahead) else None
