"""The object store: one flight for a file, however many want it, and none for what only has its name."""

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from jigdofs.errors import JigdofsError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.cache import Cache
from jigdofs.parts.cache_place import CachePlace
from jigdofs.parts.flights import Flights
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.open_file import OpenFile, OpenFiles
from jigdofs.parts.slots import Ticket
from jigdofs.parts.spool import MemoryPlace, Spool

DATA = b"0123456789"
CHECKSUM = Checksum.of(Algorithm.MD5, DATA)
KEY = f"md5-{CHECKSUM.hex}"


async def test_another_length_is_another_flight() -> None:
    """Who wants a file of that checksum with a length it cannot have fails alone."""
    waits = trio.Event()

    async def doomed(_spool: Spool, _ticket: Ticket) -> OpenFile:
        await waits.wait()
        raise JigdofsError("there is none")

    async def well(spool: Spool, _ticket: Ticket) -> OpenFile:
        spool.write(DATA)
        return spool.finish()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            files = OpenFiles(16, 1 << 20)
            store = ObjectStore(None, Flights(nursery), files, (MemoryPlace(1 << 20),))

            async def fail() -> None:
                with pytest.raises(JigdofsError, match="there is none"):
                    await store.open(KEY, len(DATA) + 1, CHECKSUM, doomed)

            nursery.start_soon(fail)
            await trio.testing.wait_all_tasks_blocked()
            file = await store.open(KEY, len(DATA), CHECKSUM, well)
            assert os.pread(file.fd, 100, 0) == DATA
            file.unpin()
            waits.set()
        files.close()


@pytest.mark.logs("it is had once more")
async def test_spoilt_while_it_is_kept(tmp_path: Path) -> None:
    """A file that somebody writes to while it gets its name is neither served nor believed, but made anew."""
    spoilt: list[int] = []

    class Meddled(CachePlace):
        """The cache, with somebody who is quick, once."""

        def keep(self, fd: int) -> None:
            super().keep(fd)
            if not spoilt:
                spoilt.append(os.pwrite(fd, b"wrong", 0))
                os.utime(fd, ns=(1, 1))

    class Quick(Cache):
        """Give out such places."""

        def place(self, key: str, checksum: Checksum | None) -> CachePlace:
            return Meddled(self, key, checksum)

    async def fill(spool: Spool, _ticket: Ticket) -> OpenFile:
        spool.write(DATA)
        return spool.finish()

    cache = Quick(tmp_path / "cache", max_bytes=None, min_free_bytes=0)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            files = OpenFiles(16, 1 << 20)
            store = ObjectStore(cache, Flights(nursery), files, ())
            file = await store.open(KEY, len(DATA), CHECKSUM, fill)
            assert os.pread(file.fd, 100, 0) == DATA
            file.unpin()
        files.close()
    assert spoilt == [5]
    assert cache.path(KEY).read_bytes() == DATA
    cache.close()
