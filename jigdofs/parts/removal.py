"""Remove files of the cache by descriptors, so that nothing leads out, and not while they are open."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os

from jigdofs.parts.directories import OPEN_FILE, opened
from jigdofs.parts.object_files import StoredFile


def remove_unused(objects: int, file: StoredFile) -> bool:
    """Remove a file unless some process has it open; tell whether it is gone."""
    try:
        with opened(objects, file.kind) as outer, opened(outer, file.shard) as inner:
            return _remove_unused(inner, file.name)
    except OSError:
        return False


def unlink(objects: int, file: StoredFile) -> bool:
    """Unlink a file, even if a process has it open; tell whether it is gone."""
    try:
        with opened(objects, file.kind) as outer, opened(outer, file.shard) as inner:
            os.unlink(file.name, dir_fd=inner)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


def _remove_unused(directory: int, name: str) -> bool:
    """Unlink a file unless some process has it open (it holds a shared lock then)."""
    try:
        fd = os.open(name, OPEN_FILE, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a symlink: none of ours
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
        return error.errno in (errno.ENOENT, errno.ELOOP)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
