"""The object store: one flight for a file, however many want it, and none for what only has its name."""

import os

import pytest
import trio
import trio.testing

from jigdofs.errors import JigdofsError
from jigdofs.format.checksum import Algorithm, Checksum
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
