"""Manifests and pins: whatever bytes lie there do no harm, and what is pinned is never evicted."""

import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.parts.cache import Cache
from jigdofs.parts.holdings import count, pinned_bytes
from jigdofs.parts.manifest import Contents, Manifest, ManifestDamage, dump, pack, parse
from jigdofs.parts.manifests import MOST_IMAGES, Manifests
from jigdofs.parts.object_files import StoredFile
from jigdofs.parts.rot import Inspector, Verdict
from jigdofs.parts.shelf import looking_at
from tests.test_cache import KIB, QUOTA, bytes_in, content, has, key_of, open_at, put, sum_of

TEMPLATE = "ab" * 16


def manifest(numbers: range, template: str = TEMPLATE, others: tuple[str, ...] = ()) -> Manifest:
    """Say that an image has these contents."""
    parts = [(sum_of(content(number)).digest, 16 * KIB) for number in numbers]
    packed = pack([*parts, (bytes(16), 5)])
    size = sum(length for _, length in parts) + 5
    return Manifest(
        Contents("a.iso", "/a.jigdo", template, size, 0, packed.md5, packed.sha256, others), packed.records
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(directory: Path) -> Iterator[Cache]:
    cache = open_at(directory)
    yield cache
    cache.close()


def test_form() -> None:
    """What was written is read again: MD5 first, each with its length."""
    one = manifest(range(3), others=("tree-" + "c" * 64,))
    assert parse(b"".join(dump(one)), TEMPLATE) == one
    assert list(one.parts()) == [("md5-" + "0" * 32, 5), *((key_of(content(n)), 16 * KIB) for n in range(3))]
    assert pinned_bytes([], {}) == 0


@given(st.integers(0, 1 << 30), st.integers(0, 7))
def test_any_flipped_bit_shows(place: int, bit: int) -> None:
    """No damage goes unseen."""
    data = bytearray(b"".join(dump(manifest(range(3)))))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(ManifestDamage):
        parse(bytes(data), TEMPLATE)


GOOD = json.loads(b"".join(dump(manifest(range(1)))).split(b"\n")[1])


@pytest.mark.parametrize(
    "change",
    [
        {"md5": 2},
        {"md5": 1 << 62},
        {"md5": -1},
        {"sha256": True, "md5": 1.5},
        {"template": "cd" * 16},
        {"template": "../../etc/passwd"},
        {"others": ["../x"]},
        {"others": ["raw-" + "a" * 32] * 65},
        {"others": {}},
        {"name": None},
        {"size": "9"},
    ],
    ids=str,
)
def test_hostile_header(change: dict[str, object]) -> None:
    """A manifest that somebody made, with a right checksum, says nothing that makes no sense."""
    records = b"".join(dump(manifest(range(1)))).split(b"\n", 2)[2][:-32]
    data = b"jigdofs image 1\n" + json.dumps(GOOD | change).encode() + b"\n" + records
    with pytest.raises(ManifestDamage):
        parse(data + hashlib.sha256(data).digest(), TEMPLATE)


@given(st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    """Whatever lies there is no manifest."""
    for header in (b"", b"jigdofs image 1\n", b"jigdofs image 1\n" + b"[" * 60_000 + b"\n"):
        whole = header + data
        with pytest.raises(ManifestDamage):
            parse(whole + hashlib.sha256(whole).digest(), TEMPLATE)


def test_pinned_is_not_evicted(cache: Cache, directory: Path) -> None:
    """A pin holds from then on, for other processes as well and for what comes later; until it is undone."""
    cache.note_image(manifest(range(8)))
    other = open_at(directory)
    put(other, content(0))
    assert cache.manifests.pin(TEMPLATE)
    put(other, content(1))
    for number in range(100, 140):
        put(other, content(number))
        assert bytes_in(directory) <= QUOTA
    assert has(other, content(0))
    assert has(other, content(1))
    assert not has(other, content(100))
    cache.manifests.unpin(TEMPLATE)
    for number in range(200, 240):
        put(other, content(number))
    assert other.present([key_of(content(0)), key_of(content(1))]) == set()
    other.close()


def test_pins_fill_the_quota(cache: Cache, directory: Path) -> None:
    """Then nothing else is kept, and all is served."""
    numbers = range(QUOTA // (16 * KIB))
    cache.note_image(manifest(numbers))
    assert cache.manifests.pin(TEMPLATE)
    for number in numbers:
        put(cache, content(number))
    for number in range(100, 110):
        put(cache, content(number))
        assert not has(cache, content(number))
    assert all(has(cache, content(number)) for number in numbers)
    assert bytes_in(directory) <= QUOTA


def test_chunks_and_other_files_are_pinned(cache: Cache) -> None:
    """A pin is of all that belongs to the image."""
    tree = "tree-" + "c" * 64
    cache.note_image(manifest(range(1), others=(tree,)))
    assert not cache.manifests.pinned()
    assert cache.manifests.pin(TEMPLATE)
    pinned = cache.manifests.pinned()
    assert pinned.has("raw", f"{TEMPLATE}-7")
    assert pinned.has("tree", "c" * 64)
    assert pinned.has("md5", "0" * 32)
    assert pinned.has("sha256", sum_of(content(0)).hex)
    for kind, name in [("raw", "cd" * 16 + "-7"), ("tree", "d" * 64), ("md5", "no hex"), ("doc", "c" * 64)]:
        assert not pinned.has(kind, name)


def test_who_uses_an_image(cache: Cache, directory: Path) -> None:
    """Its manifest stays while anybody uses it or it is pinned, and may go then."""
    cache.note_image(manifest(range(2)))
    other = open_at(directory)
    assert not other.manifests.forget(TEMPLATE)
    assert [image.in_use for image in other.manifests.all()] == [True]
    other.note_image(manifest(range(2)))
    cache.manifests.close()
    assert not other.manifests.forget(TEMPLATE)
    other.close()
    third = open_at(directory)
    assert third.manifests.pin(TEMPLATE)
    assert not third.manifests.forget(TEMPLATE)
    third.manifests.unpin(TEMPLATE)
    assert [image.in_use for image in third.manifests.all()] == [False]
    assert third.manifests.forget(TEMPLATE)
    assert not third.manifests.pin(TEMPLATE)
    assert list(third.manifests.all()) == []
    third.close()


def test_manifests_are_bounded(directory: Path) -> None:
    """Of more images than may be known, those are forgotten that were not used for the longest."""
    names = [sum_of(content(number, 8)).hex for number in range(MOST_IMAGES + 8)]
    first = open_at(directory)
    for name in names[:8]:
        first.note_image(manifest(range(1), name))
    for name in names[:4]:
        assert first.manifests.pin(name)
    first.close()
    for number, name in enumerate(names[:8]):
        os.utime(directory / "images" / name, (number, number))
    cache = open_at(directory)
    for name in names[8:]:
        cache.note_image(manifest(range(1), name))
    # those that are pinned or in use stay, however many they are
    assert {image.id for image in cache.manifests.all()} == {*names[:4], *names[8:]}
    cache.close()


def test_no_locks_and_no_place(tmp_path: Path, directory: Path) -> None:
    """Where nothing can be noted, nothing is known, and nothing is raised."""
    fd = os.open(tmp_path, os.O_RDONLY)
    looking = Manifests(fd, may_write=False)
    assert list(looking.all()) == []
    assert not looking.pinned()
    assert looking.damaged() == []
    assert looking.changed_ns() == 0
    looking.close()
    os.close(fd)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "directory", "nothing"])
def test_no_lock(directory: Path, kind: str) -> None:
    """Where the file of locks cannot be opened, images are known all the same, and noted."""
    cache = open_at(directory)
    cache.note_image(manifest(range(2)))
    cache.close()
    lock = directory / "images" / "lock"
    lock.unlink()
    if kind == "link":
        lock.symlink_to("/etc/passwd")
    elif kind == "directory":
        (lock / "full").mkdir(parents=True)
    fd = os.open(directory, os.O_RDONLY)
    looking = Manifests(fd, may_write=False)
    assert [(image.id, image.in_use) for image in looking.all()] == [(TEMPLATE, False)]
    looking.close()
    os.close(fd)
    cache = open_at(directory)
    cache.note_image(manifest(range(3)))
    assert cache.manifests.pin(TEMPLATE)
    assert [(image.pinned, image.in_use) for image in cache.manifests.all()] == [(True, True)]
    assert not cache.manifests.forget(TEMPLATE)
    cache.close()


def test_inspecting_takes_some_at_a_time(cache: Cache, directory: Path) -> None:
    """However many files there are, only some hundred of them wait for the threads."""
    put(cache, content(1))
    named = 0

    def without_end(file: StoredFile) -> Iterator[StoredFile]:
        nonlocal named
        while named < 100_000:
            named += 1
            yield file

    with looking_at(directory) as shelf:
        assert shelf is not None
        (file,) = shelf.files()
        findings = Inspector(shelf, cache).inspect(without_end(file))
        assert next(findings).verdict is Verdict.RIGHT
        assert named < 1000


def test_counting(cache: Cache) -> None:
    """Shared parts count for each image and once in total."""
    cache.note_image(manifest(range(4)))
    cache.note_image(manifest(range(2, 6), "cd" * 16))
    for number in (0, 2, 3, 99):
        put(cache, content(number))
    stored = list(cache._quota.files())
    random.Random(1).shuffle(stored)
    holdings = count(stored, cache.manifests.all())
    first, second = holdings.images
    assert (first.parts, first.parts_here, first.here_bytes) == (5, 3, 48 * KIB)
    assert (second.parts_here, second.stored_bytes) == (2, 32 * KIB)
    assert holdings.alone == {TEMPLATE: 16 * KIB, "cd" * 16: 0}
    assert holdings.of_none == 16 * KIB
    assert holdings.only([TEMPLATE]) == {key_of(content(0))}
    assert pinned_bytes((one.image for one in holdings.images), holdings.sizes) == 6 * 16 * KIB + 5
