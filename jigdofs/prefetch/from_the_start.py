"""What --prefetch and --prefetch-list ask for: fetched from the start, without anybody who waits for it."""

from __future__ import annotations

import logging
import os
from itertools import chain, repeat
from pathlib import Path
from typing import Protocol

import trio

from jigdofs.config import BackgroundOptions
from jigdofs.errors import InputError, JigdofsError
from jigdofs.format import part_list
from jigdofs.format.part import Part
from jigdofs.prefetch.fill import FillAccount
from jigdofs.prefetch.plan import FillRequest

_log = logging.getLogger(__name__)

_FIRST_PAUSES_S, _PAUSE_S = (60, 120, 300), 900
"""After so long what mirrors did not give is asked for again: an outage ends the work of no night."""


class Images(Protocol):
    """The images whose parts are fetched."""

    async def fill(self, request: FillRequest, account: FillAccount) -> None:
        """Have in the cache what a request means."""


def initial_request(options: BackgroundOptions) -> FillRequest | None:
    """Return what to fetch from the start; None for nothing. Blocks.

    Raises:
        InputError: the list cannot be read.
        FormatError: it is none.
    """
    parts: tuple[Part, ...] = ()
    if options.first is not None:
        parts = tuple(part_list.parse(_text(options.first), str(options.first)))
    if not parts and options.prefetch == "none":
        return None
    everything = options.prefetch == "all"
    return FillRequest(parts, metadata=options.prefetch != "none", everything=everything)


def _text(path: Path) -> str:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(part_list.MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if len(data) > part_list.MAX_BYTES:
        raise InputError(f"{path}: is larger than {part_list.MAX_BYTES >> 20} MiB: no list of parts is")
    return data.decode("utf-8", "replace")


async def fill_from_the_start(images: Images, request: FillRequest | None) -> None:
    """Fetch what was asked for, as often as it takes, and say in the log how it goes; None is nothing."""
    if request is None:
        return
    for pause_s in chain(_FIRST_PAUSES_S, repeat(_PAUSE_S)):
        account = FillAccount()
        try:
            await images.fill(request, account)
        except JigdofsError as error:
            _log.warning("nothing is fetched ahead: %s", error)
            return
        had = f"{account.parts_here} of {account.parts} parts"
        if account.full:
            _log.warning("fetching ahead ended with %s: %s", had, account.ended_early)
            return
        if not account.parts_failed:
            _log.info("fetched ahead: %s", had)
            return
        last = account.last_failure
        _log.warning("fetched ahead: %s; tried again in %d s; the last failure: %s", had, pause_s, last)
        await trio.sleep(pause_s)
