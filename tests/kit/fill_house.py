"""Have all that fetching ahead needs, without images and mounts: cache, flights, transfers."""

import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from jigdofs.config import FetchOptions
from jigdofs.fetch.http import HttpFetcher
from jigdofs.format import jigdo, jigdo_reader
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.brake import Brake
from jigdofs.parts.cache import Cache
from jigdofs.parts.flights import Flights
from jigdofs.parts.locations import Locator
from jigdofs.parts.mirrors import Mirrors
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.open_file import OpenFiles
from jigdofs.parts.spool import MemoryPlace, TemporaryPlace
from jigdofs.parts.store import PartStore, cache_key
from jigdofs.prefetch.fill import FillAccount, Prefetcher, Wanted
from tests.kit.faulty_server import FaultyServer

KIB = 1 << 10
SIZE = 16 * KIB
FAST = FetchOptions(connect_timeout_s=5, stall_timeout_s=20, rounds=1, backoff_s=0.001)
CONTENT = {f"/{number:02}": random.Random(number).randbytes(SIZE) for number in range(40)}
PARTS = {path: Part(Checksum.of(Algorithm.MD5, data), len(data)) for path, data in CONTENT.items()}
PATHS = list(CONTENT)


@dataclass
class House:
    """All that fetching ahead needs."""

    cache: Cache
    flights: Flights
    store: PartStore
    prefetcher: Prefetcher
    brake: Brake
    server: FaultyServer

    async def fill(self, paths: Sequence[str], account: FillAccount | None = None) -> FillAccount:
        """Fetch these ahead."""
        account = account or FillAccount()
        await self.prefetcher.fill([Wanted(self.store, PARTS[path]) for path in paths], account)
        return account

    async def read(self, path: str) -> bytes:
        """Read a part as a reader does."""
        file = await self.store.open(PARTS[path])
        try:
            return os.pread(file.fd, file.size, 0)
        finally:
            file.unpin()

    def here(self) -> list[str]:
        """Return what is in the cache."""
        found = self.cache.present(cache_key(part) for part in PARTS.values())
        return [path for path in PATHS if cache_key(PARTS[path]) in found]

    async def until(self, condition: Callable[[FaultyServer], object]) -> None:
        """Wait until the server has seen something."""
        await trio.to_thread.run_sync(self.server.wait_until, condition)


@asynccontextmanager
async def house(
    server: FaultyServer,
    directory: Path,
    *,
    quota: int | None = None,
    width: int = 4,
    options: FetchOptions = FAST,
    bytes_per_s: int | None = None,
) -> AsyncIterator[House]:
    text = "[Parts]\n" + "".join(f"{part.checksum.base64}=A:{path[1:]}\n" for path, part in PARTS.items())
    (description,) = jigdo_reader.parse(
        f"{text}[Servers]\nA={server.url('/')}\n".encode(), "http://x/x.jigdo"
    )
    assert isinstance(description, jigdo.JigdoFile)
    cache = Cache(directory / "cache", max_bytes=quota, min_free_bytes=0)
    open_files = OpenFiles(4, (quota or 1 << 30) // 4)
    fetcher = HttpFetcher(options)
    try:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                flights = Flights(nursery)
                objects = ObjectStore(cache, flights, open_files, (TemporaryPlace(), MemoryPlace(1 << 20)))
                brake = Brake(flights, trio.current_time, bytes_per_s)
                acquirer = Acquirer(fetcher, Mirrors(8, trio.current_time), options, brake)
                locator = Locator(description, {}, None)
                store = PartStore(objects, acquirer, locator, lambda *_, **__: None)
                yield House(cache, flights, store, Prefetcher(flights, cache, width), brake, server)
                nursery.cancel_scope.cancel()
    finally:
        await fetcher.close()
        open_files.close()
        cache.close()
