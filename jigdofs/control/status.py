"""What the daemon does for `jigdofs status`: tell its state as one object of JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import trio

from jigdofs.control.server import Handler, Tell
from jigdofs.control.state import ImageState, MirrorState, State
from jigdofs.errors import printable
from jigdofs.image.read_account import DURATIONS_S, ReadAccount
from jigdofs.troubles import Trouble

DEFAULT_CELLS = 64
_MOST_IMAGES = 1000  # are told with their files; a line may have 16 MiB


def telling(state: State) -> Handler:
    """Return what answers such requests; their `cells` is how many cells the map of each image has."""
    return partial(_tell_status, state)


async def _tell_status(state: State, request: Mapping[str, Any], tell: Tell) -> None:
    cells = request.get("cells", DEFAULT_CELLS)
    await tell({"event": "status", **report(state, cells if isinstance(cells, int) else DEFAULT_CELLS)})


def report(state: State, cells: int) -> dict[str, Any]:
    """Return the state as JSON has it: bytes, seconds, and seconds since 1970 in what ends in `_at`."""
    images, maps = state.images()[:_MOST_IMAGES], state.maps(cells)
    return {
        "version": state.version,
        "pid": state.pid,
        "uptime_s": round(state.uptime_s, 1),
        "state": state.verdict(),
        "sources": list(map(printable, state.sources)),
        "images": [_image(state, image, drawn) for image, drawn in zip(images, maps, strict=False)],
        "parts_in_flight": state.in_flight,
        "bytes_in_flight": sum(part.length for part in state.coming()),
        "readers_waiting": state.waiting,
        "reads": {**_reads(state.reads), "bytes_per_s": round(state.read_bytes_per_s)},
        "fetched": {"bytes": state.received, "bytes_per_s": round(state.received_bytes_per_s)},
        "mirrors": [_mirror(mirror) for mirror in state.mirrors()],
        "cache": _cache(state),
        "prefetch": _prefetch(state),
        "last_errors": [_trouble(trouble) for trouble in state.troubles],
        "log": printable(state.log),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
    }


def _image(state: State, image: ImageState, drawn: str | None) -> dict[str, Any]:
    return {
        "name": printable(image.name),
        "source": printable(image.source),
        "state": state.verdict(image),
        "size": image.size,
        "present_bytes": image.present,
        "parts": image.parts,
        "parts_present": image.parts_present,
        "parts_in_flight": image.parts_in_flight,
        "bytes_in_flight": image.in_flight,
        "checksums": dict(image.checksums),
        "reads": _reads(image.reads),
        "map": drawn,
    }


def _reads(account: ReadAccount) -> dict[str, Any]:
    reads, waited = account.reads, account.waited_reads
    return {
        "reads": reads,
        "bytes": account.bytes,
        "waited_reads": waited,
        "waited_bytes": account.waited_bytes,
        "hit_share": round((reads - waited) / reads, 6) if reads else None,
        "errors": account.errors,
        "last_error_at": round(account.last_error_s, 3) or None,
        "duration_s": round(account.duration_s, 6),
        "durations": [
            [bound, count] for bound, count in zip((*DURATIONS_S, None), account.durations, strict=True)
        ],
    }


def _mirror(mirror: MirrorState) -> dict[str, Any]:
    return {
        "mirror": mirror.mirror,
        "health": mirror.health,
        "parts": mirror.parts,
        "bytes": mirror.bytes,
        "received_bytes": mirror.received,
        "failures": mirror.failures,
        "failures_ever": mirror.failures_ever,
        "wrong": mirror.wrong,
        "avoided_s": round(mirror.avoided_s, 1),
        "asked_to_wait_s": round(mirror.asked_s, 1),
    }


def _cache(state: State) -> dict[str, Any]:
    cache = state.cache
    if cache is None:
        return {"directory": None, "why": printable(state.without_cache)}
    stock, (files, count) = cache.stock, cache.evicted
    return {
        "directory": printable(str(cache.directory)),
        "bytes": None if stock is None else stock.used,
        "limit_bytes": None if stock is None else stock.limit,
        "free_bytes": None if stock is None else stock.free,
        "min_free_bytes": None if stock is None else stock.min_free,
        "evicted_files": files,
        "evicted_bytes": count,
    }


def _prefetch(state: State) -> dict[str, Any]:
    accounts = state.prefetching
    return {"running": bool(accounts), "fills": [asdict(account) for account in accounts]}


def _trouble(trouble: Trouble) -> dict[str, Any]:
    return {
        "last_at": round(trouble.last_s, 3),
        "first_at": round(trouble.first_s, 3),
        "ago_s": round(max(0.0, time.time() - trouble.last_s), 1),
        "level": trouble.level.lower(),
        "what": printable(trouble.what),
        "why": printable(trouble.why),
        "times": trouble.times,
    }
