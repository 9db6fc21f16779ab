"""How many bytes of an image are here, counted while others fetch."""

import os
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.format.template import MatchedFile, UnmatchedData
from jigdofs.image.layout import Layout
from jigdofs.parts.cache import Cache
from jigdofs.parts.open_file import Fingerprint, OpenFile, OpenFiles
from jigdofs.parts.presence import Presence, present_bytes
from jigdofs.parts.store import cache_key

PARTS = [Part(Checksum.of(Algorithm.MD5, bytes(length)), length) for length in range(1, 400)]
TWICE = PARTS[7]
RAW = 5


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path / "cache", max_bytes=None, min_free_bytes=0)
    yield cache
    cache.close()


def layout() -> Layout:
    entries = [MatchedFile(part.length, part.checksum) for part in [*PARTS, TWICE]]
    return Layout([UnmatchedData(RAW), *entries])


def keep(cache: Cache, parts: Iterable[Part]) -> None:
    for part in parts:
        place = cache.place(cache_key(part), part.checksum)
        fd = place.create(part.length)
        os.truncate(fd, part.length)
        place.keep(fd)
        os.close(fd)


def test_count(cache: Cache) -> None:
    """Parts in the cache count as often as they occur; what is fetched later, too."""
    keep(cache, PARTS[::2])
    presence = Presence(layout(), cache)
    assert presence.bytes == RAW
    presence.count()
    here = RAW + sum(part.length for part in PARTS[::2])
    assert presence.bytes == here
    presence.add(TWICE, elsewhere=False)
    assert presence.bytes == here + 2 * TWICE.length
    assert present_bytes([*PARTS, PARTS[0]], cache.present) == here - RAW + PARTS[0].length


def test_fetched_while_counted(cache: Cache) -> None:
    """A part that comes while we count is counted once, before or after we looked for it."""

    class Fetching(Cache):
        """Have two parts fetched whenever somebody looks."""

        def present(self, keys: Iterable[str]) -> set[str]:
            found = cache.present(keys)
            if left:
                some = [left.pop(), left.pop()]
                keep(cache, some)
                for part in some:
                    presence.add(part, elsewhere=False)
            return found

        def generation(self) -> int:
            return cache.generation()

    left = PARTS[:200]
    fetching = Fetching.__new__(Fetching)
    presence = Presence(layout(), fetching)
    presence.count()
    assert presence.bytes == RAW + present_bytes([*PARTS, TWICE], cache.present)


def test_evicted_and_fetched_by_others(cache: Cache) -> None:
    """What came or went without us is known after another look; what a local file has stays counted."""
    keep(cache, PARTS[:20])
    presence = Presence(layout(), cache)
    presence.count()
    presence.add(PARTS[50], elsewhere=True)
    presence.add(PARTS[50], elsewhere=True)
    here = RAW + present_bytes([*PARTS, TWICE], cache.present) + PARTS[50].length
    assert presence.bytes == here
    cache.path(cache_key(PARTS[0])).unlink()
    keep(cache, PARTS[30:40])
    presence.count_again()
    assert presence.bytes == here - PARTS[0].length + sum(part.length for part in PARTS[30:40])
    presence.count_again()
    assert presence.bytes == here - PARTS[0].length + sum(part.length for part in PARTS[30:40])


def test_fetched_and_not_kept(cache: Cache) -> None:
    """What a full cache did not keep is here no longer than until the next look."""
    keep(cache, PARTS[:20])
    directories = [cache.directory / "objects", *(cache.directory / "objects").rglob("*")]
    for path in directories:
        os.utime(path, (1, 1))
    presence = Presence(layout(), cache)
    presence.count()
    here, parts = presence.bytes, presence.parts_present
    presence.add(PARTS[50], elsewhere=False)
    presence.add(PARTS[51], elsewhere=True)
    assert presence.bytes == here + PARTS[50].length + PARTS[51].length
    presence.count_again()
    assert (presence.bytes, presence.parts_present) == (here + PARTS[51].length, (parts or 0) + 1)


@pytest.mark.parametrize("moved_s", [-86400, 0, 86400])
def test_a_clock_that_is_set(cache: Cache, moved_s: int) -> None:
    """What goes after the clock was set back, or in the moment of the last look, is seen to be gone."""
    keep(cache, PARTS[:20])
    presence = Presence(layout(), cache)
    gone = cache.path(cache_key(PARTS[0]))
    before = gone.parent.stat().st_mtime_ns
    presence.count()
    here = presence.bytes
    gone.unlink()
    after = before + moved_s * 10**9
    os.utime(gone.parent, ns=(after, after))
    presence.count_again()
    assert presence.bytes == here - PARTS[0].length


def test_without_a_cache() -> None:
    """Without a cache nothing but raw data is here until it is fetched."""
    presence = Presence(layout(), None)
    presence.count()
    presence.add(TWICE, elsewhere=False)
    assert presence.bytes == RAW + 2 * TWICE.length


def test_open_files_alone(tmp_path: Path) -> None:
    """Where nothing is kept, that is here which is open."""
    opened = OpenFiles(3, 1 << 20)
    presence = Presence(layout(), opened)
    presence.count()
    for part in PARTS[10:20]:
        path = tmp_path / "part"
        path.write_bytes(bytes(part.length))
        fd = os.open(path, os.O_RDONLY)
        opened.add(cache_key(part), OpenFile(fd, Fingerprint.of(fd)))
        presence.add(part, elsewhere=False)
    presence.count_again()
    assert presence.bytes == RAW + sum(part.length for part in PARTS[17:20])
    opened.limit(1, 1 << 20)
    presence.count_again()
    assert presence.bytes == RAW + PARTS[19].length
    opened.close()


def test_parts_that_begin_alike() -> None:
    """However many checksums begin alike, to know of 200,000 parts takes less than 10 MiB."""
    count = 200_000
    digests = [bytes(1) + number.to_bytes(15, "big") for number in range(count)]
    layout = Layout([MatchedFile(1, Checksum(digest)) for digest in [*digests, digests[0]]])
    presence = Presence(layout, None)
    tracemalloc.start()
    try:
        presence.count()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert presence.bytes == 0
    presence.add(Part(Checksum(digests[0]), 1), elsewhere=False)
    assert presence.bytes == 2
    assert peak < 10 << 20


def _seen(presence: Presence, cells: int = 1024, coming: Iterable[Part] = ()) -> str:
    drawn = presence.cells(cells, coming)
    assert drawn is not None
    return drawn


def test_cells_are_what_is_in_the_cache(cache: Cache) -> None:
    """Each cell says whether all, some or none of the parts in its stretch of the image are in the cache."""
    image = layout()
    presence = Presence(image, cache)
    assert presence.cells(64, ()) is None
    assert not presence.parts
    keep(cache, PARTS[:100])
    presence.count()
    presence.add(PARTS[200], elsewhere=False)
    presence.add(PARTS[201], elsewhere=True)
    there = {*PARTS[:100], *PARTS[200:202]}
    assert (presence.parts, presence.parts_present) == (len(PARTS), len(there))
    cell_bytes = -(-image.length // 1024)
    expected = []
    for begin in range(0, image.length, cell_bytes):
        end = min(begin + cell_bytes, image.length)
        touched = {piece.part for piece in image.slices(begin, end - begin) if piece.part is not None}
        here = touched & there
        expected.append("#" if here == touched else "+" if here else ".")
    assert _seen(presence) == "".join(expected)
    assert set(expected) == {"#", "+", "."}


def test_cells_follow_what_comes_and_goes(cache: Cache) -> None:
    """A part that is on its way is seen, then that it is here, and after a look that it was evicted."""
    presence = Presence(layout(), cache)
    presence.count()
    before = _seen(presence)
    on_its_way = _seen(presence, coming=[PARTS[300]])
    assert ">" not in before
    assert ">" in on_its_way
    assert on_its_way.replace(">", ".") == before
    keep(cache, [PARTS[300]])
    presence.add(PARTS[300], elsewhere=False)
    assert "#" in _seen(presence, coming=[PARTS[300]])
    assert ">" not in _seen(presence, coming=[PARTS[300]])
    cache.path(cache_key(PARTS[300])).unlink()
    presence.count_again()
    assert _seen(presence) == before


def test_number_of_cells(cache: Cache) -> None:
    """There are as many cells as were asked for, but no more than 1024, nor than a small image has bytes."""
    presence = Presence(layout(), cache)
    presence.count()
    for wanted in (1, 7, 64, 1000):
        assert len(_seen(presence, wanted)) == wanted
    least = -(-layout().length // -(-layout().length // 1024))
    assert len(_seen(presence, 5000)) == least <= 1024
    tiny = Presence(Layout([MatchedFile(3, PARTS[2].checksum)]), None)
    tiny.count()
    assert _seen(tiny) == "..."


def test_part_that_is_everywhere() -> None:
    """A part that occurs very often counts at once as often, and is drawn everywhere with the next look."""
    part, count = PARTS[99], 5000
    presence = Presence(Layout([MatchedFile(part.length, part.checksum)] * count), None)
    presence.count()
    presence.add(part, elsewhere=True)
    assert presence.bytes == part.length * count
    assert (presence.parts, presence.parts_present) == (1, 1)
    presence.count_again()
    assert set(_seen(presence)) == {"#"}
    assert presence.bytes == part.length * count


def test_had_before_the_first_count(cache: Cache) -> None:
    """What is fetched before the parts were counted for the first time is counted then."""
    presence = Presence(layout(), cache)
    presence.add(PARTS[10], elsewhere=True)
    presence.add(PARTS[10], elsewhere=True)
    presence.add(PARTS[11], elsewhere=False)
    presence.add(TWICE, elsewhere=False)
    assert presence.bytes == RAW + PARTS[10].length + PARTS[11].length + TWICE.length
    presence.count()
    assert presence.bytes == RAW + PARTS[10].length + PARTS[11].length + 2 * TWICE.length
    presence.count()  # what is in no cache after all is gone; what a local file has is not
    assert presence.bytes == RAW + PARTS[10].length
