"""Listen as a service manager does (sd_notify(3)), and tell what it was told."""

import os
import secrets
import socket
from types import TracebackType
from typing import Self


class NotifySocket:
    """A socket that everybody may write to; `address` is for $NOTIFY_SOCKET."""

    def __init__(self) -> None:
        self.address = f"@jigdofs-kit-{os.getpid()}-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told: list[str] = []

    def __enter__(self) -> Self:
        self._socket.bind("\0" + self.address[1:])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def told(self) -> list[str]:
        """Return all messages so far."""
        self._socket.setblocking(False)
        while True:
            try:
                self._told.append(self._socket.recv(1 << 16).decode())
            except BlockingIOError:
                return list(self._told)

    def wait_for(self, start: str, timeout_s: float = 20) -> str:
        """Return the first message that begins so, or fail."""
        self.told()
        self._socket.settimeout(timeout_s)
        while True:
            for message in self._told:
                if message.startswith(start):
                    return message
            try:
                self._told.append(self._socket.recv(1 << 16).decode())
            except TimeoutError:
                raise AssertionError(f"no {start!r} among {self._told}") from None
