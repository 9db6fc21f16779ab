"""Remove files of the cache by descriptors, so that nothing leads out, and not while they are open."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from enum import Enum

from jigdofs.parts.directories import OPEN_FILE, opened
from jigdofs.parts.object_files import StoredFile


class Removal(Enum):
    """What became of a file: who removed it takes it off the accounts, and nobody else."""

    REMOVED = "removed"
    ABSENT = "absent"
    STAYS = "stays"


def remove_unused(objects: int, file: StoredFile) -> Removal:
    """Remove a file unless some process has it open."""
    try:
        with opened(objects, file.kind) as outer, opened(outer, file.shard) as inner:
            return _remove_unused(inner, file.name)
    except OSError as error:
        return _without(error)


def unlink(objects: int, file: StoredFile) -> Removal:
    """Unlink a file, even if a process has it open."""
    try:
        with opened(objects, file.kind) as outer, opened(outer, file.shard) as inner:
            os.unlink(file.name, dir_fd=inner)
    except OSError as error:
        return _without(error)
    return Removal.REMOVED


def _without(error: OSError) -> Removal:
    return Removal.ABSENT if error.errno == errno.ENOENT else Removal.STAYS


def _remove_unused(directory: int, name: str) -> Removal:
    """Unlink a file unless some process has it open (it holds a shared lock then)."""
    try:
        fd = os.open(name, OPEN_FILE, dir_fd=directory)
    except OSError as error:
        if error.errno != errno.ELOOP:
            return _without(error)
        with contextlib.suppress(OSError):  # a symlink: none of ours
            os.unlink(name, dir_fd=directory)
        return Removal.REMOVED
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    except OSError as error:
        return _without(error)
    finally:
        os.close(fd)
    return Removal.REMOVED
