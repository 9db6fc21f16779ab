"""One read of the image, from its slices to one full buffer.

Invariant of this file: a read returns exactly the bytes asked for, or raises; in bounded time.

The warm path has no await: on a 2-core machine `preadv` with RWF_NOWAIT of 64 KiB from the page
cache takes 7 us in the event loop, the same through a worker thread 64 us. Only what is missing or
would block leaves the loop.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import trio

from jigdofs.errors import JigdofsError, ReadTimeout
from jigdofs.format.part import Part
from jigdofs.image.layout import Layout
from jigdofs.image.opener import Opener, OpenFile, RawBytes
from jigdofs.image.read_account import ReadAccount, Waited
from jigdofs.image.readahead import Readahead

_AT_ONCE = 64
"""Most parts one read waits for at once: a hostile image may have 131,072 of one byte in 128 KiB."""
_MAX_HINTS = 256
_PIECES_AT_ONCE = 256
"""Pieces of a read that are filled before others have a turn: a usual one has two or three, a hostile one
131,072, which took 0.9 s."""
_REMEMBERED_S = 0.5
_TRIES = 4
"""So long a part that could not be had is not asked for again: after a failed read the kernel asks for each
of its pages once more, and the reader would wait a second time as long."""
_MOST_NAMED = 2
_MAX_REMEMBERED = 1024
_WOULD_BLOCK = {errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL}


class _FileChanged(JigdofsError):
    """Say that a verified file was written to while it was open."""


class _Wanted(NamedTuple):
    """A stretch of a read and where its bytes are: `key` opened by `opener`, at `offset` of it."""

    opener: Opener[Any]
    key: Part | int
    offset: int
    position: int
    length: int


class ImageReader:
    """Read any range of the image.

    Attributes:
        account: what its readers asked for, kept by whoever answers them.

    Args:
        layout: of the image.
        raw_data: the template's side of it.
        parts: the parts' side of it.
        timeout_s: after this long a read fails, whatever it waits for.
        readahead_bytes: how far to fetch ahead of sequential readers; 0 never.
    """

    def __init__(
        self,
        layout: Layout,
        raw_data: RawBytes,
        parts: Opener[Part],
        *,
        timeout_s: float,
        readahead_bytes: int,
    ) -> None:
        self.layout = layout
        self.account = ReadAccount()
        self._raw_data = raw_data
        self._parts = parts
        self._timeout_s = timeout_s
        self._readahead_bytes = readahead_bytes
        self._failed: dict[Part | int, tuple[float, JigdofsError]] = {}  # and until when that is believed

    def limit(self, *, timeout_s: float, readahead_bytes: int) -> None:
        """Read under other limits: reads, and readers that open it, from now on."""
        self._timeout_s, self._readahead_bytes = timeout_s, readahead_bytes

    def readahead(self, limit: int | None = None) -> Readahead:
        """Return what `read` needs to follow one sequential reader, who wants nothing beyond `limit`."""
        return Readahead(self.layout, self._readahead_bytes, limit)

    async def read(
        self, offset: int, size: int, ahead: Readahead | None = None, waited: Waited | None = None
    ) -> bytearray:
        """Return the bytes of the image at `offset`; fewer than `size` only at its end.

        Args:
            offset: in the image.
            size: how much is wanted.
            ahead: follows the reader, so that what it wants next is fetched.
            waited: is told whether this waited for a mirror.

        Raises:
            JigdofsError: some of them cannot be had, or not in time.
        """
        buffer = bytearray(max(0, min(size, self.layout.length - offset)))
        view = memoryview(buffer)
        missing: list[_Wanted] = []
        pieces = self._wanted(offset, len(view))
        while some := list(islice(pieces, _PIECES_AT_ONCE)):
            missing += self._read_what_is_here(some, view)
            if len(some) == _PIECES_AT_ONCE:
                await trio.lowlevel.checkpoint()
        self._follow(ahead, offset, size)
        if missing:
            await self._obtain(offset, view, missing, waited or Waited())
        return buffer

    def read_now(self, offset: int, view: memoryview, ahead: Readahead | None = None) -> bool:
        """Fill a buffer from `offset` on if nothing has to be waited for; tell whether it is full.

        Raises:
            JigdofsError: a verified file cannot be read.
        """
        pieces = list(islice(self._wanted(offset, len(view)), _PIECES_AT_ONCE))
        if len(pieces) == _PIECES_AT_ONCE or self._read_what_is_here(pieces, view):
            return False
        self._follow(ahead, offset, len(view))
        return True

    def _follow(self, ahead: Readahead | None, offset: int, size: int) -> None:
        """Begin to fetch what a sequential reader wants next."""
        if ahead is not None:
            begin, end = ahead.advance(offset, size)
            if begin < end:
                self._hint(begin, end)

    @staticmethod
    def _read_what_is_here(pieces: list[_Wanted], view: memoryview) -> list[_Wanted]:
        """Fill what can be filled without waiting; return the rest."""
        missing: list[_Wanted] = []
        for wanted in pieces:
            opener, key, at, position, length = wanted
            file = opener.peek(key)
            got = 0 if file is None else _read_cached(file, view[position : position + length], at)
            if got < length:
                missing.append(_Wanted(opener, key, at + got, position + got, length - got))
        return missing

    def _wanted(self, offset: int, size: int) -> Iterator[_Wanted]:
        position = 0
        for part, at, length in self.layout.slices(offset, size):
            if part is not None:
                yield _Wanted(self._parts, part, at, position, length)
                position += length
                continue
            for number, within, taken in self._raw_data.slices(at, length):
                yield _Wanted(self._raw_data, number, within, position, taken)
                position += taken
        assert position == size

    async def _obtain(self, offset: int, view: memoryview, missing: list[_Wanted], waited: Waited) -> None:
        """Fill what is missing, all at once, within the time limit; raise the first error."""
        errors: list[JigdofsError] = []
        waiting: set[Part | int] = set()
        began_s = trio.current_time()

        async def fill(wanted: _Wanted) -> None:
            waiting.add(wanted.key)
            try:
                self._raise_if_just_failed(wanted)
                piece = view[wanted.position : wanted.position + wanted.length]
                waited.had(await self._read_waiting(wanted, piece), began_s)
            except JigdofsError as error:
                self._remember(wanted.key, error)
                errors.append(error)
            waiting.discard(wanted.key)

        with trio.move_on_after(self._timeout_s) as limit:
            for at in range(0, len(missing), _AT_ONCE):
                if errors:
                    break
                if len(missing) == 1:
                    await fill(missing[0])
                    continue
                async with trio.open_nursery() as nursery:
                    for wanted in missing[at : at + _AT_ONCE]:
                        nursery.start_soon(fill, wanted)
        if errors:
            raise errors[0]
        if limit.cancelled_caught:
            late = ReadTimeout(
                f"{len(view)} bytes at offset {offset} could not be had within {self._timeout_s:g} s;"
                f" {_named(waiting)} on the way; --read-timeout would bear more"
            )
            for key in waiting:
                self._remember(key, late)
            raise late

    def _raise_if_just_failed(self, wanted: _Wanted) -> None:
        until, error = self._failed.get(wanted.key, (0.0, None))
        if error is None or trio.current_time() >= until:
            return
        if wanted.opener.peek(wanted.key) is None:  # else it has come meanwhile, for somebody else
            raise error.with_traceback(None)

    def _remember(self, key: Part | int, error: JigdofsError) -> None:
        """Note that a part or chunk could not be had just now; an error told again is no new one."""
        if isinstance(error, _FileChanged):  # which tells nothing of the next read
            return
        if key in self._failed and self._failed[key][1] is error:
            return
        while len(self._failed) >= _MAX_REMEMBERED:
            del self._failed[next(iter(self._failed))]
        self._failed[key] = (trio.current_time() + _REMEMBERED_S, error)

    async def _read_waiting(self, wanted: _Wanted, view: memoryview) -> float:
        """Open and read; again, a few times, if the file was changed behind our back in between.

        Returns:
            when the file was fetched, by trio's clock.
        """
        for tries_left in reversed(range(_TRIES)):
            file: OpenFile = await wanted.opener.open(wanted.key)
            try:
                got = _read_cached(file, view, wanted.offset)  # all, if it was just written
                if got < len(view):
                    await trio.to_thread.run_sync(_read_fully, file, view[got:], wanted.offset + got)
            except _FileChanged:
                if not tries_left:
                    raise
            else:
                return file.fetched_s
            finally:
                file.unpin()
        raise AssertionError("the last try returns or raises")

    def _hint(self, begin: int, end: int) -> None:
        last_chunk = -1
        hints = 0
        for part, at, length in self.layout.slices(begin, end - begin):
            if part is not None:
                self._parts.hint(part)
                hints += 1
                continue
            for number, _, _ in self._raw_data.slices(at, length):
                if number > last_chunk:  # most gaps are paddings within one chunk
                    self._raw_data.hint(number)
                    last_chunk = number
                    hints += 1
                if hints > _MAX_HINTS:
                    return


def _named(keys: set[Part | int]) -> str:
    """Name some of what a read waited for."""
    parts = [f"part {key}" for key in keys if isinstance(key, Part)]
    names = parts[:_MOST_NAMED] or ["data of the template"]
    more = len(keys) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "") + (" is" if len(keys) == 1 else " are")


def _read_cached(file: OpenFile, view: memoryview, offset: int) -> int:
    """Read what is in the page cache, and return how much that is; it never blocks."""
    try:
        got = os.preadv(file.fd, [view], file.start + offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno not in _WOULD_BLOCK:
            raise JigdofsError(f"cannot read a verified file: {error.strerror}") from error
        return 0
    # somebody may have written to it since it was looked at, before or while we read: 0.5 us
    return got if file.unchanged() else 0


def _read_fully(file: OpenFile, view: memoryview, offset: int) -> None:
    """Read until the view is full; a file that ends early was changed behind our back."""
    offset += file.start
    while view:
        try:
            got = os.preadv(file.fd, [view], offset)
        except OSError as error:
            raise JigdofsError(f"cannot read a verified file: {error.strerror}") from error
        if not got:
            raise _FileChanged("a file in the cache became shorter while it was read")
        view = view[got:]
        offset += got
    if not file.unchanged():
        raise _FileChanged("a verified file was changed while it was read")
