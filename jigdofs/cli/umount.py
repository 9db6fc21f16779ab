"""`jigdofs umount`: end mounts."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys

from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_OK, MountError
from jigdofs.fuse import loop_mount, mountpoint
from jigdofs.sources.own_mounts import FSTYPE

_DAEMON_END_S = 30
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
    # of a mount that is to go at once nothing is asked: its daemon may hang
    daemon = None if lazy else _daemon(path)
    try:
        loop_mount.undo(mount.mountpoint, lazy=lazy)
        mountpoint.unmount(path, lazy=lazy or mountpoint.is_dead(path))
        if daemon is not None and not lazy:
            # a pidfd becomes readable when its process ends
            ended, _, _ = select.select([daemon], [], [], _DAEMON_END_S)
            if not ended:
                print(f"jigdofs: warning: {path}: unmounted, but its daemon still runs", file=sys.stderr)
    finally:
        if daemon is not None:
            os.close(daemon)


def _daemon(path: str) -> int | None:
    """Return a pidfd of the daemon, or None if it is gone or not ours to know; raise `MountError`."""
    with contextlib.suppress(OSError, ValueError):
        number = mountpoint.within(_ANSWER_S, lambda: os.getxattr(path, _PID_XATTR))
        if number is None:  # and our question keeps the mount in use now
            raise MountError(f"{path}: its daemon does not answer; detach it with `jigdofs umount --lazy'")
        return os.pidfd_open(int(number))
    return None
