"""The files inside one image: found out once, in the background, and kept for the next time.

Invariants of this file:
* Nobody's reads wait for it but those of the files inside, and these in bounded time.
* A damaged directory is an error for good; one that could not be read now is read again later.
"""

from __future__ import annotations

import logging
import math
import socket
import subprocess
from collections.abc import Callable
from functools import partial

import trio

from jigdofs.errors import FormatError, JigdofsError, ReadTimeout, Stopped, printable
from jigdofs.image.reader import ImageReader
from jigdofs.iso9660 import process
from jigdofs.iso9660.tree import Tree

_log = logging.getLogger(__name__)

_SECTOR_BYTES = 2048
_AGAIN_S = 5.0
"""How long an error is told again before the directories are read again: a process and a transfer each."""


class ImageContents:
    """The files inside one image.

    Args:
        name: of the image, for messages.
        reader: reads the image.
        start_soon: runs a task for as long as the image is shown.
        kept: returns the packed tree kept from an earlier time, or None; blocks.
        keep: keeps a packed tree; blocks.
        timeout_s: how long to wait for the tree.
    """

    def __init__(
        self,
        name: str,
        reader: ImageReader,
        *,
        start_soon: Callable[..., None],
        kept: Callable[[], bytes | None],
        keep: Callable[[bytes], object],
        timeout_s: float,
    ) -> None:
        self.known: Tree | None = None
        self._name = printable(name)
        self._reader = reader
        self._start_soon = start_soon
        self._kept = kept
        self._keep = keep
        self._timeout_s = timeout_s
        self._error: JigdofsError | None = None
        self._again_at = 0.0  # before that, the error is told again
        self._stopped = False
        self._done: trio.Event | None = None  # of the attempt that is being made

    def limit(self, timeout_s: float) -> None:
        """Wait so long from now on."""
        self._timeout_s = timeout_s

    def begin(self) -> None:
        """Find the files out in the background, if nobody has yet."""
        if self.known is None and self._done is None and trio.current_time() >= self._again_at:
            self._done = trio.Event()
            self._start_soon(self._find_out, self._done)

    async def tree(self) -> Tree:
        """Return the files, waiting for them to be known.

        Raises:
            FormatError: there is no directory, or it is damaged.
            ReadTimeout: it is not known in time.
            JigdofsError: the image cannot be read there.
        """
        self.begin()
        if self._done is not None:
            with trio.move_on_after(self._timeout_s) as limit:
                await self._done.wait()
            if limit.cancelled_caught:
                raise ReadTimeout(f"{self._name}: the files in it are not known within {self._timeout_s:g} s")
        return self._outcome()

    def _outcome(self) -> Tree:
        if self.known is not None:
            return self.known
        error = self._error or Stopped("jigdofs is being stopped")
        raise error.with_traceback(None)

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._stopped = True
        self._again_at = math.inf
        self._error = Stopped("jigdofs is being stopped")
        if self._done is not None:
            self._done.set()

    async def _find_out(self, done: trio.Event) -> None:
        try:
            self.known = await self._read()
            if self.known.left_out:
                _log.warning(
                    "%s: %d entries of its directories are not shown: their names or links are none",
                    self._name,
                    self.known.left_out,
                )
        except JigdofsError as error:
            if not self._stopped:
                _log.error("the files in %s cannot be shown: %s", self._name, error)
                self._error = error
                final = isinstance(error, FormatError)
                self._again_at = math.inf if final else trio.current_time() + _AGAIN_S
        except Exception as error:  # noqa: BLE001  logged whole; who asks for the files gets an error
            _log.exception("internal error while reading the directories of %s", self._name)
            self._error = JigdofsError(f"{self._name}: internal error while reading its directories: {error}")
            self._again_at = math.inf
        finally:
            self._done = None
            done.set()

    async def _read(self) -> Tree:
        data = await trio.to_thread.run_sync(self._kept)
        if data is not None:
            try:
                return await trio.to_thread.run_sync(Tree, data, self._name)
            except FormatError as error:
                _log.info("%s; it is made anew", error)
        data = await read_directories(self._reader, self._name)
        found = await trio.to_thread.run_sync(Tree, data, self._name)
        await trio.to_thread.run_sync(self._keep, data)
        return found


async def read_directories(reader: ImageReader, name: str) -> bytes:
    """Return the packed tree of an image, read by a process of its own.

    Raises:
        FormatError: there is no directory, or it is damaged, or too large.
        JigdofsError: the image cannot be read there.
    """
    ours, theirs = socket.socketpair()
    troubles: list[JigdofsError] = []
    try:
        with trio.move_on_after(process.MAX_WAIT_S) as limit:
            async with trio.open_nursery() as nursery:
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
                nursery.start_soon(_answer, stream, reader, troubles)
                run = partial(trio.run_process, capture_stdout=True, stderr=subprocess.DEVNULL, check=False)
                done = await run(process.command("tree"), stdin=theirs)
                nursery.cancel_scope.cancel()
    except (OSError, BaseExceptionGroup) as group:
        raise _only(group, name) from group
    finally:
        ours.close()
        theirs.close()
    if troubles:
        raise troubles[0]
    if limit.cancelled_caught:
        raise FormatError("its directory takes too long to read", source=name)
    if reason := process.verdict(done.returncode, done.stdout):
        raise FormatError(reason, source=name)
    return bytes(done.stdout)


def _only(error: BaseException, name: str) -> BaseException:
    """Return what went wrong with the process as an error of ours; anything else as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, OSError):
        return JigdofsError(f"{name}: no process to read its directories: {error.strerror}")
    return error


async def _answer(stream: trio.SocketStream, reader: ImageReader, troubles: list[JigdofsError]) -> None:
    """Read the image for the process, as it asks."""
    try:
        await stream.send_all(process.ANSWER.pack(reader.layout.length))
        while len(request := await _exactly(stream, process.REQUEST.size)) == process.REQUEST.size:
            offset, size = process.REQUEST.unpack(request)
            try:
                data = await reader.read(offset, _at_hand(reader, offset, size))
            except JigdofsError as error:
                troubles.append(error)
                await stream.send_all(process.ANSWER.pack(-1))
                await stream.aclose()  # should it ask for more all the same
                return
            await stream.send_all(process.ANSWER.pack(len(data)) + data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it ended; its exit code tells why


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    """Return so many bytes; fewer only at the end."""
    data = b""
    while len(data) < size and (more := await stream.receive_some(size - len(data))):
        data += more
    return data


def _at_hand(reader: ImageReader, offset: int, size: int) -> int:
    """Return how much of a read to answer: what lies in the template, or a sector of a part.

    What the process reads ahead into its buffer must not fetch the parts that follow a directory.
    """
    length = 0
    for piece in reader.layout.slices(offset, size):
        if piece.part is not None:
            break
        length += piece.length
    return length or min(size, _SECTOR_BYTES)
