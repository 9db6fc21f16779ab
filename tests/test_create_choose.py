"""Which occurrences become parts, against all subsets."""

import random
from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.create.choose import Occurrence, choose

OCCURRENCES = st.builds(Occurrence, st.integers(0, 30), st.integers(1, 15), st.integers(0, 3))


def are_apart(chosen: list[Occurrence]) -> bool:
    return all(one.start + one.length <= two.start for one, two in pairwise(chosen))


def merit(chosen: list[Occurrence]) -> tuple[int, int]:
    """Return the bytes covered, then how few do it."""
    return sum(one.length for one in chosen), -len(chosen)


@settings(max_examples=200, deadline=None)
@given(st.sets(OCCURRENCES, max_size=9))
def test_the_best_there_is(found: set[Occurrence]) -> None:
    """No subset without overlaps covers more bytes, nor as many with fewer parts; the result is in order."""
    chosen = choose(found)
    assert are_apart(chosen)
    assert set(chosen) <= found
    subsets = (sorted(some) for count in range(len(found) + 1) for some in combinations(found, count))
    assert merit(chosen) == max(merit(some) for some in subsets if are_apart(some))


@given(st.sets(OCCURRENCES, max_size=40).map(list), st.randoms(use_true_random=False))
def test_order_does_not_matter(found: list[Occurrence], source: random.Random) -> None:
    """However the occurrences come, the same are chosen."""
    shuffled = list(found)
    source.shuffle(shuffled)
    assert choose(shuffled) == choose(found)


@given(st.lists(st.integers(256, 10**6), min_size=1, max_size=50))
def test_a_container_beats_its_members(lengths: list[int]) -> None:
    """An archive wins against its members, even where they fill it without a gap."""
    members = []
    at = 7
    for file, length in enumerate(lengths, 1):
        members.append(Occurrence(at, length, file))
        at += length
    archive = Occurrence(7, sum(lengths), 0)
    assert choose({*members, archive}) == [archive]
    assert choose({*members, Occurrence(6, archive.length + 1, 0)}) == [Occurrence(6, archive.length + 1, 0)]


def test_the_earlier_file_of_two() -> None:
    """Of two files at one place the earlier one is chosen; of nothing, nothing."""
    assert choose([Occurrence(3, 9, 2), Occurrence(3, 9, 1)]) == [Occurrence(3, 9, 1)]
    assert choose([]) == []


def test_large() -> None:
    """Offsets and lengths of terabytes, and a hundred thousand places, are weighed exactly."""
    far = [Occurrence(number << 45, (1 << 45) - number % 2, 0) for number in range(100)]
    near = [Occurrence(number * 1024, 1024, 1) for number in range(100_000)]
    assert choose(far) == far
    assert choose([*near, Occurrence(0, 1024 * 100_000 - 1, 2)]) == near
    assert choose([*near, Occurrence(0, 1024 * 100_000, 2)]) == [Occurrence(0, 1024 * 100_000, 2)]
