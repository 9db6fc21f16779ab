"""Asking the daemon of a mount, whoever answers; and what `jigdofs prefetch` asks it for."""

import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from jigdofs.control import client, place
from jigdofs.control.prefetching import parse, prefetching
from jigdofs.errors import JigdofsError, MountError, NoSuchFile, UsageError
from jigdofs.parts.brake import Brake
from jigdofs.parts.flights import Flights
from jigdofs.prefetch.fill import FillAccount
from jigdofs.prefetch.plan import FillRequest
from tests.kit.control_sockets import MNT, USER, sockets_below
from tests.kit.requirements import as_user, require_root


@pytest.fixture
def runtime(public_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # `tmp_path` is asked for as pytest must not make its own directories where ours is for a while
    return sockets_below(public_dir, monkeypatch)


def ask(do: str, **more: object) -> list[dict[str, Any]]:
    return list(client.ask(MNT, os.geteuid(), {"do": do, **more}))


def test_no_daemon(runtime: Path) -> None:
    """Where there is no socket, nobody can be asked."""
    with pytest.raises(MountError, match="cannot be asked"):
        ask("echo")


def test_a_dead_daemon(runtime: Path) -> None:
    """The socket of a killed daemon its daemon has ended."""
    with listening(runtime, b""):
        pass
    with pytest.raises(MountError, match="its daemon has ended"):
        ask("echo")


@contextmanager
def listening(directory: Path, *answers: bytes) -> Iterator[None]:
    """Listen as a daemon does, and give one client after the other these answers, then hang up."""
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / place.socket_name(MNT)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        bound.listen()
        bound.settimeout(20)

        def serve() -> None:
            for answer in answers:
                if answer:
                    stream, _ = bound.accept()
                    with stream:
                        stream.recv(1 << 16)
                        with suppress(BrokenPipeError, ConnectionResetError):
                            stream.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'{"event": "progress"}\n', "has ended"),
        (b'{"event": "progress"}\n{"event": "pro', "does not make sense"),
        (b"\n", "does not make sense"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not make sense"),
        (b"\xff\xfe\n", "does not make sense"),
        (b"[]\n", "does not make sense"),
        (b"[" * 200_000 + b"\n", "does not make sense"),
        (b"x" * (3 << 20), "does not make sense"),
        (b"1\n", "does not make sense"),
        (b"{}\n", "does not make sense"),
        (b'{"event": "error"}\n', "does not make sense"),
    ],
)
def test_answers_that_are_none(runtime: Path, answer: bytes, message: str) -> None:
    """A daemon that ends meanwhile, or says what nobody understands, is an error of one line."""
    with listening(runtime, answer), pytest.raises(MountError, match=message):
        ask("echo")


def test_a_stale_socket_elsewhere(runtime: Path) -> None:
    """What a killed daemon left in one directory does not hide the one that serves in another."""
    with listening(runtime, b""):
        pass
    other = runtime.parent / f"jigdofs-{os.geteuid()}"
    with listening(other, b'{"event": "x"}\n{"event": "end"}\n'):
        assert ask("echo") == [{"event": "x"}]


def test_somebody_else_listens(runtime: Path) -> None:
    """An answer of another user than the owner of the directory is not taken."""
    require_root()
    runtime.mkdir()
    runtime.chmod(0o777)
    code = f"""
        import os, socket, sys
        bound = socket.socket(socket.AF_UNIX)
        bound.bind("{runtime / place.socket_name(MNT)}")
        bound.listen()
        print("ready", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        as_user(USER, [sys.executable, "-c", textwrap.dedent(code)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        runtime.chmod(0o755)
        with pytest.raises(MountError, match="somebody else"):
            ask("echo")
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


# -- what `jigdofs prefetch` asks for ----------------------------------------------------------------


class Images:
    """Images whose parts come as a test says."""

    def __init__(self, nursery: trio.Nursery, fill: Callable[[FillAccount], Any]) -> None:
        self.brake = Brake(Flights(nursery), trio.current_time, None)
        self.requests: list[FillRequest] = []
        self._fill = fill

    async def fill(self, request: FillRequest, account: FillAccount) -> None:
        """Do as the test says."""
        self.requests.append(request)
        await self._fill(account)


REQUEST = {
    "do": "prefetch",
    "metadata": False,
    "globs": ["a*"],
    "range": [1, 2],
    "everything": True,
    "image": "x.iso",
    "bytes_per_s": 70_000,
}


def test_requests() -> None:
    """A request says what to fetch and how fast at most."""
    wish = FillRequest(globs=("a*",), range=(1, 2), everything=True, image="x.iso")
    assert parse(REQUEST) == (wish, 70_000)
    assert parse(REQUEST | {"bytes_per_s": None, "range": None})[1] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"metadata": 1},
        {"globs": "x"},
        {"globs": [1]},
        {"range": [1]},
        {"range": ["0", "1"]},
        {"range": [1, 2, 3]},
        {"image": None},
        {"everything": None},
        {"bytes_per_s": -1},
        {"bytes_per_s": 1.5},
        {"bytes_per_s": 10**400},
    ],
    ids=str,
)
def test_requests_that_are_none(wrong: dict[str, Any]) -> None:
    """What another version may say is refused, not guessed at."""
    with pytest.raises(UsageError, match="another version"):
        parse(REQUEST | wrong)
    key = next(iter(wrong))
    with pytest.raises(UsageError):
        parse({name: value for name, value in REQUEST.items() if name != key})


@pytest.mark.parametrize("error", [None, NoSuchFile("no")], ids=str)
async def test_lines_are_whole(autojump_clock: trio.testing.MockClock, error: JigdofsError | None) -> None:
    """A client that takes a line slowly is not told the end, good or bad, in the middle of it."""
    heard: list[str] = []

    async def tell(event: Mapping[str, Any]) -> None:
        heard.append("begin")
        await trio.sleep(1)
        heard.append(event["event"])

    async def fill(account: FillAccount) -> None:
        account.parts = 5
        await trio.sleep(2)
        if error is not None:
            raise error

    async with trio.open_nursery() as nursery:
        images = Images(nursery, fill)
        if error is None:
            await prefetching(images)(REQUEST, tell)
        else:
            with pytest.raises(NoSuchFile):
                await prefetching(images)(REQUEST, tell)
        assert images.brake.bytes_per_s == 70_000
    told = ["progress", "progress", "finished"] if error is None else ["progress", "progress"]
    assert heard == [word for event in told for word in ("begin", event)]
