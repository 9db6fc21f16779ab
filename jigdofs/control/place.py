"""Where the control socket of a mount lies: outside of the mount, so that it answers when the mount hangs.

`/run/jigdofs` for root, `$XDG_RUNTIME_DIR/jigdofs` or `/run/user/UID/jigdofs` for others, else
`jigdofs-UID` in the temporary directory; there, a name made of the mount point. The daemon of a service has
it in the directory that the service manager made for it, `/run/jigdofs/INSTANCE` (`$RUNTIME_DIRECTORY`).

Invariant of this file: a directory that others can write to, or that is not its owner's, is never used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jigdofs.errors import MountError

_ROOT_DIRECTORY = Path("/run/jigdofs")
_MAX_DIRECTORY_BYTES = 78
"""The path of a socket has 107 bytes at most (unix(7)), and `/jigdofs/` and its name are 30."""


def socket_name(mountpoint: str) -> str:
    """Name the socket of a mount point, given as an absolute path without links."""
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16] + ".sock"


def own_directory() -> Path:
    """Return the directory for our own sockets, made if need be; the first that is safe.

    Raises:
        MountError: none can be made, or what is there is not safe.
    """
    uid = os.geteuid()
    problem = ""
    for directory in _directories_of(uid):
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            problem = problem or f"{directory}: {error.strerror}"
            continue
        if _is_private(directory, uid):
            if directory == _ROOT_DIRECTORY:
                directory.chmod(0o755)  # those of services lie in it, and each socket is for its owner alone
            return directory
        problem = problem or f"{directory} is not a directory that only its owner can write to"
    raise MountError(f"there is no place for a control socket: {problem}")


def find(mountpoint: str, owner: int) -> list[Path]:
    """Return the sockets that a mount of that user may have.

    There may be several: what a killed daemon left elsewhere stays there.
    """
    name = socket_name(mountpoint)
    found = []
    for directory in (*_directories_of(owner), *_service_directories()):
        with contextlib.suppress(OSError):
            is_new = directory / name not in found
            is_safe = _is_private(directory, owner)
            if is_new and is_safe and stat.S_ISSOCK((directory / name).lstat().st_mode):
                found.append(directory / name)
    return found


def tidy(mountpoint: str, owner: int) -> None:
    """Remove the sockets of a mount whose daemon is dead."""
    for path in find(mountpoint, owner):
        with contextlib.suppress(OSError):
            path.unlink()
        if path.parent.parent != _ROOT_DIRECTORY:  # that of a service is its manager's
            with contextlib.suppress(OSError):
                path.parent.rmdir()  # if it was the last one


def _directories_of(uid: int) -> Iterator[Path]:
    service = _service_directory()
    if service is not None and uid == os.geteuid():
        yield service
    if uid == 0:
        yield _ROOT_DIRECTORY
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    # a relative one is to be ignored, says its specification; in a long one no socket can be made
    fits = os.path.isabs(given) and len(os.fsencode(given)) <= _MAX_DIRECTORY_BYTES
    if fits and uid == os.geteuid() and uid:
        yield Path(given) / "jigdofs"
    if uid:
        yield Path(f"/run/user/{uid}/jigdofs")
    with contextlib.suppress(FileNotFoundError):  # a service may have no place that it can write to
        yield Path(tempfile.gettempdir()) / f"jigdofs-{uid}"


def _service_directory() -> Path | None:
    """Return the directory of the service that we are, if it is one of ours."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    path = Path(given)
    fits = len(os.fsencode(given)) <= _MAX_DIRECTORY_BYTES
    return path if fits and path.parent == _ROOT_DIRECTORY else None


def _service_directories() -> Iterator[Path]:
    """Yield the directories of all services; whose they are is looked at later."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(_ROOT_DIRECTORY):
            if entry.is_dir(follow_symlinks=False):
                yield _ROOT_DIRECTORY / entry.name


def _is_private(directory: Path, owner: int) -> bool:
    status = directory.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and not status.st_mode & 0o022
