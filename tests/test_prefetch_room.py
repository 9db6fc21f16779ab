"""Fetching ahead into a cache that is nearly full: nothing makes way for it, and its quota holds."""

import contextlib
import multiprocessing
import shutil
import sqlite3
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import trio
import trio.testing

from jigdofs.errors import CacheError
from jigdofs.parts.cache import Cache
from jigdofs.prefetch.fill import FillAccount
from tests.kit.faults import Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.fill_house import CONTENT, PATHS, SIZE, house


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server(faulty_server: FaultyServer) -> FaultyServer:
    faulty_server.files = CONTENT
    return faulty_server


@pytest.mark.parametrize("width", [1, 8])
async def test_nothing_makes_way(server: FaultyServer, tmp_path: Path, width: int) -> None:
    """A full cache ends it, with many workers, too: what was there stays, and the quota holds."""
    async with house(server, tmp_path, quota=12 * SIZE, width=width) as home:
        for path in PATHS[:6]:
            await home.read(path)
        account = await home.fill(PATHS[6:])
        assert home.here()[:6] == PATHS[:6]
        assert len(home.here()) <= 12
        assert account.parts_here == len(home.here()) - 6 >= 4, "room is used, but for a grant of the quota"
        assert "the cache is full" in account.ended_early
        assert account.parts_failed == 0
        assert len(server.paths()) == len(home.here()), "nothing is fetched that cannot be kept"
        before = home.here()
        assert (await home.fill(PATHS)).parts_here == len(before)
        assert home.here() == before
        for path in PATHS[30:]:  # a reader has room made
            assert await home.read(path) == CONTENT[path]
        assert PATHS[-1] in home.here()


async def test_two_at_a_time_do_not_evict(server: FaultyServer, tmp_path: Path) -> None:
    """Room for one part is given to one of many workers only."""
    async with house(server, tmp_path, quota=20 * SIZE, width=8) as home:
        for path in PATHS[:19]:
            await home.read(path)
        kept = home.here()
        await home.fill(PATHS[19:])
        assert home.here()[: len(kept)] == kept
        assert len(kept) <= len(home.here()) <= 20


async def test_a_part_larger_than_the_cache(server: FaultyServer, tmp_path: Path) -> None:
    """What can never be kept is not fetched."""
    async with house(server, tmp_path, quota=SIZE - 1) as home:
        account = await home.fill(PATHS[:3])
        assert account.parts_here == 0
        assert "more than the whole cache" in account.ended_early
        assert server.paths() == []


async def test_a_reader_comes_when_there_is_no_room(server: FaultyServer, tmp_path: Path) -> None:
    """A reader who wants a part while the background finds out that there is no room for it gets it."""
    async with house(server, tmp_path, quota=4 * SIZE, width=1) as home:
        for path in PATHS[:4]:
            await home.read(path)
        account = FillAccount()
        async with trio.open_nursery() as nursery:
            with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "index" / "cache.db")) as database:
                database.isolation_level = None
                database.execute("BEGIN IMMEDIATE")  # the accounts cannot be asked
                nursery.start_soon(home.fill, PATHS[4:5], account)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert len(home.flights) == 1
                nursery.start_soon(home.read, PATHS[4])
                await trio.testing.wait_all_tasks_blocked(0.05)
                database.execute("ROLLBACK")
        assert (account.parts_here, account.ended_early) == (1, "")
        assert PATHS[4] in home.here()
        assert server.count(PATHS[4]) == 1


async def test_a_cache_that_cannot_be_written(server: FaultyServer, tmp_path: Path) -> None:
    """What cannot be kept is not fetched into other places for nobody; a reader's is."""
    async with house(server, tmp_path, width=1) as home:
        shutil.rmtree(tmp_path / "cache" / "incoming")
        account = await home.fill(PATHS[:5])
        assert (account.parts_here, account.parts_failed) == (0, 0)
        assert "nobody waits" in account.ended_early
        assert server.paths() == PATHS[:1]
        assert await home.read(PATHS[1]) == CONTENT[PATHS[1]]


async def test_room_is_given_back(server: FaultyServer, tmp_path: Path) -> None:
    """Whatever became of a part that was to be fetched, no room stays reserved for it."""
    server.always("*", Status(404))
    async with house(server, tmp_path, quota=16 * SIZE, width=1) as home:
        for _ in range(2):
            await home.fill(PATHS[:15])
        server.behave()
        account = await home.fill(PATHS[:15])
        assert (account.parts_here, account.ended_early) == (15, "")


SPAWN = multiprocessing.get_context("spawn")


def reserve_and_wait(connection: Connection, directory: Path, length: int) -> None:
    """Have room reserved until told to end."""
    cache = Cache(directory, max_bytes=16 * SIZE, min_free_bytes=0)
    cache.reserve(length, evict=False)
    connection.send("ready")
    connection.recv()
    cache.release(length)
    cache.close()


def test_room_that_another_process_has(tmp_path: Path) -> None:
    """What another process may still write is no room; once it ended, in whatever way, it is."""
    directory = tmp_path / "cache"
    cache = Cache(directory, max_bytes=16 * SIZE, min_free_bytes=0)
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=reserve_and_wait, args=(theirs, directory, 10 * SIZE))
    process.start()
    try:
        assert ours.poll(30)
        assert ours.recv() == "ready"
        with pytest.raises(CacheError):
            cache.reserve(7 * SIZE, evict=False)
        cache.reserve(6 * SIZE, evict=False)
        with pytest.raises(CacheError):
            cache.reserve(1, evict=False)
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
        theirs.close()
    cache.reserve(10 * SIZE, evict=False)
    cache.release(16 * SIZE)
    cache.reserve(16 * SIZE, evict=False)
    with pytest.raises(CacheError):
        cache.reserve(1, evict=False)
    cache.close()


def test_two_sessions_share_the_room(tmp_path: Path) -> None:
    """Two sessions together never get more than there is, whoever asks first, and nothing is lost."""
    one, two = (Cache(tmp_path / "cache", max_bytes=16 * SIZE, min_free_bytes=0) for _ in range(2))
    given = 0
    for cache in (one, two) * 20:
        try:
            cache.reserve(SIZE, evict=False)
        except CacheError:
            continue
        given += 1
    assert 15 <= given <= 16
    one.close()
    two.reserve(SIZE, evict=False)
    two.close()
