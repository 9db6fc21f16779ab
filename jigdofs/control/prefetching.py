"""What the daemon does for `jigdofs prefetch`: have parts in the cache, and tell how far that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

import trio

from jigdofs.control.server import Handler, Tell
from jigdofs.errors import JigdofsError, UsageError
from jigdofs.parts.brake import Brake
from jigdofs.prefetch.fill import FillAccount
from jigdofs.prefetch.plan import FillRequest

_TELL_S = 0.25
_MAX_BYTES_PER_S = 1 << 62
_MAX_GLOBS, _MAX_GLOB_LENGTH = 100, 1000


class Images(Protocol):
    """The images of the daemon."""

    @property
    def brake(self) -> Brake:
        """What holds background transfers back."""

    async def fill(self, request: FillRequest, account: FillAccount) -> None:
        """Have in the cache what a request means."""


def prefetching(images: Images) -> Handler:
    """Return what answers such requests for some images."""
    return partial(_prefetch, images)


async def _prefetch(images: Images, request: Mapping[str, Any], tell: Tell) -> None:
    wish, bytes_per_s = parse(request)
    if bytes_per_s is not None:
        images.brake.bytes_per_s = bytes_per_s or None
    account = FillAccount()
    done = trio.Event()
    troubles: list[JigdofsError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow, account, done, tell)
        try:
            await images.fill(wish, account)
        except JigdofsError as error:
            troubles.append(error)
        done.set()
    for trouble in troubles:
        raise trouble
    await tell({"event": "finished", **asdict(account)})


async def _follow(account: FillAccount, done: trio.Event, tell: Tell) -> None:
    """Tell now and then how far it is; never cancelled within a line, or the next one made no sense."""
    while True:
        with trio.move_on_after(_TELL_S):
            await done.wait()
            return
        await tell({"event": "progress", **asdict(account)})


def _are_globs(globs: list[Any]) -> bool:
    """Tell whether that is a list of patterns, neither too many nor too long to be matched in a moment."""
    return len(globs) <= _MAX_GLOBS and all(
        isinstance(glob, str) and len(glob) <= _MAX_GLOB_LENGTH for glob in globs
    )


def parse(request: Mapping[str, Any]) -> tuple[FillRequest, int | None]:
    """Return what a request asks for and a new bandwidth limit, 0 for none; raise `UsageError`."""
    match request:
        case {
            "metadata": bool(metadata),
            "globs": list(globs),
            "range": (None | [int(), int() | None]) as span,
            "everything": bool(everything),
            "image": str(image),
            "bytes_per_s": (None | int()) as bytes_per_s,
        } if _are_globs(globs) and (bytes_per_s is None or 0 <= bytes_per_s <= _MAX_BYTES_PER_S):
            wish = FillRequest(
                metadata=metadata,
                globs=tuple(globs),
                range=None if span is None else (span[0], span[1]),
                everything=everything,
                image=image,
            )
            return wish, bytes_per_s
    raise UsageError("that is no request to prefetch; the daemon may be of another version")
