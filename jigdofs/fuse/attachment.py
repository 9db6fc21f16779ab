"""Where root's part of a service has mounted: noted beside the directory of the service, in a file of root's.

The image set may say something else by the time the mount is to be taken away, or be gone; and the mount that
is at the place it names may be that of another service.

Invariant of this file: what is believed, only root can have written.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from jigdofs.errors import MountError

_MAX_BYTES = 4096  # PATH_MAX


def note_of(runtime_directory: str) -> Path:
    """Return where it is noted for a service, given the directory that its manager made for it."""
    return Path(f"{runtime_directory}.mount")


def note(path: Path, mountpoint: str) -> None:
    """Note a mount point; raise `MountError`."""
    begun = path.with_name(f"{path.name}.new")
    try:
        directory = path.parent.stat()
        if directory.st_uid != 0 or directory.st_mode & 0o022:
            raise MountError(f"{path.parent} is not a directory that only root can write to")
        with contextlib.suppress(FileNotFoundError):
            begun.unlink()
        with open(os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(os.fsencode(mountpoint))
        begun.replace(path)
    except OSError as error:
        raise MountError(f"{path}: {error.strerror}") from error


def noted(path: Path) -> str | None:
    """Return the mount point that is noted, if one is; raise `MountError`."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
                raise MountError(f"{path} was not written by root")
            return os.fsdecode(file.read(_MAX_BYTES)) or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MountError(f"{path}: {error.strerror}") from error


def forget(path: Path) -> None:
    """Note no longer."""
    with contextlib.suppress(OSError):
        path.unlink()
