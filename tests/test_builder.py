"""Builder: parts and raw data come into their places, from wherever, and work ends when it is told to."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jigdofs.build import account as origins
from jigdofs.build.account import Account
from jigdofs.build.blueprint import Blueprint, open_template, read_blueprint
from jigdofs.build.builder import Builder, Missing
from jigdofs.build.from_cache import fill_from_cache
from jigdofs.build.from_sources import fill_from_copy, fill_from_sources, find_damaged
from jigdofs.build.place_sink import PlaceSink
from jigdofs.build.raw_writing import writing_raw
from jigdofs.errors import FormatError, InputError, JigdofsError, NoRoom, Stopped
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.cache import Cache
from jigdofs.parts.cache_place import CachePlace
from jigdofs.parts.store import cache_key
from jigdofs.sources.sources import Sources
from tests.kit.requirements import require_root
from tests.kit.scenes import tiny_tmpfs
from tests.test_unfinished import PIECES, A, B, C, Made, damaged, make, noise

ENDS_S = 10
"""How long work may take to end that was told to."""


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Raw data, A, B, raw data, C, A, raw data."""
    return make(tmp_path, *PIECES)


@pytest.fixture
def blueprint(made: Made) -> Iterator[Blueprint]:
    with made.blueprint() as blueprint:
        yield blueprint


def begin(blueprint: Blueprint, path: str) -> Builder:
    return Builder(blueprint, path, Account(blueprint.layout.length))


@pytest.fixture
def builder(made: Made, blueprint: Blueprint) -> Iterator[Builder]:
    builder = begin(blueprint, str(made.template.with_name("x.iso")))
    yield builder
    builder.close()


def sources_of(*paths: Path, report: Callable[[str], None] = pytest.fail) -> Sources:
    sources = Sources(list(map(str, paths)), report=report)
    sources.scan(None)
    return sources


def no_names(_part: object) -> tuple[str, ...]:
    return ()


def content(builder: Builder) -> bytes:
    return os.pread(builder.unfinished.fd, builder.layout.length, 0)


# -- what is missing ---------------------------------------------------------------------------------


def test_missing(builder: Builder) -> None:
    """Every part once, with all its places, in the order of first need; what is in place is not asked for."""
    a, b, c = builder.missing()
    assert [wanted.indexes for wanted in (a, b, c)] == [(1, 5), (2,), (4,)]
    assert [wanted.part.length for wanted in (a, b, c)] == [len(A), len(B), len(C)]
    assert {wanted.here for wanted in (a, b, c)} == {None}
    builder.unfinished.mark([5, 2])
    assert [(wanted.indexes, wanted.here) for wanted in builder.missing()] == [((1,), 5), ((4,), None)]


def test_what_a_run_before_left_is_counted(made: Made, blueprint: Blueprint, builder: Builder) -> None:
    """Parts that are in place at the beginning are in the account, and not had again."""
    assert fill_from_sources(builder, builder.missing(), sources_of(made.file(0)), no_names)
    builder.close()
    again = begin(blueprint, builder.path)
    assert again.account.done == 2 * len(A)
    assert again.account.shares[origins.BEFORE].parts == 2
    builder.unfinished.fd, again.unfinished.fd = again.unfinished.fd, os.dup(again.unfinished.fd)
    again.close()


# -- parts -------------------------------------------------------------------------------------------


def test_place(made: Made, builder: Builder) -> None:
    """A part is marked where what lies in its place has its checksum, and nowhere else."""
    a = builder.missing()[0]
    junk = made.pool / "junk"
    junk.write_bytes(noise("junk", len(A)) + A + A[:-1])
    with junk.open("rb") as file:
        assert builder.place(a, file.fileno(), 0, origins.LOCAL) == Checksum.of(
            Algorithm.MD5, noise("junk", len(A))
        )
        assert builder.missing()[0] == a
        assert builder.place(a, file.fileno(), 2 * len(A), origins.LOCAL) is None
        assert builder.missing()[0] == a
        assert builder.place(a, file.fileno(), len(A), origins.LOCAL) == a.part.checksum
    assert [wanted.part.length for wanted in builder.missing()] == [len(B), len(C)]
    assert content(builder)[700:5700] == A
    assert content(builder)[-len(A) - 4 : -4] == A
    assert builder.account.shares[origins.LOCAL].parts == 2
    assert builder.account.done == 2 * len(A)


def test_whole_image(made: Made, builder: Builder) -> None:
    """Raw data beside parts, the check behind them, the name at the end; the account adds up."""
    sources = sources_of(made.pool)
    with writing_raw(builder):
        assert fill_from_sources(builder, builder.missing(), sources, no_names) == []
    builder.finish()
    assert made.template.with_name("x.iso").read_bytes() == made.image
    assert builder.account.done == builder.account.length == len(made.image)
    assert {name: share.bytes for name, share in builder.account.shares.items()} == {
        origins.LOCAL: 2 * len(A) + len(B) + len(C),
        origins.TEMPLATE: builder.layout.raw_length,
    }


def test_what_was_copied_is_learnt(made: Made, builder: Builder) -> None:
    """A file that was copied once needs no hashing to be known."""
    sources = sources_of(made.pool)
    assert fill_from_sources(builder, builder.missing(), sources, no_names) == []
    known = {piece.length: piece.checksum(Algorithm.MD5) for piece in sources.pieces()}
    assert known == {len(data): Checksum.of(Algorithm.MD5, data) for data in (A, B, C)}
    assert sources.counts.hashed_bytes == 0


def test_file_changes_after_the_search(made: Made, builder: Builder) -> None:
    """A file that is no longer what was found is reported and passed over for another."""
    other = made.pool / "other"
    other.mkdir()
    (other / "again").write_bytes(B)
    told: list[str] = []
    sources = sources_of(made.pool, report=told.append)
    made.file(1).write_bytes(noise("new", len(B)))
    made.file(2).unlink()
    os.mkfifo(made.file(2))
    missing = fill_from_sources(builder, builder.missing(), sources, no_names)
    assert [wanted.part.length for wanted in missing] == [len(C)]
    assert content(builder)[5700:8700] == B
    assert 1 <= len(told) <= 2
    assert any("2.bin" in line for line in told)


def test_many_wrong_files_of_the_right_length(made: Made, builder: Builder) -> None:
    """However many files only look like the part, the right one among them is found."""
    crowd = made.pool.parent / "crowd"
    crowd.mkdir()
    source = random.Random(1)
    for number in range(40):
        (crowd / f"{number}").write_bytes(source.randbytes(len(B)))
    (crowd / "20").write_bytes(B)
    missing = fill_from_sources(builder, builder.missing(), sources_of(crowd), no_names)
    assert [wanted.part.length for wanted in missing] == [len(A), len(C)]
    assert content(builder)[5700:8700] == B


@pytest.mark.logs("is not what it was")
def test_from_the_cache(made: Made, builder: Builder, tmp_path: Path) -> None:
    """Parts in the cache are put in place; one that is damaged there is passed over."""
    cache = Cache(tmp_path / "cache", max_bytes=None, min_free_bytes=0)
    missing = builder.missing()
    for wanted, data in zip(missing[:2], (A, B), strict=True):
        place = CachePlace(cache, cache_key(wanted.part), wanted.part.checksum)
        fd = place.create(len(data))
        os.write(fd, data)
        place.keep(fd)
        os.close(fd)
    cache.path(cache_key(missing[1].part)).write_bytes(noise("bad", len(B)))
    left = fill_from_cache(builder, missing, cache)
    cache.close()
    assert [wanted.part.length for wanted in left] == [len(B), len(C)]
    assert builder.account.shares[origins.CACHE].parts == 2


def test_from_a_damaged_copy(made: Made, builder: Builder) -> None:
    """Of a copy of the image whatever part is right in its place is taken."""
    copy = bytearray(made.image)
    copy[6000] ^= 1  # in B
    path = made.pool / "copy"
    path.write_bytes(copy[:-100])
    with path.open("rb") as file:
        left = fill_from_copy(builder, builder.missing(), file.fileno())
    assert [wanted.part.length for wanted in left] == [len(B)]


def test_find_damaged(made: Made, builder: Builder) -> None:
    """A file that begins like a missing part and is as long, but is another; no other file is named."""
    bad = made.pool.parent / "bad"
    bad.mkdir()
    (bad / "b").write_bytes(B[:-1] + bytes([B[-1] ^ 1]))
    (bad / "c").write_bytes(bytes([C[0] ^ 1]) + C[1:])
    (bad / "a").write_bytes(A + b"x")
    sources = sources_of(bad)
    missing = fill_from_sources(builder, builder.missing(), sources, no_names)
    assert len(missing) == 3
    assert [str(piece) for piece in find_damaged(builder.blueprint, missing, sources)] == [str(bad / "b")]
    assert find_damaged(builder.blueprint, missing[:1], sources) == []


@pytest.mark.parametrize("old", [False, True])
def test_wrong_or_missing_hints_condemn_nothing(tmp_path: Path, *, old: bool) -> None:
    """rsync64 never decides: a template with junk for it, or with none, is built all the same."""
    made = make(tmp_path, *PIECES, old=old, rsync64=None if old else b"12345678")
    with made.blueprint() as blueprint:
        builder = begin(blueprint, str(tmp_path / "x.iso"))
        sources = sources_of(made.file(0), made.file(1))
        missing = fill_from_sources(builder, builder.missing(), sources, no_names)
        assert find_damaged(blueprint, missing, sources) == []
        assert fill_from_sources(builder, missing, sources_of(made.file(2)), no_names) == []
        builder.write_raw()
        builder.finish()
        builder.close()
    assert (tmp_path / "x.iso").read_bytes() == made.image


# -- what is being fetched ---------------------------------------------------------------------------


def test_place_sink(builder: Builder) -> None:
    """Bytes that come over the net lie in place at once, and count when they are verified."""
    a = builder.missing()[0]
    sink = PlaceSink(builder, a)
    sink.write(b"wrong")
    sink.restart()
    for at in range(0, len(A), 1000):
        sink.write(A[at : at + 1000])
    with pytest.raises(ValueError, match="more bytes"):
        sink.write(b"x")
    assert (sink.received, sink.checksum()) == (len(A), a.part.checksum)
    assert builder.account.done == len(A)
    assert builder.missing()[0] == a
    sink.finish()
    assert builder.account.done == 2 * len(A)
    assert builder.account.fetched == len(A) + 5
    assert len(builder.missing()) == 2
    assert content(builder)[-len(A) - 4 : -4] == A


def test_account() -> None:
    """What is on its way counts once, and what was lost counts no more."""
    account = Account(100)
    account.add(origins.LOCAL, 30, 2)
    account.arrive(40)
    assert (account.done, account.fetched) == (70, 40)
    account.arrive(-40)
    account.arrive(40)
    account.settle(40)
    account.add(origins.MIRRORS, 40, 1)
    assert (account.done, account.fetched) == (70, 80)
    account.add(origins.LOCAL, -30, -2)
    assert account.done == 40
    assert account.shares[origins.LOCAL].parts == 0


# -- failing and stopping ----------------------------------------------------------------------------


def test_failure_ends_the_filling(builder: Builder) -> None:
    """What one thread runs into is raised after the others have ended, and nothing more is begun."""
    begun: list[Missing] = []

    def obtain(wanted: Missing) -> bool:
        begun.append(wanted)
        raise NoRoom("full")

    many = builder.missing() * 100
    with pytest.raises(NoRoom, match="full"):
        builder.fill(many, obtain)
    assert len(begun) < len(many)


def test_failure_beside_raw_data(builder: Builder) -> None:
    """What goes wrong while raw data is written ends that, too, and is what is told."""
    with pytest.raises(KeyError, match="mine"), writing_raw(builder):
        raise KeyError("mine")
    assert builder.stopped


@pytest.mark.parametrize("kind", ["adler", "bytes", "cut"])
def test_damaged_raw_data(made: Made, kind: str) -> None:
    """A damaged chunk is an error of the template, and raw data is not taken for complete."""
    made.template.write_bytes(damaged(made.template.read_bytes(), kind))
    with made.blueprint() as blueprint:
        builder = begin(blueprint, str(made.template.with_name("x.iso")))
        with pytest.raises(FormatError, match=r"x\.template"), writing_raw(builder):
            fill_from_sources(builder, builder.missing(), sources_of(made.pool), no_names)
        assert not builder.unfinished.raw_complete
        assert builder.missing() == []
        builder.close()


def test_template_changes_meanwhile(made: Made, builder: Builder) -> None:
    """A template that is written to while it is used is noticed."""
    data = made.template.read_bytes()
    made.template.write_bytes(data + b"x")
    with pytest.raises(InputError, match=r"x\.template"):
        builder.write_raw()
    assert not builder.unfinished.raw_complete


def test_stop_ends_who_waits(builder: Builder) -> None:
    """Who waits for the check of an image that will not be complete is let go at once, with an error."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(builder.wrong_sums)
        builder.stop()
        with pytest.raises(JigdofsError):
            waiting.result(ENDS_S)


def test_stopped_work_is_not_begun(builder: Builder) -> None:
    """After stop() nothing is written any more."""
    builder.stop()
    builder.stop()
    with pytest.raises(Stopped):
        builder.write_raw()
    with pytest.raises(Stopped):
        builder.fill(builder.missing(), lambda _: True)
    assert not any(content(builder))


def test_stopped_is_not_finished(made: Made, builder: Builder) -> None:
    """An image whose check was stopped gets no name, though everything is in place."""
    builder.stop()
    with pytest.raises(JigdofsError):
        builder.finish()
    assert not made.template.with_name("x.iso").exists()


def test_stop_before_a_second_check(builder: Builder) -> None:
    """A check that begins anew after stop() does not wait for ever."""
    builder.stop()
    with pytest.raises(JigdofsError):
        builder.unmark_damage()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(builder.wrong_sums)
        try:
            with pytest.raises(JigdofsError):
                waiting.result(3)
        finally:
            builder.stop()


def test_no_thread_is_left(made: Made, blueprint: Blueprint) -> None:
    """Closed, a builder leaves neither threads nor descriptors."""
    before, open_before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        builder = begin(blueprint, str(made.template.with_name("y.iso")))
        builder.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (before, open_before)


def test_no_room_is_told_before(made: Made, blueprint: Blueprint) -> None:
    """What cannot fit is refused before it is fetched; what fits, or lies there already, is not."""
    require_root()
    with tiny_tmpfs(128 << 10) as tiny:
        builder = begin(blueprint, str(tiny / "x.iso"))
        with pytest.raises(NoRoom, match="more bytes are needed"):
            builder.check_room(builder.missing())
        builder.check_room(builder.missing()[:2])
        builder.close()


@pytest.mark.parametrize("kind", ["none", "directory", "nul", "fifo", "device"])
def test_template_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    """Whatever is named as a template ends in an error that names it; nothing is waited for."""
    path = {"nul": "a\0b", "device": "/dev/null"}.get(kind, str(tmp_path / "x.template"))
    if kind == "directory":
        os.mkdir(path)
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises((InputError, FormatError)) as caught:  # noqa: PT012
        template = open_template(path)
        try:
            read_blueprint(template, {}, path)
        finally:
            os.close(template.fd)
    assert "None" not in str(caught.value)
