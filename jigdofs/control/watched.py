"""What the state of a mount is told from: as much of its images as that needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from jigdofs.image.reader import ImageReader
from jigdofs.parts.mirrors import Mirrors
from jigdofs.parts.presence import Presence
from jigdofs.parts.quota import Stock
from jigdofs.plain_image import PlainImage
from jigdofs.prefetch.fill import FillAccount


class Image(Protocol):
    """An image of the daemon."""

    @property
    def name(self) -> str:
        """Its leaf name."""

    @property
    def length(self) -> int:
        """Its bytes."""

    @property
    def present_bytes(self) -> int:
        """Bytes of it that can be read without fetching anything."""

    @property
    def source(self) -> str:
        """Where its .jigdo was."""

    @property
    def checksums(self) -> Mapping[str, str]:
        """Of the whole."""

    @property
    def reader(self) -> ImageReader:
        """Keeps account of what was read."""

    @property
    def presence(self) -> Presence | PlainImage:
        """Knows what is here."""


class Flights(Protocol):
    """What is on its way."""

    def __len__(self) -> int:
        """Count the files."""

    def names(self) -> list[str]:
        """Name them."""

    @property
    def waiting(self) -> int:
        """How many readers wait for them."""


class Cache(Protocol):
    """Where parts are kept."""

    @property
    def directory(self) -> Path:
        """Where that is."""

    @property
    def stock(self) -> Stock | None:
        """What it held a moment ago."""

    @property
    def evicted(self) -> tuple[int, int]:
        """Files and bytes that had to go."""


class Prefetcher(Protocol):
    """What fetches ahead."""

    @property
    def running(self) -> Sequence[FillAccount]:
        """How far it is with each of what it is at."""


class Images(Protocol):
    """The images of the daemon, and what keeps running for them."""

    @property
    def images(self) -> Sequence[Image]:
        """All of them."""

    @property
    def flights(self) -> Flights:
        """What is on its way."""

    @property
    def mirrors(self) -> Mirrors:
        """What is known of each."""

    @property
    def cache(self) -> Cache | None:
        """Where parts are kept."""

    @property
    def without_cache(self) -> str:
        """Why there is no such place."""

    @property
    def prefetcher(self) -> Prefetcher:
        """What fetches ahead."""
