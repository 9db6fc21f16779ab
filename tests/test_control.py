"""The control socket: nobody but its user is answered, and nothing that a client does ends the daemon."""

import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from jigdofs.control import client, place
from jigdofs.control.server import MAX_REQUEST_BYTES, ControlSocket, Handler, Tell
from jigdofs.errors import EXIT_UNAVAILABLE, NoSuchFile, Refused, UsageError
from tests.kit.control_sockets import MNT, run_as_user, sockets_below


@pytest.fixture
def runtime(public_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # `tmp_path` is asked for as pytest must not make its own directories where ours is for a while
    return sockets_below(public_dir, monkeypatch)


async def echo(request: Mapping[str, Any], tell: Tell) -> None:
    """Tell the request."""
    await tell({"event": "echo", "request": request})


async def fail(request: Mapping[str, Any], tell: Tell) -> None:
    """Fail as the request says."""
    raise NoSuchFile("there is\nnone") if request.get("ours") else ZeroDivisionError("a bug")


@asynccontextmanager
async def serving(**more: Handler) -> AsyncIterator[Path]:
    """Serve a few handlers at the socket whose path this returns."""
    control = ControlSocket(MNT)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.serve, {"echo": echo, "fail": fail, **more})
            (path,) = place.find(MNT, os.geteuid())
            yield path
            nursery.cancel_scope.cancel()


def ask(do: str, **more: object) -> list[dict[str, Any]]:
    return list(client.ask(MNT, os.geteuid(), {"do": do, **more}))


async def asked(do: str, **more: object) -> list[dict[str, Any]]:
    return await trio.to_thread.run_sync(lambda: ask(do, **more))


async def said_to(path: Path, data: bytes, *, end: bool = False) -> list[dict[str, Any]]:
    """Send bytes to the socket, and return what comes."""
    stream = await trio.open_unix_socket(path)
    received = b""
    async with stream:
        await stream.send_all(data)
        if end:
            await stream.send_eof()
        async for more in stream:
            received += more
    return [json.loads(line) for line in received.splitlines()]


async def test_question_and_answer(runtime: Path) -> None:
    """A client is told the events of its request, and that was all."""
    async with serving():
        assert await asked("echo", x=[1, "\udcff"]) == [
            {"event": "echo", "request": {"do": "echo", "x": [1, "\udcff"]}}
        ]


async def test_answered_from_the_beginning(runtime: Path) -> None:
    """Whoever asks as soon as the socket is made is answered once it is served."""
    control = ControlSocket(MNT)
    async with trio.open_nursery() as nursery:
        answers: list[list[dict[str, Any]]] = []

        async def client_task() -> None:
            answers.append(await asked("echo"))
            nursery.cancel_scope.cancel()

        nursery.start_soon(client_task)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.start_soon(control.serve, {"echo": echo})
    assert answers == [[{"event": "echo", "request": {"do": "echo"}}]]


async def test_refused(runtime: Path) -> None:
    """What is not known, or fails, is told in one line with the exit code it would have."""
    async with serving():
        with pytest.raises(Refused, match="cannot do `nonsense'") as caught:
            await asked("nonsense")
        assert caught.value.exit_code == UsageError.exit_code
        with pytest.raises(Refused, match=r"there is\\nnone") as caught:
            await asked("fail", ours=True)
        assert caught.value.exit_code == EXIT_UNAVAILABLE


@pytest.mark.logs("internal error in a request")
async def test_a_bug_in_a_handler(runtime: Path) -> None:
    """It is logged and told, and the next one is answered."""
    async with serving():
        with pytest.raises(Refused, match="internal error: a bug"):
            await asked("fail")
        assert await asked("echo")


GARBAGE = [
    b"\n",
    b"garbage\n",
    b"\x00\xff\n",
    b"[]\n",
    b"null\n",
    b'"do"\n',
    b"{}\n",
    b'{"do": 1}\n',
    b'{"do": null}\n',
    b'{"do": ["echo"]}\n',
    b"[" * 50_000 + b"\n",
    b"1" * 5000 + b"\n",
    b'{"do": "echo"' + b" " * MAX_REQUEST_BYTES,
]


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: str(data[:20]))
async def test_garbage(runtime: Path, data: bytes) -> None:
    """What is no request is refused, and the next client is answered."""
    async with serving() as path:
        (event,) = await said_to(path, data)
        assert (event["event"], event["exit_code"]) == ("error", UsageError.exit_code)
        assert await asked("echo")


async def test_a_request_without_its_end(runtime: Path) -> None:
    """A client that ends the line by closing its side is understood or refused, and hurts nobody."""
    async with serving() as path:
        (event,) = await said_to(path, b'{"do": "ec', end=True)
        assert event["event"] == "error"
        assert await asked("echo")


async def test_a_slow_client(runtime: Path) -> None:
    """A request may come byte by byte, while others are answered."""
    async with serving() as path, await trio.open_unix_socket(path) as stream:
        for byte in b'{"do": "echo"}\n':
            await stream.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert await asked("echo")
        assert b'"echo"' in await stream.receive_some()


async def test_a_silent_client(runtime: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Who says nothing is refused after a while."""
    async with serving() as path:
        began = trio.current_time()
        (event,) = await said_to(path, b"")
        assert event["event"] == "error"
        assert 5 <= trio.current_time() - began <= 20


async def test_clients_that_hang_up(runtime: Path) -> None:
    """Whoever goes away, before, within or after a request, ends what was done for it, and no more."""
    ended: list[str] = []

    async def endless(request: Mapping[str, Any], tell: Tell) -> None:
        try:
            while True:
                await tell({"event": "more"})
                await trio.sleep(0.001)
        finally:
            ended.append(str(request["name"]))

    async with serving(endless=endless) as path:
        for data in (b"", b'{"do": "e', b'{"do": "echo"}\n', b'{"do": "nonsense"}\n'):
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(data) if data else None
        for name in ("reads", "reads not"):
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(json.dumps({"do": "endless", "name": name}).encode() + b"\n")
                if name == "reads":
                    assert await stream.receive_some()
        while len(ended) < 2:  # noqa: ASYNC110  the handler's end has no event of ours
            await trio.sleep(0.001)
        assert sorted(ended) == ["reads", "reads not"]
        assert await asked("echo")


async def test_a_client_that_takes_nothing(runtime: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Who does not read is given up in bounded time, and what was done for it ends."""
    ended = trio.Event()

    async def flood(request: Mapping[str, Any], tell: Tell) -> None:
        try:
            while True:
                await tell({"event": "x" * 10_000})
        finally:
            ended.set()

    async with serving(flood=flood) as path, await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"do": "flood"}\n')
        began = trio.current_time()
        await ended.wait()
        assert 10 <= trio.current_time() - began <= 60


async def test_another_user_is_not_answered(runtime: Path) -> None:
    """Even where the rights of the files would let others in, they are not heard."""
    code = """
        import socket, sys
        stream = socket.socket(socket.AF_UNIX)
        stream.connect("PATH")
        try:
            stream.sendall(b'{"do": "echo"}\\n')
            print(stream.recv(1000))
        except OSError:  # hung up already
            print(b"")
    """
    async with serving() as path:
        os.chmod(runtime, 0o755)
        os.chmod(path, 0o666)
        assert await trio.to_thread.run_sync(run_as_user, code.replace("PATH", str(path))) == "b''\n"
        assert await asked("echo")


async def test_the_socket_of_a_killed_daemon(runtime: Path) -> None:
    """It is replaced; at the end the socket and its directory are gone."""
    path = place.own_directory() / place.socket_name(MNT)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
    async with serving():
        assert await asked("echo")
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert not os.path.exists(runtime)  # noqa: ASYNC240  at once


async def test_a_daemon_that_comes_after(runtime: Path) -> None:
    """Who ends late takes only its own socket away."""
    async with serving():
        after = ControlSocket(MNT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(after.serve, {"echo": echo})
            await trio.testing.wait_all_tasks_blocked()
            assert await asked("echo")
            nursery.cancel_scope.cancel()
        assert place.find(MNT, os.geteuid()) == []


async def test_the_socket_of_the_successor_stays(runtime: Path) -> None:
    """The end of a daemon that was detached leaves the one that serves there now alone."""
    detached, successor = ControlSocket(MNT), ControlSocket(MNT)
    detached.close()
    assert place.find(MNT, os.geteuid()) == [runtime / place.socket_name(MNT)]
    successor.close()
    assert not os.path.exists(runtime)  # noqa: ASYNC240  at once


@pytest.mark.logs("no control socket")
async def test_no_place_at_all(runtime: Path) -> None:
    """A mount works without a socket; that there is none is logged."""
    for name in ("jigdofs", f"jigdofs-{os.geteuid()}"):
        os.mknod(runtime.parent / name)
    control = ControlSocket(MNT)
    await control.serve({"echo": echo})
    control.close()


async def test_what_killed_daemons_left_is_tidied_away(runtime: Path) -> None:
    """A new daemon removes old sockets where nobody listens, and leaves those that live or are new."""
    living = ControlSocket("/living")
    old, new = (runtime / place.socket_name(name) for name in ("/old", "/new"))
    for path in (old, new):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(os.fspath(path))
    for path in (old, runtime / place.socket_name("/living")):
        os.utime(path, (1, 1))
    one = ControlSocket(MNT)
    assert not os.path.exists(old)  # noqa: ASYNC240  at once
    assert os.path.exists(new)  # noqa: ASYNC240  at once
    assert len(place.find("/living", os.geteuid())) == 1
    for daemon in (living, one):
        daemon.close()
    new.unlink()
