"""Where the files of the cache lie, by key: entered directory by directory, so that nothing leads out.

objects/md5/ab/abcd…   kind, shard and name of the key md5-abcd…
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jigdofs.errors import CacheError, printable
from jigdofs.parts.directories import OPEN_FILE, open_inside, opened
from jigdofs.parts.used import UsedAt

_KEY = re.compile(r"(md5|sha256|raw|doc|tree)-([0-9a-f]{32,64}(?:-[0-9]{1,9})?)", re.ASCII)

_TICK_NS = 20_000_000  # of the clock that directories are marked by, at most: 1 to 10 ms


def split(key: str) -> tuple[str, str, str]:
    """Return kind, shard and name of a key's file; raise `CacheError` for anything that is no key."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise CacheError(f"`{key}' is no cache key")
    return match[1], match[2][:2], match[2]


class StoredFile(NamedTuple):
    """A file as eviction sees it: used least recently first."""

    used_ns: int
    size: int
    kind: str
    shard: str
    name: str

    @property
    def key(self) -> str:
        """What it is called in the index, and asked for by."""
        return _key(self.kind, self.name)


def _key(kind: str, name: str) -> str:
    """Join the key of whatever lies there: none of ours may be no text."""
    return printable(f"{kind}-{name}")


def stored_files(objects: int, used: UsedAt) -> Iterator[StoredFile]:
    """Yield every file; no link is followed, whatever lies in the directory.

    Args:
        objects: the directory, open.
        used: when files were last used.
    """
    for kind in _names(objects):
        with contextlib.suppress(OSError), opened(objects, kind) as outer:
            for shard in _names(outer):
                with contextlib.suppress(OSError), opened(outer, shard) as inner:
                    for name in _names(inner):
                        with contextlib.suppress(OSError):
                            status = os.stat(name, dir_fd=inner, follow_symlinks=False)
                            used_ns = max(status.st_atime_ns, used.ns(_key(kind, name)))
                            yield StoredFile(used_ns, status.st_size, kind, shard, name)


def _names(directory: int) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(directory)
    return []


class ObjectFiles:
    """The directory `objects/`. All methods block, and raise `CacheError` for anything that is no key.

    Attributes:
        fd: the directory, open; it stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @contextlib.contextmanager
    def shard(self, key: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Yield the open directory of a key's file, and the file's name in it; raise `OSError`."""
        kind, shard, name = split(key)
        with opened(self.fd, kind, make=make) as outer:
            inner = open_inside(outer, shard, make=make)
        try:
            yield inner, name
        finally:
            os.close(inner)

    def open(self, key: str) -> int:
        """Open whatever lies in the place of a key's file, for reading; raise `OSError`."""
        with self.shard(key) as (directory, name):
            return os.open(name, OPEN_FILE, dir_fd=directory)

    def exists(self, key: str) -> bool:
        """Tell whether a key has a file."""
        try:
            with self.shard(key) as (directory, name):
                os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        return True

    def present(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that have a file, without opening any: one directory listing per shard."""
        listed: dict[tuple[str, str], set[str]] = {}
        found = set()
        for key in keys:
            kind, shard, name = split(key)
            names = listed.get((kind, shard))
            if names is None:
                names = listed[kind, shard] = self._listed(kind, shard)
            if name in names:
                found.add(key)
        return found

    def generation(self) -> int:
        """Return a number that is another one when files came or went since, as the directories tell.

        No latest time would do: that of a clock that was set back is not later. And a directory that changed
        just now may change again without showing it.
        """
        seen, now, just_now = 0, time.time_ns(), False
        with contextlib.suppress(OSError):
            for kind in os.listdir(self.fd):
                with contextlib.suppress(OSError), opened(self.fd, kind) as outer:
                    for shard in (".", *os.listdir(outer)):
                        changed_ns = os.stat(shard, dir_fd=outer, follow_symlinks=False).st_mtime_ns
                        seen ^= hash((kind, shard, changed_ns))
                        just_now |= abs(now - changed_ns) < _TICK_NS
        return hash((seen, now)) if just_now else seen

    def _listed(self, kind: str, shard: str) -> set[str]:
        with contextlib.suppress(OSError), opened(self.fd, kind) as outer, opened(outer, shard) as inner:
            return set(os.listdir(inner))
        return set()
