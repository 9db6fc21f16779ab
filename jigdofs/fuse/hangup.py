"""What SIGHUP means: the end, where there is a terminal to lose; else, that settings are to be read again."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio


class Hangup:
    """Tell what a SIGHUP means, and read settings again, one time after the other.

    Made as early as can be: a signal that comes while images are loaded must not end us without a word (for
    systemd, an end by SIGHUP is a clean one); settings are read again for it once that is possible.

    Args:
        reloads: settings can be read again.
    """

    def __init__(self, *, reloads: bool) -> None:
        self._reloads = reloads
        self._reload: Callable[[], Awaitable[None]] | None = None
        self._ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup(1)
        self._session = os.getsid(0)  # another one, where we went into the background, has no terminal
        self._terminal = _has_terminal()  # when it is lost, the signal comes too late to ask
        self._wanted, self._asked = trio.open_memory_channel[None](1)
        self._early = False
        if reloads and not self._terminal:
            signal.signal(signal.SIGHUP, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self._early = True

    def begin(self, reload: Callable[[], Awaitable[None]] | None) -> None:
        """Have settings read by `reload` from now on; called before signals are received.

        One that comes after that, while all is put away, is ignored.
        """
        self._reload = reload if self._reloads else None
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def ends(self, number: int) -> bool:
        """Tell whether a signal asks us to end; if it does not, do what it asks for."""
        if number != signal.SIGHUP:
            return True
        terminal = self._terminal and os.getsid(0) == self._session
        if terminal or self._reload is None:
            return not self._ignored
        with suppress(trio.WouldBlock):  # that is to be done already
            self._wanted.send_nowait(None)
        return False

    async def reload_when_asked(self) -> None:
        """Read settings again whenever that is asked for."""
        if self._reload is not None:
            if self._early:
                await self._reload()
            async for _ in self._asked:
                await self._reload()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
