"""A mount that somebody with more rights makes: the daemon hands its end of the connection over, and waits.

The daemon of a service has no rights and a mount namespace of its own, where a mount would be seen by
nobody else. It opens /dev/fuse, root's part of the service is given that descriptor, mounts with it
where all can see it (`jigdofs.fuse.attach`), and says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import trio

from jigdofs.control.server import Tell
from jigdofs.errors import MountError, UsageError
from jigdofs.fuse.kernel import is_gone

_DEVICE = "/dev/fuse"


class HandOver:
    """Our end of a connection that has no mount yet.

    Raises:
        MountError: the kernel's device cannot be opened.
    """

    def __init__(self) -> None:
        try:
            self.descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise MountError(
                f"{_DEVICE}: {error.strerror}; a service needs DeviceAllow={_DEVICE} rw"
            ) from error
        self._mounted = trio.Event()

    @property
    def place(self) -> str:
        """What libfuse takes for the mount point of a connection that has a mount already (M9)."""
        return f"/dev/fd/{self.descriptor}"

    async def mounted(self, _request: Mapping[str, Any], _tell: Tell) -> None:
        """Answer whoever says that it has mounted with our descriptor; raise `UsageError` if it has not."""
        if is_gone(self.descriptor):  # so the kernel tells it of one without a mount, too
            raise UsageError("nothing is mounted with this daemon's descriptor")
        self._mounted.set()

    async def wait(self) -> None:
        """Wait for the mount."""
        await self._mounted.wait()
