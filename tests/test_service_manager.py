"""What the service manager is told: in its own protocol, by a mount, and only while we are alive."""

import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from jigdofs.demo import build
from jigdofs.service_manager import Notifier
from tests.kit.mounts import Mounted
from tests.kit.notify_socket import NotifySocket


def test_nobody_listens() -> None:
    """Without a socket nothing is told, and nothing else changes."""
    environ = {"WATCHDOG_USEC": "1000000", "HOME": "/"}
    notifier = Notifier(environ)
    assert not notifier
    assert notifier.watchdog_s == 0
    notifier.ready()
    notifier.status("well")
    notifier.stopping()
    assert environ == {"HOME": "/"}


def test_what_is_told() -> None:
    """Each word is one datagram; a status is one line, and told once."""
    with NotifySocket() as manager:
        environ = {
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": "500000",
            "WATCHDOG_PID": str(os.getpid()),
        }
        notifier = Notifier(environ)
        assert notifier.watchdog_s == 0.5
        assert environ == {}, "children would tell in our name"
        notifier.ready()
        notifier.status("two\nlines \udcff")
        notifier.status("two\nlines \udcff")
        notifier.status("x" * 10_000)
        notifier.reloading()
        notifier.stopping()
        told = manager.told()
    assert told[:3] == ["READY=1", "STATUS=two lines \\udcff", f"STATUS={'x' * 500}"]
    reloading = dict(line.split("=") for line in told[3].splitlines())
    assert reloading.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert told[4:] == ["STOPPING=1"]


def test_a_socket_with_a_path(tmp_path: Path) -> None:
    """The socket may lie in a directory; that it is gone is no trouble of ours."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(path))
        notifier = Notifier({"NOTIFY_SOCKET": str(path)})
        notifier.ready()
        assert bound.recv(100) == b"READY=1"
    notifier.stopping()


@pytest.mark.parametrize("period", ["", "0", "-5", "soon", "1e6"])
def test_no_watchdog(period: str) -> None:
    """A period that makes no sense is none."""
    assert Notifier({"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": period}).watchdog_s == 0


def test_the_watchdog_of_another_process() -> None:
    """What was meant for our parent is not for us."""
    environ = {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier(environ).watchdog_s == 0


async def test_alive_only_while_threads_answer() -> None:
    """While no worker thread is free, the watchdog hears nothing; afterwards it does."""
    limiter = trio.to_thread.current_default_thread_limiter()
    holders = [object() for _ in range(int(limiter.total_tokens))]
    with NotifySocket() as manager:
        notifier = Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000"})
        for holder in holders:
            limiter.acquire_on_behalf_of_nowait(holder)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.stay_alive)
            await trio.testing.wait_all_tasks_blocked()
            assert manager.told() == []
            for holder in holders:
                limiter.release_on_behalf_of(holder)
            with trio.fail_after(10):
                while len(manager.told()) < 3:  # noqa: ASYNC110  the kernel sets no event of ours
                    await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
        assert set(manager.told()) == {"WATCHDOG=1"}


async def test_the_status_line() -> None:
    """It is told at once, and again later."""
    lines = iter(["first", "second"])
    with NotifySocket() as manager:
        notifier = Notifier({"NOTIFY_SOCKET": manager.address})
        with trio.move_on_after(0):
            await notifier.tell_status(lambda: next(lines))
        assert manager.told() == ["STATUS=first"]


def test_a_mount_in_the_foreground(tmp_path: Path) -> None:
    """It is ready when the mount answers, says how it is and that it lives, and when it ends."""
    site = tmp_path / "site"
    site.mkdir()
    image = build(site, 2)
    options = ("--mirror", f"Demo={site}/", "--cache-dir", str(tmp_path / "cache"))
    with NotifySocket() as manager:
        environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000"}
        with Mounted(site / "demo.jigdo", tmp_path / "mnt", options, environ=environ) as mounted:
            manager.wait_for("READY=1")
            manager.wait_for("WATCHDOG=1")
            assert image.name in manager.wait_for("STATUS=")
            mounted.unmount()
        assert "STOPPING=1" in manager.told()
