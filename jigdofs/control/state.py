"""What a mount holds, fetches and answers: the one source for all who tell of it.

Invariant of this file: everything is told from memory, whatever mirrors, disks and readers do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import trio

from jigdofs import __version__, logs
from jigdofs.control.watched import Cache, Image, Images
from jigdofs.errors import printable
from jigdofs.fetch.url import without_credentials
from jigdofs.format.part import Part
from jigdofs.image.read_account import ReadAccount, summed
from jigdofs.parts.presence import Presence
from jigdofs.parts.store import part_in_flight
from jigdofs.prefetch.fill import FillAccount
from jigdofs.size_text import size_text
from jigdofs.troubles import Trouble

MOST_MIRRORS = 100  # are told
MOST_CELLS = 1024
_MOST_CELLS_OF_ALL = 1 << 16
_FAILED_LATELY_S = 300.0


@dataclass(frozen=True, slots=True)
class ImageState:
    """How one image is; bytes where nothing else is said.

    Attributes:
        name: its leaf name.
        source: path or URL of its .jigdo, without credentials.
        checksums: of the whole, in hex, by algorithm.
        size: of the image.
        present: that can be read without fetching anything.
        parts: how many different ones it has; None as long as they are being counted.
        parts_present: how many of these are here; None likewise.
        parts_in_flight: how many are on their way.
        in_flight: the lengths of these together.
        reads: what readers asked for.
    """

    name: str
    source: str
    checksums: Mapping[str, str]
    size: int
    present: int
    parts: int | None
    parts_present: int | None
    parts_in_flight: int
    in_flight: int
    reads: ReadAccount


@dataclass(frozen=True, slots=True)
class MirrorState:
    """How one mirror is.

    Attributes:
        mirror: its URL, without credentials.
        parts: that it gave.
        bytes: of these.
        received: bytes that came from it, those of no use included.
        failures: since it last gave a part.
        failures_ever: since the beginning.
        wrong: answers with wrong content since the beginning.
        avoided_s: for so long others are asked first.
        asked_s: for so long it asked to be left alone.
    """

    mirror: str
    parts: int
    bytes: int
    received: int
    failures: int
    failures_ever: int
    wrong: int
    avoided_s: float
    asked_s: float

    @property
    def health(self) -> str:
        """`ok`, `avoided`, or `waiting` if it asked for that itself."""
        return "waiting" if self.asked_s else "avoided" if self.avoided_s else "ok"


class State:
    """The state of a mount, or of a server.

    Args:
        images: what it shows.
        mountpoint: where.
    """

    def __init__(self, images: Images, mountpoint: str) -> None:
        self._images = images
        self._begun_s = trio.current_time()
        self.mountpoint = mountpoint
        self.version = __version__
        self.pid = os.getpid()

    @property
    def uptime_s(self) -> float:
        """Since it can be used."""
        return trio.current_time() - self._begun_s

    # -- images ------------------------------------------------------------------------------------

    def images(self) -> list[ImageState]:
        """Tell of each image."""
        coming = self.coming()
        return [_image_state(image, coming) for image in self._images.images]

    def image(self, name: str) -> ImageState | None:
        """Tell of the image of that name."""
        found = next((image for image in self._images.images if image.name == name), None)
        return None if found is None else _image_state(found, self.coming())

    def maps(self, cells: int) -> list[str | None]:
        """Draw each image as a row of cells (`parts.picture`), None as long as its parts are being counted.

        Args:
            cells: of each; fewer if the images are many.
        """
        coming = self.coming()
        cells = max(1, min(cells, MOST_CELLS, _MOST_CELLS_OF_ALL // max(1, len(self._images.images))))
        return [
            image.presence.cells(cells, coming) if isinstance(image.presence, Presence) else "#" * cells
            for image in self._images.images
        ]

    def coming(self) -> list[Part]:
        """Return the parts that are on their way."""
        return [part for name in self._images.flights.names() if (part := part_in_flight(name)) is not None]

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return sum(image.length for image in self._images.images)

    @property
    def present(self) -> int:
        """Bytes of all images that can be read without fetching anything."""
        return sum(image.present_bytes for image in self._images.images)

    @property
    def sources(self) -> list[str]:
        """Where the .jigdo files were, each once, without credentials."""
        return list(dict.fromkeys(without_credentials(image.source) for image in self._images.images))

    # -- what is asked and fetched -------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """How many files are on their way."""
        return len(self._images.flights)

    @property
    def waiting(self) -> int:
        """How many readers wait for them."""
        return self._images.flights.waiting

    @property
    def reads(self) -> ReadAccount:
        """What readers asked for, in all images together."""
        return summed(image.reader.account for image in self._images.images)

    @property
    def read_bytes_per_s(self) -> float:
        """How fast readers are served now."""
        now = time.perf_counter()
        accounts = (image.reader.account for image in self._images.images)
        return sum(account.rate.per_s(now, account.bytes) for account in accounts)

    @property
    def received(self) -> int:
        """Bytes from all mirrors."""
        return self._images.mirrors.received

    @property
    def received_bytes_per_s(self) -> float:
        """How fast they come in now."""
        return self._images.mirrors.bytes_per_s

    def mirrors(self) -> list[MirrorState]:
        """Tell of each mirror that was asked, or of the first hundred."""
        mirrors = self._images.mirrors
        return [
            MirrorState(
                printable(without_credentials(mirror)),
                health.files,
                health.bytes,
                health.received,
                health.failures,
                health.failures_ever,
                health.wrong_ever,
                avoided_s,
                mirrors.asked_to_wait_for_s(health),
            )
            for mirror, health, avoided_s in islice(mirrors.known(), MOST_MIRRORS)
        ]

    # -- the rest ------------------------------------------------------------------------------------

    @property
    def cache(self) -> Cache | None:
        """Where parts are kept; None for nowhere."""
        return self._images.cache

    @property
    def without_cache(self) -> str:
        """Why there is no cache."""
        return self._images.without_cache

    @property
    def prefetching(self) -> list[FillAccount]:
        """How far it is with each of what it fetches ahead."""
        return list(self._images.prefetcher.running)

    @property
    def log(self) -> str:
        """Where the log goes."""
        return logs.where()

    @property
    def troubles(self) -> list[Trouble]:
        """The last distinct warnings and errors, the latest first."""
        return logs.troubles()

    def verdict(self, image: ImageState | None = None) -> str:
        """Sum up how an image is, or all of them.

        Returns:
            `complete`: every byte is here; `offline`: bytes are missing, and every mirror that was asked is
            avoided; `degraded`: bytes are missing, and a mirror is avoided or a read failed in the last five
            minutes; else `partial`.
        """
        size, present = (self.size, self.present) if image is None else (image.size, image.present)
        if present >= size:
            return "complete"
        avoided = [mirror.health != "ok" for mirror in self.mirrors()]
        if avoided and all(avoided):
            return "offline"
        reads = self.reads if image is None else image.reads
        failed_lately = time.time() - reads.last_error_s < _FAILED_LATELY_S
        return "degraded" if any(avoided) or failed_lately else "partial"

    def line(self) -> str:
        """Say in one line for people how it is."""
        images = self._images.images
        what = printable(images[0].name) if len(images) == 1 else f"{len(images)} images"
        share = 100 * self.present / self.size if self.size else 100.0
        said = [f"{what}: {share:.4g} % of {size_text(self.size)} here"]
        if self.in_flight:
            said.append(f"{self.in_flight} on their way at {size_text(self.received_bytes_per_s)}/s")
        if served := self.read_bytes_per_s:
            said.append(f"readers get {size_text(served)}/s")
        if errors := self.reads.errors:
            said.append(f"{errors} failed reads")
        mirrors = self.mirrors()
        if avoided := sum(mirror.health != "ok" for mirror in mirrors):
            said.append(f"{avoided} of {len(mirrors)} mirrors avoided")
        return "; ".join(said)


def _image_state(image: Image, coming: Sequence[Part]) -> ImageState:
    presence = image.presence if isinstance(image.presence, Presence) else None
    flying = [part.length for part in coming if presence is not None and presence.is_of(part)]
    return ImageState(
        name=image.name,
        source=without_credentials(image.source),
        checksums=image.checksums,
        size=image.length,
        present=image.present_bytes,
        parts=0 if presence is None else presence.parts,
        parts_present=0 if presence is None else presence.parts_present,
        parts_in_flight=len(flying),
        in_flight=sum(flying),
        reads=image.reader.account,
    )
