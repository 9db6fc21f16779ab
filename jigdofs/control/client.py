"""Ask the daemon of a mount, at its control socket. Blocks."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jigdofs.control import place
from jigdofs.errors import MountError, Refused

_CONNECT_S = 5.0
_SILENCE_S = 60.0  # it tells something several times a second


def ask(
    mountpoint: str, owner: int, request: Mapping[str, Any], silence_s: float = _SILENCE_S
) -> Iterator[dict[str, Any]]:
    """Yield what the daemon of a mount tells, up to its end.

    Args:
        mountpoint: absolute, without links.
        owner: the user who mounted it: nobody else is believed.
        request: with `do` in it.
        silence_s: a daemon that says nothing for so long is given up.

    Raises:
        MountError: there is no daemon that answers, or it ends meanwhile.
        Refused: it cannot do that.
    """
    with _connected(mountpoint, owner) as stream:
        stream.settimeout(silence_s)
        try:
            stream.sendall(json.dumps(request).encode() + b"\n")
            with stream.makefile("rb") as lines:
                for line in lines:
                    event = json.loads(line)
                    if event["event"] == "error":
                        raise Refused(event["message"], event["exit_code"])
                    if event["event"] == "end":
                        return
                    yield event
        except TimeoutError:
            raise MountError(f"{mountpoint}: its daemon does not answer any more") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MountError(f"{mountpoint}: its daemon does not make sense: {error}") from error
    raise MountError(f"{mountpoint}: its daemon has ended")


def daemon(mountpoint: str, owner: int) -> int | None:
    """Return the process that listens at the control socket of a mount, or None if none does.

    The kernel tells it, so it need not answer, nor need it run.
    """
    try:
        with _connected(mountpoint, owner) as stream:
            return _peer(stream)[0] or None  # 0 stands for one that cannot be seen from here
    except MountError:
        return None


def _connected(mountpoint: str, owner: int) -> socket.socket:
    """Return a connection to the daemon: of several sockets, to the first where somebody listens."""
    if os.geteuid() not in (0, owner):
        raise MountError(f"{mountpoint}: another user mounted it; only that user or root can ask")
    problem: Exception = MountError(f"{mountpoint}: its daemon cannot be asked: it has no control socket")
    for path in place.find(mountpoint, owner):
        stream = socket.socket(socket.AF_UNIX)
        try:
            _connect(stream, path, owner)
        except PermissionError:
            problem = MountError(f"{mountpoint}: another user mounted it; only that user or root can ask")
        except ConnectionRefusedError:
            problem = MountError(
                f"{mountpoint}: its daemon has ended; `jigdofs umount {mountpoint}' takes the mount away"
            )
        except OSError as error:
            problem = MountError(f"{mountpoint}: its daemon does not answer: {error.strerror or error}")
        except MountError as error:
            problem = error
        else:
            return stream
        stream.close()
    raise problem


def _connect(stream: socket.socket, path: Path, owner: int) -> None:
    stream.settimeout(_CONNECT_S)
    stream.connect(os.fspath(path))
    if _peer(stream)[1] != owner:
        raise MountError(f"{path}: somebody else than its owner listens there")


def _peer(stream: socket.socket) -> tuple[int, int]:
    """Return the process and the user that listen at the other end (unix(7))."""
    credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid
