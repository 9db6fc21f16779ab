"""Read an image's directories in a process of its own (this module, as a program), with bounds.

Invariants of this file:
* The process has bounds on time and memory: a directory in descending order costs pycdlib the square of its
  length (54,000 records of 2 MB, over 100 s), and one of 20,000 files would keep the interpreter's lock from
  a mount's event loop for a second.
* Whatever comes of a damaged or hostile image is an answer: code 1 and the reason.

The image is the process's standard input: a file, or a socket to somebody who reads the image for it.
There, it sends `REQUEST` (offset, length) and is sent `ANSWER` (number of bytes, or -1 for an error) and so
many bytes; fewer than it asked for are an answer, too. The first it is sent is the size of the image.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import socket
import stat
import struct
import sys
from typing import BinaryIO, cast

from jigdofs.errors import JigdofsError

REQUEST = struct.Struct("<QI")
ANSWER = struct.Struct("<q")
MAX_WAIT_S = 300
"""How long to wait for it: the disk, or the network, may be slow."""
_MAX_CPU_S = 60
_MAX_ADDRESSES = 2 << 30  # 32 MiB of short records take 0.8 GB
_PIECE_BYTES = 64 << 10
_STRETCH = struct.Struct("<QQ")


def command(what: str) -> list[str]:
    """Return the command that reads directories: `stretches` or `tree`."""
    # -P: a directory called jigdofs in the working directory is not us
    return [sys.executable, "-P", "-m", "jigdofs.iso9660.process", what]


def verdict(code: int, output: bytes) -> str:
    """Say why a process that ended gave no answer; "" if it gave one.

    Raises:
        JigdofsError: that was not the image's fault: somebody ended it, or it could not begin.
    """
    if code == -signal.SIGXCPU:
        return "its directory takes too much time to read"
    if code == 1 and output:
        return f"cannot be read as an ISO 9660 image: {output.decode('utf-8', 'replace')}"
    if code:
        raise JigdofsError(f"the process that reads its directories ended with {code}")
    return ""


def unpack_stretches(output: bytes) -> list[tuple[int, int]]:
    """Return the offsets and lengths that `stretches` answered; raise `struct.error`."""
    return list(_STRETCH.iter_unpack(output))


class _AskedImage(io.RawIOBase):
    """An image that somebody else reads for us, at the other end of a socket."""

    def __init__(self, other_end: socket.socket) -> None:
        super().__init__()
        self._other_end = other_end
        self._stream = other_end.makefile("rb")
        self._size = self._number()
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError("a place before the image")
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        wanted = min(len(view), self._size - self._at)
        if wanted <= 0:
            return 0
        self._other_end.sendall(REQUEST.pack(self._at, wanted))
        count = self._number()
        if not 0 < count <= wanted:
            raise OSError("the image cannot be read")
        view[:count] = self._exactly(count)
        self._at += count
        return count

    def _number(self) -> int:
        number: int = ANSWER.unpack(self._exactly(ANSWER.size))[0]
        return number

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise OSError("nobody reads the image any more")
        return data


def _image() -> BinaryIO:
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        asked = _AskedImage(socket.socket(fileno=0))
        return cast(BinaryIO, io.BufferedReader(asked, _PIECE_BYTES))
    return open(0, "rb", closefd=False)


def main(arguments: list[str]) -> int:
    """Be the process: the image is stdin; write what was asked for, or a reason and return 1."""
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S + 5))  # ends with SIGXCPU
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_ADDRESSES, _MAX_ADDRESSES))
    try:
        data = _read(arguments[0])
    except MemoryError:
        return _answer(1, b"its directory is too large")
    except Exception as error:  # noqa: BLE001  pycdlib has a tree of errors, and damage leads it into any other
        return _answer(1, (str(error) or type(error).__name__).encode("utf-8", "replace"))
    return _answer(0, data)


def _read(what: str) -> bytes:
    from jigdofs.iso9660 import tree, volume

    image = _image()
    if what == "stretches":
        return b"".join(_STRETCH.pack(*stretch) for stretch in volume.stretches(image))
    return tree.pack(volume.tree(image))


def _answer(code: int, data: bytes) -> int:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
