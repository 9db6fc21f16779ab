"""The files that jigdo-file would look at, given the names its user gave, in the same order.

Rules of this file:
* A directory is walked in the order in which the system lists it, as jigdo-file does, unless another is
  asked for; links found there come last of all.
* Every file and every directory is visited once, by device and inode, under the first of its names.
* Empty files and what is no regular file are passed over in silence; what is not there is reported.

`sources.walk` looks for parts in any order and names what it finds by absolute paths; here names stay as
they were typed, since they are printed, and written into a .jigdo.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A regular file with something in it.

    Attributes:
        path: as typed, with what was found below it.
        status: what stat says of it, links followed.
    """

    path: str
    status: os.stat_result

    @property
    def name(self) -> str:
        """What stands for the file in a .jigdo: the path behind the last `//`, if there is one."""
        return self.path[self._behind_base :]

    @property
    def base(self) -> str:
        """What a label stands for: the path before the last `//`, "" if there is none."""
        return self.path[: max(self._behind_base - 2, 0)]

    @property
    def _behind_base(self) -> int:
        at = self.path.rfind("//")
        return 0 if at < 0 else at + 2


def named_files(
    names: Iterable[str], skipped: Callable[[str, OSError], None], *, ordered: bool = False
) -> Iterator[NamedFile]:
    """Yield the files that names stand for.

    Args:
        names: of files and directories, as typed.
        skipped: told the path that could not be visited, and why.
        ordered: walk directories in the order of names, so that the same files come in the same order.
    """
    walk = _Walk(skipped, ordered=ordered)
    for name in names:
        yield from walk.visit(name)
    while walk.links:
        yield from walk.visit(walk.links.popleft())


class _Walk:
    """Remember what was visited, and the links that are left for the end."""

    def __init__(self, skipped: Callable[[str, OSError], None], *, ordered: bool) -> None:
        self._ordered = ordered
        self.links: deque[str] = deque()
        self._skipped = skipped
        self._seen: set[tuple[int, int]] = set()

    def visit(self, name: str) -> Iterator[NamedFile]:
        """Yield the files at a name and below it; a link is followed here, those below it later."""
        pending = [(name, False)]
        while pending:
            path, is_link = pending.pop()
            if is_link:
                self.links.append(path)
                continue
            try:
                status = os.stat(path)
                if stat.S_ISDIR(status.st_mode) and self._is_new(status):
                    found = _listed(path)
                    pending += reversed(sorted(found) if self._ordered else found)
            except OSError as error:
                self._skipped(path, error)
                continue
            except ValueError:  # a name with a NUL in it
                self._skipped(path, OSError(0, "no file has such a name"))
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size and self._is_new(status):
                yield NamedFile(path, status)

    def _is_new(self, status: os.stat_result) -> bool:
        key = (status.st_dev, status.st_ino)
        known = key in self._seen
        self._seen.add(key)
        return not known


def _listed(path: str) -> list[tuple[str, bool]]:
    """Return paths in a directory, and whether each is a symbolic link."""
    prefix = path if path.endswith("/") else f"{path}/"
    with os.scandir(path) as entries:
        return [(prefix + entry.name, entry.is_symlink()) for entry in entries]
