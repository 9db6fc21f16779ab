"""Read local files as if they were a mirror: regular files only, checked like any other source."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from jigdofs.errors import MirrorTrouble, NotThere, WrongContent
from jigdofs.fetch.fetcher import Answer, Receiver, Request
from jigdofs.in_thread import GIVE_UP

_READ_BYTES = 1 << 20
_THREADS = 8
T = TypeVar("T")


class FileFetcher:
    """Fetch absolute paths.

    Args:
        stall_timeout_s: a directory on a server that hangs is given up after this long.
    """

    def __init__(self, stall_timeout_s: float = 15.0) -> None:
        self.stall_timeout_s = stall_timeout_s
        # threads that hang are left behind, so they must be few and nobody else's
        self._threads = trio.CapacityLimiter(_THREADS)

    async def fetch(self, request: Request, receiver: Receiver) -> None:
        """Read the file from `offset` to its end; raise `FetchError`."""
        file = _File(request)
        try:
            size = await self._in_thread(request, file.open)
            offset = min(request.offset, size)
            await receiver.begin(Answer(offset=offset, length=size, url=request.url))
            while offset < size:
                data = await self._in_thread(request, partial(file.read, offset))
                if not data:
                    raise WrongContent(request.url, "became shorter while it was read")
                offset += len(data)
                await receiver.receive(data)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(self._limit_s(request)):
                # closing may ask the filesystem, which may be our own: never in the event loop
                await trio.to_thread.run_sync(file.close, **GIVE_UP)

    async def ask(self, request: Request) -> Answer:
        """Tell how long a file is that could be read; raise `FetchError`."""
        size = await self._in_thread(request, partial(_size, request))
        return Answer(length=size, url=request.url)

    async def _in_thread(self, request: Request, work: Callable[[], T]) -> T:
        limit_s = self._limit_s(request)
        with trio.move_on_after(limit_s):
            return await trio.to_thread.run_sync(work, limiter=self._threads, **GIVE_UP)
        raise MirrorTrouble(request.url, f"does not answer within {limit_s:g} s")

    def _limit_s(self, request: Request) -> float:
        limit_s, silence_s = self.stall_timeout_s, request.silence_s
        return limit_s if silence_s is None else min(limit_s, silence_s)


class _File:
    """A file that worker threads open, read and close; one that hangs may come back late."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._lock = threading.Lock()
        self._fd = -1
        self._closed = False

    def open(self) -> int:
        """Open and return the size."""
        fd, size = _open(self._request)
        with self._lock:
            if not self._closed:
                self._fd = fd
                return size
        os.close(fd)
        return 0

    def read(self, offset: int) -> bytes:
        """Read a piece."""
        return _read(self._request.url, self._fd, offset)

    def close(self) -> None:
        """Close, now or when a late `open` comes back."""
        with self._lock:
            self._closed = True
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open(request: Request) -> tuple[int, int]:
    try:
        path = os.fsencode(request.url)
        # O_NONBLOCK: a FIFO or a device in the place of a file must not hold us up
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError) as error:
        raise NotThere(request.url, error.strerror or "cannot be opened") from None
    except OSError as error:
        raise MirrorTrouble(request.url, error.strerror or "cannot be opened") from None
    except ValueError:
        raise NotThere(request.url, "no file can have that name") from None
    status = os.fstat(fd)
    problem = None
    if not stat.S_ISREG(status.st_mode):
        problem = "is no regular file"
    elif request.length not in (None, status.st_size):
        problem = f"has {status.st_size} bytes instead of {request.length}"
    elif status.st_size > request.max_length:
        problem = f"has more than {request.max_length} bytes"
    if problem:
        os.close(fd)
        raise WrongContent(request.url, problem)
    return fd, status.st_size


def _size(request: Request) -> int:
    fd, size = _open(request)
    os.close(fd)
    return size


def _read(url: str, fd: int, offset: int) -> bytes:
    try:
        return os.pread(fd, _READ_BYTES, offset)
    except OSError as error:
        raise MirrorTrouble(url, error.strerror or "cannot be read") from None
