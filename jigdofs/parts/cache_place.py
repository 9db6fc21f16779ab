"""The place of one file that is to be kept in the cache: room first, then a name for nobody, then its own."""

from __future__ import annotations

import os
from typing import Protocol

from jigdofs.format.checksum import Checksum


class Keeper(Protocol):
    """What we need of the cache; its methods say more."""

    def reserve(self, length: int, *, evict: bool = True) -> None:
        """Make sure that so many bytes may be written."""

    def release(self, length: int) -> None:
        """Give back a reservation that was not used."""

    def create(self) -> tuple[int, str]:
        """Return a fresh file, open, and its name."""

    def keep(self, fd: int, name: str, key: str, checksum: Checksum | None) -> None:
        """Have it where its key says."""

    def drop(self, name: str) -> None:
        """Remove it."""


class CachePlace:
    """The place of one file that is to be kept in the cache."""

    def __init__(self, cache: Keeper, key: str, checksum: Checksum | None) -> None:
        self._cache = cache
        self._key = key
        self._checksum = checksum
        self._reserved = 0
        self._name = ""

    def reserve(self, length: int) -> None:
        """Reserve room for what nobody waits for: nothing is removed for it; raise `CacheError`."""
        self._cache.reserve(length, evict=False)
        self._reserved = length

    def give_back(self) -> None:
        """Give room back that was reserved and not used; harmless after `keep` or `abandon`."""
        self._release(self._reserved)

    def create(self, length: int) -> int:
        """Reserve room, unless that was done, and make the file under `incoming/`."""
        if not self._reserved:
            self._cache.reserve(length)
            self._reserved = length
        try:
            fd, self._name = self._cache.create()
        except OSError:
            self._release(length)
            raise
        return fd

    def keep(self, fd: int) -> None:
        """Move the file to where its key says."""
        length = os.fstat(fd).st_size
        self._cache.keep(fd, self._name, self._key, self._checksum)
        self._release(self._reserved - length)

    def abandon(self, fd: int) -> None:
        """Remove the file and give its room back."""
        self._cache.drop(self._name)
        self._release(self._reserved)

    def _release(self, length: int) -> None:
        self._cache.release(length)
        self._reserved = 0
