"""The mount point before and after: what is mounted there, is it ours, is it dead, who holds it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from jigdofs.errors import MountError
from jigdofs.fuse.loop_device import attached_below
from jigdofs.fuse.programs import complaint, run
from jigdofs.sources.own_mounts import FSTYPE, MountLine, parse_mountinfo

_log = logging.getLogger(__name__)

_ANSWER_S = 5.0
_LOOKS, _LOOK_AGAIN_S = 5, 0.2
DEAD = (errno.ENOTCONN, errno.ECONNABORTED)  # what a mount answers whose daemon is gone
T = TypeVar("T")


def mounts() -> list[MountLine]:
    """Return all mounts this process sees, in order."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())


def resolve(path: str | os.PathLike[str]) -> str:
    """Return an absolute path without links; asks nothing of what is mounted there, so it cannot hang."""
    text = os.path.abspath(path)
    for _ in range(40):  # as many links as the kernel follows
        directory, name = os.path.split(text)
        text = os.path.join(os.path.realpath(directory), name)
        try:
            target = os.readlink(text)
        except OSError:
            break
        text = os.path.abspath(os.path.join(os.path.dirname(text), target))
    return text


def mount_at(path: str | os.PathLike[str]) -> MountLine | None:
    """Return the topmost mount at a path."""
    where = resolve(path)
    return next((mount for mount in reversed(mounts()) if mount.mountpoint == where), None)


def mount_above(path: str) -> MountLine | None:
    """Return the mount that a path, absolute and without links, lies in; asks nothing, so it cannot hang."""
    topmost = {mount.mountpoint: mount for mount in mounts()}
    while path not in topmost:
        if path == "/":  # in a chroot, whose root need not be a mount point
            return None
        path = os.path.dirname(path)
    return topmost[path]


def is_dead(path: str | os.PathLike[str]) -> bool:
    """Tell whether a mount's daemon is gone: statfs always asks it, stat may be answered from a cache."""
    try:
        within(_ANSWER_S, lambda: os.statvfs(path))
    except OSError as error:
        return error.errno in DEAD
    return False


def within(limit_s: float, ask: Callable[[], T]) -> T | None:
    """Ask a mount something in a thread of its own; return None if it does not answer in time."""
    answers: queue.SimpleQueue[T | OSError] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(ask())
        except OSError as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        answer = answers.get(timeout=limit_s)
    except queue.Empty:
        return None
    if isinstance(answer, OSError):
        raise answer
    return answer


def prepare(path: Path) -> bool:
    """Check a mount point, clean a dead mount of ours away; return whether it is a regular file.

    Raises:
        MountError: it does not exist, or something is mounted there.
    """
    mount = mount_at(path)
    if mount is not None and mount.fstype == FSTYPE:
        if not _dies(path):
            raise MountError(
                f"{path}: {mount.source} is mounted there already; `jigdofs umount {path}' first"
            )
        for device in attached_below(str(path)):
            _log.warning(
                "%s holds the dead mount that was at %s; let it go: `umount %s' if it is mounted, else"
                " `losetup -d %s'",
                device,
                path,
                device,
                device,
            )
        unmount(path, lazy=True)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        hint = "; make the directory first" if error.errno == errno.ENOENT else ""
        raise MountError(f"mount point {path}: {error.strerror}{hint}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise MountError(f"mount point {path} is neither a directory nor a regular file")
    return stat.S_ISREG(mode)


def _dies(path: Path) -> bool:
    """Tell whether a mount is dead, or is within a second: a killed daemon lets go last of all."""
    for _ in range(_LOOKS):
        if is_dead(path):
            return True
        time.sleep(_LOOK_AGAIN_S)
    return is_dead(path)


def unmount(path: str | os.PathLike[str], *, lazy: bool = False, abort: bool = False) -> None:
    """Unmount a FUSE mount as root or as its owner; raise `MountError` that names who holds it.

    Args:
        path: where it is.
        lazy: also while it is in use.
        abort: have all fail that its daemon was asked and has not answered: who waits for that cannot even be
            killed. Root only.
    """
    text = resolve(path)
    if os.geteuid() == 0:
        how = [*(["--lazy"] if lazy else []), *(["--force"] if abort else [])]
        done = run("umount", "--no-canonicalize", "--internal-only", *how, text)
    else:
        done = run("fusermount3", "-u", *(["-z"] if lazy else []), "--", text)
    if done.returncode == 0 or mount_at(text) is None:
        return
    if in_use := holders(text):
        raise MountError(f"{text} is in use: {'; '.join(in_use)}")
    reason = complaint(done)
    if "not found in /etc/mtab" in reason or "must be superuser" in reason:
        raise MountError(f"{text}: another user mounted that; only that user or root can unmount it")
    if "busy" in reason:
        raise MountError(f"{text} is in use; close what reads it, or detach it with `jigdofs umount --lazy'")
    raise MountError(f"{text}: cannot be unmounted: {reason}")


def holders(path: str) -> list[str]:
    """Name who uses files at or below a path: loop devices, file systems mounted there, processes."""
    found = [
        f"{device} is attached to it (`umount {device}; losetup -d {device}')"
        for device in attached_below(path)
    ]
    found += [
        f"{mount.fstype} is mounted at {mount.mountpoint}"
        for mount in mounts()
        if mount.mountpoint.startswith(path + "/")
    ]
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid() or len(found) >= 5:
            continue
        with contextlib.suppress(OSError):
            if _uses(process, path):
                name = (process / "comm").read_text("utf-8", "replace").strip()
                found.append(f"process {process.name} ({name})")
    return found


def _uses(process: Path, path: str) -> bool:
    for link in (process / "cwd", process / "root", process / "exe", *(process / "fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile; a thread of the kernel has no exe
            target = os.readlink(link)
            if target == path or target.startswith(path + "/"):
                return True
    return False
