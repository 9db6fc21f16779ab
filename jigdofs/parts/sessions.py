"""The processes that use a cache: which of them still run, and which ended cleanly.

A process holds a lock on a file of its own under `sessions/` as long as it runs, so nobody needs to
believe a process id. What a session noted about files is believed while it runs and after it ended
cleanly; a killed one may have noted what a power cut then took back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Collection

from jigdofs.parts.directories import OPEN_FILE
from jigdofs.parts.index import Index, IndexTrouble, Texts

_log = logging.getLogger(__name__)
_NAME = re.compile("[0-9a-f]{16}")
_FRESH = ".new"
_JUST_MADE_S = 60.0
_CANNOT_TELL = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
FEW = 32
"""Up to so many noted files are brought to disk one by one at the end, more with their whole filesystem."""
_REMEMBERED = 1000  # clean ends kept; files of older sessions are verified once more
_ENDED = "sessions ended cleanly"


class Sessions:
    """This process's session and what is known of the others.

    Args:
        directory: `sessions/` of the cache, open; it stays the caller's.
        incoming: `incoming/` of the cache, open.
        index: where clean ends are noted.

    Raises:
        OSError: the directory cannot be written to.
    """

    def __init__(self, directory: int, incoming: int, index: Index) -> None:
        self._directory = directory
        self._incoming = incoming
        self._index = index
        self._clean: frozenset[str] | None = None  # sessions that ended cleanly, once we looked
        self.own = secrets.token_hex(8)
        fresh = self.own + _FRESH
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        self._fd = os.open(fresh, flags, 0o600, dir_fd=directory)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        # seen by others only now that it is locked
        os.rename(fresh, self.own, src_dir_fd=directory, dst_dir_fd=directory)
        self._sweep()

    def running(self, session: str) -> bool:
        """Tell whether the process of a session still runs."""
        return session == self.own or is_running(self._directory, session)

    def trusted(self, session: str) -> bool:
        """Tell whether what a session noted about files holds without another look at them."""
        if self.running(session):
            return True
        if self._clean is None:
            try:
                self._clean = frozenset((self._index.get(_ENDED) or "").split())
            except IndexTrouble:
                return False
        # one that ended after we looked is verified once too often: no harm
        return session in self._clean

    def _note_end(self, texts: Texts) -> None:
        names = [*(texts.get(_ENDED) or "").split(), self.own]
        texts.set(_ENDED, " ".join(names[-_REMEMBERED:]))

    def _sweep(self) -> None:
        """Remove what killed processes left behind."""
        try:
            dead = [name for name in os.listdir(self._directory) if not self._alive(name)]
            for left in os.listdir(self._incoming):
                if left.partition("-")[0] in dead:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(left, dir_fd=self._incoming)
            for name in dead:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._directory)
        except OSError as error:
            _log.info("cannot tidy the cache up: %s", error)

    def _alive(self, name: str) -> bool:
        """Tell whether a file under `sessions/` is none of a dead session."""
        if name.endswith(_FRESH):  # of a start that was killed there, unless it is just being made
            made = os.stat(name, dir_fd=self._directory, follow_symlinks=False).st_mtime
            return time.time() - made < _JUST_MADE_S
        return not _NAME.fullmatch(name) or self.running(name)

    def end(self, noted: Collection[str], open_file: Callable[[str], int]) -> None:
        """End cleanly: bring the files to disk, so that a power cut cannot belie the index.

        Args:
            noted: the keys of the files whose fingerprints this session noted.
            open_file: opens the file of a key; raises `OSError`.
        """
        try:
            if len(noted) > FEW:
                _sync_filesystem(self._fd)
            else:  # that would bring to disk what others write there, too: 0.3 s for an image of 570 MB
                _sync_files(noted, open_file)
            self._index.atomically(self._note_end)
        except (IndexTrouble, OSError) as error:
            _log.info("the cache was not closed cleanly: %s", error)
        with contextlib.suppress(OSError):
            os.unlink(self.own, dir_fd=self._directory)
        os.close(self._fd)


def is_running(directory: int, session: str) -> bool:
    """Tell whether the process of a session runs, or may run, given `sessions/`, open."""
    if not _NAME.fullmatch(session):
        return False
    try:
        fd = os.open(session, OPEN_FILE, dir_fd=directory)
    except OSError as error:
        return error.errno in _CANNOT_TELL
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _sync_files(keys: Collection[str], open_file: Callable[[str], int]) -> None:
    for key in keys:
        with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
            fd = open_file(key)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)


def _sync_filesystem(fd: int) -> None:
    """Write one filesystem's dirty pages: syncfs(2), which Python does not offer."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
