"""The cache directory: verified files by key, shared by all images and by several processes.

Invariants of this file:
* What lies under `objects/` got there by rename, complete, after its checksum matched.
* A file is believed if its fingerprint is the one noted when it was verified, by a session that
  still runs or that ended cleanly; else it is verified again, and removed if it is wrong.
* The quota holds: bytes are granted before they are written (`ledger`), least recently used files
  go first, and a file that any process has open stays (each holds a shared flock on it).
* Trouble with the index costs a second verification, never a read.

    objects/md5/ab/abcd…   parts by checksum     incoming/SESSION-N   being written
    objects/raw/ab/…       inflated chunks       sessions/SESSION     locked while its process runs
    objects/doc/ab/…       .jigdo by URL         index/               diskcache: fingerprints, ledger
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import logging
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from jigdofs.errors import CacheError, UnsafeCache
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.index import Index, IndexTrouble
from jigdofs.parts.ledger import Ledger
from jigdofs.parts.open_file import Fingerprint, OpenFile

_log = logging.getLogger(__name__)

_KEY = re.compile(r"(md5|sha256|raw|doc)-([0-9a-f]{32,64}(?:-[0-9]{1,9})?)")
_READ_BYTES = 1 << 20
_FLUSH_ROWS = 128
_GRANT_BYTES = 32 << 20
_CACHEDIR_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This is the cache of jigdofs; it may be removed.\n"
)


class Cache:
    """One process's view of a cache directory. All methods block: call them from worker threads.

    Args:
        directory: made if need be, with mode 0700.
        max_bytes: the quota, or None for none.
        min_free_bytes: what must stay free on its filesystem.

    Raises:
        CacheError: the directory cannot be used, or others could have written to it.
    """

    def __init__(self, directory: Path, *, max_bytes: int | None, min_free_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._rows: dict[str, str] = {}  # noted, not yet in the index
        self._trusted: dict[str, bool] = {}  # session -> verdict, for ended ones
        self._granted = 0  # bytes of our grant that nothing is reserved from
        self._written = 0  # bytes finished since the ledger was last settled
        self._dead_swept = False
        _make_private(directory)
        try:
            for name in ("objects", "incoming", "sessions"):
                (directory / name).mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError), (directory / "CACHEDIR.TAG").open("xb") as tag:
                tag.write(_CACHEDIR_TAG)
            self.session = secrets.token_hex(8)
            self._session_fd = os.open(directory / "sessions" / self.session, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._session_fd, fcntl.LOCK_EX)
            self._index: Index | None = Index(directory / "index")
        except (OSError, IndexTrouble) as error:
            raise CacheError(f"cache {directory} cannot be used: {error}") from error
        self._sweep_dead_sessions()

    # -- reading ---------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        """Return where a key's file lies; raise `CacheError` for anything that is no key."""
        match = _KEY.fullmatch(key)
        if match is None:
            raise CacheError(f"`{key}' is no cache key")
        return self.directory / "objects" / match[1] / match[2][:2] / match[2]

    def open(self, key: str, length: int | None, checksum: Checksum | None = None) -> OpenFile | None:
        """Return a file that is certainly right, or None.

        Args:
            key: its name in the cache.
            length: what it must have; None where that is not known.
            checksum: what it must have; None where only the index knows.
        """
        path = self.path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        file: OpenFile | None = None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and length in (None, status.st_size):
                file = self._believed(key, fd, checksum)
                with contextlib.suppress(OSError):
                    if file is not None:
                        os.utime(fd, ns=(time.time_ns(), status.st_mtime_ns))  # the eviction's idea of "used"
                    else:
                        path.unlink()
        except OSError as error:
            _log.debug("cache file %s: %s", path, error)
        finally:
            if file is None:
                os.close(fd)
        return file

    def _believed(self, key: str, fd: int, checksum: Checksum | None) -> OpenFile | None:
        """Decide whether an open file is what its key says."""
        fingerprint = Fingerprint.of(fd)
        row = self._row(key)
        if row is not None and row.fingerprint == fingerprint and self._trusts(row.session):
            return OpenFile(fd, fingerprint)
        wanted = checksum or (row.checksum if row is not None else None)
        if wanted is None or _checksum_of(fd, wanted.algorithm) != wanted:
            if row is not None:
                _log.warning("cache file %s is not what it was; it is fetched again", key)
            return None
        if Fingerprint.of(fd) != fingerprint:
            return None  # somebody is writing to it
        self._note(key, fingerprint, wanted)
        return OpenFile(fd, fingerprint)

    def _row(self, key: str) -> _Row | None:
        with self._lock:
            text = self._rows.get(key)
        if text is None and self._index is not None:
            try:
                text = self._index.get(f"file:{key}")
            except IndexTrouble as error:
                _log.info("%s", error)
        return _Row.parse(text) if text else None

    def _trusts(self, session: str) -> bool:
        """Tell whether a session's notes hold: it is ours, still runs, or ended cleanly."""
        if session == self.session:
            return True
        verdict = self._trusted.get(session)
        if verdict is None:
            verdict = self._ended_cleanly(session)
            if verdict or not self._runs(session):
                self._trusted[session] = verdict
            else:
                return True  # not remembered: it may end badly later
        return verdict

    def _ended_cleanly(self, session: str) -> bool:
        try:
            return self._index is not None and self._index.get(f"session:{session}") == "clean"
        except IndexTrouble:
            return False

    def _runs(self, session: str) -> bool:
        """Tell whether the process of a session still runs: it holds a lock on its file."""
        if not re.fullmatch("[0-9a-f]{16}", session):
            return False
        try:
            fd = os.open(self.directory / "sessions" / session, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    # -- writing ---------------------------------------------------------------------------------

    def place(self, key: str, checksum: Checksum | None) -> CachePlace:
        """Return the place for a spool that is to become this key's file.

        Args:
            key: its name in the cache.
            checksum: what will have been verified; None notes the checksum of what was written.
        """
        return CachePlace(self, key, checksum)

    def reserve(self, length: int) -> None:
        """Make sure `length` bytes may be written; raise `CacheError` where the quota forbids."""
        with self._lock:
            if self._granted < length:
                self._ask(length)
            self._granted -= length

    def release(self, length: int) -> None:
        """Give a reservation back that was not used."""
        with self._lock:
            self._granted += length

    def incoming(self) -> Path:
        """Return a fresh path for a file that is being written."""
        return self.directory / "incoming" / f"{self.session}-{next(self._numbers)}"

    def kept(self, key: str, fd: int, length: int, checksum: Checksum) -> None:
        """Note a file that was just put in place."""
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with self._lock:
            self._written += length
        self._note(key, Fingerprint.of(fd), checksum)

    def forget(self, key: str) -> None:
        """Remove a file, for instance one that proved to be of no use."""
        with contextlib.suppress(OSError):
            self.path(key).unlink()

    def _note(self, key: str, fingerprint: Fingerprint, checksum: Checksum) -> None:
        with self._lock:
            self._rows[key] = _Row(fingerprint, self.session, checksum).dump()
            full = len(self._rows) >= _FLUSH_ROWS
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what was noted to the index, in one transaction."""
        with self._lock:
            rows, self._rows = self._rows, {}
            written, self._written = self._written, 0
        if self._index is None or not (rows or written):
            return
        try:
            with self._index.transaction():
                for key, text in rows.items():
                    self._index.set(f"file:{key}", text)
                self._save(self._ledger().settle(self.session, written=written, returned=0))
        except IndexTrouble as error:
            _log.info("%s", error)

    # -- documents: small files known by URL -------------------------------------------------------

    def note_document(self, url: str, text: str) -> None:
        """Remember what a server said about a URL (its validators)."""
        if self._index is not None:
            with contextlib.suppress(IndexTrouble):
                self._index.set(f"url:{url}", text)

    def document(self, url: str) -> str | None:
        """Return what was remembered about a URL."""
        with contextlib.suppress(IndexTrouble):
            return self._index.get(f"url:{url}") if self._index is not None else None
        return None

    # -- accounts --------------------------------------------------------------------------------

    def present(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that have a file, without opening any: one directory listing per shard."""
        listed: dict[Path, set[str]] = {}
        found = set()
        for key in keys:
            path = self.path(key)
            names = listed.get(path.parent)
            if names is None:
                try:
                    names = set(os.listdir(path.parent))
                except OSError:
                    names = set()
                listed[path.parent] = names
            if path.name in names:
                found.add(key)
        return found

    def _limit(self, used: int) -> int:
        """Return how many bytes the cache may have, given what it has."""
        status = os.statvfs(self.directory)
        by_disk = used + status.f_bavail * status.f_frsize - self._min_free_bytes
        return by_disk if self._max_bytes is None else min(self._max_bytes, by_disk)

    def _ask(self, length: int) -> None:
        """Get a grant for `length` bytes more, and some to spare; evict if need be."""
        if self._max_bytes is not None and length > self._max_bytes:
            raise CacheError(f"{length} bytes are more than the whole cache may have")
        need = length - self._granted
        if self._index is None or not self._dead_swept:
            raise CacheError("the cache's accounts cannot be read")
        try:
            with self._index.transaction():
                ledger = self._ledger().settle(self.session, written=self._written, returned=0)
                self._written = 0
                limit = self._limit(ledger.used)
                spare = max(need, min(_GRANT_BYTES, limit // 16))
                granted = ledger.grant(self.session, spare, limit) or ledger.grant(self.session, need, limit)
                if granted is None:
                    ledger = self._evict(ledger, need)
                    granted = ledger.grant(self.session, need, self._limit(ledger.used))
                self._save(granted or ledger)
        except (IndexTrouble, OSError) as error:
            raise CacheError(f"the cache's accounts cannot be read: {error}") from error
        if granted is None:
            raise CacheError(f"the cache has no room for {length} bytes that are not in use")
        self._granted += granted.grants[self.session] - ledger.grants.get(self.session, 0)

    def _ledger(self) -> Ledger:
        """Read the accounts, without the grants of processes that ended; recount when unreadable."""
        assert self._index is not None
        text = self._index.get("ledger")
        try:
            ledger = Ledger.parse(text) if text else None
        except ValueError:
            ledger = None
        if ledger is None:
            return Ledger(sum(size for _, size, _ in self._objects()))
        ended = [name for name in ledger.grants if name != self.session and not self._runs(name)]
        if ended:  # it may have written files it did not account for
            alive = set(ledger.grants) - set(ended)
            return ledger.keep(alive).recount(sum(size for _, size, _ in self._objects()))
        return ledger

    def _save(self, ledger: Ledger) -> None:
        assert self._index is not None
        self._index.set("ledger", ledger.dump())

    def _objects(self) -> Iterator[tuple[int, int, Path]]:
        """Yield last use (ns), size and path of every file."""
        for kind in _directories(self.directory / "objects"):
            for shard in _directories(kind):
                with contextlib.suppress(OSError), os.scandir(shard) as entries:
                    for entry in entries:
                        with contextlib.suppress(OSError):
                            status = entry.stat(follow_symlinks=False)
                            yield status.st_atime_ns, status.st_size, Path(entry.path)

    def _evict(self, ledger: Ledger, need: int) -> Ledger:
        """Remove the least recently used files that nobody has open until `need` bytes fit."""
        files = sorted(self._objects())
        ledger = ledger.recount(sum(size for _, size, _ in files))
        used, removed = ledger.used, 0
        for _, size, path in files:
            limit = self._limit(used)
            # a tenth more than needed, so that the next part does not list everything again
            slack = 0 if need > limit // 2 else limit // 10
            if used + ledger.granted + need + slack <= limit:
                break
            if _remove_unused(path):
                used -= size
                removed += 1
        _log.debug("evicted %d files", removed)
        return ledger.recount(used)

    def _sweep_dead_sessions(self) -> None:
        """Remove what processes left behind that were killed."""
        try:
            for name in os.listdir(self.directory / "sessions"):
                if name != self.session and not self._runs(name):
                    for left in (self.directory / "incoming").glob(f"{name[:16]}-*"):
                        left.unlink(missing_ok=True)
                    (self.directory / "sessions" / name).unlink(missing_ok=True)
            self._dead_swept = True
        except OSError as error:
            _log.info("cannot tidy the cache up: %s", error)
            self._dead_swept = True

    def close(self) -> None:
        """End the session cleanly: what it noted is believed next time."""
        self.flush()
        if self._index is not None:
            try:
                _sync_filesystem(self._session_fd)
                with self._index.transaction():
                    ledger = self._ledger()
                    self._save(ledger.keep(set(ledger.grants) - {self.session}))
                    self._index.set(f"session:{self.session}", "clean")
            except (IndexTrouble, OSError) as error:
                _log.info("the cache was not closed cleanly: %s", error)
            self._index.close()
        with contextlib.suppress(OSError):
            (self.directory / "sessions" / self.session).unlink()
        os.close(self._session_fd)


class CachePlace:
    """The place of one file that is to be kept in the cache."""

    def __init__(self, cache: Cache, key: str, checksum: Checksum | None) -> None:
        self._cache = cache
        self._key = key
        self._checksum = checksum
        self._reserved = 0
        self._path: Path | None = None

    def create(self, length: int) -> int:
        """Reserve room and make the file under `incoming/`."""
        self._cache.reserve(length)
        self._reserved = length
        self._path = self._cache.incoming()
        try:
            return os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            self._cache.release(length)
            self._reserved = 0
            raise

    def keep(self, fd: int) -> None:
        """Move the file to where its key says."""
        assert self._path is not None
        target = self._cache.path(self._key)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.rename(target)
        length = os.fstat(fd).st_size
        self._cache.release(self._reserved - length)
        self._reserved = 0
        checksum = self._checksum or _checksum_of(fd, Algorithm.SHA256)
        self._cache.kept(self._key, fd, length, checksum)

    def abandon(self, fd: int) -> None:
        """Remove the file and give its room back."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._cache.release(self._reserved)
        self._reserved = 0


class _Row:
    """What the index knows of one file."""

    __slots__ = ("checksum", "fingerprint", "session")

    def __init__(self, fingerprint: Fingerprint, session: str, checksum: Checksum) -> None:
        self.fingerprint = fingerprint
        self.session = session
        self.checksum = checksum

    def dump(self) -> str:
        return json.dumps([*self.fingerprint, self.session, self.checksum.hex])

    @classmethod
    def parse(cls, text: str) -> _Row | None:
        try:
            match json.loads(text):
                case [int(size), int(mtime), int(inode), str(session), str(digest)]:
                    raw = bytes.fromhex(digest)
                    if len(raw) in (16, 32):
                        return cls(Fingerprint(size, mtime, inode), session, Checksum(raw))
        except ValueError:
            pass
        return None


def _make_private(directory: Path) -> None:
    """Make the directory ours alone; refuse one that others can write to."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.stat(directory)
    except OSError as error:
        raise CacheError(f"cache {directory} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise CacheError(f"cache {directory} is no directory")
    if status.st_uid != os.geteuid():
        raise UnsafeCache(
            f"cache {directory} belongs to another user (uid {status.st_uid}); choose another --cache-dir"
        )
    if status.st_mode & 0o022:
        raise UnsafeCache(f"cache {directory} can be written by others; `chmod go-w {directory}' first")


def _directories(parent: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _remove_unused(path: Path) -> bool:
    """Unlink a file unless some process has it open (it holds a shared lock then)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a symlink: none of ours
            path.unlink(missing_ok=True)
        return error.errno in (errno.ENOENT, errno.ELOOP)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _checksum_of(fd: int, algorithm: Algorithm) -> Checksum:
    hasher = algorithm.hasher()
    offset = 0
    while data := os.pread(fd, _READ_BYTES, offset):
        hasher.update(data)
        offset += len(data)
    return Checksum(hasher.digest())


def _sync_filesystem(fd: int) -> None:
    """Bring the cache's filesystem to disk, so that a power cut cannot belie the index: syncfs(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
