"""Settings of the kernel's side of a mount, through sysfs and procfs; all of them optional (M1, M7)."""

from __future__ import annotations

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)

_TIMEOUTS = ("default_request_timeout", "max_request_timeout")
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


def tune(device: int, *, max_background: int, read_ahead_kb: int) -> None:
    """Raise the limits of a mount where we may.

    Args:
        device: `st_dev` of the mount.
        max_background: 12 by default, so 12 reads that wait for slow parts block all readahead (M1).
        read_ahead_kb: how far the kernel reads ahead, 128 by default.
    """
    major, minor = os.major(device), os.minor(device)
    connection = Path(f"/sys/fs/fuse/connections/{minor}")
    _write(connection / "max_background", max_background)
    _write(connection / "congestion_threshold", max_background * 3 // 4)
    _write(Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb"), read_ahead_kb)


def _write(path: Path, number: int) -> None:
    try:
        path.write_text(str(number))
    except OSError as error:
        _log.debug("%s is not set: %s", path, error.strerror)
