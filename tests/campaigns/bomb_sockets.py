"""Torment the sockets of a daemon, and look how long readers of its image wait meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jigdofs import demo
from jigdofs.control import place
from tests.campaigns.bomb_live import ALLOWED, PAGE, Watched, watching
from tests.kit.mounts import Mounted
from tests.kit.ports import LOOPBACK
from tests.kit.scenes import read_direct, wait_until
from tests.kit.serving import serving


def control_flood(directory: Path, connections: int, line_bytes: int) -> list[Watched]:
    """Torment the control socket of a mount: silence, garbage, a line without an end."""
    good = directory / "good"
    good.mkdir()
    demo.build(good, 2)
    results = []
    with Mounted(
        good / "demo.jigdo",
        directory / "mnt",
        ["--cache-dir", str(directory / "cache")],
        home=good,
        allow_log=ALLOWED,
    ) as mount:
        image = mount.mountpoint / "demo.img"
        expected = image.read_bytes()

        def read(at: int) -> bytes:
            return read_direct(image, at, PAGE, PAGE)

        path = place.find(str(mount.mountpoint), os.geteuid())[0]
        works: tuple[tuple[str, Callable[[], str]], ...] = (
            ("silence", lambda: _silent(path, connections)),
            ("garbage", lambda: _garbage(path, connections)),
            ("a line without an end", lambda: _endless_line(path, line_bytes)),
        )
        for what, work in works:
            with watching(f"control socket: {what}", read, expected, mount.process.pid) as watched:
                problem = work()
            if problem:
                watched.problems.append(problem)
            results.append(watched)
    return results


def _connected(path: Path, timeout_s: float = 5) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(os.fspath(path))  # waits where many ask; with a timeout it would be refused
    stream.settimeout(timeout_s)
    return stream


def _asks_in_vain(path: Path) -> str:
    """Tell what is wrong if somebody who asks properly is not answered soon."""
    began = time.monotonic()
    try:
        with _connected(path) as stream:
            stream.sendall(b'{"do": "nothing we know"}\n')
            answer = stream.recv(4096)
    except OSError as error:
        return f"a good client is not answered: {error}"
    took = time.monotonic() - began
    return "" if b"error" in answer and took < 1 else f"a good client waited {took:.1f} s for {answer[:80]!r}"


def _silent(path: Path, connections: int) -> str:
    """Connect often and say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(connections):
            try:
                stack.enter_context(_connected(path))
            except OSError as error:
                return f"nobody is let in any more: {error}"
        return _asks_in_vain(path)


def _garbage(path: Path, connections: int) -> str:
    for number in range(connections):
        with contextlib.suppress(OSError), _connected(path) as stream:
            stream.sendall(
                (b"\0\xff[" * (number + 1) + b"\n", b"[" * 60_000 + b"\n", b'{"do": 1}\n')[number % 3]
            )
            stream.recv(4096)
    return _asks_in_vain(path)


def _endless_line(path: Path, length: int) -> str:
    """Send a line without an end; it must be refused long before that."""
    piece = b"x" * (1 << 20)
    with _connected(path, 20) as stream:
        for number in range(length // len(piece)):
            try:
                stream.sendall(piece)
            except OSError:
                return _asks_in_vain(path) if number < 64 else f"{number} MiB of one line were taken"
    return f"{length} bytes of one line were taken"


def serve_flood(directory: Path, connections: int) -> list[Watched]:
    """Torment the HTTP server: headers that drip in or have no end, thousands of ranges, paths that climb."""
    good = directory / "good"
    good.mkdir()
    demo.build(good, 2)
    results = []
    with serving([good / "demo.jigdo"], directory, allow_log=ALLOWED) as server:
        expected = _get(server.port, b"/demo.img", b"").partition(b"\r\n\r\n")[2]

        def read(at: int) -> bytes:
            wanted = b"Range: bytes=%d-%d\r\n" % (at, at + PAGE - 1)
            return _get(server.port, b"/demo.img", wanted).partition(b"\r\n\r\n")[2]

        works: tuple[tuple[str, Callable[[], str]], ...] = (
            ("slow headers", lambda: _slow_loris(server.port, connections)),
            (
                "10,000 ranges",
                lambda: _refused(
                    server.port,
                    b"/demo.img",
                    b"Range: bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(10_000)) + b"\r\n",
                    (400, 416, 431, 200),
                ),
            ),
            (
                "header of 1 MB",
                lambda: _refused(
                    server.port, b"/demo.img", b"X: " + b"x" * (1 << 20) + b"\r\n", (400, 431, 0)
                ),
            ),
            ("paths that climb", lambda: _climb(server.port, directory)),
        )
        for what, work in works:
            with watching(f"serve: {what}", read, expected, server.process.pid) as watched:
                problem = work()
            if problem:
                watched.problems.append(problem)
            results.append(watched)
    return results


def _get(port: int, target: bytes, headers: bytes) -> bytes:
    with socket.create_connection((LOOPBACK, port), 20) as stream:
        with contextlib.suppress(OSError):  # it may answer, and close, before it has all
            stream.sendall(
                b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n"
            )
        pieces = []
        with contextlib.suppress(ConnectionResetError):
            while piece := stream.recv(1 << 20):
                pieces.append(piece)
        return b"".join(pieces)


def _status(answer: bytes) -> int:
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _refused(port: int, target: bytes, headers: bytes, codes: tuple[int, ...]) -> str:
    status = _status(_get(port, target, headers))
    return "" if status in codes else f"answered with {status}"


def _slow_loris(port: int, connections: int) -> str:
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(connections):
            stream = stack.enter_context(socket.create_connection((LOOPBACK, port), 20))
            stream.sendall(b"GET /demo.img HTTP/1.1\r\nHost: x\r\nX: ")
            streams.append(stream)
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.sendall(b"y")
        status = _status(_get(port, b"/demo.img", b"Range: bytes=0-9\r\n"))
        if status != 206:
            return f"others are answered with {status}"
        return _all_closed(streams)


def _all_closed(streams: Sequence[socket.socket]) -> str:
    """Wait until the server has given up those who do not come to an end."""

    def closed(stream: socket.socket) -> bool:
        stream.setblocking(False)
        try:
            while stream.recv(4096):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    try:
        wait_until(lambda: all(map(closed, streams)), "slow clients are given up", 30)
    except AssertionError as error:
        return str(error)
    return ""


def _climb(port: int, directory: Path) -> str:
    (directory / "secret").write_text("what no path may reach\n")
    for path in (
        "/../secret",
        "/demo/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "//secret",
        "/demo.img/../secret",
        "/%00",
        "/demo.img%00",
        f"{directory}/secret",
        "/" + "../" * 3000,
        "/" + "a/" * 10_000,
    ):
        answer = _get(port, path.encode(), b"")
        if b"what no path may reach" in answer or _status(answer) in (200, 500):
            return f"{path[:60]} was answered with {_status(answer)}"
    return ""
