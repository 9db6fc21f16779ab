"""Serve parts from local files and old images where they lie, without copying them.

Invariants of this file:
* A file is served after its checksum matched, as long as its fingerprint is the one it had before.
* A search or a file that does not answer in time costs a fetch, never a reader's patience.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial

import trio

from jigdofs.errors import SourceChanged
from jigdofs.format.part import Part
from jigdofs.in_thread import GIVE_UP
from jigdofs.parts.open_file import OpenFile
from jigdofs.sources.piece import open_piece
from jigdofs.sources.sources import Sources

_log = logging.getLogger(__name__)

SEARCH_S = 30.0
"""How long the first readers wait for the search of the sources to end before mirrors are asked."""
FIND_S = 30.0
"""How long one part is looked for: hashing 10 GB takes half of that."""
_THREADS = 4


class LocalParts:
    """Local files as a place to read parts from.

    Args:
        sources: not yet scanned.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._searched = trio.Event()
        # threads that hang in a dead file server are left behind, so they must be few and nobody else's
        self._threads = trio.CapacityLimiter(_THREADS)

    async def search(self, lengths: Collection[int]) -> None:
        """Search the sources for parts of these lengths; readers wait for that, but not for ever."""
        try:
            await self._in_thread(partial(self._sources.scan, lengths))
        finally:
            self._searched.set()
        counts = self._sources.counts
        _log.info("local files: %d seen, %d may be parts", counts.files, counts.pieces)

    async def find(self, part: Part, names: Collection[str]) -> OpenFile | None:
        """Return a file that is this part, or None."""
        with trio.move_on_after(SEARCH_S):
            await self._searched.wait()
        with trio.move_on_after(FIND_S):
            return await self._in_thread(partial(self._open, part, names))
        _log.info("part %s: local files do not answer", part)
        return None

    def _open(self, part: Part, names: Collection[str]) -> OpenFile | None:
        while (piece := self._sources.find(part, names)) is not None:
            try:
                fd = open_piece(piece)
            except SourceChanged as error:
                self._sources.drop(piece, str(error))
                continue
            return OpenFile(fd, piece.fingerprint, start=piece.offset, length=piece.length)
        return None

    async def _in_thread(self, work: Callable[[], OpenFile | None]) -> OpenFile | None:
        return await trio.to_thread.run_sync(work, limiter=self._threads, **GIVE_UP)
