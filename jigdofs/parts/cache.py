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
import errno
import fcntl
import itertools
import json
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from jigdofs.errors import CacheError, UnsafeCache
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.index import Index, IndexTrouble
from jigdofs.parts.open_file import Fingerprint, OpenFile
from jigdofs.parts.quota import Quota
from jigdofs.parts.sessions import Sessions

_log = logging.getLogger(__name__)

_KEY = re.compile(r"(md5|sha256|raw|doc)-([0-9a-f]{32,64}(?:-[0-9]{1,9})?)")
_READ_BYTES = 1 << 20
_FLUSH_ROWS = 128
_CACHEDIR_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This is the cache of jigdofs; it may be removed.\n"
)
# a filesystem without locks costs us the knowledge of who has a file open, not the cache
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class Cache:
    """One process's view of a cache directory. All methods block: call them from worker threads.

    Args:
        directory: made if need be, with mode 0700.
        max_bytes: the quota, or None for none.
        min_free_bytes: what must stay free on its filesystem.

    Raises:
        UnsafeCache: others could have written to the directory.
        CacheError: it cannot be used.
    """

    def __init__(self, directory: Path, *, max_bytes: int | None, min_free_bytes: int) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._rows: dict[str, str] = {}  # noted, not yet in the index
        _make_private(directory)
        try:
            for name in ("objects", "incoming", "sessions"):
                (directory / name).mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError), (directory / "CACHEDIR.TAG").open("xb") as tag:
                tag.write(_CACHEDIR_TAG)
            self._index = Index(directory / "index")
            self._sessions = Sessions(directory, self._index)
        except (OSError, IndexTrouble) as error:
            raise CacheError(f"cache {directory} cannot be used: {error}") from error
        self._quota = Quota(
            directory / "objects",
            self._index,
            self._sessions,
            max_bytes=max_bytes,
            min_free_bytes=min_free_bytes,
        )

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
            _lock_shared(fd)
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
        if row is not None and row.fingerprint == fingerprint and self._sessions.trusted(row.session):
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
        if text is None:
            try:
                text = self._index.get(f"file:{key}")
            except IndexTrouble as error:
                _log.info("%s", error)
        return _Row.parse(text) if text else None

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
        self._quota.reserve(length)

    def release(self, length: int) -> None:
        """Give back a reservation that was not used."""
        self._quota.release(length)

    def incoming(self) -> Path:
        """Return a fresh path for a file that is being written."""
        return self.directory / "incoming" / f"{self._sessions.own}-{next(self._numbers)}"

    def kept(self, key: str, fd: int, length: int, checksum: Checksum) -> None:
        """Note a file that was just put in place."""
        with contextlib.suppress(OSError):
            _lock_shared(fd)
        self._quota.written(length)
        self._note(key, Fingerprint.of(fd), checksum)

    def _note(self, key: str, fingerprint: Fingerprint, checksum: Checksum) -> None:
        with self._lock:
            self._rows[key] = _Row(fingerprint, self._sessions.own, checksum).dump()
            full = len(self._rows) >= _FLUSH_ROWS
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what was noted to the index, in one transaction."""
        with self._lock:
            rows, self._rows = self._rows, {}
        try:
            with self._index.transaction():
                for key, text in rows.items():
                    self._index.set(f"file:{key}", text)
                self._quota.settle()
        except IndexTrouble as error:
            _log.info("%s", error)

    # -- documents: small files known by URL -------------------------------------------------------

    def note_document(self, url: str, text: str) -> None:
        """Remember what a server said about a URL (its validators)."""
        with contextlib.suppress(IndexTrouble):
            self._index.set(f"url:{url}", text)

    def document(self, url: str) -> str | None:
        """Return what was remembered about a URL."""
        with contextlib.suppress(IndexTrouble):
            return self._index.get(f"url:{url}")
        return None

    # -- the whole -------------------------------------------------------------------------------

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

    def close(self) -> None:
        """End the session cleanly: what it noted is believed next time."""
        self.flush()
        with contextlib.suppress(IndexTrouble, OSError):
            self._quota.close()
        self._sessions.end()
        self._index.close()


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


def _lock_shared(fd: int) -> None:
    """Mark a file as in use; raise `OSError` if it is just being evicted."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _checksum_of(fd: int, algorithm: Algorithm) -> Checksum:
    hasher = algorithm.hasher()
    offset = 0
    while data := os.pread(fd, _READ_BYTES, offset):
        hasher.update(data)
        offset += len(data)
    return Checksum(hasher.digest())
