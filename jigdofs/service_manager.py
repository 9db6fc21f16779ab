"""Tell whoever started us, usually systemd, how we are: ready, stopping, alive, and a line of status.

The protocol is sd_notify(3): datagrams to the socket that `$NOTIFY_SOCKET` names. Where it names none,
nothing is told. What goes wrong in telling is nobody's trouble: the mount works all the same.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping

_log = logging.getLogger(__name__)

_SEND_S = 1.0  # the manager's queue is full for a moment only, if ever
_FIRST_STATUS_S = 1.0  # what is here has been counted by then, mostly
_STATUS_S = 10.0
_MAX_STATUS = 500  # characters
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """What the service manager is told.

    Args:
        environ: where it says how; what it says is taken out, so that no child tells in our name.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address, period, pid = (environ.pop(name, "") for name in _VARIABLES)
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        is_for_us = pid in ("", str(os.getpid()))
        self.watchdog_s = int(period) / 1e6 if self._address and period.isdecimal() and is_for_us else 0.0
        """How often it wants to hear that we are alive; 0 for never."""

    def __bool__(self) -> bool:
        """Tell whether anybody listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Say that what was to be started, or loaded again, can be used."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """Say in one line how it is; what was said last is not said again."""
        line = " ".join(text.split())[:_MAX_STATUS]
        if line != self._status and self._tell(f"STATUS={line}"):
            self._status = line

    def stopping(self) -> None:
        """Say that we end."""
        self._tell("STOPPING=1")

    def reloading(self) -> None:
        """Say that we load our settings again; `ready` says the end of it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    async def stay_alive(self) -> None:
        """Say again and again that we are alive: that the loop turns, and that worker threads answer."""
        import trio

        from jigdofs.in_thread import GIVE_UP

        if not self.watchdog_s:
            return
        while True:
            # one that waits for all threads to be free says nothing, and is ended by the manager
            await trio.to_thread.run_sync(int, **GIVE_UP)
            self._tell("WATCHDOG=1")
            await trio.sleep(self.watchdog_s / 3)

    async def tell_status(self, line: Callable[[], str]) -> None:
        """Say how it is: at once, a second later, and every 10 s.

        Args:
            line: tells it, from memory.
        """
        import trio

        pause_s = _FIRST_STATUS_S
        while self:
            self.status(line())
            await trio.sleep(pause_s)
            pause_s = _STATUS_S

    def _tell(self, text: str) -> bool:
        if not self:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
                stream.settimeout(_SEND_S)
                stream.sendto(text.encode("utf-8", "backslashreplace"), os.fsencode(self._address))
        except (OSError, ValueError) as error:
            _log.debug("the service manager cannot be told %r: %s", text, error)
            return False
        return True
