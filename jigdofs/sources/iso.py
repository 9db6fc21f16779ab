"""Where files lie in an ISO 9660 image, by its own directory. The only file that imports pycdlib.

Invariants of this file:
* pycdlib runs in a process of its own (this module, as a program), with bounds on time and memory: a
  directory in descending order costs it the square of its length (54,000 records of 2 MB, over 100 s),
  and a directory of 20,000 files would keep the interpreter's lock from a mount's event loop for a second.
* The image is read through a meter, so directories that lead in circles or claim to be huge are an error.
* Whatever comes of a damaged or hostile image is a `FormatError`; no stretch reaches outside of the file.
"""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Any, BinaryIO, cast

from jigdofs.errors import FormatError, InputError

_MAGIC_OFFSET = 32769  # the first volume descriptor, after its type
_MAGIC = b"CD001"
_SECTOR = 2048
_MAX_BYTES = 32 << 20
"""Most bytes of directories we read. 20,000 files with Rock Ridge and Joliet take 5.4 MB, and pycdlib
1 s and 60 MB of memory; Debian's largest image has 30,000."""
_MAX_CPU_S = 60
_MAX_ADDRESSES = 2 << 30  # 32 MiB of short records take 0.8 GB
_MAX_WAIT_S = 300  # the disk may be slow
_PACKED = struct.Struct("<QQ")

Extent = tuple[int, int]
"""Offset and length of a stretch of the image."""


class _Overread(Exception):
    """Say that the directory has more to read than we are willing to."""


class _Metered(io.RawIOBase):
    """Let pycdlib read so many bytes and no more.

    Args:
        file: the image.
    """

    mode = "rb"

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._left = _MAX_BYTES

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        """Read on; at least a sector is charged, so that even empty reads come to an end."""
        size = -1 if size is None else size
        self._left -= max(size, 512)
        if size < 0 or self._left < 0:
            raise _Overread(f"its directory has more than {_MAX_BYTES >> 20} MiB")
        return self._file.read(size)


def looks_like_iso(fd: int) -> bool:
    """Tell whether an open file begins like an ISO 9660 image."""
    try:
        return os.pread(fd, len(_MAGIC), _MAGIC_OFFSET) == _MAGIC
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
    # -P: a directory called jigdofs in the working directory is not us
    command = [sys.executable, "-P", "-m", "jigdofs.sources.iso"]
    try:
        done = subprocess.run(
            command,
            stdin=fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_MAX_WAIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FormatError("its directory takes too long to read", source=source) from None
    except OSError as error:
        raise InputError(f"{source}: not looked into: {error.strerror}") from error
    if done.returncode < 0:
        raise FormatError("its directory takes too much time or memory to read", source=source)
    if done.returncode or len(done.stdout) % _PACKED.size:
        reason = done.stdout.decode("utf-8", "replace") or "no reason given"
        raise FormatError(f"cannot be read as an ISO 9660 image: {reason}", source=source)
    return list(_PACKED.iter_unpack(done.stdout))


def main() -> int:
    """Be the process: the image is stdin; write packed extents, or a reason and return 1."""
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_ADDRESSES, _MAX_ADDRESSES))
    try:
        found = extents_here(0)
    except MemoryError:
        return _answer(1, b"its directory is too large")
    except Exception as error:  # noqa: BLE001  pycdlib has a tree of errors, and damage leads it into any other
        return _answer(1, (str(error) or type(error).__name__).encode("utf-8", "replace"))
    return _answer(0, b"".join(_PACKED.pack(*extent) for extent in found))


def _answer(code: int, data: bytes) -> int:
    sys.stdout.buffer.write(data)
    return code


def extents_here(fd: int) -> list[Extent]:
    """Return where the files of an image lie; raise whatever pycdlib raises."""
    size = os.fstat(fd).st_size
    with open(fd, "rb", closefd=False) as file:
        found = set(_read(_Metered(file)))
    return sorted((offset, length) for offset, length in found if offset > 0 < length <= size - offset)


def _read(image: _Metered) -> Iterator[Extent]:
    """Open the image and walk its trees: the plain one, and Joliet's, which may show other files."""
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.open_fp(cast(BinaryIO, image))  # it needs no more than read, seek and tell
    for volume in (iso.pvd, iso.joliet_vd):
        if volume is not None:
            yield from _walk(volume.root_directory_record(), volume.logical_block_size())


def _walk(root: Any, block: int) -> Iterator[Extent]:
    """Yield the stretches below a directory; pycdlib has read all records by now."""
    seen = {id(root)}
    pending = [root]
    while pending:
        for _, group in groupby(pending.pop().children, key=lambda record: record.file_identifier()):
            stretches = []
            for record in group:
                if not record.is_dir():
                    stretches.append((record.extent_location() * block, record.get_data_length()))
                elif not (record.is_dot() or record.is_dotdot() or id(record) in seen):
                    seen.add(id(record))
                    pending.append(record)
            yield from _joined(stretches)


def _joined(stretches: list[Extent]) -> Iterator[Extent]:
    """Put together what one name has in several records: a file of 4 GiB or more."""
    if len(stretches) == 1:
        yield stretches[0]
        return
    start = end = 0
    for offset, length in sorted(stretches):
        if offset != end:
            yield start, end - start
            start = offset
        end = offset + length
    yield start, end - start


if __name__ == "__main__":
    sys.exit(main())
