"""The cache's index: facts about files, kept in a diskcache. The only file that imports it.

Invariants of this file:
* No pickle is ever written or read, and no value lives in a file: only short texts in the database.
  (A row that says otherwise was tampered with: diskcache would unpickle it, or open and unlink
  any path it names; CVE-2025-69872.)
* SQLite goes by names and follows links: where one of its files is a link, or a file that has another name,
  too, the database is not used. (While it is open, SQLite itself looks whether it was moved.)
* Whatever goes wrong with the database is an `IndexTrouble`; the cache goes on without it. None of its files
  is mapped into memory: if anybody shortened one, the kernel would end us (SIGBUS). And SQLite opens files
  beside it by name, through links. So it keeps neither WAL nor journal, and is not used where somebody put
  one; what a kill leaves damaged is begun anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import diskcache
from diskcache.core import DEFAULT_SETTINGS, METADATA, MODE_RAW, UNKNOWN

from jigdofs.errors import CacheError

_log = logging.getLogger(__name__)
_BUSY_S = 2
_JOURNAL = "memory"
_SQLITE_FILES = ("cache.db", "cache.db-wal", "cache.db-shm", "cache.db-journal")
_SETTINGS = {*DEFAULT_SETTINGS, *METADATA}
# as diskcache looks a key up, for rows as `_TextDisk` writes them
_READ_TEXT = "SELECT value FROM Cache WHERE key = ? AND raw = 1 AND mode = ? AND filename IS NULL"
_READ_TEXTS = "SELECT key, value FROM Cache WHERE key IN ({}) AND raw = 1 AND mode = {} AND filename IS NULL"
T = TypeVar("T")


class IndexTrouble(CacheError):
    """Say that the index could not be read or written."""


class _TextDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache ships no types
    """Keep texts in the database and nothing else anywhere."""

    def put(self, key: Any) -> tuple[str, bool]:
        """Accept text keys only."""
        if type(key) is not str:
            raise TypeError("index keys are text")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        """Refuse any other key."""
        if type(key) is not str or not raw:
            raise IndexTrouble("the index holds a key that is no text")
        return key

    def store(self, value: Any, read: Any, key: Any = UNKNOWN) -> tuple[int, int, None, str]:
        """Accept text values only."""
        if type(value) is not str or read:
            raise TypeError("index values are text")
        return 0, MODE_RAW, None, value

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> str:
        """Refuse a row that would be unpickled or that names a file."""
        if mode != MODE_RAW or filename is not None or type(value) is not str:
            raise IndexTrouble("the index holds a value that is no text")
        return value

    def filename(self, key: Any = UNKNOWN, value: Any = UNKNOWN) -> NoReturn:
        """Never make a file."""
        raise IndexTrouble("the index keeps no files")

    def remove(self, file_path: Any) -> None:
        """Never remove a file, whatever a row says."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts as seen within one transaction."""

    get: Callable[[str], str | None]
    set: Callable[[str, str], object]
    delete: Callable[[str], object]


@contextlib.contextmanager
def _trouble(directory: Path) -> Iterator[None]:
    """Turn whatever diskcache and SQLite raise over a damaged, locked or full database into ours."""
    try:
        yield
    except IndexTrouble:
        raise
    except Exception as error:
        raise IndexTrouble(f"{directory}: {type(error).__name__}: {error}") from error


class _IndexDamage(IndexTrouble):
    """Say that the database is no use and may be moved out of the way."""


@contextlib.contextmanager
def _damage(directory: Path) -> Iterator[None]:
    """Tell a database that is damaged from one that is merely busy or cannot be written."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH):
            raise _IndexDamage(f"{directory}: the index has another form: {error}") from error
        raise IndexTrouble(f"{directory}: {error}") from error
    except OSError as error:
        raise IndexTrouble(f"{directory}: {error}") from error
    except Exception as error:
        raise _IndexDamage(f"{directory}: the index is damaged: {error}") from error


def _probe(directory: Path) -> None:
    """Look whether the database can be written now and holds nothing foreign.

    diskcache would wait a minute for one that is locked, and makes every row of its Settings an
    attribute of itself, whatever its name.
    """
    path = directory / "cache.db"
    if not os.path.lexists(directory):
        return
    if not stat.S_ISDIR(os.lstat(directory).st_mode):
        raise _IndexDamage(f"{directory} is no directory")
    for name in _SQLITE_FILES:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(directory / name)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise _IndexDamage(f"{directory / name} is no file of our own")
    if os.path.lexists(directory / "cache.db-journal"):
        raise _IndexDamage(f"{directory}: a journal, which we do not keep")
    if not os.path.lexists(path):
        return
    with _damage(directory), contextlib.closing(sqlite3.connect(path, timeout=_BUSY_S)) as database:
        database.execute("BEGIN IMMEDIATE")
        foreign = {key for (key,) in database.execute("SELECT key FROM Settings")} - _SETTINGS
        database.rollback()
        if foreign:
            raise ValueError(f"unknown settings {foreign}")
        database.execute(f"PRAGMA journal_mode = {_JOURNAL}")  # older versions kept a WAL


class Index:
    """Texts by key, shared by all processes that use the cache.

    diskcache keeps a connection per thread and closes none but the calling thread's; so all its calls
    run in one thread of ours. That hop costs 130 us, so texts are read past it, by a connection of our
    own that only reads: 8 us, and one is needed for each cached part that is opened.

    Args:
        directory: the index's own directory; a damaged one is moved aside and begun anew.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._beside = (directory / "cache.db-wal", directory / "cache.db-journal")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jigdofs-index")
        self._reading = threading.Lock()
        try:
            self._cache = self._thread.submit(self._opened).result()
            with _trouble(directory):
                address = (directory / "cache.db").absolute().as_uri() + "?mode=ro"
                self._reader = sqlite3.connect(address, uri=True, timeout=_BUSY_S, check_same_thread=False)
        except BaseException:
            self._thread.shutdown()
            raise

    def _call(self, function: Callable[[], T]) -> T:
        """Run a function in our thread, and turn what it raises into ours."""

        def guarded() -> T:
            with _trouble(self._directory):
                self._check_alone()
                return function()

        return self._thread.submit(guarded).result()

    def _check_alone(self) -> None:
        """Raise `IndexTrouble` where SQLite would use a file beside the database, and perhaps map another."""
        for path in self._beside:
            if os.path.lexists(path):
                raise IndexTrouble(f"{path} is none of ours; it is left alone, and the index not used")

    def get(self, key: str) -> str | None:
        """Return a text or None."""
        with _trouble(self._directory), self._reading:
            self._check_alone()
            row = self._reader.execute(_READ_TEXT, (key, MODE_RAW)).fetchone()
        return row[0] if row is not None and isinstance(row[0], str) else None

    def get_all(self, keys: Sequence[str]) -> dict[str, str]:
        """Return those texts that there are, by key: 3 us each. Some hundred may be asked for at once."""
        query = _READ_TEXTS.format(",".join("?" * len(keys)), MODE_RAW)
        with _trouble(self._directory), self._reading:
            self._check_alone()
            rows = self._reader.execute(query, keys).fetchall()
        return {key: text for key, text in rows if isinstance(key, str) and isinstance(text, str)}

    def set(self, key: str, text: str) -> None:
        """Keep a text."""
        self._call(lambda: self._cache.set(key, text))

    def atomically(self, change: Callable[[Texts], T]) -> T:
        """Run a function in one transaction and return its result; other processes wait, 2 s at most.

        Args:
            change: reads and writes through its argument; must not call the index otherwise.
        """

        def work() -> T:
            with self._cache.transact():
                return change(Texts(self._get, self._cache.set, self._cache.delete))

        return self._call(work)

    def _get(self, key: str) -> str | None:
        value = self._cache.get(key)
        return value if isinstance(value, str) else None

    def close(self) -> None:
        """Close the database."""
        with self._reading:
            self._reader.close()
        with contextlib.suppress(Exception):  # whatever lies beside it; a connection is closed all the same
            self._thread.submit(self._cache.close).result()
        self._thread.shutdown()

    def _opened(self) -> Any:
        with _trouble(self._directory):
            return self._open()

    def _open(self) -> Any:
        try:
            _probe(self._directory)
            with _damage(self._directory):
                return _open_cache(self._directory)
        except _IndexDamage as error:
            _log.info("%s; a new one is begun", error)
            aside = self._directory.with_name(self._directory.name + ".damaged")
            with contextlib.suppress(OSError):
                aside.unlink()  # a link: rmtree opens what it leads to, before it refuses
            shutil.rmtree(aside, ignore_errors=True)
            self._directory.rename(aside)
            return _open_cache(self._directory)


def _open_cache(directory: Path) -> Any:
    cache = diskcache.Cache.__new__(diskcache.Cache)
    try:
        _begin(cache, directory)
    except BaseException:
        with contextlib.suppress(Exception):
            cache.close()  # one that failed half way keeps its connection
        raise
    return cache


def _begin(cache: Any, directory: Path) -> None:
    # every setting is given, as a stored one would win over a default
    cache.__init__(
        str(directory),
        timeout=_BUSY_S,
        disk=_TextDisk,
        eviction_policy="none",
        cull_limit=0,
        size_limit=1 << 50,
        statistics=0,
        tag_index=0,
        disk_min_file_size=1 << 30,
        disk_pickle_protocol=0,
        sqlite_auto_vacuum=1,
        sqlite_cache_size=1 << 10,
        sqlite_journal_mode=_JOURNAL,
        sqlite_mmap_size=0,
        # no fsync: it would wait for every part just written (14 s instead of 3 s for 500 MB on
        # ext4). What a power cut may take from the index is looked up again in the files.
        sqlite_synchronous=0,
    )
