"""Where files lie in an old ISO 9660 image, by its own directory.

Invariant of this file: whatever comes of a damaged or hostile image is a `FormatError`; no stretch reaches
outside of the file.
"""

from __future__ import annotations

import os
import struct
import subprocess

from jigdofs.errors import FormatError, InputError, JigdofsError
from jigdofs.iso9660 import process
from jigdofs.iso9660.tree import Extent

MAGIC_OFFSET = 32769  # the first volume descriptor, after its type
MAGIC = b"CD001"


def looks_like_iso(fd: int) -> bool:
    """Tell whether an open file begins like an ISO 9660 image."""
    try:
        return os.pread(fd, len(MAGIC), MAGIC_OFFSET) == MAGIC
    except OSError:
        return False


def extents(fd: int, source: str) -> list[Extent]:
    """Return where the files of an image lie, each stretch once, in order.

    Args:
        fd: the image, open for reading; its position is moved.
        source: its path, for messages.

    Raises:
        FormatError: it is no such image, or its directory is damaged or has no end.
        InputError: no process could be started to look.
    """
    try:
        done = subprocess.run(
            process.command("stretches"),
            stdin=fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=process.MAX_WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FormatError("its directory takes too long to read", source=source) from None
    except OSError as error:
        raise InputError(f"{source}: not looked into: {error.strerror}") from error
    try:
        reason = process.verdict(done.returncode, done.stdout)
    except JigdofsError as error:
        raise InputError(f"{source}: not looked into: {error}") from error
    if reason:
        raise FormatError(reason, source=source)
    try:
        return [Extent._make(pair) for pair in process.unpack_stretches(done.stdout)]
    except struct.error:
        raise FormatError("its directory was not read to the end", source=source) from None
