"""The cache directory: verified files by key, shared by all images and by several processes.

Invariants of this file:
* What lies under `objects/` got there by rename, complete, after its checksum matched.
* A file is believed if its fingerprint is the one noted when it was verified, by a session that
  still runs or that ended cleanly; else it is verified again, and removed if it is wrong.
* The quota holds (`quota`), and what any process has open stays: each holds a shared flock on it.
* Trouble with the index costs a second verification, never a read.

    objects/md5/ab/abcd…   parts by checksum     incoming/SESSION-N   being written
    objects/raw/ab/…       inflated chunks       sessions/SESSION     locked while its process runs
    objects/doc/ab/…       .jigdo by URL         index/               diskcache: fingerprints, ledger
    objects/tree/ab/…      files inside images
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jigdofs.errors import CacheError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.directories import OPEN_DIRECTORY, OPEN_FILE, make_inside, make_private, open_inside
from jigdofs.parts.index import Index, IndexTrouble
from jigdofs.parts.notes import Notes
from jigdofs.parts.open_at_once import can_open_at_once, open_at_once
from jigdofs.parts.open_file import Fingerprint, OpenFile
from jigdofs.parts.quota import Quota
from jigdofs.parts.sessions import Sessions

_log = logging.getLogger(__name__)

_KEY = re.compile(r"(md5|sha256|raw|doc|tree)-([0-9a-f]{32,64}(?:-[0-9]{1,9})?)", re.ASCII)
_READ_BYTES = 1 << 20
_USED_AGAIN_S = 60  # no file is marked more often as used
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
        self._numbers = itertools.count()
        self._used: list[str] = []  # opened at once, and not yet marked as used
        make_private(directory)
        try:
            for name in ("objects", "incoming", "sessions"):
                make_inside(directory / name)
            with contextlib.suppress(FileExistsError), (directory / "CACHEDIR.TAG").open("xb") as tag:
                tag.write(_CACHEDIR_TAG)
            self._index = Index(directory / "index")
            try:
                self._sessions = Sessions(directory, self._index)
            except OSError:
                self._index.close()
                raise
            self._objects = os.open(directory / "objects", OPEN_DIRECTORY)
            self._incoming = os.open(directory / "incoming", OPEN_DIRECTORY)
            self._at_once = can_open_at_once(self._objects)
        except (OSError, IndexTrouble) as error:
            raise CacheError(f"cache {directory} cannot be used: {error}") from error
        self._notes = Notes(self._index, self._sessions)
        self._quota = Quota(
            directory / "objects",
            self._index,
            self._sessions,
            max_bytes=max_bytes,
            min_free_bytes=min_free_bytes,
        )

    def close(self) -> None:
        """End the session cleanly: what it noted is believed next time."""
        self.flush()
        with contextlib.suppress(IndexTrouble, OSError):
            self._quota.close()
        self._sessions.end([self.path(key) for key in self._notes.own])
        self._index.close()
        os.close(self._incoming)
        os.close(self._objects)

    # -- names -----------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        """Return where a key's file lies; raise `CacheError` for anything that is no key."""
        return self.directory.joinpath("objects", *_split(key))

    @contextlib.contextmanager
    def _shard(self, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Yield the open directory of a key's file, and the file's name in it; raise `OSError`."""
        kind, shard, name = _split(key)
        outer = open_inside(self._objects, kind, make=make)
        try:
            inner = open_inside(outer, shard, make=make)
        finally:
            os.close(outer)
        try:
            yield inner, name
        finally:
            os.close(inner)

    def present(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that have a file, without opening any: one directory listing per shard."""
        listed: dict[tuple[str, str], set[str]] = {}
        found = set()
        for key in keys:
            kind, shard, name = _split(key)
            names = listed.get((kind, shard))
            if names is None:
                try:
                    names = set(os.listdir(self.directory / "objects" / kind / shard))
                except OSError:
                    names = set()
                listed[kind, shard] = names
            if name in names:
                found.add(key)
        return found

    # -- reading ---------------------------------------------------------------------------------

    def open(self, key: str, length: int | None, checksum: Checksum | None = None) -> OpenFile | None:
        """Return a file that is certainly right, or None.

        Args:
            key: its name in the cache.
            length: what it must have; None where that is not known.
            checksum: what it must have; None where only the index knows.
        """
        file: OpenFile | None = None
        try:
            with self._shard(key) as (directory, name):
                fd = os.open(name, OPEN_FILE, dir_fd=directory)
                try:
                    _lock_shared(fd)
                    file = self._checked(key, fd, length, checksum)
                except _WrongFile:
                    os.unlink(name, dir_fd=directory)
                finally:
                    if file is None:
                        os.close(fd)
        except OSError as error:
            _log.debug("cache file %s: %s", key, error)
        return file

    def _checked(self, key: str, fd: int, length: int | None, checksum: Checksum | None) -> OpenFile | None:
        """Return the file if it is what its key says, None if nobody can tell; raise `_WrongFile`."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or length not in (None, status.st_size):
            return None
        fingerprint = Fingerprint.of(fd)
        note = self._notes.get(key)
        if self._notes.holds(note, fingerprint):
            self._notes.believe(key, fingerprint)
        else:
            wanted = checksum or (note.checksum if note is not None else None)
            if wanted is None:
                return None  # a chunk or a document whose session has not noted it, or was killed
            if _checksum_of(fd, wanted.algorithm) != wanted:
                if note is not None:
                    _log.warning("cache file %s is not what it was; it is made anew", key)
                raise _WrongFile
            if Fingerprint.of(fd) != fingerprint:
                return None  # somebody is writing to it
            self._note(key, fingerprint, wanted)
        with contextlib.suppress(OSError):
            os.utime(fd, ns=(time.time_ns(), status.st_mtime_ns))  # the eviction's idea of "used"
        return OpenFile(fd, fingerprint)

    def open_at_once(self, key: str, length: int) -> OpenFile | None:
        """Return a file that is certainly right if that asks neither index nor disk, else None.

        For the event loop: it never blocks, and takes some 20 us.
        """
        if not self._at_once:
            return None
        kind, _, name = key.partition("-")
        try:
            fd = open_at_once(self._objects, f"{kind}/{name[:2]}/{name}".encode())
        except OSError:
            return None
        try:
            _lock_shared(fd)
            status = os.fstat(fd)
            fingerprint = Fingerprint(status.st_size, status.st_mtime_ns, status.st_ino)
            if status.st_size == length and self._notes.believed(key, fingerprint):
                if time.time() - status.st_atime > _USED_AGAIN_S:
                    self._used.append(key)
                file, fd = OpenFile(fd, fingerprint), -1
                return file
        except OSError as error:
            _log.debug("cache file %s: %s", key, error)
        finally:
            if fd >= 0:
                os.close(fd)
        return None

    def learn(self, keys: Sequence[str]) -> None:
        """Look up what is known of these files, some hundred of them, so that they can be opened at once."""
        self._notes.learn(keys)

    # -- writing ---------------------------------------------------------------------------------

    def place(self, key: str, checksum: Checksum | None) -> CachePlace:
        """Return the place for a spool that is to become this key's file.

        Args:
            key: its name in the cache.
            checksum: what will have been verified; None notes the checksum of what was written.
        """
        _split(key)
        return CachePlace(self, key, checksum)

    def reserve(self, length: int, *, evict: bool = True) -> None:
        """Make sure `length` bytes may be written; raise `CacheError` where the quota forbids.

        Args:
            length: in bytes.
            evict: remove what is not in use, if need be.
        """
        self._quota.reserve(length, evict=evict)

    def release(self, length: int) -> None:
        """Give back a reservation that was not used."""
        self._quota.release(length)

    def create(self) -> tuple[int, str]:
        """Return a fresh file under `incoming/`, open, and its name there; raise `OSError`."""
        name = f"{self._sessions.own}-{next(self._numbers)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, 0o600, dir_fd=self._incoming), name

    def keep(self, fd: int, name: str, key: str, checksum: Checksum | None) -> None:
        """Move a file from `incoming/` to where its key says; raise `OSError`."""
        _lock_shared(fd)
        length = os.fstat(fd).st_size
        noted = checksum or _checksum_of(fd, Algorithm.SHA256)
        with self._shard(key, make=True) as (directory, target):
            os.rename(name, target, src_dir_fd=self._incoming, dst_dir_fd=directory)
        self._quota.written(length)
        self._note(key, Fingerprint.of(fd), noted)

    def drop(self, name: str) -> None:
        """Remove a file from `incoming/`, if it is still there."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._incoming)

    def _note(self, key: str, fingerprint: Fingerprint, checksum: Checksum) -> None:
        if self._notes.add(key, fingerprint, checksum):
            self.flush()

    def flush(self) -> None:
        """Write down what was noted: to the index in one transaction, and which files were used."""
        self._notes.flush(self.path, self._quota.settle)
        used, self._used = self._used, []
        for key in set(used):
            with contextlib.suppress(OSError), self._shard(key) as (directory, name):
                modified_ns = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns
                os.utime(name, ns=(time.time_ns(), modified_ns), dir_fd=directory, follow_symlinks=False)

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


class _WrongFile(OSError):
    """Say that a file in the cache has the wrong content."""


class CachePlace:
    """The place of one file that is to be kept in the cache."""

    def __init__(self, cache: Cache, key: str, checksum: Checksum | None) -> None:
        self._cache = cache
        self._key = key
        self._checksum = checksum
        self._reserved = 0
        self._name = ""

    def reserve(self, length: int) -> None:
        """Reserve room for what nobody waits for: nothing is removed for it; raise `CacheError`."""
        self._cache.reserve(length, evict=False)
        self._reserved = length

    def give_back(self) -> None:
        """Give room back that was reserved and not used; harmless after `keep` or `abandon`."""
        self._release(self._reserved)

    def create(self, length: int) -> int:
        """Reserve room, unless that was done, and make the file under `incoming/`."""
        if not self._reserved:
            self._cache.reserve(length)
            self._reserved = length
        try:
            fd, self._name = self._cache.create()
        except OSError:
            self._release(length)
            raise
        return fd

    def keep(self, fd: int) -> None:
        """Move the file to where its key says."""
        length = os.fstat(fd).st_size
        self._cache.keep(fd, self._name, self._key, self._checksum)
        self._release(self._reserved - length)

    def abandon(self, fd: int) -> None:
        """Remove the file and give its room back."""
        self._cache.drop(self._name)
        self._release(self._reserved)

    def _release(self, length: int) -> None:
        self._cache.release(length)
        self._reserved = 0


def _split(key: str) -> tuple[str, str, str]:
    """Return kind, shard and name of a key's file; raise `CacheError` for anything that is no key."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise CacheError(f"`{key}' is no cache key")
    return match[1], match[2][:2], match[2]


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
