"""How a call in a thread is given up with whoever waits for it, in the words of the trio that is here."""

from __future__ import annotations

from typing import Final, TypedDict, cast

import trio


class _GiveUp(TypedDict):
    abandon_on_cancel: bool


def _words() -> _GiveUp:
    if tuple(map(int, trio.__version__.split(".")[:2])) < (0, 23):  # Debian 12 has 0.22
        return cast("_GiveUp", {"cancellable": True})
    return {"abandon_on_cancel": True}


GIVE_UP: Final = _words()
"""Keywords for `trio.to_thread.run_sync`."""
