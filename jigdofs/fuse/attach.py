"""Root's part of a service: mount for a daemon without rights, and take its mount away. Blocks.

Invariants of this file:
* The daemon may lie: its descriptor is looked at before it is used, and it is waited for in bounded time.
* Only a mount of the service's own user is ever taken away.
* What fails half-way leaves no mount behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import stat
from dataclasses import dataclass

from jigdofs.config import COMPLETE_READ_AHEAD_KB, LAZY_READ_AHEAD_KB, MountOptions
from jigdofs.control import client
from jigdofs.errors import MountError, Refused
from jigdofs.fetch.url import without_credentials
from jigdofs.fuse import kernel, loop_mount
from jigdofs.fuse.mountpoint import is_dead, mount_at, prepare, unmount, within
from jigdofs.sources.own_mounts import FSTYPE, MountLine

_log = logging.getLogger(__name__)

_FUSE_DEVICE = (10, 229)  # /dev/fuse, wherever it lies
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4  # mount(2)
_ANSWER_S = 30.0
_MOST_STACKED = 8
_END_S = 3.0  # so long the kernel may take to tell the daemon that its mount is gone


@dataclass(frozen=True, slots=True)
class Service:
    """Whose mount it is.

    Attributes:
        user: its daemon runs as this user.
        group: and as this group.
        pid: its daemon, if it is known.
    """

    user: int
    group: int
    pid: int | None = None


def attach(service: Service, options: MountOptions, source: str) -> None:
    """Mount with the descriptor of a daemon that waits; return when the mount answers.

    Args:
        service: whose daemon it is.
        options: where, and the limits that the kernel is given.
        source: what mount(8) and findmnt show as the source.

    Raises:
        MountError: it cannot be mounted, or the daemon does not do its part.
    """
    mountpoint = options.mountpoint
    _make_directory(service, options)
    handed = client.hand_over(str(mountpoint), service.user, service.pid)
    try:
        _check_descriptor(handed.descriptor)
        _mount(service, options, handed.descriptor, without_credentials(source))
    finally:
        os.close(handed.descriptor)
    try:
        if kernel.is_unseen_outside(str(mountpoint)):
            raise MountError(
                f"{mountpoint} would be seen here only: `attach' runs in a mount namespace of its own;"
                " the unit begins it with `nsenter --mount=/proc/1/ns/mnt'"
            )
        _tell_mounted(service, str(mountpoint))
        _wait_for_answer(options, complete=handed.complete)
    except BaseException:
        with contextlib.suppress(MountError):
            unmount(mountpoint, lazy=True)
        raise


def detach(service: Service, mountpoint: str) -> None:
    """Take the mount of a service away, if there is one: lazily where it is in use or dead.

    Raises:
        MountError: it cannot be.
    """
    for _ in range(_MOST_STACKED):
        mount = _own_mount(service, mountpoint)
        if mount is None:
            break
        if _unmount(mountpoint) and service.pid is not None:
            _wait_for_end(service.pid)


def _make_directory(service: Service, options: MountOptions) -> None:
    path = options.mountpoint
    there = mount_at(path)
    if there is None:
        try:
            os.makedirs(path, mode=0o755, exist_ok=True)
        except FileExistsError:
            pass  # a file: said below
        except OSError as error:
            raise MountError(f"mount point {path}: {error.strerror}") from error
    elif there.fstype == FSTYPE and there.owner != service.user:
        raise MountError(f"{path}: {there.source}, of another user, is mounted there already")
    if prepare(path):
        raise MountError(f"{path} is a regular file; a service needs a directory")


def _check_descriptor(descriptor: int) -> None:
    status = os.fstat(descriptor)
    device = os.major(status.st_rdev), os.minor(status.st_rdev)
    if not stat.S_ISCHR(status.st_mode) or device != _FUSE_DEVICE:
        raise MountError("the daemon handed over something else than /dev/fuse")


def _mount(service: Service, options: MountOptions, descriptor: int, source: str) -> None:
    data = (
        f"fd={descriptor},rootmode={stat.S_IFDIR:o},user_id={service.user},group_id={service.group}"
        ",default_permissions,allow_other"
    )
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.mount(
        os.fsencode(source) or b"jigdofs",
        os.fsencode(options.mountpoint),
        FSTYPE.encode(),
        ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV),
        data.encode(),
    )
    if done:
        raise MountError(f"cannot mount at {options.mountpoint}: {os.strerror(ctypes.get_errno())}")


def _tell_mounted(service: Service, mountpoint: str) -> None:
    try:
        for _ in client.ask(mountpoint, service.user, {"do": "mounted"}, _ANSWER_S):
            pass  # it has nothing to tell
    except Refused as error:
        raise MountError(f"{mountpoint}: its daemon refuses: {error}") from error


def _wait_for_answer(options: MountOptions, *, complete: bool) -> None:
    """Wait for the first answer of the mount, and set the kernel's limits."""
    mountpoint = options.mountpoint
    try:
        status = within(_ANSWER_S, lambda: os.stat(mountpoint))
    except OSError as error:
        raise MountError(f"{mountpoint}: the mount does not answer: {error.strerror}") from error
    if status is None:
        raise MountError(f"{mountpoint}: the mount does not answer within {_ANSWER_S:g} s")
    read_ahead_kb = COMPLETE_READ_AHEAD_KB if complete else LAZY_READ_AHEAD_KB
    kernel.tune(
        status.st_dev,
        max_background=options.max_background,
        read_ahead_kb=options.read_ahead_kb or read_ahead_kb,
    )


def _own_mount(service: Service, mountpoint: str) -> MountLine | None:
    """Return the topmost mount at a place if it is one of the service's."""
    mount = mount_at(mountpoint)
    is_own = mount is not None and mount.fstype == FSTYPE and mount.owner == service.user
    return mount if is_own else None


def _unmount(mountpoint: str) -> bool:
    """Unmount, and what is mounted from it; return whether nobody used it any more."""
    dead = is_dead(mountpoint)
    try:
        loop_mount.undo(mountpoint, lazy=dead)
        unmount(mountpoint, lazy=dead)
    except MountError as error:
        _log.warning("%s; it is detached all the same", error)
        loop_mount.undo(mountpoint, lazy=True)
        unmount(mountpoint, lazy=True)
        return False
    return not dead


def _wait_for_end(pid: int) -> None:
    """Give the daemon the time to end by itself, before it is told to."""
    with contextlib.suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            select.select([process], [], [], _END_S)
        finally:
            os.close(process)
