"""What is inside an image, mounted by the kernel from a loop device: made, found again, and undone in order.

Invariant of this file: what fails half-way leaves no loop device behind that it attached.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

from jigdofs.errors import MountError, UsageError
from jigdofs.fuse import loop_device
from jigdofs.fuse.mountpoint import mount_at, mounts, unmount
from jigdofs.sources.own_mounts import FSTYPE

_LIMIT_S = 300  # the kernel reads what it needs from mirrors
_DEVICE = re.compile(r"(/dev/loop[0-9]+)(?:p[0-9]+)?")
_UNKNOWN = re.compile(r"unknown filesystem type '([^']*)'")
OPTIONS = "ro,nosuid,nodev"


def check_directory(directory: str) -> None:
    """Raise `MountError` if nothing can be mounted there."""
    if not os.path.isdir(directory):
        missing = "" if os.path.exists(directory) else "; make it first"
        raise MountError(f"{directory} is no directory{missing}")
    if (there := mount_at(directory)) is not None:
        raise MountError(f"{directory}: {there.source} is mounted there already")


def mount_inside(device: str, directory: str) -> str:
    """Mount what a loop device holds, and return the kind of file system.

    The device goes when it is unmounted, by whatever means.

    Raises:
        MountError: the kernel cannot; says what is missing.
    """
    command = ["mount", "-o", OPTIONS, device, directory]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"{device} cannot be mounted: {error}") from error
    if done.returncode:
        raise MountError(_advice(device, done.stderr))
    loop_device.detach(device)  # only marked, as it is in use
    there = mount_at(directory)
    return there.fstype if there is not None else ""


def _advice(device: str, stderr: str) -> str:
    unknown = _UNKNOWN.search(stderr)
    if unknown is not None:
        return (
            f"the kernel knows no {unknown[1]}: `modprobe {unknown[1]}', or where there is no such module"
            " `jigdofs mount --contents', which shows the files inside an ISO without it"
        )
    reason = (stderr.strip().splitlines() or ["no reason given"])[0]
    return f"what is inside cannot be mounted: {reason.removeprefix('mount: ')} ({device})"


def image_of(source: str) -> str | None:
    """Return the image in a mount of ours that a file system is mounted from, given its source, or None."""
    device = _DEVICE.fullmatch(source)
    file = None if device is None else loop_device.backing_file(device[1])
    directory = file
    while directory is not None and directory != "/":
        there = mount_at(directory)
        if there is not None and there.fstype == FSTYPE:
            return file
        directory = os.path.dirname(directory)
    return None


def undo(mountpoint: str, *, lazy: bool) -> None:
    """Unmount what is mounted from images below a mount point, and detach their devices.

    Raises:
        MountError: something is in use, or we are not root.
    """
    devices = loop_device.attached_below(mountpoint)
    if not devices or os.geteuid() != 0:
        return  # the unmounting that follows tells what is in the way
    for place in _places_of(devices):
        unmount(place, lazy=lazy)
    for device in devices:
        if loop_device.backing_file(device) is not None:
            loop_device.detach(device)


def undo_one(directory: str, *, lazy: bool) -> None:
    """Unmount what was mounted by `mount_inside`, and detach its device; raise `MountError`, `UsageError`."""
    there = mount_at(directory)
    device = None if there is None else _DEVICE.fullmatch(there.source)
    if device is None:
        raise UsageError(f"{directory}: is not mounted from a loop device")
    file = loop_device.backing_file(device[1])
    unmount(directory, lazy=lazy)
    if file is not None and loop_device.backing_file(device[1]) == file and not _places_of([device[1]]):
        loop_device.detach(device[1])


def _places_of(devices: list[str]) -> list[str]:
    """Return where the devices, or partitions of them, are mounted; what was mounted last comes first."""

    def places() -> Iterator[str]:
        for mount in reversed(mounts()):
            device = _DEVICE.fullmatch(mount.source)
            if device is not None and device[1] in devices:
                yield mount.mountpoint

    return list(places())
