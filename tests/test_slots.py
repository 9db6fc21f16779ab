"""Slots: the most urgent goes first, some slots stay free for readers who wait, and none is ever lost."""

from collections import Counter
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.parts.slots import Slots, Ticket, Urgency

FOREGROUND, READAHEAD, EXPECTED, BACKGROUND = Urgency


class House:
    """Slots, and who held one in which order."""

    def __init__(self, nursery: trio.Nursery, total: int, spare: int = 0) -> None:
        self.slots = Slots(total, spare)
        self.nursery = nursery
        self.order: list[str] = []
        self.leave: dict[str, trio.Event] = {}
        self.tickets: dict[str, Ticket] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    async def enter(self, *names: str, urgency: Urgency = FOREGROUND) -> None:
        """Let each ask for a slot, one after the other, and see what comes of it."""
        for name in names:
            self.tickets[name], self.leave[name] = Ticket(urgency), trio.Event()
            self.scopes[name] = trio.CancelScope()
            self.nursery.start_soon(self._hold, name)
            await trio.testing.wait_all_tasks_blocked()

    async def _hold(self, name: str) -> None:
        with self.scopes[name]:
            async with self.slots.hold(self.tickets[name]):
                self.order.append(name)
                await self.leave[name].wait()

    async def go(self, *names: str) -> None:
        """Let each give its slot back."""
        for name in names:
            self.leave[name].set()
            await trio.testing.wait_all_tasks_blocked()

    async def cancel(self, name: str) -> None:
        """Cancel one, whether it waits or holds."""
        self.scopes[name].cancel()
        await trio.testing.wait_all_tasks_blocked()

    def end(self) -> None:
        """Let everybody go."""
        self.nursery.cancel_scope.cancel()


async def test_first_come_first_served() -> None:
    """Among equals the oldest goes first, and no more than there are slots."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 2)
        await house.enter(*"abcd")
        assert house.order == ["a", "b"]
        await house.go("b")
        assert house.order == ["a", "b", "c"]
        await house.go("a")
        assert house.order == ["a", "b", "c", "d"]
        house.end()


async def test_urgent_first() -> None:
    """A slot that becomes free goes to the most urgent, however late it came."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 1)
        await house.enter("holder")
        await house.enter("background", urgency=BACKGROUND)
        await house.enter("readahead", urgency=READAHEAD)
        await house.enter("foreground")
        await house.go("holder", "foreground", "readahead", "background")
        assert house.order == ["holder", "foreground", "readahead", "background"]


@pytest.mark.parametrize(
    ("urgency", "taken"), [(READAHEAD, "abcdefg"), (EXPECTED, "abcdef"), (BACKGROUND, "abcd")]
)
async def test_spare_slots(urgency: Urgency, taken: str) -> None:
    """Work that nobody waits for leaves the spare slots to readers."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 8, 2)
        await house.enter(*taken, "late", urgency=urgency)
        assert house.order == [*taken]
        await house.enter("reader")
        assert house.order == [*taken, "reader"]
        await house.go("reader")
        assert "late" not in house.order
        await house.go("a")
        assert "late" in house.order
        house.end()


async def test_the_background_leaves_some_to_what_is_read_ahead() -> None:
    """However long its transfers take, what a reader will want soon need not wait for their end."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 8, 2)
        await house.enter(*"abcdef", urgency=BACKGROUND)
        assert house.order == [*"abcd"]
        await house.enter("ahead-1", "ahead-2", "ahead-3", "ahead-4", urgency=READAHEAD)
        await house.enter("reader-1")
        assert house.order == [*"abcd", "ahead-1", "ahead-2", "ahead-3", "reader-1"]
        house.end()


async def test_wait_hurried() -> None:
    """A ticket tells in which moment it is wanted more urgently than at first, and not before."""
    ticket = Ticket(BACKGROUND)
    ended: list[Urgency] = []

    async def wait() -> None:
        await ticket.wait_hurried()
        ended.append(ticket.urgency)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        ticket.hurry(BACKGROUND)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        ticket.hurry(READAHEAD)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [READAHEAD]
        ticket.hurry(FOREGROUND)
    with trio.fail_after(1):
        await wait()  # it was hurried before
    assert ended == [READAHEAD, FOREGROUND]


@pytest.mark.parametrize(("total", "spare"), [(1, 0), (1, 1), (2, 1), (2, 5)])
async def test_few_slots(total: int, spare: int) -> None:
    """However few slots there are, work that nobody waits for gets one."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, total, spare)
        await house.enter("a", urgency=BACKGROUND)
        assert house.order == ["a"]
        house.end()


@pytest.mark.parametrize("total", [1, 2, 3])
async def test_a_reader_never_waits_for_what_waits_for_him(total: int) -> None:
    """The background is held back for readers: where it had all slots, both waited for each other."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, total)
        await house.enter(*"abc", urgency=Urgency.BACKGROUND)
        assert house.order == list("abc")[: max(1, total - 1)]
        await house.enter("reader")
        assert house.order[-1] == "reader"
        await house.enter("next")
        assert house.order[-1] == "reader", "no more than one beyond the limit"
        house.end()


async def test_hurry_overtakes() -> None:
    """A ticket whose urgency rises goes before older ones; it never falls."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 1)
        await house.enter("holder")
        await house.enter("old", "late", urgency=BACKGROUND)
        house.tickets["late"].hurry(FOREGROUND)
        house.tickets["late"].hurry(BACKGROUND)
        assert house.tickets["late"].urgency is FOREGROUND
        await house.go("holder")
        assert house.order == ["holder", "late"]
        house.end()


async def test_hurry_into_a_spare_slot() -> None:
    """A ticket that becomes a reader's gets the free slot at once that was spared for readers."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 2, 1)
        await house.enter("a", "b", urgency=READAHEAD)
        assert house.order == ["a"]
        house.tickets["b"].hurry(FOREGROUND)
        await trio.testing.wait_all_tasks_blocked()
        assert house.order == ["a", "b"]
        house.end()


async def test_hurry_while_holding() -> None:
    """A ticket may become more urgent while it holds its slot, and use it again afterwards."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 1)
        await house.enter("a", urgency=BACKGROUND)
        house.tickets["a"].hurry(FOREGROUND)
        await house.go("a")
        with trio.fail_after(1):
            async with house.slots.hold(house.tickets["a"]), trio.open_nursery():
                pass


async def test_cancelled_waiter() -> None:
    """A waiter that is cancelled is passed over."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 1)
        await house.enter(*"abc")
        await house.cancel("b")
        await house.go("a")
        assert house.order == ["a", "c"]
        house.end()


async def test_cancelled_holder() -> None:
    """A holder that is cancelled gives its slot back."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 1)
        await house.enter(*"ab")
        await house.cancel("a")
        assert house.order == ["a", "b"]
        house.end()


async def test_cancelled_when_granted() -> None:
    """A slot granted to somebody who was cancelled in the same moment goes to the next one."""
    async with trio.open_nursery() as nursery:
        house = House(nursery, 1)
        await house.enter(*"abc")
        house.leave["a"].set()
        house.scopes["b"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert house.order[-1] == "c"
        house.end()


@dataclass(frozen=True)
class Job:
    """One transfer of the property test, times in milliseconds."""

    start: int
    length: int
    urgency: Urgency
    hurry: tuple[int, Urgency]
    cancel: int | None


_times = st.integers(0, 30)
_jobs = st.builds(
    Job,
    start=_times,
    length=st.integers(0, 8),
    urgency=st.sampled_from(Urgency),
    hurry=st.tuples(_times, st.sampled_from(Urgency)),
    cancel=st.none() | _times,
)


@settings(max_examples=200, deadline=None)
@given(jobs=st.lists(_jobs, max_size=25), total=st.integers(1, 5), spare=st.integers(0, 5))
def test_no_slot_is_lost(jobs: list[Job], total: int, spare: int) -> None:
    """Whoever comes, hurries or is cancelled when: the limits hold, all are served, all slots come back."""
    served: Counter[int] = Counter()
    holding: Counter[bool] = Counter()

    async def work(slots: Slots, number: int, job: Job, nursery: trio.Nursery) -> None:
        ticket, scope = Ticket(job.urgency), trio.CancelScope()

        async def later(at: int, what: str) -> None:
            await trio.sleep(at / 1000)
            ticket.hurry(job.hurry[1]) if what == "hurry" else scope.cancel()

        nursery.start_soon(later, job.hurry[0], "hurry")
        if job.cancel is not None:
            nursery.start_soon(later, job.cancel, "cancel")
        await trio.sleep(job.start / 1000)
        with scope:
            async with slots.hold(ticket):
                served[number] += 1
                lazy = ticket.urgency is not Urgency.FOREGROUND
                holding[lazy] += 1
                assert holding.total() <= total + 1, "a reader's own, where all are held back for him"
                if lazy:
                    assert holding[True] <= max(1, total - (spare + 1) // 2)
                try:
                    await trio.sleep(job.length / 1000)
                finally:
                    holding[lazy] -= 1

    async def main() -> None:
        slots = Slots(total, spare)
        with trio.fail_after(3600):
            async with trio.open_nursery() as nursery:
                for number, job in enumerate(jobs):
                    nursery.start_soon(work, slots, number, job, nursery)
            async with trio.open_nursery() as nursery:
                house = House(nursery, 1)
                house.slots = slots
                await house.enter(*(str(number) for number in range(total)))
                assert len(house.order) == total, "all slots are back"
                house.end()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    for number, job in enumerate(jobs):
        if job.cancel is None:
            assert served[number] == 1
