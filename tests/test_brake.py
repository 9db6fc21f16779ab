"""Brake: readers are never held back, the background is while they wait, and it keeps to its limit."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.parts.brake import BURST_S, PAUSE_S, Brake
from jigdofs.parts.flights import Flights
from jigdofs.parts.open_file import Fingerprint, OpenFile
from jigdofs.parts.slots import Ticket, Urgency

FOREGROUND, READAHEAD, EXPECTED, BACKGROUND = Urgency
KIB = 1 << 10
RATE = 100 * KIB


class Street:
    """Flights that a test begins and ends, and their brake."""

    def __init__(self, nursery: trio.Nursery, bytes_per_s: int | None = None) -> None:
        self.flights = Flights(nursery)
        self.brake = Brake(self.flights, trio.current_time, bytes_per_s)
        self.landed: dict[str, trio.Event] = {}
        self.tickets: dict[str, Ticket] = {}

    def begin(self, key: str, urgency: Urgency) -> None:
        """Have something on its way, or wanted by one more."""
        landed = self.landed.setdefault(key, trio.Event())

        async def obtain(ticket: Ticket) -> OpenFile:
            self.tickets[key] = ticket
            await landed.wait()
            fd = os.memfd_create("brake")
            file = OpenFile(fd, Fingerprint.of(fd))
            file.discard()
            return file

        self.flights.join(key, urgency, obtain)


@asynccontextmanager
async def street(bytes_per_s: int | None = None) -> AsyncIterator[Street]:
    async with trio.open_nursery() as nursery:
        yield Street(nursery, bytes_per_s)
        nursery.cancel_scope.cancel()


async def held(brake: Brake, ticket: Ticket, count: int) -> float:
    """Return for how long a transfer is held back that brought so many bytes."""
    began = trio.current_time()
    await brake(ticket, count)
    return trio.current_time() - began


@pytest.mark.parametrize("urgency", [FOREGROUND, READAHEAD])
async def test_readers_are_never_held_back(autojump_clock: trio.testing.MockClock, urgency: Urgency) -> None:
    """Neither a limit nor other readers slow down what a reader waits for; it takes nothing of the limit."""
    async with street(RATE) as place:
        place.begin("other", FOREGROUND)
        ticket = Ticket(urgency)
        assert [await held(place.brake, ticket, 100 * RATE) for _ in range(3)] == [0, 0, 0]
        place.landed["other"].set()
        await trio.testing.wait_all_tasks_blocked()
        assert await held(place.brake, Ticket(BACKGROUND), RATE) == 1


async def test_a_background_transfer_runs_while_nobody_waits(autojump_clock: trio.testing.MockClock) -> None:
    """With no limit and no reader nothing is held back, however much else the background fetches."""
    async with street() as place:
        place.begin("another", BACKGROUND)
        ticket = Ticket(BACKGROUND)
        assert [await held(place.brake, ticket, 1 << 30) for _ in range(3)] == [0, 0, 0]


async def test_what_a_list_expects_does_not_stand_back(autojump_clock: trio.testing.MockClock) -> None:
    """While a reader waits, what a list says goes on; the limit holds for it, too."""
    async with street() as place:
        place.begin("wanted", FOREGROUND)
        ticket = Ticket(EXPECTED)
        assert [await held(place.brake, ticket, 512 * KIB) for _ in range(3)] == [0, 0, 0]
    async with street(RATE) as place:
        ticket = Ticket(EXPECTED)
        assert sum([await held(place.brake, ticket, RATE) for _ in range(4)]) == pytest.approx(4, abs=0.3)


@pytest.mark.parametrize("urgency", [FOREGROUND, READAHEAD])
async def test_a_piece_now_and_then_while_a_reader_waits(
    autojump_clock: trio.testing.MockClock, urgency: Urgency
) -> None:
    """While a reader waits, each piece is held back, but never so long that a server drops the connection."""
    async with street() as place:
        place.begin("wanted", urgency)
        ticket = Ticket(BACKGROUND)
        assert [await held(place.brake, ticket, 512 * KIB) for _ in range(4)] == [PAUSE_S] * 4
    assert PAUSE_S <= 20


async def test_let_go_when_readers_have_what_they_want(autojump_clock: trio.testing.MockClock) -> None:
    """A transfer that is held back goes on in the moment in which the last reader is served."""
    async with street() as place:
        place.begin("one", FOREGROUND)
        place.begin("two", READAHEAD)
        async with trio.open_nursery() as nursery:
            took: list[float] = []

            async def transfer() -> None:
                took.append(await held(place.brake, Ticket(BACKGROUND), 1))

            nursery.start_soon(transfer)
            await trio.sleep(0.25)
            place.landed["one"].set()
            await trio.sleep(0.25)
            assert took == []
            place.landed["two"].set()
        assert took == [0.5]


@pytest.mark.parametrize("bytes_per_s", [None, RATE])
async def test_let_go_when_its_own_part_becomes_wanted(
    autojump_clock: trio.testing.MockClock, bytes_per_s: int | None
) -> None:
    """A reader who joins a held transfer has it go on at once, whether a reader or the limit held it."""
    async with street(bytes_per_s) as place:
        if bytes_per_s is None:
            place.begin("other", FOREGROUND)
        place.begin("mine", BACKGROUND)
        await trio.testing.wait_all_tasks_blocked()
        ticket = place.tickets["mine"]
        async with trio.open_nursery() as nursery:
            took: list[float] = []

            async def transfer() -> None:
                took.extend([await held(place.brake, ticket, 50 * RATE) for _ in range(3)])

            nursery.start_soon(transfer)
            await trio.sleep(0.5)
            assert took == []
            place.begin("mine", FOREGROUND)
        assert took == [0.5, 0, 0]


async def test_let_go_at_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """When the daemon is being stopped nothing is held back for readers."""
    async with street() as place:
        place.begin("other", FOREGROUND)
        place.flights.stop()
        assert await held(place.brake, Ticket(BACKGROUND), 1) == 0


async def test_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    """What comes beyond the limit is held back for exactly the time that it may take."""
    async with street(RATE) as place:
        ticket = Ticket(BACKGROUND)
        took = [await held(place.brake, ticket, count) for count in (RATE, RATE // 2, 3 * RATE)]
        assert took == pytest.approx([1, 0.5, 3], abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    transfers=st.lists(st.lists(st.integers(1, 512 * KIB), min_size=1, max_size=8), min_size=1, max_size=6),
    rate=st.integers(64 * KIB, 4 << 20),
)
def test_the_limit_over_time(transfers: list[list[int]], rate: int) -> None:
    """All transfers together take as long as the limit says, to the byte, however their pieces fall."""

    async def main() -> None:
        async with street(rate) as place:
            await keep_to_limit(place.brake)

    async def keep_to_limit(brake: Brake) -> None:
        async def transfer(pieces: list[int]) -> None:
            for piece in pieces:
                await brake(Ticket(BACKGROUND), piece)

        began = trio.current_time()
        async with trio.open_nursery() as inner:
            for pieces in transfers:
                inner.start_soon(transfer, pieces)
        passed = trio.current_time() - began
        total = sum(map(sum, transfers))
        assert total - 2 <= passed * rate <= total + 2

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_silence_is_not_saved_up(autojump_clock: trio.testing.MockClock) -> None:
    """After an hour of nothing, what may come at once is a quarter of a second's worth."""
    async with street(RATE) as place:
        await trio.sleep(3600)
        took = await held(place.brake, Ticket(BACKGROUND), RATE)
        assert took == pytest.approx(1 - BURST_S, abs=1e-3)


async def test_a_new_limit_holds_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Who is held back under a low limit goes on under the higher one, with what is left of its bytes."""
    async with street(RATE) as place:
        async with trio.open_nursery() as nursery:
            took: list[float] = []

            async def transfer() -> None:
                took.append(await held(place.brake, Ticket(BACKGROUND), 100 * RATE))

            nursery.start_soon(transfer)
            await trio.sleep(10)
            place.brake.bytes_per_s = 10 * RATE
        assert took == pytest.approx([10 + 9], abs=1e-3)
        place.brake.bytes_per_s = 2 * RATE
        assert await held(place.brake, Ticket(BACKGROUND), 2 * RATE) == pytest.approx(1, abs=1e-3)


async def test_no_limit_any_more(autojump_clock: trio.testing.MockClock) -> None:
    """Without a limit nobody is held back, nor is a debt remembered when there is one again."""
    async with street(RATE) as place:
        async with trio.open_nursery() as nursery:
            took: list[float] = []

            async def transfer() -> None:
                took.append(await held(place.brake, Ticket(BACKGROUND), 100 * RATE))

            nursery.start_soon(transfer)
            await trio.sleep(10)
            place.brake.bytes_per_s = None
        assert took == [10]
        assert await held(place.brake, Ticket(BACKGROUND), 100 * RATE) == 0
        place.brake.bytes_per_s = RATE
        assert await held(place.brake, Ticket(BACKGROUND), RATE) == pytest.approx(1, abs=1e-3)
