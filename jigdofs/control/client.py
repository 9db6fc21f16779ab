"""Ask the daemon of a mount, at its control socket. Blocks."""

from __future__ import annotations

import array
import json
import math
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jigdofs.control import place
from jigdofs.errors import MountError, Refused

_CONNECT_S = 5.0
_RECEIVE_BYTES = 1 << 20
_MAX_LINE_BYTES = 16 << 20  # the state of a thousand images
_SILENCE_S = 60.0  # it tells something several times a second
_HAND_OVER_S = 20.0


def ask(
    mountpoint: str, owner: int, request: Mapping[str, Any], limit_s: float = math.inf
) -> Iterator[dict[str, Any]]:
    """Yield what the daemon of a mount tells, up to its end.

    Args:
        mountpoint: absolute, without links.
        owner: the user who mounted it: nobody else is believed.
        request: with `do` in it.
        limit_s: after so long a daemon is given up; after a minute of silence it always is.

    Raises:
        MountError: there is no daemon that answers, or it ends meanwhile.
        Refused: it cannot do that.
    """
    with _connected(mountpoint, owner) as stream:
        try:
            stream.sendall(json.dumps(request).encode() + b"\n")
            for line in _lines(stream, time.monotonic() + limit_s):
                event = json.loads(line)
                if event["event"] == "error":
                    raise Refused(event["message"], event["exit_code"])
                if event["event"] == "end":
                    return
                yield event
        except TimeoutError:
            raise MountError(f"{mountpoint}: its daemon does not answer any more") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise MountError(f"{mountpoint}: its daemon does not make sense: {error}") from error
    raise MountError(f"{mountpoint}: its daemon has ended")


def _lines(stream: socket.socket, deadline: float) -> Iterator[bytes]:
    """Yield whole lines; raise `TimeoutError` or, of one without end, `ValueError`."""
    begun = b""
    while True:
        stream.settimeout(max(0.001, min(_SILENCE_S, deadline - time.monotonic())))
        more = stream.recv(_RECEIVE_BYTES)
        *lines, begun = (begun + more).split(b"\n")
        for line in lines:
            if time.monotonic() > deadline:
                raise TimeoutError
            yield line
        if not more:
            if begun:
                yield begun
            return
        if len(begun) > _MAX_LINE_BYTES:
            raise ValueError("a line without end")


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What a daemon without rights hands over, to be mounted with.

    Attributes:
        descriptor: whatever it sent; ours to close.
        complete: nothing has to be fetched any more.
    """

    descriptor: int
    complete: bool


def hand_over(mountpoint: str, owner: int, pid: int | None) -> HandedOver:
    """Ask a daemon that waits to be mounted for its descriptor.

    Args:
        mountpoint: absolute, without links.
        owner: the user of the daemon: nobody else is believed.
        pid: the daemon, if it is known: then no other process is believed either.

    Raises:
        MountError: there is none, or it does not answer, or sends something else.
    """
    with _connected(mountpoint, owner) as stream:
        if pid is not None and _peer(stream)[0] != pid:
            raise MountError(f"{mountpoint}: another process than the service's answers for its daemon")
        received = array.array("i")
        try:
            stream.settimeout(_HAND_OVER_S)
            stream.sendall(b'{"do": "hand-over"}\n')
            room = socket.CMSG_SPACE(received.itemsize)
            text, parcels, _, _ = stream.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC)
            for level, kind, content in parcels:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    received.frombytes(content[: len(content) - len(content) % received.itemsize])
            if len(received) != 1:
                raise ValueError("it hands nothing over")
            event = json.loads(text.partition(b"\n")[0])
            return HandedOver(received[0], event["complete"] is True)
        except TimeoutError:
            problem = f"{mountpoint}: its daemon does not answer"
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            problem = f"{mountpoint}: its daemon does not make sense: {error}"
        for descriptor in received:
            os.close(descriptor)
        raise MountError(problem)


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
    give_up = time.monotonic() + _CONNECT_S
    while True:
        try:
            stream.connect(os.fspath(path))
            break
        except BlockingIOError:  # others wait there already, as many as may
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)
    if _peer(stream)[1] != owner:
        raise MountError(f"{path}: somebody else than its owner listens there")


def _peer(stream: socket.socket) -> tuple[int, int]:
    """Return the process and the user that listen at the other end (unix(7))."""
    credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid
