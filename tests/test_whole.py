"""The check of the whole image: every sum, behind the frontier; damage is found where it is."""

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.build.account import Account
from jigdofs.build.blueprint import SUM_ALGORITHMS, Blueprint, ImageSum
from jigdofs.build.builder import Builder
from jigdofs.build.from_sources import fill_from_sources
from jigdofs.build.whole import Frontier, WholeCheck, wrong_sums_of
from jigdofs.errors import JigdofsError, WrongImage
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.sources.sources import Sources
from tests.test_jigdo_file_verbs import Pair, pair
from tests.test_unfinished import PIECES, A, Made, make

__all__ = ["pair"]  # a fixture

DATA = random.Random(1).randbytes(3_000_000)
ENDS_S = 10
"""How long a thread may take to end that was told to."""


def sums(data: bytes) -> list[ImageSum]:
    return [ImageSum(name, hashlib.new(name, data).hexdigest(), "the test") for name in SUM_ALGORITHMS]


def wrong_sums(fd: int, wanted: list[ImageSum]) -> list[ImageSum]:
    return wrong_sums_of(fd, wanted, Account(len(DATA)))


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "image"
    path.write_bytes(DATA)
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


# -- the frontier ------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_frontier(lengths: list[int], source: random.Random) -> None:
    """In whatever order extents come, the frontier is where the first one is missing."""
    starts = [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    frontier = Frontier(starts)
    order = list(range(len(lengths)))
    source.shuffle(order)
    done: set[int] = set()
    for index in order:
        frontier.complete(index)
        done.add(index)
        reached = starts[next(n for n in range(len(starts)) if n not in done)]
        if reached:
            assert frontier.wait_beyond(reached - 1) == reached
    assert frontier.wait_beyond(0) == starts[-1]


def test_frontier_stops() -> None:
    """Whoever waits for what never comes is let go at once, and so is whoever comes later."""
    frontier = Frontier([0, 10, 20])
    frontier.complete(1)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(frontier.wait_beyond, at) for at in (0, 10, 19)]
        frontier.stop()
        assert [future.result(ENDS_S) for future in waiting] == [-1, -1, -1]
    assert frontier.wait_beyond(0) == -1


# -- the sums ----------------------------------------------------------------------------------------


def test_all_sums_right(fd: int) -> None:
    """An image that is right has none of its sums wrong."""
    assert wrong_sums(fd, sums(DATA)) == []
    assert wrong_sums(fd, []) == []


@pytest.mark.parametrize("name", SUM_ALGORITHMS)
def test_each_sum_counts(fd: int, name: str) -> None:
    """A single sum that differs is told, whichever it is."""
    bad = [known._replace(hex=known.hex[::-1]) if known.algorithm == name else known for known in sums(DATA)]
    assert [wrong.algorithm for wrong in wrong_sums(fd, bad)] == [name]


def test_two_sums_of_one_algorithm(fd: int) -> None:
    """Template and .jigdo may contradict each other: the one who is wrong is named."""
    right = sums(DATA)[0]
    wrong = right._replace(hex="0" * 32, said_by="somebody else")
    assert wrong_sums(fd, [right, wrong, right]) == [wrong]


@pytest.mark.parametrize("at", [0, 1_234_567, len(DATA) - 1])
def test_a_byte_is_enough(fd: int, at: int) -> None:
    """A byte that differs is seen by every sum."""
    os.pwrite(fd, bytes([DATA[at] ^ 1]), at)
    assert wrong_sums(fd, sums(DATA)) == sums(DATA)


def test_empty_image(fd: int) -> None:
    """Nothing has checksums, too."""
    assert WholeCheck(fd, 0, sums(b""), Frontier([0]), Account(0)).result() == []
    assert WholeCheck(fd, 0, sums(b"x"), Frontier([0]), Account(0)).result() == sums(b"x")


def test_image_became_shorter(fd: int) -> None:
    """A file that ends early is an error, not a checksum."""
    os.ftruncate(fd, 1_000_000)
    with pytest.raises(JigdofsError, match="shorter"):
        wrong_sums(fd, sums(DATA))


def test_behind_the_frontier(fd: int) -> None:
    """What comes late is hashed as it is then: nothing is read before it was said to be there."""
    os.pwrite(fd, bytes(1_000_000), 1_000_000)
    frontier = Frontier([0, 1_000_000, 2_000_000, 3_000_000])
    frontier.complete(2)
    frontier.complete(0)
    account = Account(len(DATA))
    check = WholeCheck(fd, len(DATA), sums(DATA), frontier, account)
    os.pwrite(fd, DATA[1_000_000:2_000_000], 1_000_000)
    frontier.complete(1)
    assert check.result() == []
    assert account.checked == len(DATA)


def test_stop(fd: int) -> None:
    """Stopping ends the threads though the image is not complete."""
    before = threading.active_count()
    frontier = Frontier([0, 1_000_000, 3_000_000])
    check = WholeCheck(fd, len(DATA), sums(DATA), frontier, Account(len(DATA)))
    frontier.stop()
    check.join()
    with pytest.raises(JigdofsError, match="stopped"):
        check.result()
    assert threading.active_count() == before


# -- damage in an image under construction -----------------------------------------------------------


@pytest.fixture
def made(pair: Pair) -> Made:
    return make(pair.directory, *PIECES)


def builder_of(made: Made, blueprint: Blueprint) -> Builder:
    return Builder(blueprint, str(made.template.with_name("x.iso")), Account(blueprint.layout.length))


def fill(builder: Builder, made: Made) -> None:
    sources = Sources(list(map(str, made.part_files)), report=pytest.fail)
    sources.scan(None)
    builder.write_raw()
    assert fill_from_sources(builder, builder.missing(), sources, lambda _: ()) == []


def damage(builder: Builder, at: int) -> None:
    (byte,) = os.pread(builder.unfinished.fd, 1, at)
    os.pwrite(builder.unfinished.fd, bytes([byte ^ 1]), at)


@pytest.mark.parametrize("extent", range(len(PIECES)))
def test_damage_is_found_and_mended(made: Made, extent: int) -> None:
    """A byte that went bad after its mark was made: exactly that part is to be had again."""
    with made.blueprint() as blueprint:
        builder = builder_of(made, blueprint)
        fill(builder, made)
        assert builder.wrong_sums() == []
        start = builder.layout.start(extent)
        damage(builder, start)
        builder.close()

        builder = builder_of(made, blueprint)
        assert builder.missing() == []
        assert [wrong.algorithm for wrong in builder.wrong_sums()] == ["md5"]
        with pytest.raises(WrongImage):
            builder.finish()
        missing = builder.unmark_damage()
        part = builder.layout.part(extent)
        assert [wanted.part for wanted in missing] == ([] if part is None else [part])
        assert [wanted.indexes for wanted in missing] == ([] if part is None else [(extent,)])
        assert not any(builder.unfinished.is_written(index) for wanted in missing for index in wanted.indexes)
        fill(builder, made)
        assert builder.wrong_sums() == []
        builder.finish()
        builder.close()
    assert made.template.with_name("x.iso").read_bytes() == made.image


def test_damage_is_mended_from_the_other_place(made: Made) -> None:
    """Of a part that is there twice the good one mends the bad one; no file is needed."""
    with made.blueprint() as blueprint:
        builder = builder_of(made, blueprint)
        fill(builder, made)
        damage(builder, builder.layout.start(1) + len(A) - 1)
        missing = builder.unmark_damage()
        assert [(wanted.indexes, wanted.here) for wanted in missing] == [((1,), 5)]
        builder.write_raw()
        assert builder.fill_from_itself(missing) == []
        builder.finish()
        builder.close()
    assert made.template.with_name("x.iso").read_bytes() == made.image


def test_unmarked_parts_stay_unmarked_in_the_file(pair: Pair, made: Made) -> None:
    """What was found damaged is missing for jigdo-file as well, which completes the image."""
    with made.blueprint() as blueprint:
        builder = builder_of(made, blueprint)
        fill(builder, made)
        damage(builder, builder.layout.start(4))
        assert len(builder.unmark_damage()) == 1
        builder.write_raw()
        builder.close()
    assert b"need-file" in pair.theirs("ls", "-t", "x.iso.tmp").stdout
    assert pair.theirs("mi", "-i", "x.iso", made.file(2)).returncode == 0
    assert made.template.with_name("x.iso").read_bytes() == made.image


@pytest.mark.parametrize("extent", range(2))
def test_make_image_mends_a_damaged_tmp(pair: Pair, made: Made, extent: int) -> None:
    """A .tmp that went bad under its marks costs the damaged part or the raw data, not the image."""
    with made.blueprint() as blueprint:
        builder = builder_of(made, blueprint)
        fill(builder, made)
        damage(builder, builder.layout.start(extent))
        builder.close()
    done = pair.ours("mi", "-r", "quiet", "-i", "x.iso", *made.part_files)
    assert done.returncode == 0, done
    assert made.template.with_name("x.iso").read_bytes() == made.image


@pytest.mark.parametrize("algorithm", Algorithm)
def test_template_with_a_wrong_image_sum(pair: Pair, algorithm: Algorithm) -> None:
    """Exit code 2, the .tmp stays and is complete; the real jigdo-file says 0 here."""
    wrong = Checksum.of(algorithm, b"")
    made = make(pair.directory, *PIECES, algorithm=algorithm, image_checksum=wrong)
    done = pair.ours("mi", "-i", "x.iso", *made.part_files)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert wrong.hex.encode() in done.stderr
    assert algorithm.short_name.encode() in done.stderr
    assert not (pair.directory / "x.iso").exists()
    assert (pair.directory / "x.iso.tmp").read_bytes()[: len(made.image)] == made.image
    assert pair.theirs("mi", "-i", "x.iso", *made.part_files).returncode == 0


@pytest.mark.parametrize("name", SUM_ALGORITHMS)
def test_every_sum_of_a_blueprint_is_checked(made: Made, name: str) -> None:
    """A sum from a .jigdo counts as the template's does, and the error names it."""
    right = sums(made.image)
    with made.blueprint() as plain:
        for good, known in (
            (True, right),
            (False, [one._replace(hex=one.hex[::-1]) if one.algorithm == name else one for one in right]),
        ):
            blueprint = Blueprint(plain.layout, plain.desc, plain.template_file, plain.chunks, tuple(known))
            builder = builder_of(made, blueprint)
            fill(builder, made)
            if good:
                assert builder.wrong_sums() == []
            else:
                with pytest.raises(WrongImage, match=f"{name} .* that the test gives"):
                    builder.finish()
            builder.close()
    assert not made.template.with_name("x.iso").exists()
