"""What the daemon does for `jigdofs status`: tell what it holds, from memory alone, whatever else hangs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol

import trio

from jigdofs import __version__
from jigdofs.control.server import Handler, Tell
from jigdofs.errors import printable
from jigdofs.fetch.url import without_credentials
from jigdofs.parts.mirrors import Health

_MOST_MIRRORS = 100  # are told


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


class Flights(Protocol):
    """What is on its way."""

    def __len__(self) -> int:
        """Count the files."""

    @property
    def waiting(self) -> int:
        """How many readers wait for them."""


class Mirrors(Protocol):
    """What is known of mirrors."""

    def known(self) -> Iterable[tuple[str, Health, float]]:
        """Yield each mirror that was asked, its record and for how many seconds it is still avoided."""


def telling(images: Sequence[Image], flights: Flights, mirrors: Mirrors) -> Handler:
    """Return what answers such requests."""
    return partial(_tell_status, images, flights, mirrors, trio.current_time())


async def _tell_status(
    images: Sequence[Image],
    flights: Flights,
    mirrors: Mirrors,
    begun: float,
    _request: Mapping[str, Any],
    tell: Tell,
) -> None:
    await tell(
        {
            "event": "status",
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(trio.current_time() - begun, 1),
            "images": [
                {"name": printable(image.name), "size": image.length, "present_bytes": image.present_bytes}
                for image in images
            ],
            "parts_in_flight": len(flights),
            "readers_waiting": flights.waiting,
            "mirrors": [
                _mirror(mirror, health, avoided_s)
                for mirror, health, avoided_s in islice(mirrors.known(), _MOST_MIRRORS)
            ],
            "tasks": trio.lowlevel.current_statistics().tasks_living,
        }
    )


def _mirror(mirror: str, health: Health, avoided_s: float) -> dict[str, Any]:
    return {
        "mirror": printable(without_credentials(mirror)),
        "parts": health.files,
        "bytes": health.bytes,
        "failures": health.failures,
        "wrong": health.wrong_ever,
        "avoided_s": round(avoided_s, 1),
    }
