"""Where a part that is being fetched is written: straight to its first place in the image."""

from __future__ import annotations

from jigdofs.build.account import BEFORE, MIRRORS
from jigdofs.build.builder import Builder, Missing
from jigdofs.format.checksum import Checksum


class PlaceSink:
    """Take one part's bytes in. All methods block: they are called from worker threads.

    Args:
        builder: of the image.
        missing: the part, and where it belongs.
    """

    def __init__(self, builder: Builder, missing: Missing) -> None:
        self._builder = builder
        self._missing = missing
        self._start = builder.layout.start(missing.indexes[0])
        self._hasher = missing.part.checksum.algorithm.hasher()
        self.received = 0
        self._resumed = 0

    def resume(self) -> None:
        """Go on behind what a run before ours left in the place; the checksum will tell if it is any good."""
        begun = self._builder.unfinished.begun(self._start, self._missing.part.length)
        if begun:
            self._builder.unfinished.hash_into(self._hasher, self._start, begun)
            self.received = self._resumed = begun
            self._builder.account.resume(begun)

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes; raise `NoRoom` where the disk is full."""
        if self.received + len(data) > self._missing.part.length:
            raise ValueError("more bytes than the part may have")
        self._hasher.update(data)
        self._builder.unfinished.write(data, self._start + self.received)
        self.received += len(data)
        self._builder.account.arrive(len(data))

    def restart(self) -> None:
        """Forget what was written."""
        self._builder.account.arrive(-self.received)
        self.received = self._resumed = 0
        self._hasher = self._missing.part.checksum.algorithm.hasher()

    def checksum(self) -> Checksum:
        """Return the checksum of what was written so far."""
        return Checksum(self._hasher.digest())

    def finish(self) -> None:
        """Mark the part; its checksum was found right."""
        self._builder.account.settle(self.received)
        self._builder.placed(self._missing, MIRRORS)
        if self._resumed:
            self._builder.account.add(BEFORE, self._resumed)
            self._builder.account.add(MIRRORS, -self._resumed)
