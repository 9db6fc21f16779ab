"""Checksums of whole files, computed in threads: several files at once, or several checksums of one.

Invariants of this file:
* A file is read once, front to back, however many checksums are wanted of it.
* Memory does not grow with the size or the number of files.
* When the caller stops early, what is being read is given up within one block.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, NamedTuple, TypeVar

from jigdofs.format.checksum import Algorithm, Hasher

BLOCK_BYTES = 1 << 20  # hashlib lets other threads run meanwhile; from 256 KiB on more is no faster
THREADS = 2
_AHEAD = 8  # files begun or waiting: enough to keep the threads busy over many small ones

T = TypeVar("T")


class GivenUp(OSError):
    """Say that nobody waits for a checksum any more."""


class FileSums(NamedTuple):
    """What one reading of a file told.

    Attributes:
        length: bytes.
        digests: lower-case algorithm name -> digest.
    """

    length: int
    digests: dict[str, bytes]


def hash_in_order(
    items: Iterable[T], path_of: Callable[[T], str], algorithm: Algorithm, threads: int = THREADS
) -> Generator[tuple[T, bytes | OSError], None, None]:
    """Yield every item with its file's digest, or with why it cannot be read; several files at a time."""
    stop = threading.Event()
    waiting: deque[tuple[T, Future[bytes]]] = deque()
    with ThreadPoolExecutor(threads, "hash") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(_digest, path_of(item), algorithm, stop)))
                if len(waiting) >= _AHEAD:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _result(item: T, future: Future[bytes]) -> tuple[T, bytes | OSError]:
    try:
        return item, future.result()
    except OSError as error:
        return item, error


def _digest(path: str, algorithm: Algorithm, stop: threading.Event) -> bytes:
    hasher = algorithm.hasher()
    buffer = bytearray(BLOCK_BYTES)
    view = memoryview(buffer)
    # the walk saw a regular file here; should a FIFO have taken its place, it must not hold us up
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb", buffering=0) as file:
        while length := file.readinto(buffer):
            hasher.update(view[:length])
            if stop.is_set():
                raise GivenUp
    return hasher.digest()


def hash_file(file: BinaryIO, algorithms: Collection[str]) -> FileSums:
    """Read a file or a stream to its end and return its checksums, each computed in a thread of its own.

    Args:
        file: read from where it is.
        algorithms: lower-case names: md5, sha1, sha256, sha512.
    """
    hashers: dict[str, Hasher] = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    length = 0
    with ThreadPoolExecutor(max(len(hashers), 1), "hash") as pool:
        block = file.read(BLOCK_BYTES)
        while block:
            length += len(block)
            busy = [pool.submit(hasher.update, block) for hasher in hashers.values()]
            block = file.read(BLOCK_BYTES)  # meanwhile
            for future in busy:
                future.result()
    return FileSums(length, {name: hasher.digest() for name, hasher in hashers.items()})
