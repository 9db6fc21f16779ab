"""Fetching ahead with real cache, flights and transfers: below every reader."""

import random
from collections import Counter
from pathlib import Path

import pytest
import trio
import trio.testing

from jigdofs.errors import UsageError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.prefetch.fill import FAILURES_IN_A_ROW, FillAccount, Prefetcher, Wanted
from tests.kit.faults import Stall, Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.fill_house import CONTENT, KIB, PARTS, PATHS, SIZE, house
from tests.kit.scenes import wait_until


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server(faulty_server: FaultyServer) -> FaultyServer:
    faulty_server.files = CONTENT
    return faulty_server


async def test_everything(server: FaultyServer, tmp_path: Path) -> None:
    """All parts come into the cache, each fetched once however often it is named; the account is right."""
    async with house(server, tmp_path) as home:
        account = await home.fill([*PATHS, *PATHS[:5]])
        assert account == FillAccount(len(PATHS), len(PATHS) * SIZE, len(PATHS), len(PATHS) * SIZE)
        assert home.here() == PATHS
        assert Counter(server.paths()) == Counter(PATHS)
        assert await home.read(PATHS[7]) == CONTENT[PATHS[7]]
        assert Counter(server.paths()) == Counter(PATHS)


async def test_the_order(server: FaultyServer, tmp_path: Path) -> None:
    """Parts are fetched in the order in which they are wanted."""
    async with house(server, tmp_path, width=1) as home:
        await home.fill(PATHS[15::-1])
        assert server.paths() == PATHS[15::-1]


async def test_a_list_goes_first_and_alongside_of_readers(server: FaultyServer, tmp_path: Path) -> None:
    """While a reader waits, what a list expects is fetched, and what nobody expects is not."""
    server.always(PATHS[0], Stall())
    async with house(server, tmp_path) as home, trio.open_nursery() as nursery:
        nursery.start_soon(home.read, PATHS[0])
        await home.until(lambda server: server.count(PATHS[0]))
        account = FillAccount()
        # what the list has is wanted by others, too, and stays expected
        wanted = [Wanted(home.store, PARTS[path], expected=True) for path in PATHS[20:30]]
        wanted += [Wanted(home.store, PARTS[path]) for path in (*PATHS[1:10], *PATHS[20:30])]
        nursery.start_soon(home.prefetcher.fill, wanted, account)
        await home.until(lambda server: set(server.paths()) >= set(PATHS[20:30]))
        await trio.testing.wait_all_tasks_blocked()
        assert set(server.paths()) == {PATHS[0], *PATHS[20:30]}
        server.release()
    assert account.parts_here == account.parts == 19


async def test_what_is_here_is_not_fetched(server: FaultyServer, tmp_path: Path) -> None:
    """Parts in the cache count as had, and nobody is asked for them."""
    async with house(server, tmp_path) as home:
        await home.fill(PATHS[:30])
        server.forget_requests()
        account = await home.fill(PATHS)
        assert sorted(server.paths()) == PATHS[30:]
        assert (account.parts_here, account.parts) == (len(PATHS), len(PATHS))
        assert (await home.fill(PATHS)).parts_here == len(PATHS)
        assert sorted(server.paths()) == PATHS[30:]


async def test_no_cache(server: FaultyServer, tmp_path: Path) -> None:
    """Without a cache there is nowhere to keep parts."""
    async with house(server, tmp_path) as home:
        with pytest.raises(UsageError, match="no cache"):
            await Prefetcher(home.flights, None, 1).fill([Wanted(home.store, PARTS[PATHS[0]])], FillAccount())


# -- below readers -----------------------------------------------------------------------------------


async def test_nothing_begins_while_a_reader_waits(server: FaultyServer, tmp_path: Path) -> None:
    """While a reader's transfer is stuck no other is begun; all are when it is served."""
    server.always(PATHS[0], Stall(100))
    async with house(server, tmp_path) as home, trio.open_nursery() as nursery:
        nursery.start_soon(home.read, PATHS[0])
        await trio.to_thread.run_sync(server.wait_stalled)
        nursery.start_soon(home.fill, PATHS[1:])
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked(0.02)
        assert server.paths() == PATHS[:1]
        server.release()
        await home.until(lambda server: len(server.paths()) == len(PATHS))
    assert Counter(server.paths()) == Counter(PATHS)


async def test_a_worker_that_waits_holds_no_part_back(server: FaultyServer, tmp_path: Path) -> None:
    """What comes first is fetched first after a pause, too."""
    server.always(PATHS[-1], Stall(100))
    async with house(server, tmp_path) as home, trio.open_nursery() as nursery:
        nursery.start_soon(home.read, PATHS[-1])
        await trio.to_thread.run_sync(server.wait_stalled)
        for _ in range(3):  # workers of several requests wait for quiet
            nursery.start_soon(home.fill, PATHS[:8])
        await trio.testing.wait_all_tasks_blocked(0.02)
        server.release()
        await home.until(lambda server: len(server.paths()) == 9)
    assert Counter(server.paths()) == Counter([*PATHS[:8], PATHS[-1]])


async def test_a_reader_joins(server: FaultyServer, tmp_path: Path) -> None:
    """Who reads a part that the background fetches gets it as it comes, limit or no limit, and once."""
    path = "/slow"
    data = random.Random(99).randbytes(3 << 20)
    CONTENT[path], PARTS[path] = data, Part(Checksum.of(Algorithm.MD5, data), len(data))
    try:
        server.script(path, Stall(KIB))
        async with house(server, tmp_path, bytes_per_s=1) as home, trio.open_nursery() as nursery:
            nursery.start_soon(home.fill, [path])
            await trio.to_thread.run_sync(server.wait_stalled)
            server.release()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not home.here()
            with trio.fail_after(20):  # 3 MiB at a byte a second would take a month
                assert await home.read(path) == data
            assert server.count(path) == 1
            nursery.cancel_scope.cancel()
    finally:
        del CONTENT[path], PARTS[path]


async def test_readers_are_served_while_all_transfers_hang(server: FaultyServer, tmp_path: Path) -> None:
    """However many transfers of the background are stuck, there are connections left for readers."""
    server.always("/[012]*", Stall(100))
    async with house(server, tmp_path, width=8) as home, trio.open_nursery() as nursery:
        nursery.start_soon(home.fill, PATHS[:30])
        await trio.to_thread.run_sync(server.wait_stalled, 4)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(server.paths()) == 4, "the background leaves half of the connections"
        for path in PATHS[30:]:
            assert await home.read(path) == CONTENT[path]
        nursery.cancel_scope.cancel()


# -- failures and the end ----------------------------------------------------------------------------


async def test_single_failures(server: FaultyServer, tmp_path: Path) -> None:
    """A part that cannot be had is counted, and the others are fetched."""
    tried = PATHS[: 2 * FAILURES_IN_A_ROW + 2]
    missing = tried[::2]
    for path in missing:
        server.always(path, Status(404))
    async with house(server, tmp_path, width=1) as home:
        account = await home.fill(tried)
        assert (account.parts_here, account.parts_failed, account.ended_early) == (17, 17, "")
        assert home.here() == tried[1::2]


@pytest.mark.parametrize("width", [1, 4])
async def test_failures_in_a_row(server: FaultyServer, tmp_path: Path, width: int) -> None:
    """When nothing can be had any more, it ends after sixteen parts, and says why."""
    server.always("*", Status(404))
    async with house(server, tmp_path, width=width) as home:
        account = await home.fill(PATHS)
        assert FAILURES_IN_A_ROW <= account.parts_failed < FAILURES_IN_A_ROW + width
        assert "16 parts in a row" in account.ended_early
        assert "404" in account.last_failure
        assert not account.full
        assert len(server.paths()) == account.parts_failed


async def test_one_less_than_too_many_in_a_row(server: FaultyServer, tmp_path: Path) -> None:
    """A part that comes begins the count anew."""
    for path in (*PATHS[:15], *PATHS[16:31]):
        server.always(path, Status(404))
    async with house(server, tmp_path, width=1) as home:
        account = await home.fill(PATHS[:32])
        assert (account.parts_here, account.parts_failed, account.ended_early) == (2, 30, "")


async def test_stop(server: FaultyServer, tmp_path: Path) -> None:
    """At the end of the daemon it ends at once; what was given up then is no failure of a mirror."""
    server.always("*", Stall(100))
    account = FillAccount()
    async with house(server, tmp_path) as home:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(home.fill, PATHS, account)
            await trio.to_thread.run_sync(server.wait_stalled, 4)
            home.flights.stop()
        assert len(server.paths()) == 4
        assert (account.parts_here, account.parts_failed, account.ended_early) == (0, 0, "")
        assert (await home.fill(PATHS)).parts_here == 0
        assert len(server.paths()) == 4


async def test_stop_while_a_reader_waits(server: FaultyServer, tmp_path: Path) -> None:
    """Workers that wait for quiet end, too."""
    server.always("*", Stall(100))
    async with house(server, tmp_path) as home:
        home.store.hint(PARTS[PATHS[0]])
        await trio.to_thread.run_sync(server.wait_stalled)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(home.fill, PATHS)
            await trio.testing.wait_all_tasks_blocked(0.02)
            home.flights.stop()
        assert server.paths() == PATHS[:1]


async def test_given_up(server: FaultyServer, tmp_path: Path) -> None:
    """Who asked and goes away ends it; what is on its way arrives and stays."""
    server.always("*", Stall(100))
    async with house(server, tmp_path) as home:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(home.fill, PATHS)
            await trio.to_thread.run_sync(server.wait_stalled, 4)
            nursery.cancel_scope.cancel()
        server.behave()
        server.release()
        await trio.to_thread.run_sync(wait_until, lambda: len(home.here()) == 4, "four parts in the cache")
        assert len(home.flights) <= 4
        assert sorted(server.paths()) == PATHS[:4]
