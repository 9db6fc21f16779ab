"""Write down which parts readers touch, in the order of the first touch.

Invariants of this file:
* A part counts when a reader wants it, whether it is here or not; fetching ahead does not count.
* No read waits for the disk: lines are gathered, and written by whoever calls `flush`.
* No line is lost or written in pieces: what the disk does not take is written later, where it belongs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from jigdofs.errors import FormatError, InputError
from jigdofs.format import part_list
from jigdofs.format.part import Part
from jigdofs.parts.open_file import OpenFile
from jigdofs.parts.store import PartStore

_log = logging.getLogger(__name__)


class Recorder:
    """The list of one run, or of several, one after the other.

    Args:
        path: an existing file must be such a list, or empty; the list goes on where it ended.

    Raises:
        InputError: it cannot be written, or is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._touched: set[Part] = set()
        self._lines: deque[str] = deque()  # noted by the event loop while a thread writes
        self._unwritten = bytearray()
        self._end = 0
        self._failing = False
        self._writing = threading.Lock()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
        except OSError as error:
            raise InputError(f"--record {path}: {error.strerror}") from error
        try:
            self._begin(part_list.FIRST_LINE.encode())
        except OSError as error:
            os.close(self._fd)
            raise InputError(f"--record {path}: {error.strerror}") from error
        except InputError:
            os.close(self._fd)
            raise

    def _begin(self, head: bytes) -> None:
        if os.pread(self._fd, len(head), 0) not in (b"", head):
            raise InputError(f"--record {self._path}: is no list of parts; it is not written over")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise InputError(f"--record {self._path}: another mount is writing to it") from error
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            data = file.read(part_list.MAX_BYTES)
        whole = data[: data.rfind(b"\n") + 1]  # a line that a crash cut is written again
        if whole:
            try:
                self._touched.update(part_list.parse(whole.decode("utf-8", "replace"), str(self._path)))
            except FormatError as error:
                raise InputError(f"--record: {error}; it is not written over") from error
        self._end = len(whole) or os.pwrite(self._fd, head, 0)
        os.ftruncate(self._fd, self._end)

    def note(self, part: Part, name: Callable[[], str]) -> None:
        """Note that a reader wants a part."""
        if part not in self._touched:
            self._touched.add(part)
            line = part_list.line(part, name())
            self._lines.append(line)

    def flush(self) -> None:
        """Write what was noted; blocks."""
        with self._writing:
            while self._lines:
                self._unwritten += self._lines.popleft().encode()
            try:
                while self._unwritten:
                    written = os.pwrite(self._fd, self._unwritten, self._end)
                    self._end += written
                    del self._unwritten[:written]
                self._failing = False
            except OSError as error:
                if not self._failing:
                    _log.warning("--record %s: %s", self._path, error.strerror)
                self._failing = True

    def close(self) -> None:
        """Write the rest and close the list."""
        self.flush()
        with contextlib.suppress(OSError):
            os.close(self._fd)


class RecordedParts:
    """The parts of one image, each noted when a reader wants it; otherwise as `PartStore` does.

    Args:
        parts: opens them.
        recorder: notes them.
        names: returns the names that a part has.
    """

    def __init__(self, parts: PartStore, recorder: Recorder, names: Callable[[Part], set[str]]) -> None:
        self._parts = parts
        self._recorder = recorder
        self._names = names
        self.hint = parts.hint

    def peek(self, key: Part) -> OpenFile | None:
        """Note the part, and return it if it is open."""
        self._recorder.note(key, lambda: min(self._names(key), default=""))
        return self._parts.peek(key)

    async def open(self, key: Part) -> OpenFile:
        """Return the part, pinned; it was noted when it was peeked at."""
        return await self._parts.open(key)
