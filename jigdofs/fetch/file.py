"""Read local files as if they were a mirror: regular files only, checked like any other source."""

from __future__ import annotations

import os
import stat

import trio

from jigdofs.errors import MirrorTrouble, NotThere, WrongContent
from jigdofs.fetch.fetcher import Answer, Receiver, Request

_READ_BYTES = 1 << 20


class FileFetcher:
    """Fetch absolute paths."""

    async def fetch(self, request: Request, receiver: Receiver) -> None:
        """Read the file from `offset` to its end; raise `FetchError`."""
        fd, size = await trio.to_thread.run_sync(_open, request)
        try:
            offset = min(request.offset, size)
            await receiver.begin(Answer(offset=offset, length=size, url=request.url))
            while offset < size:
                data = await trio.to_thread.run_sync(_read, request.url, fd, offset)
                if not data:
                    raise WrongContent(request.url, "became shorter while it was read")
                offset += len(data)
                await receiver.receive(data)
        finally:
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


def _read(url: str, fd: int, offset: int) -> bytes:
    try:
        return os.pread(fd, _READ_BYTES, offset)
    except OSError as error:
        raise MirrorTrouble(url, error.strerror or "cannot be read") from None
