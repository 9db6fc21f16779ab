"""The files under `images/` of a cache: read and written by an open directory, whatever lies in it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from collections.abc import Iterator

from jigdofs.parts.directories import OPEN_FILE
from jigdofs.parts.manifest import Manifest, ManifestDamage, parse

_log = logging.getLogger(__name__)

MOST_BYTES = 64 << 20
"""Of all manifests together; beyond that, those go that were not used for the longest."""
PIN = ".pin"
Data = tuple[bytes | bytearray, ...]
_SOME_BYTES = 64 << 10
ID = re.compile("[0-9a-f]{32,64}", re.ASCII)


def ids(directory: int) -> list[str]:
    """Return the names of all manifests; raise `OSError`."""
    return [name for name in os.listdir(directory) if ID.fullmatch(name)]


def status_of(directory: int, name: str) -> os.stat_result | None:
    """Return what is known of a name, or None if there is nothing of it."""
    with contextlib.suppress(OSError):
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    return None


def is_pin(directory: int, image: str) -> bool:
    """Tell whether an image is pinned."""
    status = status_of(directory, image + PIN)
    return status is not None and stat.S_ISREG(status.st_mode)


def read(directory: int, image: str) -> Manifest | None:
    """Return a manifest, or None if there is none that can be one."""
    try:
        fd = os.open(image, OPEN_FILE, dir_fd=directory)
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_size <= MOST_BYTES:
                with open(fd, "rb", closefd=False) as file:
                    return parse(file.read(MOST_BYTES), image)
        finally:
            os.close(fd)
    except (ManifestDamage, OSError) as error:
        _log.debug("manifest %s: %s", image, error)
    return None


def holds(directory: int, image: str, data: Data) -> bool:
    """Tell whether a manifest is there and has these bytes."""
    with contextlib.suppress(OSError):
        fd = os.open(image, OPEN_FILE, dir_fd=directory)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_size == sum(map(len, data)):
                return all(file.read(len(some)) == some for piece in data for some in _split(piece))
    return False


def _split(piece: bytes | bytearray) -> Iterator[bytes | bytearray]:
    for at in range(0, len(piece), _SOME_BYTES):
        yield piece[at : at + _SOME_BYTES]


def write(data: Data, aside: int, temporary: str, directory: int, image: str) -> None:
    """Write a file and give it its name, in the place of whatever has it; raise `OSError`."""
    if sum(map(len, data)) > MOST_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o600, dir_fd=aside)
    try:
        with open(fd, "wb") as file:
            file.writelines(data)
        os.rename(temporary, image, src_dir_fd=aside, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=aside)
        raise


def bring_to_disk(directory: int, name: str, *, make: bool) -> None:
    """Have a file on disk, a new one in the place of anything else if asked to; raise `OSError`."""
    flags = OPEN_FILE
    if make:
        with contextlib.suppress(FileNotFoundError):  # a link, or what else may be in its place
            if not is_pin(directory, name.removesuffix(PIN)):
                os.unlink(name, dir_fd=directory)
        flags |= os.O_CREAT
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
