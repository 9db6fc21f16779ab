"""Files that have no name while they are written (O_TMPFILE): what nobody can open, nobody can change.

Not all filesystems can, and to give such a file its name takes /proc.
"""

from __future__ import annotations

import contextlib
import os


def open_unnamed(directory: int) -> int:
    """Make a file without a name, on the filesystem of an open directory; raise `OSError`."""
    return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)


def give_name(fd: int, directory: int, name: str, aside: int, temporary: str) -> None:
    """Give such a file a name, atomically in the place of what has it; raise `OSError`.

    Args:
        fd: the file.
        directory: where it is to lie, open.
        name: its name there.
        aside: where it gets another name for a moment if that one is taken.
        temporary: that name.
    """
    try:
        _link(fd, directory, name)
    except FileExistsError:
        _link(fd, aside, temporary)
        os.rename(temporary, name, src_dir_fd=aside, dst_dir_fd=directory)


def _link(fd: int, directory: int, name: str) -> None:
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)


def can_keep_unnamed(directory: int, name: str) -> bool:
    """Tell whether both work in an open directory, by doing it under a name that is removed again."""
    try:
        fd = open_unnamed(directory)
    except OSError:
        return False
    try:
        _link(fd, directory, name)
    except OSError:
        return False
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
    return True
