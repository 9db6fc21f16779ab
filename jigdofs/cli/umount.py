"""`jigdofs umount`: end mounts."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from jigdofs.cli.parser import Parser
from jigdofs.control import client, place
from jigdofs.errors import EXIT_OK, MountError
from jigdofs.fuse import loop_mount, mountpoint
from jigdofs.sources.own_mounts import FSTYPE, MountLine

_DAEMON_END_S = 30
_BY_ITSELF_S = 3.0
"""So long the kernel may take to tell the daemon that its mount is gone. Where another mount namespace, of a
container or a service, holds a copy of the mount, it never does: the daemon is asked to end then."""
_ANSWER_S = 5.0
_PID_XATTR = "user.jigdofs.pid"


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = (
        "Returns when the daemon has ended and its cache is in order. As root, it first unmounts what was\n"
        "mounted from the images through loop devices; such a mount can also be ended by itself."
    )
    parser.add_argument("mountpoints", nargs="+", metavar="MOUNTPOINT", help="where an image is mounted")
    parser.add_argument(
        "-l", "--lazy", action="store_true", help="detach it now, even while it is in use; readers may finish"
    )


def run(arguments: argparse.Namespace) -> int:
    """Unmount each mount point and wait for its daemon."""
    for path in arguments.mountpoints:
        _end(path, lazy=arguments.lazy)
    return EXIT_OK


def _end(path: str, *, lazy: bool) -> None:
    mount = mountpoint.mount_at(path)
    if mount is None:
        raise MountError(f"{path}: nothing is mounted there")
    if loop_mount.image_of(mount.source) is not None:
        loop_mount.undo_one(mount.mountpoint, lazy=lazy)
        return
    if mount.fstype != FSTYPE:
        raise MountError(f"{path}: that is a mount of type {mount.fstype}, not ours; use umount(8)")
    daemon = None if lazy else _daemon(mount)
    try:
        loop_mount.undo(mount.mountpoint, lazy=lazy)
        dead = daemon is None and not lazy and mountpoint.is_dead(path)
        mountpoint.unmount(path, lazy=lazy or dead)
        if dead:
            place.tidy(mount.mountpoint, _owner(mount))
        if daemon is not None:
            _wait_for(path, daemon)
    finally:
        if daemon is not None:
            os.close(daemon.fd)


@dataclass(frozen=True, slots=True)
class _Daemon:
    """The process of a mount.

    Attributes:
        pid: its number.
        fd: a pidfd, which becomes readable when it ends.
        owner: whose mount it is.
    """

    pid: int
    fd: int
    owner: int

    def ends_within(self, limit_s: float) -> bool:
        """Wait for its end, and tell whether it came."""
        ended, _, _ = select.select([self.fd], [], [], limit_s)
        return bool(ended)

    def ask_to_end(self) -> None:
        """Send SIGTERM, if it is a process of the mount's owner: its number was told by that user."""
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{self.pid}").st_uid == self.owner:
                signal.pidfd_send_signal(self.fd, signal.SIGTERM)

    @property
    def is_stopped(self) -> bool:
        """Tell whether it was stopped, by SIGSTOP or a debugger."""
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.pid}/stat").read_text("utf-8", "replace")
            return text.rpartition(")")[2].split()[0] in "Tt"
        return False


def _wait_for(path: str, daemon: _Daemon) -> None:
    """Wait until the daemon has ended, unless it cannot; say what keeps it."""
    if daemon.is_stopped:
        ended = daemon.ends_within(0)
    else:
        ended = daemon.ends_within(_BY_ITSELF_S)
        if not ended:
            daemon.ask_to_end()
            ended = daemon.ends_within(_DAEMON_END_S)
    if not ended:
        state = "still runs"
        if daemon.is_stopped:
            state = f"is stopped, and ends after `kill -CONT {daemon.pid}'"
        print(
            f"jigdofs: warning: {path}: unmounted, but its daemon, process {daemon.pid}, {state}",
            file=sys.stderr,
        )


def _owner(mount: MountLine) -> int:
    """Return the user whose daemon it is."""
    return os.geteuid() if mount.owner is None else mount.owner


def _daemon(mount: MountLine) -> _Daemon | None:
    """Return the daemon of a mount, or None if it is gone or not ours to know; raise `MountError`.

    The control socket tells it even of one that is stopped, and a question to that would keep the mount in
    use; a mount without one is asked itself.
    """
    path = mount.mountpoint
    number = client.daemon(path, _owner(mount))
    with contextlib.suppress(OSError, ValueError):
        if number is None:
            answer = mountpoint.within(_ANSWER_S, lambda: os.getxattr(path, _PID_XATTR))
            if answer is None:  # and our question keeps the mount in use now
                raise MountError(
                    f"{path}: its daemon does not answer; detach it with `jigdofs umount --lazy'"
                )
            number = int(answer)
        return _Daemon(number, os.pidfd_open(number), _owner(mount))
    return None
