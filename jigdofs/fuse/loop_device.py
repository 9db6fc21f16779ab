"""Loop devices over images that we show: attached read-only, with direct I/O, and detached again.

Without direct I/O a loop device reads one request after the other, so one part that is slow to come holds up
everybody, and everything is cached twice (M2).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from jigdofs.errors import MountError
from jigdofs.fuse.programs import complaint, run


def attached_below(path: str) -> list[str]:
    """Return the loop devices attached to a file at or below a path, which is absolute and without links."""
    devices = []
    for number in Path("/sys/block").glob("loop*"):
        file = backing_file(f"/dev/{number.name}")
        if file is not None and (file == path or file.startswith(path + "/")):
            devices.append(f"/dev/{number.name}")
    return devices


def backing_file(device: str) -> str | None:
    """Return the file that a loop device shows, or None; the kernel says so without asking that file."""
    with contextlib.suppress(OSError):
        text = Path(f"/sys/block/{os.path.basename(device)}/loop/backing_file").read_bytes()
        return os.fsdecode(text.rstrip(b"\n"))
    return None


def has_direct_io(device: str) -> bool:
    """Tell whether a loop device reads its file past the page cache, several requests at a time."""
    with contextlib.suppress(OSError):
        return Path(f"/sys/block/{os.path.basename(device)}/loop/dio").read_text().strip() == "1"
    return False


def attach(file: str) -> str:
    """Attach an image to a free loop device and return that; raise `MountError`, with what to do."""
    done = run("losetup", "--find", "--show", "--read-only", "--direct-io=on", file)
    if done.returncode == 0:
        return done.stdout.strip()
    if not os.path.exists("/dev/loop-control"):
        raise MountError("there is no /dev/loop-control: `modprobe loop', or give the container loop devices")
    reason = complaint(done).removeprefix(f"{file}: ")
    if "unused loop device" in reason or reason.endswith("No such file or directory"):
        raise MountError(
            f"no loop device is to be had: {reason}; `losetup -l' lists those in use, `losetup -d' detaches"
            " one (a container must be given some)"
        )
    raise MountError(f"{file} cannot be attached to a loop device: {reason}")


def detach(device: str) -> None:
    """Detach a loop device, now or, while it is in use, when that ends; raise `MountError`."""
    done = run("losetup", "--detach", device)
    if done.returncode and backing_file(device) is not None:
        raise MountError(f"{device} cannot be detached: {complaint(done)}")
