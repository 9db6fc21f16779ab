"""The check of the whole image, behind the work: a byte is hashed as soon as all before it are there.

MD5 of a whole image cannot be had from its parts, and takes as long as fetching it over a good line
(690 MB/s here). So it follows the frontier, in a thread per algorithm, and is done almost when the last
part is.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence

from jigdofs.build.account import Account
from jigdofs.build.blueprint import ImageSum
from jigdofs.errors import JigdofsError

_PIECE_BYTES = 1 << 20


class Frontier:
    """How far the image is complete from its beginning.

    Args:
        starts: image offset at which each extent begins, and behind them the image's end.

    Attributes:
        stopped: nobody waits for it any more.
    """

    def __init__(self, starts: Sequence[int]) -> None:
        self._starts = starts
        self._done = bytearray(len(starts) - 1)
        self._reached = 0
        self.stopped = False
        self._changed = threading.Condition()
        self._advance()

    def complete(self, index: int) -> None:
        """Note that an extent is in place."""
        with self._changed:
            self._done[index] = 1
            if index == self._reached:
                self._advance()
                self._changed.notify_all()

    def _advance(self) -> None:
        missing = self._done.find(0, self._reached)
        self._reached = len(self._done) if missing < 0 else missing

    def stop(self) -> None:
        """Let everybody who waits give up."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def wait_beyond(self, offset: int) -> int:
        """Return the offset up to which all is there, larger than `offset`; -1 if it never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopped or self._starts[self._reached] > offset)
            return -1 if self.stopped else self._starts[self._reached]


class WholeCheck:
    """Hash an image behind its frontier.

    Args:
        fd: of the image; stays the caller's, and open until `join` came back.
        length: of the image.
        wanted: checksums it must have.
        frontier: how far it is complete.
        account: told how far the check is.
    """

    def __init__(
        self, fd: int, length: int, wanted: Sequence[ImageSum], frontier: Frontier, account: Account
    ) -> None:
        self._account = account
        account.checked = 0
        self._fd = fd
        self._length = length
        self._wanted = wanted
        self._frontier = frontier
        self._computed: dict[str, str] = {}
        self._error: OSError | None = None
        self._threads = [
            threading.Thread(target=self._hash, args=(name,), name=f"jigdofs-{name}", daemon=True)
            for name in dict.fromkeys(wanted.algorithm for wanted in wanted)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until nobody reads the image any more."""
        for thread in self._threads:
            thread.join()

    def result(self) -> list[ImageSum]:
        """Wait for the end and return the checksums that the image does not have.

        Raises:
            JigdofsError: the image could not be read, or the frontier was stopped.
        """
        self.join()
        if self._error is not None:
            raise JigdofsError(f"the image cannot be read back: {self._error.strerror}") from self._error
        if self._frontier.stopped:
            raise JigdofsError("the check of the whole image was stopped")
        return [wanted for wanted in self._wanted if self._computed[wanted.algorithm] != wanted.hex]

    def _hash(self, name: str) -> None:
        hasher = hashlib.new(name, usedforsecurity=False)
        buffer = memoryview(bytearray(_PIECE_BYTES))
        position = 0
        try:
            while position < self._length:
                end = self._frontier.wait_beyond(position)
                if end < 0:
                    return
                while position < end and not self._frontier.stopped:
                    got = os.preadv(self._fd, [buffer[: min(end - position, len(buffer))]], position)
                    if not got:
                        raise OSError(0, "it became shorter")
                    hasher.update(buffer[:got])
                    position += got
                    self._account.checked = max(self._account.checked, position)
        except OSError as error:
            self._error = error
            return
        self._computed[name] = hasher.hexdigest()


def wrong_sums_of(fd: int, wanted: Sequence[ImageSum], account: Account) -> list[ImageSum]:
    """Hash a whole image that lies there finished; return the checksums it does not have."""
    frontier = Frontier([0, account.length])
    frontier.complete(0)
    return WholeCheck(fd, account.length, wanted, frontier, account).result()
