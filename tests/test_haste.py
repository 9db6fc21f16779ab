"""Haste: how long one location may take, so that any number that hangs leaves time for the one that works."""

import pytest

from jigdofs.config import FetchOptions, ReadOptions
from jigdofs.parts.haste import HESITATE_S, Haste, haste
from jigdofs.parts.locations import MAX_LOCATIONS

OPTIONS = FetchOptions()
SMALL = 200_000


@pytest.mark.parametrize("count", [2, 3, 9, 20, MAX_LOCATIONS])
def test_silence_is_bounded(count: int) -> None:
    """However many locations say nothing, the last one is reached in time."""
    spent_s = 0.0
    for others in range(count - 1, 0, -1):
        limits = haste(OPTIONS, SMALL, spent_s, number=0, others=others, left=count)
        assert limits.silence_s is not None
        spent_s += limits.silence_s
    assert spent_s <= ReadOptions().timeout_s / 2 + 10
    assert spent_s <= HESITATE_S * (count - 1)


@pytest.mark.parametrize("count", [2, 3, 9, 20, MAX_LOCATIONS])
def test_slowness_is_bounded(count: int) -> None:
    """Locations that use up all their patience have a minute together, and some seconds at its end."""
    spent_s = 0.0
    for others in range(count - 1, 0, -1):
        limits = haste(OPTIONS, SMALL, spent_s, number=0, others=others, left=count)
        assert limits.patience_s is not None
        assert limits.silence_s is not None
        assert limits.silence_s <= limits.patience_s
        spent_s += limits.patience_s
    assert spent_s <= OPTIONS.patience_s + 10


def test_large_parts_have_all_of_it() -> None:
    """A good mirror of a large part is not left for one that may be slower."""
    limits = haste(OPTIONS, 700 << 20, 0.0, number=0, others=1, left=2)
    assert limits.patience_s == OPTIONS.patience_s


def test_nobody_else() -> None:
    """Who is the only one left, or asked in the last round, has all the time that the options give."""
    last = OPTIONS.rounds - 1
    assert haste(OPTIONS, SMALL, 0.0, number=0, others=0, left=1) == Haste()
    assert haste(OPTIONS, SMALL, 0.0, number=last, others=3, left=4) == Haste()
    once = FetchOptions(rounds=1)
    assert haste(once, SMALL, 0.0, number=0, others=3, left=4) == Haste()


def test_the_last_of_a_round() -> None:
    """The last of the first round may be silent, but not slow without end: the others get another turn."""
    assert haste(OPTIONS, SMALL, 20.0, number=0, others=0, left=4) == Haste(None, OPTIONS.patience_s - 20)


def test_later_rounds_give_more() -> None:
    """Who was passed over may just need longer; but never longer than a stall."""
    first, second = (haste(OPTIONS, SMALL, 0.0, number=number, others=3, left=4) for number in (0, 1))
    assert first.silence_s == HESITATE_S
    assert second == Haste(2 * HESITATE_S)
    hasty = FetchOptions(stall_timeout_s=1.0)
    assert haste(hasty, SMALL, 0.0, number=1, others=3, left=4).silence_s == 1.0
