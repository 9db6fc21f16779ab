"""What is inside an image, mounted by the kernel from a loop device: made, found again, and undone in order.

Invariant of this file: what fails half-way leaves no loop device behind that it attached.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Collection

from jigdofs.errors import MountError, UsageError
from jigdofs.fuse import loop_device
from jigdofs.fuse.mountpoint import holders, mount_above, mount_at, mounts, unmount
from jigdofs.fuse.programs import complaint, run
from jigdofs.sources.own_mounts import FSTYPE

_LIMIT_S = 300  # the kernel reads what it needs from mirrors
_RELEASE_S = 5.0  # udev, or a mke2fs that looks whether it is mounted, has a device open for a moment
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
    done = run("mount", "-o", OPTIONS, device, directory, limit_s=_LIMIT_S)
    if done.returncode:
        raise MountError(_advice(device, done))
    loop_device.detach(device)  # only marked, as it is in use
    there = mount_at(directory)
    return there.fstype if there is not None else ""


def _advice(device: str, done: subprocess.CompletedProcess[str]) -> str:
    unknown = _UNKNOWN.search(done.stderr)
    if unknown is not None:
        advice = f"the kernel knows no {unknown[1]}: `modprobe {unknown[1]}'"
        if unknown[1] == "iso9660":
            advice += (
                ", or where there is no such module `jigdofs mount --contents', which shows the files inside"
                " an ISO without it"
            )
        return advice
    return f"what is inside cannot be mounted: {complaint(done, 0)} ({device})"


def image_of(source: str) -> str | None:
    """Return the image in a mount of ours that a file system is mounted from, given its source, or None."""
    device = _DEVICE.fullmatch(source)
    file = None if device is None else loop_device.backing_file(device[1])
    above = None if file is None else mount_above(file)
    return file if above is not None and above.fstype == FSTYPE else None


def undo(mountpoint: str, *, lazy: bool) -> None:
    """Unmount what is mounted from images below a mount point, and detach their devices.

    What is mounted, in turn, from an image inside an image goes first. What was not mounted from images
    is left alone.

    Raises:
        MountError: something is in use; what was not undone until then stays as it is.
    """
    if os.geteuid() == 0:  # for others the unmounting that follows tells what is in the way
        _undo(mountpoint, lazy=lazy, above=())


def undo_one(directory: str, *, lazy: bool) -> None:
    """Unmount what was mounted by `mount_inside`, and detach its device; raise `MountError`, `UsageError`."""
    there = mount_at(directory)
    device = None if there is None else _DEVICE.fullmatch(there.source)
    if device is None:
        raise UsageError(f"{directory}: is not mounted from a loop device")
    file = loop_device.backing_file(device[1])
    if os.geteuid() == 0:
        _undo(directory, lazy=lazy, above=(device[1],))
    unmount(directory, lazy=lazy)
    if not _places_of([device[1]]):
        _release(device[1], file, lazy=lazy)


def _undo(path: str, *, lazy: bool, above: Collection[str]) -> None:
    """Undo what hangs on files below a path, save for the devices that are being undone already.

    A file system that hides its own image's place would have us go round in circles.
    """
    files = {
        device: loop_device.backing_file(device)
        for device in loop_device.attached_below(path)
        if device not in above
    }
    for place, source in _places_of(files):
        _undo(place, lazy=lazy, above=(*above, *files))
        there = mount_above(place)
        if there is None or there.mountpoint != place:
            continue  # went with what it was mounted on
        if there.source != source:
            raise MountError(f"{place}: {there.fstype} is mounted over what is to be unmounted")
        unmount(place, lazy=lazy)
    for device, file in files.items():
        _release(device, file, lazy=lazy)


def _release(device: str, file: str | None, *, lazy: bool) -> None:
    """Detach a device and see it let go of its file; raise `MountError` that names who holds it."""
    if loop_device.backing_file(device) != file:
        return  # it went with its last mount, and may be somebody else's by now
    loop_device.detach(device)
    deadline = time.monotonic() + _RELEASE_S
    while not lazy and loop_device.backing_file(device) == file:
        if time.monotonic() > deadline:
            who = "; ".join(holders(device)) or "by something that cannot be seen from here"
            raise MountError(f"{device} is in use: {who}")
        time.sleep(0.01)


def _places_of(devices: Collection[str]) -> list[tuple[str, str]]:
    """Return where the devices, or partitions of them, are mounted, and from what; the last mount first."""
    return [
        (mount.mountpoint, mount.source)
        for mount in reversed(mounts())
        if (device := _DEVICE.fullmatch(mount.source)) is not None and device[1] in devices
    ]
