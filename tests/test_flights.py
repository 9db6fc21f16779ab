"""Flights: one per key however many wait; no waiter ends it, and no descriptor is lost."""

import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.errors import JigdofsError, NoRoom, Stopped
from jigdofs.parts.flights import Flight, Flights
from jigdofs.parts.open_file import Fingerprint, OpenFile
from jigdofs.parts.slots import Ticket, Urgency

FOREGROUND, READAHEAD, EXPECTED, BACKGROUND = Urgency


def new_file() -> OpenFile:
    fd = os.memfd_create("flight")
    os.write(fd, b"content")
    return OpenFile(fd, Fingerprint.of(fd))


def is_open(file: OpenFile) -> bool:
    return os.path.exists(f"/proc/self/fd/{file.fd}") and os.readlink(f"/proc/self/fd/{file.fd}").startswith(
        "/memfd:flight"
    )


class Source:
    """Obtain a file when told that it may; count how often it was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.tickets: list[Ticket] = []
        self.go = trio.Event()
        self.error = error
        self.files: list[OpenFile] = []

    async def obtain(self, ticket: Ticket) -> OpenFile:
        self.calls += 1
        self.tickets.append(ticket)
        await self.go.wait()
        if self.error:
            raise self.error
        self.files.append(new_file())
        return self.files[-1]


@asynccontextmanager
async def flying() -> AsyncIterator[Flights]:
    async with trio.open_nursery() as nursery:
        yield Flights(nursery)
        nursery.cancel_scope.cancel()


async def test_many_waiters_one_flight() -> None:
    """All who wait get the same file, pinned for each: the last one who lets go closes it."""
    source = Source()
    got: list[OpenFile] = []

    async def wait(flights: Flights) -> None:
        got.append(await flights.join("key", FOREGROUND, source.obtain).wait())

    async with flying() as flights:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(wait, flights)
            await trio.testing.wait_all_tasks_blocked()
            assert len(flights) == 1
            source.go.set()
        assert source.calls == 1
        assert got == source.files * 10
        assert len(flights) == 0
        file = got[0]
        file.discard()  # what the LRU of open files does at its end
        for _ in range(9):
            file.unpin()
            assert is_open(file)
        file.unpin()
        assert not is_open(file)


async def test_another_key_is_another_flight() -> None:
    """Different keys fly at the same time, and the same key again after landing."""
    source = Source()
    source.go.set()
    async with flying() as flights:
        for key in ("a", "b", "a"):
            file = await flights.join(key, FOREGROUND, source.obtain).wait()
            file.unpin()
        assert source.calls == 3
    for file in source.files:
        file.discard()


async def test_cancelled_waiter_ends_nothing() -> None:
    """A waiter that gives up leaves the flight to the others, even if it was the only one."""
    source = Source()
    async with flying() as flights:
        with trio.move_on_after(0.01) as scope:
            await flights.join("key", FOREGROUND, source.obtain).wait()
        assert scope.cancelled_caught
        assert len(flights) == 1
        async with trio.open_nursery() as nursery:
            flight = flights.join("key", FOREGROUND, source.obtain)
            nursery.start_soon(flight.wait)
            await trio.testing.wait_all_tasks_blocked()
            source.go.set()
        assert source.calls == 1
        file = source.files[0]
        file.discard()
        assert is_open(file), "the second waiter has it pinned"
        file.unpin()
        assert not is_open(file)


async def test_error_reaches_all() -> None:
    """All who wait get the error, and who asks later begins anew."""
    source = Source(NoRoom("full"))
    errors: list[JigdofsError] = []

    async def wait(flights: Flights) -> None:
        try:
            await flights.join("key", FOREGROUND, source.obtain).wait()
        except NoRoom as error:
            errors.append(error)

    async with flying() as flights:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait, flights)
            await trio.testing.wait_all_tasks_blocked()
            source.go.set()
        assert len(errors) == 3
        assert len(flights) == 0
        source.error = None
        file = await flights.join("key", FOREGROUND, source.obtain).wait()
        file.discard()
        file.unpin()


@pytest.mark.logs("internal error while obtaining key")
async def test_bug_fails_only_its_readers() -> None:
    """An exception that nobody foresaw is logged and reaches the readers as one of ours."""
    source = Source(ZeroDivisionError("bug"))
    source.go.set()
    async with flying() as flights:
        with pytest.raises(JigdofsError, match="internal error"):
            await flights.join("key", FOREGROUND, source.obtain).wait()
        source.error = None
        file = await flights.join("other", FOREGROUND, source.obtain).wait()
        file.discard()
        file.unpin()


async def test_stop() -> None:
    """At the end all who wait fail at once, and so do those who come later; nothing new begins."""
    source = Source()
    failed: list[str] = []

    async def wait(flights: Flights, key: str) -> None:
        with pytest.raises(JigdofsError, match="stopped"):
            await flights.join(key, FOREGROUND, source.obtain).wait()
        failed.append(key)

    async with flying() as flights:
        async with trio.open_nursery() as nursery:
            for key in ("a", "a", "b"):
                nursery.start_soon(wait, flights, key)
            await trio.testing.wait_all_tasks_blocked()
            flights.stop()
        await wait(flights, "a")
        await wait(flights, "c")
        assert len(failed) == 5
        assert source.calls == 2
        source.go.set()  # what lands now lands in nobody's hands
        await trio.testing.wait_all_tasks_blocked()
        for file in source.files:
            file.discard()
            assert not is_open(file)


async def test_hurry() -> None:
    """A flight that a reader joins becomes as urgent as he is, and never less."""
    source = Source()
    async with flying() as flights:
        flights.join("key", BACKGROUND, source.obtain)
        await trio.testing.wait_all_tasks_blocked()
        ticket = source.tickets[0]
        assert ticket.urgency is BACKGROUND
        flights.join("key", FOREGROUND, source.obtain)
        flights.join("key", READAHEAD, source.obtain)
        assert ticket.urgency is FOREGROUND


@settings(max_examples=100, deadline=None)
@given(
    waiters=st.lists(st.tuples(st.integers(0, 6), st.none() | st.integers(0, 6)), max_size=12),
    landing=st.integers(0, 6),
    fails=st.booleans(),
    stop=st.none() | st.integers(0, 6),
)
def test_pins_are_balanced(
    waiters: list[tuple[int, int | None]], landing: int, fails: bool, stop: int | None
) -> None:
    """Whoever joins and is cancelled when, even in the moment of landing: no descriptor stays open."""
    files: list[OpenFile] = []

    async def obtain(_ticket: Ticket) -> OpenFile:
        await trio.sleep(landing)
        if fails:
            raise JigdofsError("no")
        files.append(new_file())
        return files[-1]

    async def wait(flights: Flights, start: int, cancel: int | None) -> None:
        await trio.sleep(start)
        scope = trio.CancelScope(deadline=trio.current_time() + cancel if cancel is not None else 1e9)
        with scope:
            try:
                file = await flights.join("key", FOREGROUND, obtain).wait()
            except JigdofsError:
                return
            await trio.testing.wait_all_tasks_blocked()
            assert is_open(file)
            file.unpin()

    async def main() -> None:
        async with flying() as flights, trio.open_nursery() as nursery:
            for start, cancel in waiters:
                nursery.start_soon(wait, flights, start, cancel)
            if stop is not None:
                await trio.sleep(stop)
                flights.stop()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    for file in files:
        file.discard()
    assert [file for file in files if is_open(file)] == []


def is_quiet(flights: Flights) -> bool:
    return flights.quiet


async def told_quiet(flights: Flights, told: list[bool]) -> None:
    """Wait for quiet, and note whether it is quiet in that moment."""
    await flights.wait_quiet()
    told.append(is_quiet(flights))


@pytest.mark.parametrize("urgency", [FOREGROUND, READAHEAD])
@pytest.mark.parametrize("error", [None, NoRoom("full"), ZeroDivisionError("bug")], ids=repr)
async def test_quiet(urgency: Urgency, error: Exception | None, expected_log: Callable[[str], None]) -> None:
    """It is quiet again once the last thing that a reader wants has landed, failed, or failed by a bug."""
    expected_log("internal error") if isinstance(error, ZeroDivisionError) else None
    first, second = Source(error), Source(error)
    told: list[bool] = []
    async with flying() as flights, trio.open_nursery() as nursery:
        assert is_quiet(flights)
        await flights.wait_quiet()
        flights.join("first", urgency, first.obtain)
        flights.join("first", urgency, first.obtain)  # a second reader of the same file counts once
        flights.join("second", urgency, second.obtain)
        flights.join("background", BACKGROUND, Source().obtain)
        nursery.start_soon(told_quiet, flights, told)
        await trio.testing.wait_all_tasks_blocked()
        assert not is_quiet(flights)
        first.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not is_quiet(flights)
        assert told == []
        second.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert is_quiet(flights)
        assert told == [True]
    for file in (*first.files, *second.files):
        file.discard()


async def test_quiet_and_hurry() -> None:
    """What the background wants breaks the quiet from when a reader wants it, and once however many do."""
    source = Source()
    async with flying() as flights:
        flights.join("key", BACKGROUND, source.obtain)
        await trio.testing.wait_all_tasks_blocked()
        assert is_quiet(flights)
        flights.join("key", BACKGROUND, source.obtain)
        assert is_quiet(flights)
        for urgency in (READAHEAD, FOREGROUND, READAHEAD, BACKGROUND):
            flights.join("key", urgency, source.obtain)
            assert not is_quiet(flights)
        source.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert is_quiet(flights)
    for file in source.files:
        file.discard()


async def test_not_quiet_for_long_enough() -> None:
    """Who waits for quiet waits on if a reader comes before its turn: each is told in a quiet moment."""
    told: list[bool] = []
    sources = [Source() for _ in range(20)]
    async with flying() as flights, trio.open_nursery() as nursery:

        async def read(following: Source | None, flight: Flight) -> None:
            file = await flight.wait()
            file.unpin()
            if following is not None:
                following.go.set()
                flights.join(str(id(following)), FOREGROUND, following.obtain)

        before: Flight | None = None
        for source, following in itertools.zip_longest(sources, sources[1:]):
            before = flights.join(str(id(source)), FOREGROUND, source.obtain) if before is None else before
            nursery.start_soon(read, following, before)
            for _ in range(3):
                nursery.start_soon(told_quiet, flights, told)
            await trio.testing.wait_all_tasks_blocked()
            source.go.set()
            await trio.testing.wait_all_tasks_blocked()
            before = None
    assert told == [True] * 60
    for file in (file for source in sources for file in source.files):
        file.discard()


async def test_quiet_when_stopped() -> None:
    """At the end nobody waits for quiet any more, though a reader's flight has not landed yet."""
    source = Source()
    told: list[bool] = []
    async with flying() as flights, trio.open_nursery() as nursery:
        flights.join("key", FOREGROUND, source.obtain)
        nursery.start_soon(told_quiet, flights, told)
        await trio.testing.wait_all_tasks_blocked()
        assert told == []
        flights.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert len(told) == 1
        with pytest.raises(Stopped):
            await flights.join("key", BACKGROUND, source.obtain).wait()


@settings(max_examples=100, deadline=None)
@given(
    joins=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.sampled_from(Urgency)),
        min_size=1,
        max_size=15,
    ),
    landings=st.fixed_dictionaries({key: st.integers(0, 5) for key in "abc"}),
    fails=st.booleans(),
)
def test_quiet_is_counted_right(
    joins: list[tuple[int, str, Urgency]], landings: dict[str, int], fails: bool
) -> None:
    """Whoever joins what when and however it ends: it is quiet exactly if nothing urgent is on its way."""
    files: list[OpenFile] = []

    async def main() -> None:
        async with flying() as flights, trio.open_nursery() as nursery:
            under_way: dict[str, Ticket] = {}

            async def obtain(key: str, ticket: Ticket) -> OpenFile:
                under_way[key] = ticket
                await trio.sleep(landings[key])
                del under_way[key]
                if fails:
                    raise JigdofsError("no")
                files.append(new_file())
                return files[-1]

            async def join(start: int, key: str, urgency: Urgency) -> None:
                await trio.sleep(start + 0.5)
                flights.join(key, urgency, partial(obtain, key))

            for one in joins:
                nursery.start_soon(join, *one)
            for _ in range(12):
                await trio.sleep(1)
                await trio.testing.wait_all_tasks_blocked()
                urgent = [ticket for ticket in under_way.values() if ticket.urgency < EXPECTED]
                assert is_quiet(flights) == (not urgent)
            assert is_quiet(flights)
            assert not under_way

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    for file in files:
        file.discard()


async def test_it_is_quiet_only_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    """After a reader's part it stays busy for a moment, anew with each; the background's do not count."""
    async with trio.open_nursery() as nursery:
        flights = Flights(nursery, settle_s=1.0)

        async def at_once(_ticket: Ticket) -> OpenFile:
            return new_file()

        assert flights.quiet
        (await flights.join("background", BACKGROUND, at_once).wait()).discard()
        assert flights.quiet
        for key in ("one", "two"):
            (await flights.join(key, FOREGROUND, at_once).wait()).discard()
            await trio.sleep(0.75)
            assert not flights.quiet
        began = trio.current_time()
        await flights.wait_quiet()
        assert trio.current_time() - began == pytest.approx(0.25)
        assert flights.quiet
        nursery.cancel_scope.cancel()
