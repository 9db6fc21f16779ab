"""The cache's accounts: the quota holds whatever the sessions do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.parts.ledger import Ledger

SESSIONS = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.tuples(st.just("grant"), SESSIONS, st.integers(0, 150)),
    st.tuples(st.just("settle"), SESSIONS, st.integers(0, 100)),
    st.tuples(st.just("keep"), SESSIONS, st.just(0)),
    st.tuples(st.just("dump"), SESSIONS, st.just(0)),
)


@given(st.integers(0, 500), st.lists(STEPS, max_size=40))
def test_the_quota_holds(limit: int, steps: list[tuple[str, str, int]]) -> None:
    """Used and granted together never exceed the limit, and a grant is refused only where they would."""
    ledger = Ledger()
    for step, session, first in steps:
        before = ledger
        if step == "grant":
            granted = ledger.grant(session, first, limit)
            assert (granted is None) == (before.used + before.granted + first > limit)
            ledger = granted or ledger
            assert ledger.granted - before.granted == (first if granted else 0)
        elif step == "settle":
            written = min(first, ledger.grants.get(session, 0))
            ledger = ledger.settle(session, written=written)
            assert ledger.used == before.used + written
            assert ledger.granted == before.granted - written
        elif step == "keep":
            ledger = ledger.keep([session])
            assert set(ledger.grants) <= {session}
            assert ledger.grants.get(session, 0) == before.grants.get(session, 0)
        else:
            ledger = Ledger.parse(ledger.dump())
            assert (ledger.used, ledger.granted) == (before.used, before.granted)
        assert 0 <= ledger.used + ledger.granted <= limit
        assert min(ledger.grants.values(), default=0) >= 0


def test_a_session_that_wrote_more_than_granted() -> None:
    """What is on disk counts, granted or not; a count of the disk corrects it."""
    ledger = Ledger(10, {"a": 5, "b": 7}).settle("a", written=9)
    assert (ledger.used, ledger.granted) == (19, 7)
    assert ledger.grant("b", 1, 26) is None, "beyond a limit that was lowered nothing is granted"
    assert (ledger.recount(3).used, ledger.recount(3).granted) == (3, 7)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "x",
            "[]",
            "1",
            "null",
            '{"used": 1}',
            '{"used": "1", "grants": {}}',
            '{"used": 1, "grants": []}',
        ),
        *('{"used": -1, "grants": {}}', '{"used": 1.5, "grants": {}}', '{"used": 1, "grants": {"a": "x"}}'),
        *('{"used": 1, "grants": {"a": null}}', '{"used": 1, "grants": {"a": [1]}}'),
        *('{"used": 1, "grants": {"a": Infinity}}', '{"used": 1, "grants": {"a": NaN}}'),
    ],
)
def test_damaged_accounts(text: str) -> None:
    """What is no ledger is refused with a ValueError, so that the owner can count anew."""
    with pytest.raises(ValueError):
        Ledger.parse(text)
