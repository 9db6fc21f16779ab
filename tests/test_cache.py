"""Cache: what it gives out is right, the quota holds, and a hostile directory hurts nobody."""

import contextlib
import functools
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import pytest

from jigdofs.config import CacheOptions
from jigdofs.errors import CacheError, UnsafeCache
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.cache import Cache
from jigdofs.parts.object_files import stored_files
from jigdofs.parts.open_file import Fingerprint
from jigdofs.parts.small_files import keep_small, read_small
from jigdofs.parts.spool import MemoryPlace, Spool
from jigdofs.parts.unnamed import can_keep_unnamed
from jigdofs.parts.used import UsedAt
from jigdofs.wiring.foundation import open_cache, open_remembered
from tests.campaigns.watched import Watched
from tests.kit.requirements import as_user, lack, require_root, tool

KIB = 1 << 10
QUOTA = 256 * KIB


def content(number: int, size: int = 16 * KIB) -> bytes:
    return random.Random(number).randbytes(size)


def sum_of(data: bytes) -> Checksum:
    return Checksum.of(Algorithm.SHA256, data)


def key_of(data: bytes) -> str:
    return f"sha256-{sum_of(data).hex}"


def open_at(directory: Path, quota: int | None = QUOTA) -> Cache:
    return Cache(directory, max_bytes=quota, min_free_bytes=0)


def put(cache: Cache, data: bytes) -> None:
    """Keep a file, or not, as the cache sees fit; it is right either way."""
    spool = Spool(
        len(data), (cache.place(key_of(data), sum_of(data)), MemoryPlace(1 << 30)), Algorithm.SHA256.hasher
    )
    try:
        spool.write(data)
        file = spool.finish()
    finally:
        spool.abandon()
    assert os.pread(file.fd, len(data) + 1, 0) == data
    file.discard()


def has(cache: Cache, data: bytes) -> bool:
    """Tell whether the cache has a file; whatever it gives out must be right."""
    file = cache.open(key_of(data), len(data), sum_of(data))
    if file is None:
        return False
    try:
        assert os.pread(file.fd, len(data) + 1, 0) == data
        return True
    finally:
        file.discard()


def bytes_in(directory: Path, *names: str) -> int:
    total = 0
    for name in names or ("objects", "incoming"):
        for root, _, files in os.walk(directory / name):
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(root, file)).st_size
    return total


def bytes_at_one_moment(directory: Path) -> int:
    """Add up while nobody can evict: what went and what came meanwhile must not both count."""
    path = directory / "index" / "cache.db"
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        total = bytes_in(directory)
        database.execute("ROLLBACK")
    return total


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(directory: Path) -> Iterator[Cache]:
    cache = open_at(directory)
    yield cache
    cache.close()


# -- one process -------------------------------------------------------------------------------------


def test_keep_and_open(cache: Cache, directory: Path) -> None:
    """What was kept is there, under its name, with a place of its own and no other rights than ours."""
    data = content(1)
    assert not has(cache, data)
    put(cache, data)
    assert has(cache, data)
    path = cache.path(key_of(data))
    assert path.is_relative_to(directory / "objects")
    assert path.read_bytes() == data
    assert cache.present([key_of(data), key_of(b"other")]) == {key_of(data)}
    for made in (directory, path.parent, path.parent.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list((directory / "incoming").iterdir()) == []


def test_wrong_length_is_none(cache: Cache) -> None:
    """A file of another length than asked for is not given out."""
    data = content(1)
    put(cache, data)
    assert cache.open(key_of(data), len(data) - 1, sum_of(data)) is None


@pytest.mark.parametrize(
    "key",
    ["", "md5-", "../x", "md5-../../etc", "sha1-" + "a" * 40, "md5-" + "A" * 32, "md5-" + "a" * 32 + "\n"],
)
def test_no_key(cache: Cache, key: str) -> None:
    """What is no key never becomes a path."""
    for use in (lambda: cache.path(key), lambda: cache.open(key, 1)):
        with pytest.raises(CacheError):
            use()


def test_used_files_stay(directory: Path) -> None:
    """Beyond the quota the files go that were not used for the longest."""
    cache = open_at(directory)
    files = [content(number) for number in range(40)]
    for data in files:
        put(cache, data)
        assert has(cache, files[0]), "used again and again"
        assert bytes_in(directory) <= QUOTA
    assert has(cache, files[-1])
    assert not has(cache, files[1])
    cache.close()


@pytest.mark.parametrize("size", [QUOTA, QUOTA + 1, 10 * QUOTA])
def test_large_file(cache: Cache, directory: Path, size: int) -> None:
    """A file as large as the quota or larger is served, and the quota holds."""
    put(cache, content(1))
    put(cache, content(2, size))
    assert bytes_in(directory) <= QUOTA
    assert has(cache, content(2, size)) == (size <= QUOTA)
    put(cache, content(3))
    assert has(cache, content(3))


def test_open_file_is_spared(cache: Cache, directory: Path) -> None:
    """What is open is not evicted, not even when nothing else is left to go."""
    kept = [content(number) for number in range(8)]
    for data in kept:
        put(cache, data)
    files = [cache.open(key_of(data), None, sum_of(data)) for data in kept]
    for number in range(100, 130):
        put(cache, content(number))
        assert bytes_in(directory) <= QUOTA
    assert cache.present(map(key_of, kept)) == set(map(key_of, kept))
    for file in files:
        assert file is not None
        file.discard()


def test_everything_is_in_use(cache: Cache, directory: Path) -> None:
    """When all that could go is open, files are served from elsewhere; later the cache works again."""
    files = []
    for number in range(QUOTA // (16 * KIB)):
        put(cache, content(number))
        files.append(cache.open(key_of(content(number)), None, sum_of(content(number))))
    put(cache, content(99))
    assert not has(cache, content(99))
    for file in files:
        assert file is not None
        file.discard()
    put(cache, content(99))
    assert has(cache, content(99))


def test_reserve_and_release(cache: Cache) -> None:
    """Reservations count against the quota and come back when they are not used."""
    for _ in range(10):
        cache.reserve(QUOTA)
        with pytest.raises(CacheError):
            cache.reserve(1)
        cache.release(QUOTA)


def test_many_abandoned_spools(cache: Cache, directory: Path) -> None:
    """Downloads that break off leave neither files nor reservations."""
    for number in range(50):
        spool = Spool(QUOTA // 2, (cache.place(key_of(content(number)), None),), Algorithm.SHA256.hasher)
        spool.write(content(number))
        spool.abandon()
    assert bytes_in(directory) == 0
    cache.reserve(QUOTA)
    cache.release(QUOTA)


@pytest.mark.parametrize("even_if_open", [False, True])
def test_files_that_two_remove(directory: Path, *, even_if_open: bool) -> None:
    """What another process has removed meanwhile is not taken off the accounts twice."""
    one, other = open_at(directory), open_at(directory)
    for number in range(14):
        put(one, content(number))
    one.flush()
    fd = os.open(directory / "objects", os.O_RDONLY)
    files = sorted(stored_files(fd, UsedAt(b"")))[:4]
    os.close(fd)
    for _ in range(3):
        assert set(one.remove(files, even_if_open=even_if_open)) == set(files), "they are not there any more"
        assert set(other.remove(files, even_if_open=even_if_open)) == set(files)
    other.take_stock()
    assert other.stock is not None
    assert other.stock.used == bytes_in(directory, "objects") == 10 * 16 * KIB
    for number in range(100, 130):
        put(other, content(number))
        assert bytes_in(directory) <= QUOTA
    one.close()
    other.close()


def test_free_space_is_kept(directory: Path) -> None:
    """Without as much free space as is to be kept, nothing is cached and everything is served."""
    cache = Cache(directory, max_bytes=None, min_free_bytes=1 << 62)
    put(cache, content(1))
    assert not has(cache, content(1))
    assert bytes_in(directory) == 0
    cache.close()


def test_threads(directory: Path) -> None:
    """Threads that keep and open files at once get right ones, and the quota holds."""
    cache = open_at(directory)
    failed: list[Exception] = []

    def work(first: int) -> None:
        dice = random.Random(first)
        try:
            for _ in range(60):
                data = content(dice.randrange(40))
                if not has(cache, data):
                    put(cache, data)
        except Exception as error:  # noqa: BLE001  a thread has nobody else to tell
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert bytes_at_one_moment(directory) <= QUOTA
        threads[-1].join(0.005)
        threads = [thread for thread in threads if thread.is_alive()] or threads[:0]
    assert failed == []
    cache.close()


# -- trust -------------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    """Change a byte, as a failing disk or a careless user would."""
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)


@pytest.mark.logs("is not what it was")
@pytest.mark.parametrize("how", ["byte", "shorter", "longer", "replaced", "empty"])
def test_changed_file(cache: Cache, how: str) -> None:
    """A file that was changed behind our back is found out, removed, and can be kept anew."""
    data = content(1)
    put(cache, data)
    path = cache.path(key_of(data))
    match how:
        case "byte":
            damage(path)
        case "shorter":
            os.truncate(path, 5)
        case "longer":
            path.write_bytes(data + b"x")
        case "replaced":
            path.unlink()
            path.write_bytes(content(2))
        case _:
            os.truncate(path, 0)
    for length in (None, len(data)):
        assert cache.open(key_of(data), length, sum_of(data)) is None
    assert not path.exists()
    put(cache, data)
    assert has(cache, data)


def test_touched_file(cache: Cache) -> None:
    """A file of another date is verified and found right."""
    data = content(1)
    put(cache, data)
    os.utime(cache.path(key_of(data)), ns=(1, 1))
    assert has(cache, data)
    assert has(cache, data)


def make_trusted_but_wrong(directory: Path, data: bytes) -> None:
    """Change a file, and the fingerprint that is noted of it."""
    path = next(path for path in (directory / "objects").rglob(sum_of(data).hex))
    with path.open("r+b") as file:
        file.write(b"\0\0\0")
    now = list(Fingerprint.of_status(path.stat()))
    row = ("file:" + key_of(data),)
    with (
        contextlib.closing(sqlite3.connect(directory / "index" / "cache.db", timeout=10)) as database,
        database,
    ):
        for (text,) in database.execute("SELECT value FROM Cache WHERE key = ?", row).fetchall():
            changed = json.dumps([*now, *json.loads(text)[-2:]])
            database.execute("UPDATE Cache SET value = ? WHERE key = ?", (changed, *row))


def test_a_write_that_hides_itself(cache: Cache, expected_log: Callable[[str], None]) -> None:
    """A file that was changed in place, with its old time put back, is found out; open or not."""
    expected_log("is not what it was")
    data = content(1)
    put(cache, data)
    path = cache.path(key_of(data))
    held = cache.open(key_of(data), len(data), sum_of(data))
    assert held is not None
    assert held.unchanged()
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"\0\0\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not held.unchanged()
    held.discard()
    assert cache.open_at_once(key_of(data), len(data)) is None
    assert not has(cache, data)


def test_what_older_versions_noted(directory: Path) -> None:
    """A note without ctime is not believed, but its checksum is of use: the file is verified and stays."""
    data, key = content(1), f"raw-{'ab' * 32}-7"
    cache = open_at(directory)
    spool = Spool(len(data), (cache.place(key, None),), Algorithm.SHA256.hasher)
    spool.write(data)
    spool.finish().discard()
    cache.close()
    row = ("file:" + key,)
    with contextlib.closing(sqlite3.connect(directory / "index" / "cache.db")) as database, database:
        ((text,),) = database.execute("SELECT value FROM Cache WHERE key = ?", row).fetchall()
        values = json.loads(text)
        database.execute(
            "UPDATE Cache SET value = ? WHERE key = ?", (json.dumps([*values[:3], *values[4:]]), *row)
        )
    cache = open_at(directory)
    cache.learn([key])
    assert cache.open_at_once(key, len(data)) is None
    file = cache.open(key, len(data))
    assert file is not None
    file.discard()
    cache.close()


def test_what_is_being_written_has_no_name(cache: Cache, directory: Path) -> None:
    """Nobody can open a file before it is complete, so nobody can change it then."""
    if not can_keep_unnamed(os.open(directory / "incoming", os.O_RDONLY), "try"):
        lack("this filesystem cannot have files without a name")
    data = content(1)
    spool = Spool(len(data), (cache.place(key_of(data), sum_of(data)),), Algorithm.SHA256.hasher)
    spool.write(data)
    assert list((directory / "incoming").iterdir()) == []
    spool.finish().discard()
    assert has(cache, data)


@pytest.mark.logs("is not what it was")
@pytest.mark.parametrize("noted", [None, 0, 1 << 62])
def test_a_hole_is_not_hashed(cache: Cache, directory: Path, noted: int | None) -> None:
    """A file of a length that nobody knows, and that no file of ours has, does not take hours to verify.

    Nor does what the index says of its length, tampered with or not, make it do so.
    """
    data = content(1)
    put(cache, data)
    cache.flush()
    path = cache.path(key_of(data))
    row = ("file:" + key_of(data),)
    with contextlib.closing(sqlite3.connect(directory / "index" / "cache.db")) as database, database:
        if noted is None:
            database.execute("DELETE FROM Cache WHERE key = ?", row)
        else:
            ((text,),) = database.execute("SELECT value FROM Cache WHERE key = ?", row).fetchall()
            changed = json.dumps([noted, *json.loads(text)[1:]])
            database.execute("UPDATE Cache SET value = ? WHERE key = ?", (changed, *row))
    os.truncate(path, 1 << 42)
    assert cache.open(key_of(data), None, sum_of(data)) is None
    assert not path.exists()


def test_clean_end_is_trusted(directory: Path) -> None:
    """After a clean end a file of the same fingerprint is believed without reading it."""
    data = content(1)
    cache = open_at(directory)
    put(cache, data)
    cache.close()
    make_trusted_but_wrong(directory, data)
    cache = open_at(directory)
    file = cache.open(key_of(data), len(data), sum_of(data))
    assert file is not None, "which shows that it was not read"
    assert os.pread(file.fd, 3, 0) == b"\0\0\0"
    file.discard()
    cache.close()


@pytest.mark.parametrize("length", [None, 16 * KIB])
@pytest.mark.parametrize("flush", [False, True])
def test_unclean_end_is_not_trusted(
    directory: Path, flush: bool, length: int | None, expected_log: Callable[[str], None]
) -> None:
    """After a kill every file is verified again: a right one serves, a wrong one is removed."""
    if flush:
        expected_log("is not what it was")
    right, wrong = content(1), content(2)
    with Process(work_and_wait, directory, [1, 2], flush) as process:
        process.kill()
    make_trusted_but_wrong(directory, wrong)
    cache = open_at(directory)
    assert has(cache, right)
    assert cache.open(key_of(wrong), length, sum_of(wrong)) is None
    assert not cache.path(key_of(wrong)).exists()
    cache.close()


@pytest.mark.logs("is not what it was")
def test_running_session_is_trusted(directory: Path) -> None:
    """What a process that runs has verified and noted is believed, and no longer when it was killed."""
    data = content(1)
    cache = open_at(directory)
    with Process(work_and_wait, directory, [1], True) as process:
        make_trusted_but_wrong(directory, data)
        file = cache.open(key_of(data), len(data), sum_of(data))
        assert file is not None
        file.discard()
        cache.close()
        process.kill()
    cache = open_at(directory)
    assert not has(cache, data)
    cache.close()


def test_chunk_without_checksum(directory: Path) -> None:
    """A file whose checksum only the index knows stays after a clean end and goes with the index."""
    data, key = content(1), f"raw-{'ab' * 32}-7"
    cache = open_at(directory)
    spool = Spool(len(data), (cache.place(key, None),), Algorithm.SHA256.hasher)
    spool.write(data)
    spool.finish().discard()
    cache.close()
    cache = open_at(directory)
    file = cache.open(key, len(data))
    assert file is not None
    file.discard()
    cache.close()
    for path in (directory / "index").iterdir():
        path.unlink()
    cache = open_at(directory)
    assert cache.open(key, len(data)) is None
    cache.close()


def test_documents_are_noted(directory: Path) -> None:
    """What a server said about a URL survives, whatever characters it has."""
    cache = open_at(directory)
    cache.note_document("http://127.0.0.1/\u00e9?\U0001f4be", "text \0 \u00e9")
    cache.close()
    cache = open_at(directory)
    assert cache.document("http://127.0.0.1/\u00e9?\U0001f4be") == "text \0 \u00e9"
    assert cache.document("http://127.0.0.1/") is None
    cache.close()


# -- several processes -------------------------------------------------------------------------------

_SPAWN = multiprocessing.get_context("spawn")


class Process:
    """A process that runs `work(connection, …)` and reports when it is ready; ended when we leave."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=work, args=(theirs, *arguments))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        assert self.report(60) == "ready"
        return self

    def report(self, timeout_s: float) -> object:
        """Return the next thing it reports."""
        assert self.connection.poll(timeout_s), "the process says nothing"
        return self.connection.recv()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._process.join()

    @property
    def ended(self) -> bool:
        return not self._process.is_alive()

    def __exit__(self, *details: object) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()


def work_and_wait(connection: Connection, directory: Path, numbers: list[int], flush: bool) -> None:
    """Keep some files and wait for the end, with one more half written."""
    cache = open_at(directory)
    for number in numbers:
        put(cache, content(number))
    if flush:
        cache.flush()
    spool = Spool(16 * KIB, (cache.place(key_of(content(77)), None),), Algorithm.SHA256.hasher)
    spool.write(b"half")
    connection.send("ready")
    connection.recv()


def hold_open(connection: Connection, directory: Path, numbers: list[int]) -> None:
    """Keep some files and hold them open until told to let go."""
    cache = open_at(directory)
    for number in numbers:
        put(cache, content(number))
    files = [cache.open(key_of(content(number)), None, sum_of(content(number))) for number in numbers]
    assert None not in files
    connection.send("ready")
    connection.recv()
    for file in files:
        assert file is not None
        file.discard()
    cache.close()
    connection.send("done")


def churn(connection: Connection, directory: Path, seed: int) -> None:
    """Keep and open many files, more than the quota takes; report how many were found in the cache."""
    cache = open_at(directory)
    connection.send("ready")
    connection.recv()
    dice = random.Random(seed)
    found = 0
    for _ in range(150):
        number = dice.randrange(60)
        data = content(number, 1000 + number * 500)
        if has(cache, data):
            found += 1
        else:
            put(cache, data)
    cache.close()
    connection.send(found)


def test_quota_of_several_processes(directory: Path) -> None:
    """Processes that use one cache at once never exceed the quota, and find each other's files."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(Process(churn, directory, seed)) for seed in range(3)]
        for process in processes:
            process.connection.send("go")
        most = 0
        while not all(process.connection.poll(0) for process in processes):
            most = max(most, bytes_at_one_moment(directory))
            assert most <= QUOTA
            processes[0].connection.poll(0.02)
            assert not any(process.ended and not process.connection.poll(0) for process in processes)
        found = [process.report(1) for process in processes]
    assert most > QUOTA // 2
    assert all(isinstance(count, int) and count > 0 for count in found)
    cache = open_at(directory)
    for number in range(60):
        has(cache, content(number, 1000 + number * 500))  # whatever is there is right
    cache.close()


def test_open_elsewhere_is_spared(directory: Path) -> None:
    """What another process has open is not evicted."""
    held = list(range(8))
    with Process(hold_open, directory, held) as process:
        cache = open_at(directory)
        for number in range(100, 140):
            put(cache, content(number))
            assert bytes_in(directory) <= QUOTA
        assert cache.present(key_of(content(number)) for number in held) == {
            key_of(content(number)) for number in held
        }
        process.connection.send("go")
        assert process.report(30) == "done"
        for number in range(200, 240):
            put(cache, content(number))
        assert cache.present(key_of(content(number)) for number in held) == set()
        cache.close()


def left_by(directory: Path) -> None:
    """Put there what the one session that runs is writing, as on a filesystem where that has a name."""
    (session,) = (directory / "sessions").iterdir()
    (directory / "incoming" / f"{session.name}-99").write_bytes(b"half")


def test_killed_process_leaves_nothing(directory: Path) -> None:
    """What a killed process was writing is removed by the next one; what a running one writes is not."""
    with Process(work_and_wait, directory, [1], False) as running:
        left_by(directory)
        open_at(directory).close()
        assert len(list((directory / "incoming").iterdir())) == 1
        running.kill()
    open_at(directory).close()
    assert list((directory / "incoming").iterdir()) == []
    assert list((directory / "sessions").iterdir()) == []


def test_accounts_after_a_kill(directory: Path) -> None:
    """Files that a killed process did not account for count, and what it had reserved is free again."""
    numbers = list(range(10))
    with Process(work_and_wait, directory, numbers, False) as process:
        process.kill()
    cache = open_at(directory)
    for number in range(100, 150):
        put(cache, content(number))
        assert bytes_in(directory) <= QUOTA
    assert sum(has(cache, content(number)) for number in range(100, 150)) >= 12, "most of it is of use"
    cache.close()


def test_accounts_after_a_locked_index(directory: Path) -> None:
    """Files that could not be accounted for, as the index was locked for too long, count all the same."""
    cache = open_at(directory)
    for number in range(14):
        put(cache, content(number))
    with contextlib.closing(sqlite3.connect(directory / "index" / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        cache.flush()
        other.execute("ROLLBACK")
    cache.close()
    cache = open_at(directory)
    for number in range(100, 114):
        put(cache, content(number))
        assert bytes_in(directory) <= QUOTA
    cache.close()


def test_accounts_that_stay_locked(directory: Path) -> None:
    """Somebody holds them for long, stopped perhaps: one wait for that is enough, not one for each part."""
    cache = open_at(directory)
    with contextlib.closing(sqlite3.connect(directory / "index" / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        for number in range(5):
            with contextlib.suppress(CacheError):
                cache._quota.reserve(1 << 30)
            put(cache, content(number))
        assert time.monotonic() - begun < 8, "five waits take ten seconds and more"
        other.execute("ROLLBACK")
    cache.close()


def test_busy_index_is_not_damaged(directory: Path) -> None:
    """An index that others keep locked is waited for briefly, and not taken for a damaged one."""
    cache = open_at(directory)
    put(cache, content(1))
    cache.flush()

    def try_to_open() -> None:
        with contextlib.suppress(CacheError):
            open_at(directory).close()

    thread = threading.Thread(target=try_to_open)
    with contextlib.closing(sqlite3.connect(directory / "index" / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        thread.start()
        thread.join(6)
        hangs = thread.is_alive()
        other.execute("ROLLBACK")
    thread.join()
    cache.close()
    assert not hangs
    assert [path.name for path in directory.iterdir() if "index" in path.name] == ["index"]


# -- a hostile directory -----------------------------------------------------------------------------


@contextlib.contextmanager
def index_of(directory: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(
        sqlite3.connect(directory / "index" / "cache.db", isolation_level=None)
    ) as database:
        yield database


class Bomb:
    """Leave a mark when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


def use(directory: Path) -> None:
    """Do with a cache whatever can be done; nothing wrong may come out of it."""
    cache = open_at(directory)
    for number in range(3):
        has(cache, content(number))
    for number in range(30):
        put(cache, content(number))
        cache.document("http://127.0.0.1/")
        cache.note_document("http://127.0.0.1/", "new")
    assert bytes_in(directory, "objects") <= 2 * QUOTA
    cache.flush()
    cache.close()


def filled(directory: Path) -> None:
    cache = open_at(directory)
    for number in range(3):
        put(cache, content(number))
    cache.note_document("http://127.0.0.1/", "old")
    cache.close()


@pytest.mark.parametrize("mode", [1, 2, 3, 4, 99])
def test_tampered_rows(directory: Path, tmp_path: Path, mode: int) -> None:
    """Rows that name a file or hold a pickle are neither opened, unlinked nor unpickled."""
    victim, mark = tmp_path / "victim", tmp_path / "mark"
    victim.write_bytes(b"precious")
    filled(directory)
    with index_of(directory) as database:
        database.execute("UPDATE Cache SET mode = ?, filename = ?", (mode, str(victim)))
        database.execute("UPDATE Cache SET value = ?", (pickle.dumps(Bomb(mark)),))
    use(directory)
    assert victim.read_bytes() == b"precious"
    assert not mark.exists()


def test_tampered_row_with_a_right_mode(directory: Path, tmp_path: Path) -> None:
    """A row of the usual mode that names a file too is not followed."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    filled(directory)
    with index_of(directory) as database:
        database.execute("UPDATE Cache SET filename = ?", (os.path.relpath(victim, directory / "index"),))
    use(directory)
    assert victim.read_bytes() == b"precious"


def test_pickled_keys(directory: Path, tmp_path: Path) -> None:
    """Keys that are pickles are not unpickled."""
    filled(directory)
    with index_of(directory) as database:
        database.execute(
            "INSERT INTO Cache (key, raw, mode, value, store_time, access_time) VALUES (?, 0, 4, ?, 0, 0)",
            (pickle.dumps(Bomb(tmp_path / "mark")), pickle.dumps(Bomb(tmp_path / "mark"))),
        )
    use(directory)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        "[1,2,3]",
        '["x","y","z","s","00"]',
        '[16384, 1, 1, "clean", "00"]',
        '{"used": -5, "grants": {}}',
        '{"used": 0, "grants": {"x": "y"}}',
        '{"used": 0, "grants": {"x": null}}',
        '{"used": 0, "grants": {"x": []}}',
        '{"used": 1e999, "grants": 7}',
        '{"used": true, "grants": {"a": 99999999999999999999999}}',
        "[" * 100_000,
        "9" * 10_000,
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_garbage_texts(directory: Path, text: str) -> None:
    """Values that are no rows of ours, nor accounts, are taken for none."""
    filled(directory)
    with index_of(directory) as database:
        database.execute("UPDATE Cache SET value = ?, mode = 1, filename = NULL", (text,))
    use(directory)
    cache = open_at(directory)
    put(cache, content(5))
    assert has(cache, content(5)), "the cache is of use again"
    cache.close()


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_garbage_database(directory: Path, garbage: bytes) -> None:
    """An index that is no database is begun anew; the files are verified and found right."""
    filled(directory)
    (directory / "index" / "cache.db").write_bytes(garbage)
    for leftover in (directory / "index").glob("cache.db-*"):
        leftover.unlink()
    cache = open_at(directory)
    assert all(has(cache, content(number)) for number in range(3))
    put(cache, content(9))
    assert has(cache, content(9))
    cache.close()


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE Cache",
        "DROP TABLE Settings",
        "DROP TABLE Cache; CREATE TABLE Cache (key, value)",
        "DROP TABLE Settings; CREATE TABLE Settings (name)",
        "INSERT INTO Settings VALUES ('disk_colour', 'red')",
        "INSERT INTO Settings VALUES ('get', 'not a method')",
        "UPDATE Settings SET value = 'everything'",
        "UPDATE Settings SET value = NULL",
    ],
)
def test_old_schema(directory: Path, change: str) -> None:
    """An index of another schema costs a verification; it is of use again, now or next time."""
    filled(directory)
    with index_of(directory) as database:
        database.executescript(change)
    use(directory)
    cache = open_at(directory)
    put(cache, content(50))
    assert has(cache, content(50))
    cache.close()


def test_truncated_database(directory: Path) -> None:
    """An index that lost its end is an index that lost its end."""
    filled(directory)
    os.truncate(directory / "index" / "cache.db", 5000)
    use(directory)


@pytest.mark.parametrize(
    "kind", ["directory", "full directory", "link", "dangling", "fifo", "device", "hard link"]
)
def test_something_in_the_place_of_an_object(
    directory: Path, tmp_path: Path, kind: str, expected_log: Callable[[str], None]
) -> None:
    """Whatever lies in the place of a file: nothing outside is touched, nothing hangs, the part is served."""
    victim = tmp_path / "victim"
    victim.write_bytes(content(2))
    cache = open_at(directory)
    data = content(1)
    path = cache.path(key_of(data))
    path.parent.mkdir(parents=True)
    match kind:
        case "directory":
            path.mkdir()
            expected_log("cannot keep a file in the cache")
        case "full directory":
            (path / "x").mkdir(parents=True)
            expected_log("cannot keep a file in the cache")
        case "link":
            path.symlink_to(victim)
        case "dangling":
            path.symlink_to(tmp_path / "new")
        case "fifo":
            os.mkfifo(path)
        case "device":
            require_root()
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        case _:
            os.link(victim, path)
    assert not has(cache, data)
    put(cache, data)
    for number in range(100, 130):
        put(cache, content(number))
    assert victim.read_bytes() == content(2)
    assert not (tmp_path / "new").exists()
    cache.close()


@pytest.mark.parametrize("name", ["objects", "objects/sha256", "shard", "incoming", "sessions"])
def test_link_in_the_place_of_a_directory(
    directory: Path, tmp_path: Path, name: str, expected_log: Callable[[str], None]
) -> None:
    """A link in the place of one of our directories leads to no file outside, be it made or removed."""
    data = content(1)
    outside = tmp_path / "outside"
    hexsum = sum_of(data).hex
    for victim in (outside / hexsum, outside / "sha256" / hexsum[:2] / hexsum, outside / hexsum[:2] / hexsum):
        victim.parent.mkdir(parents=True, exist_ok=True)
        victim.write_bytes(b"precious")
    (outside / "0123456789abcdef").write_bytes(b"precious")
    (outside / "0123456789abcdef-0").write_bytes(b"precious")
    before = sorted(str(path) for path in outside.rglob("*"))
    directory.mkdir(mode=0o700)
    place = directory / (f"objects/sha256/{hexsum[:2]}" if name == "shard" else name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside)
    (directory / "sessions").mkdir(exist_ok=True)
    if name != "sessions":
        (directory / "sessions" / "0123456789abcdef").touch()
    try:
        cache = open_at(directory)
    except CacheError:
        pass  # to refuse it is as good
    else:
        with contextlib.suppress(CacheError):
            cache.open(key_of(data), None, sum_of(data))
        place_of = cache.place(key_of(data), sum_of(data))
        spool = Spool(len(data), (place_of, MemoryPlace(1 << 30)), Algorithm.SHA256.hasher)
        spool.write(data)
        spool.finish().discard()
        for number in range(100, 130):
            put(cache, content(number))
        cache.close()
    assert sorted(str(path) for path in outside.rglob("*")) == before
    assert {path.read_bytes() for path in outside.rglob("*") if path.is_file()} == {b"precious"}


@pytest.mark.parametrize("name", ["*", "?*", "[0-9a-f]*", "..-", "**"])
def test_hostile_session_name(directory: Path, name: str) -> None:
    """The name of a dead session is no pattern: it removes nothing of a session that lives."""
    cache = open_at(directory)
    left_by(directory)
    (directory / "sessions" / name).touch()
    open_at(directory).close()
    assert len(list((directory / "incoming").iterdir())) == 1
    cache.close()


@pytest.mark.parametrize(
    "name", ["sessions/0123456789abcdef", "index", "CACHEDIR.TAG", "index/cache.db", "objects"]
)
def test_fifo_in_the_directory(directory: Path, name: str) -> None:
    """A FIFO in the place of any file of ours holds nobody up."""
    filled(directory)
    place = directory / name
    if place.is_dir():
        place.rename(directory / "aside")
    else:
        place.unlink(missing_ok=True)
    os.mkfifo(place)
    program = "import sys, pathlib, jigdofs.parts.cache as c, jigdofs.errors as e\n"
    program += "try: c.Cache(pathlib.Path(sys.argv[1]), max_bytes=None, min_free_bytes=0).close()\n"
    program += "except e.CacheError: pass\n"
    done = subprocess.run([sys.executable, "-c", program, directory], timeout=10, check=False)
    assert done.returncode == 0


# -- a directory that cannot be ours -----------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o702, 0o1777])
def test_writable_by_others(directory: Path, mode: int) -> None:
    """A directory that others can write to is refused, also where the cache is optional."""
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(UnsafeCache, match="chmod go-w"):
        open_at(directory)
    with pytest.raises(UnsafeCache):
        open_cache(CacheOptions(directory))
    assert list(directory.iterdir()) == []


def test_of_another_owner(directory: Path) -> None:
    """A directory of another user is refused, even by root."""
    require_root()
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    with pytest.raises(UnsafeCache, match="uid 65534"):
        open_at(directory)
    assert list(directory.iterdir()) == []


def test_readable_by_others(directory: Path) -> None:
    """A directory that others can only read is accepted."""
    directory.mkdir()
    directory.chmod(0o755)
    open_at(directory).close()


def test_no_directory(tmp_path: Path) -> None:
    """A file in the place of the directory is an error of the cache."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CacheError):
            open_at(place)


@pytest.mark.logs("going on without a cache")
def test_optional_cache_on_a_file(tmp_path: Path) -> None:
    """Where the cache cannot be used for any other reason, everything goes on without one."""
    (tmp_path / "file").touch()
    assert open_cache(CacheOptions(tmp_path / "file")) is None
    assert open_cache(CacheOptions(tmp_path / "file", min_free_bytes=0)) is None
    assert open_cache(None) is None


@pytest.mark.logs("going on without a cache")
def test_read_only_filesystem(directory: Path) -> None:
    """A cache on a filesystem that is read-only is done without, be it new or filled."""
    require_root()
    directory.mkdir(mode=0o700)
    options = [tool("mount"), "-t", "tmpfs", "-o", "size=4m,mode=0700", "kit", str(directory)]
    if subprocess.run(options, capture_output=True, check=False).returncode:
        lack("mounting is not permitted here")
    try:
        for fill in (False, True):
            if fill:
                subprocess.run([tool("mount"), "-o", "remount,rw", directory], check=True)
                filled(directory)
            subprocess.run([tool("mount"), "-o", "remount,ro", directory], check=True)
            assert open_cache(CacheOptions(directory)) is None
    finally:
        subprocess.run([tool("umount"), "-l", directory], check=True)


def test_read_only_directory(public_dir: Path) -> None:
    """The same for an ordinary user without the right to write to his own directory."""
    require_root()
    directory = public_dir / "cache"
    directory.mkdir(mode=0o500)
    os.chown(directory, 65534, 65534)
    program = "import sys, pathlib, jigdofs.config as c, jigdofs.wiring.foundation as w\n"
    program += "assert w.open_cache(c.CacheOptions(pathlib.Path(sys.argv[1]))) is None\n"
    command = as_user("nobody", [sys.executable, "-c", program, str(directory)])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent
    )
    assert (done.returncode, "going on without a cache" in done.stderr) == (0, True), done.stderr
    assert list(directory.iterdir()) == []


def test_names_do_not_pile_up(directory: Path) -> None:
    """The index does not grow with every session and every file that ever was."""

    def rows() -> int:
        with index_of(directory) as database:
            return int(database.execute("SELECT count(*) FROM Cache").fetchone()[0])

    filled(directory)
    for number in range(0, 200, 10):
        cache = open_at(directory, 64 * KIB)
        for more in range(10):
            put(cache, content(number + more))
        cache.close()
    left = sum(len(files) for _, _, files in os.walk(directory / "objects"))
    assert rows() <= 4 * left + 10


def test_writers_and_flushes_do_not_wait_for_each_other(directory: Path) -> None:
    """Threads that reserve, keep and flush at the same time all come to an end."""
    cache = open_at(directory, 64 * KIB)

    def write(first: int) -> None:
        for number in range(first, first + 60):
            put(cache, content(number))

    def flush() -> None:
        for _ in range(300):
            cache.flush()

    works = [functools.partial(write, first) for first in (0, 1000, 2000)] + [flush, flush]
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    cache.close()


# -- ways out of the directory -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["objects", "objects/sha256", "objects/shard"])
def test_a_link_while_we_run(directory: Path, tmp_path: Path, name: str) -> None:
    """A directory that becomes a link while we run: nothing is looked at or evicted where it leads to."""
    outside = tmp_path / "outside"
    cache = open_at(directory)
    files = [content(number) for number in range(4)]
    for data in files:
        put(cache, data)
    shard = cache.path(key_of(files[0])).parent
    place = shard if name.endswith("shard") else directory / name
    shutil.copytree(place, outside)
    place.rename(directory / "gone")
    place.symlink_to(outside)
    with Watched(outside) as watched:
        assert cache.present([key_of(files[0])]) <= ({key_of(files[0])} if name == "objects" else set())
        for number in range(100, 150):
            put(cache, content(number))
        cache.close()
        assert watched.touched() == []
        assert watched.changed() == []


@pytest.mark.parametrize("how", ["directory", "cache.db", "cache.db-wal", "hard link"])
def test_an_index_that_leads_outside(directory: Path, tmp_path: Path, how: str) -> None:
    """A database that is somebody else's, by a link or another name, is neither read nor written to."""
    filled(directory)
    index, outside = directory / "index", tmp_path / "outside"
    shutil.copytree(index, outside)
    (outside / "cache.db-wal").write_bytes(b"kept")
    match how:
        case "directory":
            shutil.rmtree(index)
            index.symlink_to(outside)
        case "hard link":
            (index / "cache.db").unlink()
            (index / "cache.db").hardlink_to(outside / "cache.db")
        case _:
            (index / how).unlink(missing_ok=True)
            (index / how).symlink_to(outside / how)
    with Watched(outside) as watched:
        for again in (False, True):
            if again and how == "directory":  # what was moved aside is in the way then
                shutil.rmtree(index)
                index.symlink_to(outside)
            cache = open_at(directory)
            put(cache, content(9))
            cache.close()
        assert watched.touched() == []
        assert watched.changed() == []


def test_the_index_is_replaced_while_we_run(directory: Path, tmp_path: Path) -> None:
    """The last one to close a database removes its journal: not what has that name in another place."""
    outside = tmp_path / "outside"
    filled(directory)
    shutil.copytree(directory / "index", outside)
    (outside / "cache.db-wal").write_bytes(b"kept")
    cache = open_at(directory)
    put(cache, content(9))
    (directory / "index").rename(directory / "gone")
    (directory / "index").symlink_to(outside)
    with Watched(outside) as watched:
        cache.close()
        assert watched.changed() == []


@pytest.mark.parametrize("name", ["wal", "journal"])
def test_nothing_beside_the_index_is_used(directory: Path, name: str) -> None:
    """Shortening a file that is mapped would end us (SIGBUS); a WAL that somebody put is left alone."""
    filled(directory)
    wal = directory / "index" / f"cache.db-{name}"
    cache = open_at(directory)
    for number in range(3):
        put(cache, content(number))
        assert os.fsencode(directory) not in Path("/proc/self/maps").read_bytes()
        wal.write_bytes(b"kept")
    assert wal.read_bytes() == b"kept"
    cache.close()
    assert wal.read_bytes() == b"kept"


def test_an_index_of_older_versions(directory: Path) -> None:
    """What they knew is taken over, without their WAL."""
    filled(directory)
    with index_of(directory) as database:
        assert database.execute("PRAGMA journal_mode = wal").fetchone() == ("wal",)
    with index_of(directory) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        before = database.execute("SELECT count(*) FROM Cache").fetchone()
    open_at(directory).close()
    with index_of(directory) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert database.execute("SELECT count(*) FROM Cache").fetchone() == before


def test_too_long_for_memory(directory: Path) -> None:
    """A small file that the index says to be huge is not read into memory."""
    key = f"doc-{'ab' * 32}"
    cache = open_at(directory, None)
    assert keep_small(cache, key, b"small")
    cache.close()
    path = cache.path(key)
    os.truncate(path, 1 << 40)
    row = ("file:" + key,)
    with contextlib.closing(sqlite3.connect(directory / "index" / "cache.db")) as database, database:
        ((text,),) = database.execute("SELECT value FROM Cache WHERE key = ?", row).fetchall()
        changed = json.dumps([*Fingerprint.of_status(path.stat()), *json.loads(text)[-2:]])
        database.execute("UPDATE Cache SET value = ? WHERE key = ?", (changed, *row))
    cache = open_at(directory, None)
    assert read_small(cache, key) is None
    cache.close()


@pytest.mark.parametrize("how", ["link", "hard link"])
def test_remembered_files_that_lead_outside(
    directory: Path, tmp_path: Path, how: str, expected_log: Callable[[str], None]
) -> None:
    """What is known of local files is not kept in a file that is somebody else's."""
    expected_log("is no file of our own")
    directory.mkdir(mode=0o700)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "db").touch()
    if how == "link":
        (directory / "scanned.db").symlink_to(outside / "db")
    else:
        (directory / "scanned.db").hardlink_to(outside / "db")
    with Watched(outside) as watched:
        assert open_remembered(CacheOptions(directory)) is None
        assert watched.touched() == []
        assert watched.changed() == []


def test_sessions_that_cannot_be_looked_at(directory: Path) -> None:
    """Without a descriptor left nobody's session is taken for dead, and its grant for free."""
    program = f"""if True:
        import os, resource
        from tests.test_cache import CacheError, Path, open_at
        one, other = open_at(Path({str(directory)!r})), open_at(Path({str(directory)!r}))
        one.reserve({QUOTA} - 1000)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 5, used + 5))
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            other.reserve({QUOTA} - 1000)
        except CacheError:
            print("held", flush=True)
        os._exit(0)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "held\n"


def test_too_few_descriptors() -> None:
    """A start that cannot succeed says in one line how many are needed."""
    program = "from jigdofs.wiring.foundation import allow_descriptors as a\nimport jigdofs.errors as e\n"
    program += "try: a()\nexcept e.UsageError as error: print(error)"
    limited = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-c", program]
    done = subprocess.run(limited, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"needs 128 file descriptors, and only 64 are allowed .*\n", done.stdout)
