"""Mirrors: who is avoided, for how long, and who is asked first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.errors import MirrorTrouble
from jigdofs.parts.locations import Location
from jigdofs.parts.mirrors import AVOID_FIRST_S, AVOID_MAX_S, WRONG_BEFORE_AVOIDED, Mirrors

A, B, C = (f"http://{host}/" for host in "abc")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mirrors(clock: Clock) -> Mirrors:
    return Mirrors(8, clock)


def at(*names: str) -> list[Location]:
    return [Location(f"{name}x", name) for name in names]


def test_unknown_mirror_is_fine(mirrors: Mirrors) -> None:
    """Nobody is avoided before he failed."""
    assert not mirrors.avoided(A)
    assert mirrors.order(at(B, A, C)) == at(B, A, C)
    assert mirrors.asked_to_wait_s(at(A)) == mirrors.asked_to_wait_s([]) == 0


def test_failure_puts_last_for_a_while(mirrors: Mirrors, clock: Clock) -> None:
    """A mirror that failed comes last, in the same order among its like, until its time is over."""
    mirrors.failed(A, MirrorTrouble("u", "r"))
    mirrors.failed(B, MirrorTrouble("u", "r"))
    assert mirrors.order(at(A, B, C)) == at(C, A, B)
    clock.now += AVOID_FIRST_S
    assert mirrors.order(at(A, B, C)) == at(A, B, C)


def test_pauses_double_up_to_a_limit(mirrors: Mirrors, clock: Clock) -> None:
    """Each failure in a row doubles the time, up to the maximum; thousands of them do no harm."""
    expected = AVOID_FIRST_S
    for _ in range(3000):
        mirrors.failed(A, MirrorTrouble("u", "r"))
        clock.now += expected * 0.999
        assert mirrors.avoided(A)
        clock.now += expected * 0.002
        assert not mirrors.avoided(A)
        expected = min(expected * 2, AVOID_MAX_S)


def test_success_forgives(mirrors: Mirrors) -> None:
    """One good file ends the avoidance and begins the count anew."""
    for _ in range(5):
        mirrors.failed(A, MirrorTrouble("u", "r"))
    mirrors.succeeded(A, 10)
    mirrors.succeeded(A, 20)
    health = mirrors.health(A)
    assert (health.files, health.bytes, health.failures, health.wrong) == (2, 30, 0, 0)
    assert not mirrors.avoided(A)


def test_retry_after(mirrors: Mirrors, clock: Clock) -> None:
    """A server's own wish counts instead of our guess, but not beyond the maximum."""
    mirrors.failed(A, MirrorTrouble("u", "r", retry_after_s=60.0))
    mirrors.failed(B, MirrorTrouble("u", "r", retry_after_s=7.0))
    assert mirrors.asked_to_wait_s(at(A)) == 60
    assert mirrors.asked_to_wait_s(at(A, B)) == 7
    assert mirrors.asked_to_wait_s(at(A, B, C)) == 0, "C asked for nothing"
    clock.now += 59
    assert mirrors.avoided(A)
    assert not mirrors.avoided(B)
    mirrors.failed(C, MirrorTrouble("u", "r", retry_after_s=1e9))
    assert mirrors.asked_to_wait_s(at(C)) == AVOID_MAX_S


def test_short_wish_does_not_shorten(mirrors: Mirrors, clock: Clock) -> None:
    """A later, shorter wish does not end an avoidance that runs."""
    mirrors.failed(A, MirrorTrouble("u", "r", retry_after_s=60.0))
    mirrors.failed(A, MirrorTrouble("u", "r", retry_after_s=0.0))
    clock.now += 59
    assert mirrors.avoided(A)


def test_wrong_content(mirrors: Mirrors) -> None:
    """Wrong content is forgiven a few times."""
    for _ in range(WRONG_BEFORE_AVOIDED - 1):
        mirrors.blame(A)
    assert not mirrors.avoided(A)
    mirrors.blame(A)
    assert mirrors.avoided(A)
    assert mirrors.order(at(A, B)) == at(B, A)


def test_silent_ones_last(mirrors: Mirrors, clock: Clock) -> None:
    """Among the avoided, those come first whose failure took no time; a success makes a mirror like any."""
    mirrors.failed(A, MirrorTrouble("u", "r"), took_s=15.0)
    mirrors.failed(B, MirrorTrouble("u", "r"), took_s=0.1)
    assert mirrors.order(at(A, B, C)) == at(C, B, A)
    clock.now += 10 * 15.0 - 1
    assert mirrors.order(at(A, B, C)) == at(B, C, A), "waiting for it again would cost as much"
    mirrors.succeeded(A, 1)
    mirrors.failed(A, MirrorTrouble("u", "r"))
    mirrors.failed(B, MirrorTrouble("u", "r"), took_s=15.0)
    assert mirrors.order(at(B, A, C)) == at(C, A, B)


@pytest.mark.logs("is avoided for")
def test_told_once(mirrors: Mirrors, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The user hears of a mirror of his once until it worked again, and not every few seconds then."""
    caplog.set_level("WARNING", "jigdofs.parts.mirrors")
    name = "jigdofs.parts.mirrors"

    def told() -> int:
        return len([record for record in caplog.records if record.name == name])

    mirrors.failed(B, MirrorTrouble("u", "r"))
    assert told() == 0, "nobody asked for that one"
    for _ in range(20):
        mirrors.failed(A, MirrorTrouble("u", "r"), by_user=True)
        clock.now += AVOID_MAX_S + 1
    assert told() == 1
    mirrors.succeeded(A, 1)
    mirrors.failed(A, MirrorTrouble("u", "r"), by_user=True)
    assert told() == 2
    for _ in range(20):
        mirrors.succeeded(A, 1)
        mirrors.failed(A, MirrorTrouble("u", "r"), by_user=True)
        clock.now += 1
    assert told() == 2


def test_slots_are_per_host(mirrors: Mirrors) -> None:
    """A host has one set of slots for ever, another host another one."""
    assert mirrors.slots("http://a") is mirrors.slots("http://a")
    assert mirrors.slots("http://a") is not mirrors.slots("http://b")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["failed", "ok", "blame", "wait"]))))
def test_order_is_a_permutation(events: list[tuple[str, str]]) -> None:
    """Whatever happened, every location is tried, the avoided ones last, and equals keep their order."""
    clock = Clock()
    mirrors = Mirrors(8, clock)
    for name, event in events:
        match event:
            case "failed":
                mirrors.failed(name, MirrorTrouble("u", "r"))
            case "ok":
                mirrors.succeeded(name, 1)
            case "blame":
                mirrors.blame(name)
            case _:
                clock.now += 10
    locations = at("a", "b", "c", "b")
    good = [place for place in locations if not mirrors.avoided(place.mirror)]
    bad = [place for place in locations if mirrors.avoided(place.mirror)]
    assert mirrors.order(locations) == good + bad
