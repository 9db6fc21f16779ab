"""What came from where: for progress while an image is built, and for the account at its end."""

from __future__ import annotations

import threading
from dataclasses import dataclass

TEMPLATE = "template"
BEFORE = "an earlier run"
LOCAL = "local files"
CACHE = "the cache"
MIRRORS = "mirrors"


@dataclass(slots=True)
class Share:
    """What one origin gave.

    Attributes:
        parts: places of the image filled with parts from it.
        bytes: of the image that came from it.
    """

    parts: int = 0
    bytes: int = 0


class Account:
    """Count bytes of the image by origin. Methods may be called from any thread.

    Attributes:
        length: bytes of the image.
        shares: by origin, one of the constants above.
        arriving: bytes on their way into the image, not yet verified.
        fetched: bytes that came over the net, in vain or not.
        checked: bytes from the beginning that the check of the whole image has seen.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.shares: dict[str, Share] = {}
        self.arriving = 0
        self.fetched = 0
        self.checked = 0
        self._lock = threading.Lock()

    @property
    def done(self) -> int:
        """Bytes of the image that are in place, or on their way."""
        with self._lock:
            return sum(share.bytes for share in self.shares.values()) + self.arriving

    def add(self, origin: str, length: int, parts: int = 0) -> None:
        """Note bytes that are in place; negative for such as were found wrong."""
        with self._lock:
            share = self.shares.setdefault(origin, Share())
            share.bytes += length
            share.parts += parts

    def arrive(self, length: int) -> None:
        """Note bytes that came over the net; negative when they are to come again."""
        with self._lock:
            self.arriving += length
            self.fetched += max(length, 0)

    def resume(self, length: int) -> None:
        """Note bytes on their way that a run before ours had fetched."""
        with self._lock:
            self.arriving += length

    def settle(self, length: int) -> None:
        """Note that bytes on their way have become part of a share."""
        with self._lock:
            self.arriving -= length

    def fetch(self, length: int) -> None:
        """Note bytes that came over the net into the cache, to be copied from there."""
        with self._lock:
            self.fetched += length
