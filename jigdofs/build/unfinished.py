"""An image under construction: `<image>.tmp`, in jigdo-file's own form (format.md 1.4).

The file is the image, holes where bytes are missing, and behind it a copy of the template's DESC part
in which each part that is in place is marked as written. So jigdo-file can go on where we stopped,
and we where it stopped.

Invariants of this file:
* A part is marked only after the bytes in its place were verified, so whatever ends us, the marks are
  true; a kill loses nothing but what was on its way. A power cut may belie them: the check of the whole
  finds that. The frame is on the disk before anything else, and all of the image before it has its name.
* The part's id is `DESC` only when all raw data is in place too; until then it is `Raw?`, which
  jigdo-file refuses as damaged, and we write the raw data again.
* One process builds an image at a time: it holds a lock on the file.
* A file that is no image of this template is left alone unless the caller insists.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import stat
import threading
from array import array
from collections.abc import Iterable

from jigdofs.build.image_bytes import HOLE_GRAIN_BYTES, ImageBytes
from jigdofs.errors import ForeignFile, InputError, JigdofsError
from jigdofs.format.template import (
    DESC_OVERHEAD,
    ENTRY_LAYOUT,
    U48,
    EntryType,
    read_u48,
)
from jigdofs.image.layout import Layout

_RAW_MISSING = b"Raw?"
_RAW_THERE = b"DESC"
_HEADER_BYTES = 10
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MAX_IMAGE_BYTES = (1 << 63) - (1 << 32)

_SIZES = {int(kind): layout.size for kind, layout in ENTRY_LAYOUT.items()}
_WRITTEN_OF = {
    int(EntryType.MATCHED_FILE_OLD): int(EntryType.WRITTEN_FILE_OLD),
    int(EntryType.MATCHED_FILE_MD5): int(EntryType.WRITTEN_FILE_MD5),
    int(EntryType.MATCHED_FILE_SHA256): int(EntryType.WRITTEN_FILE_SHA256),
}
_MISSING_OF = {written: missing for missing, written in _WRITTEN_OF.items()}


class Replace(enum.Enum):
    """What may be replaced by a new unfinished image."""

    NOTHING = enum.auto()
    OLD = enum.auto()
    """An unfinished image of whatever template."""
    ANY = enum.auto()


class Unfinished(ImageBytes):
    """An image under construction. Methods may be called from any thread.

    Args:
        path: of the `.tmp`; made if it does not exist.
        layout: of the image.
        desc: the template's packed entries.
        replace: begin anew in the place of a file that is something else; `OLD` only of an unfinished image.

    Raises:
        ForeignFile: the file is something else.
        InputError: it cannot be opened, or another process is at work on it.
        NoRoom: the disk is full.
    """

    def __init__(self, path: str, layout: Layout, desc: bytes, *, replace: Replace) -> None:
        self.path = path
        self.layout = layout
        self._lock = threading.Lock()
        self._types_at = _types_at(desc)
        self._desc = bytearray(desc)
        for at in self._types_at:
            self._desc[at] = _MISSING_OF.get(desc[at], desc[at])
        self.raw_complete = False
        self._created = False
        self.fd = self._open(path)
        try:
            self._adopt(replace=replace)
        except BaseException:
            self.close()
            raise

    # -- beginning -------------------------------------------------------------------------------

    def _open(self, path: str) -> int:
        if self.layout.length > _MAX_IMAGE_BYTES:
            raise InputError(f"{path}: no filesystem holds an image of {self.layout.length} bytes")
        while True:
            try:
                fd = os.open(path, _OPEN_FLAGS, 0o666)
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror}") from error
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise InputError(f"{path}: is in the way, and is no regular file")
                _lock(fd, path)
                # the holder of the lock before us may just have finished the image and renamed it
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
                        return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _adopt(self, *, replace: Replace) -> None:
        """Take over what is there, or begin."""
        status = os.fstat(self.fd)
        if status.st_size:
            # whoever else owns it, or has it under another name, could write to it while we build
            problem = "is not an unfinished image of this template"
            if status.st_uid != os.geteuid():
                problem = f"belongs to another user (uid {status.st_uid})"
            elif status.st_nlink > 1:
                problem = "is linked to another name"
            elif self._take_over(status.st_size):
                return
            may_replace = replace is Replace.ANY or (replace is Replace.OLD and self._is_unfinished_image())
            if not may_replace and self._holds_data():
                raise ForeignFile(f"{self.path}: {problem}; remove it, or let --force replace it")
        if status.st_size or status.st_uid != os.geteuid() or status.st_nlink > 1:
            self._make_anew()
        self._created = True
        self._begin()

    def _is_unfinished_image(self) -> bool:
        """Tell whether the file ends as one of ours or of jigdo-file, of whatever image."""
        size = os.fstat(self.fd).st_size
        if size < DESC_OVERHEAD:
            return False
        length = read_u48(self._read(size - 6, 6))
        if not DESC_OVERHEAD <= length <= size:
            return False
        head = self._read(size - length, _HEADER_BYTES)
        return head[:4] in (_RAW_THERE, _RAW_MISSING) and read_u48(head, 4) == length

    def _make_anew(self) -> None:
        """Put an empty file of our own in the place of another; what that held may live on elsewhere."""
        with self._disk():
            os.unlink(self.path)
            os.close(self.fd)
            self.fd = os.open(self.path, _OPEN_FLAGS | os.O_EXCL, 0o666)
        _lock(self.fd, self.path)

    def _holds_data(self) -> bool:
        """Tell whether the file is more than what a kill leaves while a new one is begun.

        That is a hole, and perhaps the beginning of the frame behind it.
        """
        try:
            at = os.lseek(self.fd, 0, os.SEEK_DATA)
        except OSError as error:
            return error.errno != errno.ENXIO
        frame, before = self._frame(), max(0, self.layout.length - at)
        if before > HOLE_GRAIN_BYTES or os.fstat(self.fd).st_size > self.layout.length + len(frame):
            return True
        rest = self._read(at, before + len(frame))
        return any(rest[:before]) or not frame.startswith(rest[before:])

    def _begin(self) -> None:
        """Write the frame behind a hole as long as the image, to the disk; leave no half of it."""
        try:
            with self._disk():
                self._write(self._frame(), self.layout.length)
                os.fsync(self.fd)
        except JigdofsError:
            self.discard()
            raise

    def _take_over(self, size: int) -> bool:
        """Read the marks of a file that is ours or jigdo-file's; tell whether it is."""
        length = self.layout.length
        if size == length:
            return self._take_over_finished()
        frame = self._read(length, size - length) if size - length == len(self._desc) + DESC_OVERHEAD else b""
        if len(frame) != len(self._desc) + DESC_OVERHEAD:
            return False
        if frame[:4] not in (_RAW_THERE, _RAW_MISSING) or read_u48(frame, 4) != len(frame):
            return False
        desc = bytearray(frame[_HEADER_BYTES:-6])
        plain = bytearray(desc)
        for at in self._types_at:
            plain[at] = _MISSING_OF.get(plain[at], plain[at])
        if plain != self._desc or read_u48(frame, len(frame) - 6) != len(frame):
            return False
        self._desc = desc
        self.raw_complete = frame[:4] == _RAW_THERE
        return True

    def _take_over_finished(self) -> bool:
        """Mark what is right in a file without marks: we were killed just before it got its name.

        It may as well be anything else of that length: then nothing in it is right.
        """
        right = []
        for index in range(len(self.layout)):
            part, at = self.layout.part(index), self.layout.start(index)
            if part and self.checksum(at, part.length, part.checksum.algorithm) == part.checksum:
                right.append(index)
        if not right:
            return False
        self._mark(right, written=True)
        with self._disk():
            self._write(self._frame(), self.layout.length)
        return True

    def _frame(self) -> bytes:
        length = len(self._desc) + DESC_OVERHEAD
        packed = U48.pack(length & 0xFFFFFFFF, length >> 32)
        return (_RAW_THERE if self.raw_complete else _RAW_MISSING) + packed + self._desc + packed

    # -- marks -----------------------------------------------------------------------------------

    def is_written(self, index: int) -> bool:
        """Tell whether an extent is a part that is in place."""
        return self._desc[self._types_at[index]] in _MISSING_OF

    def mark(self, indexes: Iterable[int]) -> None:
        """Mark parts as being in place; their bytes were verified."""
        with self._lock, self._disk():
            for at in self._mark(indexes, written=True):
                self._write(self._desc[at : at + 1], self.layout.length + _HEADER_BYTES + at)

    def unmark(self, indexes: Iterable[int]) -> None:
        """Mark parts as missing; their bytes were found wrong."""
        with self._lock, self._disk():
            for at in self._mark(indexes, written=False):
                self._write(self._desc[at : at + 1], self.layout.length + _HEADER_BYTES + at)

    def _mark(self, indexes: Iterable[int], *, written: bool) -> list[int]:
        """Change marks in memory; return where in the entries."""
        change = _WRITTEN_OF if written else _MISSING_OF
        positions = [self._types_at[index] for index in indexes]
        for at in positions:
            self._desc[at] = change.get(self._desc[at], self._desc[at])
        return positions

    def complete_raw(self) -> None:
        """Note that all raw data is in place."""
        with self._lock, self._disk():
            self.raw_complete = True
            self._write(_RAW_THERE, self.layout.length)

    def doubt_raw(self) -> None:
        """Note that raw data may be wrong, and is to be written again."""
        with self._lock, self._disk():
            self.raw_complete = False
            self._write(_RAW_MISSING, self.layout.length)

    # -- the end ---------------------------------------------------------------------------------

    def allocated_bytes(self) -> int:
        """Return how much of the disk the file takes already."""
        return os.fstat(self.fd).st_blocks * 512

    def finish(self, path: str) -> None:
        """Make the file the finished image, which was verified whole, in place of any other there."""
        with self._disk():
            if not self._is_ours(self.path):
                raise JigdofsError(f"{self.path}: was replaced or removed by another program; begin anew")
            os.fsync(self.fd)
            os.ftruncate(self.fd, self.layout.length)
            os.rename(self.path, path)
            if not self._is_ours(path):
                raise JigdofsError(f"{path}: was replaced by another program just now")

    def _is_ours(self, path: str) -> bool:
        try:
            return os.path.samestat(os.fstat(self.fd), os.stat(path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def discard(self) -> None:
        """Remove a file that holds nothing worth keeping."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    @property
    def created(self) -> bool:
        """Tell whether this process began the file."""
        return self._created

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise InputError(f"{path}: another process is building this image just now") from error
        # a filesystem without locks: the user must not start two


def _types_at(desc: bytes) -> array[int]:
    """Return where in the packed entries each extent of the layout has its type byte."""
    found = array("Q")
    at = 0
    while at < len(desc):
        kind = desc[at]
        info = kind in (EntryType.IMAGE_INFO_OLD, EntryType.IMAGE_INFO_MD5, EntryType.IMAGE_INFO_SHA256)
        if not info and read_u48(desc, at + 1):
            found.append(at)
        at += _SIZES[kind]
    return found
