"""Walk files and directories: every regular file once, with what stat says of it.

Invariants of this file:
* Nothing in a mount of our own is touched, whatever links lead there (`own_mounts`).
* It always ends: a directory is entered once, a file found once, by device and inode.
* What cannot be read is reported and left out; no name, link or right makes the walk fail.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from jigdofs.errors import printable
from jigdofs.sources.own_mounts import OwnMounts

_MAX_LINES = 20


class Reports:
    """Report at most some lines of trouble, and how many more there were.

    Args:
        report: takes a line for the user.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._count = 0

    def line(self, path: str, reason: str) -> None:
        """Say what is wrong with a file."""
        self.say(f"{path}: {reason}")

    def say(self, text: str) -> None:
        """Say what is wrong."""
        self._count += 1
        if self._count <= _MAX_LINES:
            self._report(printable(text))

    def finish(self) -> None:
        """Say how many lines were left out."""
        if self._count > _MAX_LINES:
            self._report(f"{self._count - _MAX_LINES} more such files and directories")
        self._count = 0


class Found(NamedTuple):
    """A regular file.

    Attributes:
        path: absolute; only its last component may be a link.
        status: of the file itself, links followed.
        named: whether the user named this file, not a directory around it.
    """

    path: str
    status: os.stat_result
    named: bool


class Walker:
    """Walk what the user named.

    Args:
        own: where not to go.
        reports: told of what cannot be read.
        wanted: whether a file matters, by leaf name and size; only those that do are remembered.

    Attributes:
        seen: how many files were looked at.
    """

    def __init__(self, own: OwnMounts, reports: Reports, wanted: Callable[[str, int], bool]) -> None:
        self._own = own
        self._reports = reports
        self._wanted = wanted
        self._files: set[tuple[int, int]] = set()
        self._directories: set[tuple[int, int]] = set()
        self.seen = 0

    def walk(self, paths: Sequence[str]) -> Iterator[Found]:
        """Yield each file that matters at and below these paths once."""
        for path in paths:
            yield from self._named(path)

    def _named(self, path: str) -> Iterator[Found]:
        """Walk one path that the user named."""
        found = self.look(path)
        if found is None:
            return
        where, status = found
        if stat.S_ISDIR(status.st_mode):
            yield from self._tree(where, status)
        elif stat.S_ISREG(status.st_mode):
            self.seen += 1
            if self._first(self._files, status):
                yield Found(where, status, named=True)
        else:
            self._reports.line(path, "is neither a file nor a directory")

    def look(self, path: str, *, must_exist: bool = True) -> tuple[str, os.stat_result] | None:
        """Return where a path leads and what is there, or None after a report."""
        try:
            where = self._own.resolve(path)
            if where is None:
                self._reports.line(path, "lies in a mount of jigdofs or the kernel; it is not searched")
                return None
            return where, os.stat(where)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            if must_exist or not isinstance(error, FileNotFoundError):
                self._reports.line(path, getattr(error, "strerror", None) or str(error))
            return None

    def _tree(self, top: str, status: os.stat_result) -> Iterator[Found]:
        pending = [top] if self._first(self._directories, status) else []
        while pending:
            directory = pending.pop()
            try:
                with os.scandir(directory) as entries:
                    yield from self._entries(directory, entries, pending)
            except OSError as error:
                self._reports.line(directory, error.strerror or str(error))

    def _entries(
        self, directory: str, entries: Iterator[os.DirEntry[str]], pending: list[str]
    ) -> Iterator[Found]:
        """Yield the files of one directory, and put its directories on the list of what is pending."""
        closed = self._own.names_in(directory)
        for entry in entries:
            # by name, as even to stat a mount point is to ask who serves it
            if entry.name in closed:
                if os.path.join(directory, entry.name) not in self._own.besides:
                    self._reports.line(entry.path, "is a mount of jigdofs or the kernel; it is not searched")
                continue
            place = self._place(entry)
            if place is None:
                continue
            where, status = place
            if stat.S_ISDIR(status.st_mode):
                if self._first(self._directories, status):
                    pending.append(where)
            elif stat.S_ISREG(status.st_mode):
                self.seen += 1
                if self._wanted(entry.name, status.st_size) and self._first(self._files, status):
                    yield Found(entry.path, status, named=False)

    def _place(self, entry: os.DirEntry[str]) -> tuple[str, os.stat_result] | None:
        try:
            if not entry.is_symlink():
                return entry.path, entry.stat(follow_symlinks=False)
        except OSError as error:
            self._reports.line(entry.path, error.strerror or str(error))
            return None
        return self.look(entry.path)

    @staticmethod
    def _first(seen: set[tuple[int, int]], status: os.stat_result) -> bool:
        """Tell whether this is the first time, and note it."""
        key = (status.st_dev, status.st_ino)
        if key in seen:
            return False
        seen.add(key)
        return True
