"""Files that nobody may touch: what they are like, and whether anybody opened them, as inotify(7) tells."""

import ctypes
import os
import stat
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

_OPEN, _MODIFY, _CLOSE_WRITE = 0x20, 0x2, 0x8
_MOVED, _CREATE, _DELETE = 0x40 | 0x80, 0x100, 0x200
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Watched:
    """A directory with all that is below it, watched from the moment it is entered.

    Opening one of the files by another name, as a hard link is one, does not count; changing it does.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> Self:
        self._before = self._look()
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        self._names: dict[int, str] = {}
        events = _OPEN | _MODIFY | _CLOSE_WRITE | _MOVED | _CREATE | _DELETE
        for folder in (self._directory, *sorted(self._directory.rglob("*"))):
            if folder.is_dir():
                watch = _libc.inotify_add_watch(self._fd, os.fsencode(folder), events)
                assert watch >= 0, os.strerror(ctypes.get_errno())
                self._names[watch] = str(folder.relative_to(self._directory))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def touched(self) -> list[str]:
        """Return what was done to it since the last call, as far as inotify tells."""
        found: list[str] = []
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return sorted(set(found))
            at = 0
            while at < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, at)
                name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
                found.append(f"{self._names.get(watch, '?')}/{os.fsdecode(name)} {mask:#x}")
                at += _EVENT.size + length

    def changed(self) -> list[str]:
        """Return what is no longer as it was: content, kind, length, time, inode; call `touched` before."""
        now = self._look()
        self.touched()  # we looked ourselves
        return sorted(
            name for name in self._before.keys() | now.keys() if self._before.get(name) != now.get(name)
        )

    def _look(self) -> dict[str, tuple[object, ...]]:
        found: dict[str, tuple[object, ...]] = {}
        for path in self._directory.rglob("*"):
            status = path.lstat()
            plain = stat.S_ISREG(status.st_mode)
            found[str(path.relative_to(self._directory))] = (
                status.st_mode,
                status.st_uid,
                status.st_ino,
                *((status.st_size, status.st_mtime_ns, path.read_bytes()) if plain else ()),
            )
        return found
