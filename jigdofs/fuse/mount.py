"""Hold a mount: from the kernel's handshake to its end, whoever ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import pyfuse3
import trio

from jigdofs.config import COMPLETE_READ_AHEAD_KB, LAZY_READ_AHEAD_KB, MountOptions
from jigdofs.contents.namespace import Namespace
from jigdofs.errors import MountError
from jigdofs.fetch.url import without_credentials
from jigdofs.fuse import kernel
from jigdofs.fuse.hand_over import HandOver
from jigdofs.fuse.hangup import Hangup
from jigdofs.fuse.mountpoint import prepare, unmount
from jigdofs.fuse.operations import Operations, Xattrs
from jigdofs.fuse.refusal import advice, overheard
from jigdofs.in_thread import GIVE_UP

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)
_READY_TIMEOUT_S = 30.0
_LAST_ANSWERS_S = 1.0
_TURN_S = 0.01
_GONE_S = 0.5  # a look takes 1 us
_LEAST_TASKS = 99  # as pyfuse3 has by itself: a low --max-background bounds reads, nothing else
_QUIET_TURNS = 5


async def hold(
    namespace: Namespace,
    options: MountOptions,
    *,
    source: str,
    ready: Callable[[], None],
    complete: trio.Event,
    stop: Callable[[], None],
    hangup: Hangup,
    hand_over: HandOver | None = None,
    xattrs: Xattrs | None = None,
    reload: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Mount, serve until unmounted or told to stop, and leave no mount behind.

    Args:
        namespace: what to show.
        options: where and how.
        source: what mount(8) and findmnt show as the source.
        ready: called once the mount answers.
        complete: set once nothing has to be fetched any more.
        stop: called to make waiting reads fail when a signal asks us to end.
        xattrs: tells what extended attributes say.
        hand_over: somebody else makes the mount, and is waited for; `ready` is called before.
        hangup: knows what SIGHUP means.
        reload: called on SIGHUP, unless there is a terminal to lose.

    Raises:
        MountError: the mount cannot be made, or something is mounted there.
    """
    mountpoint = options.mountpoint
    if hand_over is None:
        prepare(mountpoint)  # somebody may have mounted there while the images were loaded
    operations = Operations(namespace, options, xattrs)
    # before the mount is made: no signal may end us while it exists
    hangup.begin(reload)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        place = os.fspath(mountpoint)
        if hand_over is not None:
            ready()
            if not await _is_mounted(hand_over, signals, hangup):
                return
            place = hand_over.place
        try:
            with overheard() as refusal:
                pyfuse3.init(operations, place, _fuse_options(options, source))
        except RuntimeError as error:
            reason = advice(refusal, root=os.geteuid() == 0)
            raise MountError(f"cannot mount at {mountpoint}: {reason}") from error
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_on_signal, signals, hangup, operations, mountpoint, stop)
                nursery.start_soon(hangup.reload_when_asked)
                if hand_over is None:  # else it is whoever mounted who waits for our answer
                    nursery.start_soon(_become_ready, options, ready, complete)
                nursery.start_soon(_stop_when_gone, stop)
                await pyfuse3.main(max_tasks=max(_LEAST_TASKS, 4 * options.max_background))
                _log.info("%s is unmounted", mountpoint)
                stop()
                nursery.cancel_scope.cancel()
        finally:
            pyfuse3.close(unmount=True)


async def _is_mounted(hand_over: HandOver, signals: AsyncIterator[int], hangup: Hangup) -> bool:
    """Wait until somebody has mounted for us; return False if a signal asks us to end before."""
    mounted = False
    async with trio.open_nursery() as nursery:

        async def end_on_signal() -> None:
            async for number in signals:
                if hangup.ends(number):
                    _log.info("stopping on %s", signal.Signals(number).name)
                    nursery.cancel_scope.cancel()

        nursery.start_soon(end_on_signal)
        await hand_over.wait()
        mounted = True
        nursery.cancel_scope.cancel()
    return mounted


async def _become_ready(options: MountOptions, ready: Callable[[], None], complete: trio.Event) -> None:
    """Wait for the first answer of the mount, set the kernel's limits, then say so."""
    try:
        with trio.fail_after(_READY_TIMEOUT_S):
            status = await trio.to_thread.run_sync(os.stat, options.mountpoint, **GIVE_UP)
    except (trio.TooSlowError, OSError) as error:
        raise MountError(f"{options.mountpoint}: the mount does not answer: {error!r}") from error
    await trio.to_thread.run_sync(
        partial(
            kernel.tune,
            status.st_dev,
            max_background=options.max_background,
            read_ahead_kb=options.read_ahead_kb
            or (COMPLETE_READ_AHEAD_KB if complete.is_set() else LAZY_READ_AHEAD_KB),
        )
    )
    if kernel.is_unseen_outside(os.fspath(options.mountpoint)):
        _log.warning(
            "%s is seen by this process and its kin only: they have a mount namespace of their own, as"
            " services with ProtectSystem=, PrivateTmp= and the like have",
            options.mountpoint,
        )
    ready()
    if options.read_ahead_kb is None:
        await complete.wait()
        kernel.read_ahead(status.st_dev, COMPLETE_READ_AHEAD_KB)


async def _end_on_signal(
    signals: AsyncIterator[int],
    hangup: Hangup,
    operations: Operations,
    mountpoint: Path,
    stop: Callable[[], None],
) -> None:
    """End on the first signal; on the second one, let go even of what is in use."""
    asked = False
    async for number in signals:
        if not hangup.ends(number):
            continue
        _log.info("stopping on %s", signal.Signals(number).name)
        stop()
        if asked:
            with contextlib.suppress(MountError):
                await trio.to_thread.run_sync(lambda: unmount(mountpoint, lazy=True))
        asked = True
        await _last_answers(operations)
        pyfuse3.terminate()


async def _stop_when_gone(stop: Callable[[], None]) -> None:
    """End reads that nobody waits for any more: pyfuse3 would wait for them before it tells of the end."""
    connection = kernel.connection()
    if connection is None:
        return
    while not kernel.is_gone(connection):  # noqa: ASYNC110  the kernel sets no event of ours
        await trio.sleep(_GONE_S)
    stop()


async def _last_answers(operations: Operations) -> None:
    """Let reads that wait fail with an error of ours, not with a connection that is gone.

    The kernel asks again for each page of a read that failed, so it takes a few turns.
    """
    with trio.move_on_after(_LAST_ANSWERS_S):
        quiet = 0
        while quiet < _QUIET_TURNS:
            await trio.sleep(_TURN_S)
            quiet = 0 if operations.reading else quiet + 1


def _fuse_options(options: MountOptions, source: str) -> set[str]:
    chosen = {"subtype=jigdofs", "ro", "default_permissions", *options.fuse}
    if not any(option.startswith("fsname=") for option in options.fuse):
        chosen.add(f"fsname={_escaped(without_credentials(source))}")
    if options.allow_other:
        chosen.add("allow_other")
    return chosen


def _escaped(source: str) -> str:
    """Write a name as libfuse's option parser wants it: it ends an option at a comma."""
    text = os.fsencode(source).decode("utf-8", "replace")
    return text.replace("\\", "\\\\").replace(",", "\\,")
