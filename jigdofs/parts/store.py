"""The parts' side of the image: part in, verified open file out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Protocol

import trio

from jigdofs.errors import JigdofsError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.locations import Locator
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.open_file import OpenFile
from jigdofs.parts.slots import Ticket, Urgency
from jigdofs.parts.spool import Spool

_MD5_BYTES = Algorithm.MD5.digest_size

Local = Callable[[Part, Collection[str]], Awaitable[OpenFile | None]]
"""Return a local file that is this part, verified, given the names the .jigdo has for it; or None."""


def cache_key(part: Part) -> str:
    """Name a part in the cache, where all images share it: its algorithm's `short_name`, and its checksum.

    Every read of a part asks, so the algorithm is told from the length: 0.1 us instead of 0.26.
    """
    digest = part.checksum.digest
    return ("md5-" if len(digest) == _MD5_BYTES else "sha256-") + digest.hex()


def part_in_flight(name: str) -> Part | None:
    """Return the part that a flight of an `ObjectStore` brings, or None if it is something else."""
    key, _, length = name.partition(" ")
    kind, _, digest = key.partition("-")
    return Part(Checksum(bytes.fromhex(digest)), int(length)) if kind in ("md5", "sha256") else None


class OnFetched(Protocol):
    """Be told a part that was fetched, or found in a file elsewhere."""

    def __call__(self, part: Part, *, elsewhere: bool) -> None:
        """Take note."""


class PartStore:
    """The parts of one image, opened by value.

    Attributes:
        locator: knows where they may be had.

    Args:
        objects: where they are kept.
        acquirer: how missing ones are fetched.
        locator: where they may be had.
        on_fetched: told every part that was fetched, or found in a file elsewhere.
        local: looks for a part among local files before any mirror is asked.
    """

    def __init__(
        self,
        objects: ObjectStore,
        acquirer: Acquirer,
        locator: Locator,
        on_fetched: OnFetched,
        local: Local | None = None,
    ) -> None:
        self._objects = objects
        self._acquirer = acquirer
        self.locator = locator
        self._on_fetched = on_fetched
        self._local = local
        self._preparing = trio.Lock()

    def peek(self, key: Part) -> OpenFile | None:
        """Return the part if it is open; a part of another length under its checksum is none."""
        file = self._objects.peek(cache_key(key), key.length)
        return file if file is not None and file.size == key.length else None

    async def open(self, key: Part) -> OpenFile:
        """Return the part, pinned; raise `PartUnavailable`."""
        file = await self._objects.open(cache_key(key), key.length, key.checksum, self._fill(key))
        if file.size != key.length:
            file.unpin()
            raise JigdofsError(f"part {key}: the file of that checksum has {file.size} bytes")
        return file

    def hint(self, key: Part) -> None:
        """Begin to obtain a part ahead of a reader."""
        self._objects.hint(cache_key(key), key.length, key.checksum, self._fill(key), Urgency.READAHEAD)

    async def obtain(self, key: Part, urgency: Urgency) -> None:
        """Have a part in the cache, below everything that readers want.

        Raises:
            PartUnavailable: no location gives it.
            NoRoom: something in the cache would have to make way for it.
        """
        await self._objects.obtain(cache_key(key), key.length, key.checksum, self._fill(key), urgency)

    def _fill(self, part: Part) -> Callable[[Spool, Ticket], Awaitable[OpenFile]]:
        return partial(self._acquire, part)

    async def _acquire(self, part: Part, spool: Spool, ticket: Ticket) -> OpenFile:
        if not self.locator.ready:
            async with self._preparing:  # one thread for all: others have their turn with the interpreter
                if not self.locator.ready:
                    await trio.to_thread.run_sync(self.locator.prepare)
        file = await self._local(part, self.locator.names(part)) if self._local is not None else None
        elsewhere = file is not None
        if file is None:
            locations = self.locator.locations(part.checksum)
            file = await self._acquirer.acquire(part, locations, spool, ticket)
            file.fetched_s = trio.current_time()
        self._on_fetched(part, elsewhere=elsewhere)
        return file
