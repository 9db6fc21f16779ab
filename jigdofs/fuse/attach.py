"""Root's part of a service: mount for a daemon without rights, and take its mount away. Blocks.

Invariants of this file:
* The daemon may lie: its descriptor is looked at before it is used, and it is waited for in bounded time.
* Only what was mounted for this very service, and is of its user, is ever taken away.
* It is mounted at the directory that was looked at: whoever may put a link in its place gains nothing.
* What fails half-way leaves no mount behind, and no question that a daemon was asked and does not answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import select
import stat
from dataclasses import dataclass
from pathlib import Path

from jigdofs.config import COMPLETE_READ_AHEAD_KB, LAZY_READ_AHEAD_KB, MountOptions
from jigdofs.control import client
from jigdofs.errors import MountError, Refused
from jigdofs.fetch.url import without_credentials
from jigdofs.fuse import attachment, kernel, loop_mount
from jigdofs.fuse.mountpoint import DEAD, mount_at, prepare, unmount, within
from jigdofs.sources.own_mounts import FSTYPE, MountLine

_log = logging.getLogger(__name__)

_FUSE_DEVICE = (10, 229)  # /dev/fuse, wherever it lies
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8  # mount(2)
_ANSWER_S = 30.0
_SILENT_S = 5.0
_MOST_STACKED = 8
_END_S = 3.0  # so long the kernel may take to tell the daemon that its mount is gone


@dataclass(frozen=True, slots=True)
class Service:
    """Whose mount it is.

    Attributes:
        user: its daemon runs as this user.
        group: and as this group.
        pid: its daemon, if it is known.
        note: where root notes what is mounted for it; None for a user's own unit, which mounts by itself.
    """

    user: int
    group: int
    pid: int | None = None
    note: Path | None = None


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
    if service.note is not None and attachment.noted(service.note) not in (None, str(mountpoint)):
        detach(service)  # where it was before: nobody has done so at its end
    _check_place(service, options)
    handed = client.hand_over(str(mountpoint), service.user, service.pid)
    try:
        _check_descriptor(handed.descriptor)
        if service.note is not None:  # before: we may be killed at any time
            attachment.note(service.note, str(mountpoint))
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
            unmount(mountpoint, lazy=True, abort=True)
        raise


def detach(service: Service, mountpoint: str | None = None) -> None:
    """Take the mount of a service away, if there is one: lazily where it is in use, dead or silent.

    Args:
        service: whose mount it is.
        mountpoint: where it is; None for what was noted when it was made.

    Raises:
        MountError: it cannot be.
    """
    if mountpoint is None and service.note is not None:
        mountpoint = attachment.noted(service.note)
    if mountpoint is None:
        return
    for _ in range(_MOST_STACKED):
        mount = _own_mount(service, mountpoint)
        if mount is None:
            break
        if _unmount(mountpoint) and service.pid is not None:
            _wait_for_end(service.pid)
    if service.note is not None:
        attachment.forget(service.note)


def _check_place(service: Service, options: MountOptions) -> None:
    path = options.mountpoint
    there = mount_at(path)
    if there is None:
        os.close(_opened(path))
    elif there.fstype == FSTYPE and there.owner != service.user:
        raise MountError(f"{path}: {there.source}, of another user, is mounted there already")
    if prepare(path):
        raise MountError(f"{path} is a regular file; a service needs a directory")


def _opened(path: Path) -> int:
    """Open a directory, made if need be, step by step and without following any link; raise `MountError`.

    The mount point has none, but whoever can write to a directory above it can put one there at any time.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open("/", flags)
    try:
        for name in path.parts[1:]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=opened)
            step = os.open(name, flags, dir_fd=opened)
            os.close(opened)
            opened = step
    except OSError as error:
        os.close(opened)
        if error.errno == errno.ENOTDIR and path.is_file():
            raise MountError(f"{path} is a regular file; a service needs a directory") from error
        raise MountError(f"mount point {path}: {error.strerror}") from error
    return opened


def _check_descriptor(descriptor: int) -> None:
    """Raise `MountError` for anything but /dev/fuse, asking nothing of a file system it may be in."""
    if not kernel.is_device(descriptor, _FUSE_DEVICE):
        raise MountError("the daemon handed over something else than /dev/fuse")


def _mount(service: Service, options: MountOptions, descriptor: int, source: str) -> None:
    data = (
        f"fd={descriptor},rootmode={stat.S_IFDIR:o},user_id={service.user},group_id={service.group}"
        ",default_permissions,allow_other"
    )
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | (_MS_NOEXEC if "noexec" in options.fuse else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    place = _opened(options.mountpoint)
    try:
        done = libc.mount(
            os.fsencode(source) or b"jigdofs",
            f"/proc/self/fd/{place}".encode(),
            FSTYPE.encode(),
            ctypes.c_ulong(flags),
            data.encode(),
        )
    finally:
        os.close(place)
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
    answers = _answers(mountpoint)
    try:
        loop_mount.undo(mountpoint, lazy=not answers)
        unmount(mountpoint, lazy=not answers, abort=not answers)  # also our own question
    except MountError as error:
        _log.warning("%s; it is detached all the same", error)
        loop_mount.undo(mountpoint, lazy=True)
        unmount(mountpoint, lazy=True)
        return False
    return answers


def _answers(mountpoint: str) -> bool:
    try:
        return within(_SILENT_S, lambda: os.statvfs(mountpoint)) is not None
    except OSError as error:
        return error.errno not in DEAD


def _wait_for_end(pid: int) -> None:
    """Give the daemon the time to end by itself, before it is told to."""
    with contextlib.suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            select.select([process], [], [], _END_S)
        finally:
            os.close(process)
