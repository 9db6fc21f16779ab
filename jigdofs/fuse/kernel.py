"""Settings of the kernel's side of a mount, through sysfs and procfs; all of them optional (M1, M7)."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import stat
from pathlib import Path

from jigdofs.errors import MountError
from jigdofs.fuse.programs import complaint, run
from jigdofs.sources.own_mounts import unescape

_log = logging.getLogger(__name__)

_TIMEOUTS = ("default_request_timeout", "max_request_timeout")
_CONNECTIONS = Path("/sys/fs/fuse/connections")
# run in a mount namespace of its own: nobody else sees what is mounted for this
_WRITE_UNSEEN = """
mount -t fusectl none /sys/fs/fuse/connections &&
echo "$1" >"$0/max_background" &&
echo "$2" >"$0/congestion_threshold"
"""
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC, _STATX_TYPE = 0x1000, 0x4000, 1
_SHARE_OF_TIMEOUT = 0.7  # the kernel's timer is coarse: it was seen to fire late, never early


def read_timeout_s(wanted_s: float, directory: Path = Path("/proc/sys/fs/fuse")) -> float:
    """Return a read timeout below the kernel's own, which would abort the whole mount (M7)."""
    for name in _TIMEOUTS:
        try:
            limit_s = int((directory / name).read_text())
        except (OSError, ValueError):
            continue
        if limit_s:
            wanted_s = min(wanted_s, limit_s * _SHARE_OF_TIMEOUT)
    return wanted_s


def connection() -> int | None:
    """Return our open end of the FUSE connection, or None if it cannot be told."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return int(name)
    return None


def is_gone(fd: int) -> bool:
    """Tell whether a connection has no mount any more, nor anybody who reads in it."""
    poll = select.poll()
    poll.register(fd, 0)  # errors are told unasked
    return bool(poll.poll(0))


def is_device(descriptor: int, device: tuple[int, int]) -> bool:
    """Tell whether an open file is a character device with these numbers, from the kernel's memory.

    Whoever sent the descriptor may have opened the file in a mount that never answers, or can be made not to:
    fstat(2) would wait for it, and could not even be killed. statx(2) need not ask.
    """
    told = _Statx()
    found = ctypes.CDLL(None, use_errno=True).statx(
        descriptor, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, _STATX_TYPE, ctypes.byref(told)
    )
    return found == 0 and stat.S_ISCHR(told.mode) and (told.rdev_major, told.rdev_minor) == device


class _Statx(ctypes.Structure):
    """What statx(2) fills in, as far as it is of use here; 256 bytes."""

    _fields_ = (
        ("before", ctypes.c_uint32 * 7),
        ("mode", ctypes.c_uint16),
        ("between", ctypes.c_uint16 * 49),
        ("rdev_major", ctypes.c_uint32),
        ("rdev_minor", ctypes.c_uint32),
        ("rest", ctypes.c_uint32 * 30),
    )


def tune(device: int, *, max_background: int, read_ahead_kb: int) -> None:
    """Raise the limits of a mount where we may; blocks.

    Args:
        device: `st_dev` of the mount.
        max_background: 12 by default: while 12 reads wait for slow parts, all others wait with them (M1).
        read_ahead_kb: how far the kernel reads ahead, 128 by default.
    """
    minor = os.minor(device)
    connection = _CONNECTIONS / str(minor)
    congestion_threshold = max_background * 3 // 4
    if connection.is_dir() or os.geteuid():
        _write(connection / "max_background", max_background)
        _write(connection / "congestion_threshold", congestion_threshold)
    else:
        _write_unseen(str(connection), str(max_background), str(congestion_threshold))
    read_ahead(device, read_ahead_kb)


def read_ahead(device: int, kib: int) -> None:
    """Say how far the kernel reads ahead in files that are opened from now on, where we may."""
    _write(Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"), kib)


def is_unseen_outside(mountpoint: str, proc: Path = Path("/proc")) -> bool:
    """Tell whether only this process and its kin see a mount: it lies in a slave of another mount namespace.

    So it is in a service of systemd with ProtectSystem=, PrivateTmp= or another setting that gives the
    service a mount namespace of its own. In a container, process 1 sees the mount, and all is well.

    Args:
        mountpoint: absolute, without links.
        proc: where the kernel tells of mounts (proc(5)).
    """
    parent, device = b"", b""
    optional: dict[bytes, list[bytes]] = {}
    for line in (proc / "self/mountinfo").read_bytes().split(b"\n"):  # carriage returns are not escaped
        fields = line.split(b" ")
        if len(fields) < 7:
            continue  # behind the last one
        optional[fields[0]] = fields[6 : fields.index(b"-", 6)]
        if unescape(fields[4]) == mountpoint:
            parent, device = fields[1:3]
    if not any(field.startswith(b"master:") for field in optional.get(parent, ())):
        return False
    try:
        seen = (proc / "1/mountinfo").read_bytes().split(b"\n")
    except OSError:  # hidden, as by ProtectProc=
        return True
    return not any(line.split(b" ")[2:3] == [device] for line in seen)


def _write(path: Path, number: int) -> None:
    try:
        path.write_text(str(number))
    except OSError as error:
        _log.debug("%s is not set: %s", path, error.strerror)


def _write_unseen(connection: str, max_background: str, congestion_threshold: str) -> None:
    """Write the limits where fusectl is not mounted, as in many containers; takes 10 ms."""
    script = ("sh", "-c", _WRITE_UNSEEN, connection, max_background, congestion_threshold)
    try:
        done = run("unshare", "--mount", *script, limit_s=5)
    except MountError as error:
        _log.debug("max_background is not set: %s", error)
        return
    if done.returncode:
        _log.debug("max_background is not set: %s", complaint(done))
