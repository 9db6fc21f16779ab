"""The cache directory: verified files by key, shared by all images and by several processes.

Invariants of this file:
* What lies under `objects/` got there by rename, complete, after its checksum matched.
* A file is believed if its fingerprint is the one noted when it was verified, by a session that
  still runs or that ended cleanly; else it is verified again, and removed if it is wrong.
* The quota holds (`quota`), and what any process has open stays: each holds a shared flock on it. So does
  what is pinned (`manifests`).
* Trouble with the index costs a second verification, never a read.

    objects/md5/ab/abcd…   parts by checksum     incoming/SESSION-N   being written
    objects/raw/ab/…       inflated chunks       sessions/SESSION     locked while its process runs
    objects/doc/ab/…       .jigdo by URL         index/               diskcache: fingerprints, ledger
    objects/tree/ab/…      files inside images   images/              what is known of images, and pins
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from jigdofs.errors import CacheError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.cache_place import CachePlace
from jigdofs.parts.directories import (
    OPEN_DIRECTORY,
    OPEN_FILE,
    check_ours,
    make_inside,
    make_private,
)
from jigdofs.parts.index import Index, IndexTrouble
from jigdofs.parts.manifest import Manifest
from jigdofs.parts.manifests import Manifests
from jigdofs.parts.notes import Notes
from jigdofs.parts.object_files import ObjectFiles, StoredFile, split
from jigdofs.parts.open_at_once import can_open_at_once, open_at_once
from jigdofs.parts.open_file import Fingerprint, OpenFile
from jigdofs.parts.quota import Quota, Stock
from jigdofs.parts.sessions import Sessions
from jigdofs.parts.turns import Turns
from jigdofs.parts.unnamed import can_keep_unnamed, give_name, open_unnamed
from jigdofs.parts.used import UsedTimes

_log = logging.getLogger(__name__)

_READ_BYTES = 1 << 20
_UNKNOWN_BYTES = 1 << 30  # what nobody knows the length of is not hashed if it is longer: it may be a hole
_CACHEDIR_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n# This is the cache of jigdofs; it may be removed.\n"
)
# a filesystem without locks costs us the knowledge of who has a file open, not the cache
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class Cache:
    """One process's view of a cache directory. All methods block: call them from worker threads.

    Attributes:
        turns: which files are being fetched, by any process.
        stock: what it held when that was last looked at; None before.
        manifests: what is known of images, and pins.

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
        self.stock: Stock | None = None
        self._numbers = itertools.count()
        self._used: set[str] = set()  # opened at once, and not yet marked as used
        make_private(directory)
        try:
            for name in ("objects", "incoming", "sessions"):
                make_inside(directory / name)
            with contextlib.suppress(FileExistsError), (directory / "CACHEDIR.TAG").open("xb") as tag:
                tag.write(_CACHEDIR_TAG)
            with contextlib.ExitStack() as stack:
                # whatever becomes of the directory from now on, nothing leads us out of these
                whole = self._open_directory(stack, directory)
                self._files = ObjectFiles(self._open_directory(stack, "objects", whole))
                self._incoming = self._open_directory(stack, "incoming", whole)
                self._index = Index(directory / "index")
                stack.callback(self._index.close)
                sessions = self._open_directory(stack, "sessions", whole)
                self._sessions = Sessions(sessions, self._incoming, self._index)
                self._times = UsedTimes(whole)
                self.turns = Turns(whole)
                self.manifests = Manifests(whole, may_write=True)
                self._at_once = can_open_at_once(self._files.fd)
                self._unnamed = can_keep_unnamed(self._incoming, f"{self._sessions.own}-unnamed")
                self._directories = stack.pop_all()
        except (OSError, IndexTrouble) as error:
            raise CacheError(f"cache {directory} cannot be used: {error}") from error
        self._notes = Notes(self._index, self._sessions)
        self._quota = Quota(
            self._files.fd,
            self._index,
            self._sessions,
            self._times,
            self.manifests.pinned,
            max_bytes=max_bytes,
            min_free_bytes=min_free_bytes,
        )

    def _open_directory(
        self, stack: contextlib.ExitStack, name: Path | str, parent: int | None = None
    ) -> int:
        flags = OPEN_DIRECTORY if parent is not None else OPEN_DIRECTORY & ~os.O_NOFOLLOW
        directory = os.open(name, flags, dir_fd=parent)
        stack.callback(os.close, directory)
        check_ours(self.directory / name, os.fstat(directory))
        return directory

    def close(self) -> None:
        """End the session cleanly: what it noted is believed next time."""
        self.flush()
        with contextlib.suppress(IndexTrouble, OSError):
            self._quota.close()
        self._sessions.end(self._notes.own, self._files.open)
        self._times.close()
        self.turns.close()
        self.manifests.close()
        self._directories.close()  # and the index

    # -- names -----------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        """Return where a key's file lies; raise `CacheError` for anything that is no key."""
        return self.directory.joinpath("objects", *split(key))

    def present(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that have a file, without opening any: one directory listing per shard."""
        return self._files.present(keys)

    def generation(self) -> int:
        """Return a number that is another one when files came or went since; blocks for a millisecond."""
        return self._files.generation()

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
            with self._files.shard(key) as (directory, name):
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
        fingerprint = Fingerprint.of_status(status)
        note = self._notes.get(key)
        known = note is not None and note.fingerprint.size == status.st_size
        if length is None and status.st_size > _UNKNOWN_BYTES and not known:
            _log.warning("cache file %s is not what it was; it is made anew", key)
            raise _WrongFile
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
        self._times.mark((key,))
        return OpenFile(fd, fingerprint)

    def open_at_once(self, key: str, length: int) -> OpenFile | None:
        """Return a file that is certainly right if that asks neither index nor disk, else None.

        For the event loop: it never blocks, and takes some 20 us.
        """
        if not self._at_once:
            return None
        kind, _, name = key.partition("-")
        try:
            fd = open_at_once(self._files.fd, f"{kind}/{name[:2]}/{name}".encode())
        except OSError:
            return None
        try:
            _lock_shared(fd)
            status = os.fstat(fd)
            fingerprint = Fingerprint.of_status(status)
            if status.st_size == length and self._notes.believed(key, fingerprint):
                self._used.add(key)
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
        split(key)
        return CachePlace(self, key, checksum)

    def reserve(self, length: int, *, evict: bool = True) -> None:
        """Make sure `length` bytes may be written; raise `CacheError` where the quota forbids.

        Args:
            length: in bytes.
            evict: remove what is not in use, if need be.
        """
        self._quota.reserve(length, evict=evict)

    def limit(self, max_bytes: int | None, min_free_bytes: int) -> None:
        """Hold other limits from now on, removing what is beyond them and not in use; raise `CacheError`."""
        self._quota.limit(max_bytes, min_free_bytes)

    def release(self, length: int) -> None:
        """Give back a reservation that was not used."""
        self._quota.release(length)

    def create(self) -> tuple[int, str]:
        """Return a fresh file, open, and its name under `incoming/`; raise `OSError`.

        Where the filesystem can, it gets that name only when it is kept: until then nobody else can write
        to it.
        """
        name = f"{self._sessions.own}-{next(self._numbers)}"
        if self._unnamed:
            return open_unnamed(self._incoming), name
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, 0o600, dir_fd=self._incoming), name

    def keep(self, fd: int, name: str, key: str, checksum: Checksum | None) -> None:
        """Give a file its name, or move it from `incoming/`, to where its key says; raise `OSError`."""
        _lock_shared(fd)
        status = os.fstat(fd)
        noted = checksum or _checksum_of(fd, Algorithm.SHA256)
        with self._files.shard(key, make=True) as (directory, target):
            if status.st_nlink:
                os.rename(name, target, src_dir_fd=self._incoming, dst_dir_fd=directory)
            else:
                give_name(fd, directory, target, self._incoming, name)
            now = Fingerprint.of(fd)  # at once: others can write to it from here on
        self._quota.written(status.st_size)
        if now.same_content(Fingerprint.of_status(status)):
            self._note(key, now, noted)

    def drop(self, name: str) -> None:
        """Remove a file from `incoming/`, if it is still there."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._incoming)

    def take_stock(self) -> None:
        """Look at what it holds."""
        with contextlib.suppress(OSError, IndexTrouble):
            self.stock = self._quota.stock()

    @property
    def evicted(self) -> tuple[int, int]:
        """How many files this process removed to make room, and their bytes; from memory."""
        return self._quota.evicted_files, self._quota.evicted_bytes

    def _note(self, key: str, fingerprint: Fingerprint, checksum: Checksum) -> None:
        if self._notes.add(key, fingerprint, checksum):
            self.flush()

    def flush(self) -> None:
        """Write down what was noted: to the index in one transaction, and which files were used."""
        self._notes.flush(self._files.exists, self._quota.settle)
        used, self._used = self._used, set()
        self._times.mark(used)

    # -- images: what the files are of -----------------------------------------------------------

    def note_image(self, manifest: Manifest) -> None:
        """Note an image that is used from now on, so that the cache can speak of it; trouble is logged."""
        name = f"{self._sessions.own}-{next(self._numbers)}"
        self.manifests.note(manifest, self._incoming, name)

    # -- tidying up ------------------------------------------------------------------------------

    def excess(self, used: int) -> int:
        """Return by how many bytes there is more than may be, given how much there is."""
        return self._quota.excess(used)

    def remove(self, files: Sequence[StoredFile], *, even_if_open: bool = False) -> list[StoredFile]:
        """Remove files, some hundred at most, unless some process has them open; return those gone."""
        return self._quota.remove(files, even_if_open=even_if_open)

    def noted(self, key: str) -> Checksum | None:
        """Return the checksum that a file of this key should have, as far as it was noted."""
        note = self._notes.get(key)
        return None if note is None else note.checksum

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
