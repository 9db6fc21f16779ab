"""The daemon of a mount, from its options to its end."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from jigdofs import logs
from jigdofs.cli.called_as import program
from jigdofs.cli.mount_reload import reload
from jigdofs.config import DaemonOptions, ReadOptions
from jigdofs.errors import EXIT_INTERRUPTED, EXIT_OK, JigdofsError, MountError, UsageError, leaf_of
from jigdofs.service_manager import Notifier
from jigdofs.troubles import SAME_S

if TYPE_CHECKING:
    from jigdofs.control.exporter import Listening, Written

Ready = Callable[[], None]


def report(options: DaemonOptions, ready: Ready) -> int:
    """Do what `main` does for errors: we are a child that will not return there."""
    try:
        return serve(options, ready)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BaseException as error:
        leaf = leaf_of(error)
        if not isinstance(leaf, JigdofsError):
            raise
        print(f"{program()}: {leaf}", file=sys.stderr)
        return leaf.exit_code


def serve(options: DaemonOptions, ready: Ready) -> int:
    """Load the images and hold the mount until it ends.

    Args:
        options: what to do.
        ready: called once the mount can be used and, in the background, errors go to the log.
    """
    os.umask((os.umask(0) | 0o022) & 0o077)  # nothing of ours is for others to write, all is for us to use
    gc.disable()  # what is imported and loaded stays: looking for garbage in it takes 10 % of the start

    import trio

    logs.to_stderr(options.log_level)
    if options.foreground and options.log_target:
        logs.to_background(options.log_target, options.log_level, str(options.mount.mountpoint))
    notifier = Notifier() if options.foreground else Notifier({})  # who started a daemon does not wait for it
    trio.run(_serve, options, ready, notifier, strict_exception_groups=True)
    return EXIT_OK


async def _serve(options: DaemonOptions, ready: Ready, notifier: Notifier) -> None:
    from jigdofs.cli.progress import template_progress
    from jigdofs.control.prefetching import prefetching
    from jigdofs.control.server import ControlSocket, Parcel
    from jigdofs.control.state import State
    from jigdofs.control.status import telling
    from jigdofs.control.xattrs import xattrs
    from jigdofs.fuse import kernel
    from jigdofs.fuse.hangup import Hangup
    from jigdofs.prefetch.from_the_start import fill_from_the_start, initial_request
    from jigdofs.wiring.images import open_images

    mountpoint = options.mount.mountpoint
    hangup = Hangup(reloads=options.reread is not None)
    single = _is_single(options)  # before anything is fetched for it
    read = ReadOptions(kernel.read_timeout_s(options.read.timeout_s), options.read.readahead_bytes)
    first = initial_request(options.background)
    with _exporter(options) as exporter, template_progress() as progress:
        async with open_images(
            options.inputs,
            options.cache,
            options.fetch,
            read,
            source_options=options.sources,
            background_options=options.background,
            progress=progress,
        ) as images:
            from jigdofs.fuse.hand_over import HandOver
            from jigdofs.fuse.mount import hold

            if single and len(images.images) != 1:
                raise MountError(
                    f"{mountpoint} is a regular file: it can show one image, not {len(images.images)}"
                )
            namespace = await images.namespace(contents=options.contents, single=single)

            hand_over = HandOver() if options.hand_over else None
            state = State(images, str(mountpoint))
            if exporter is not None:
                images.start_soon(exporter.serve, state)

            def now_ready() -> None:
                gc.freeze()  # what is here stays: no later collection has to walk it
                gc.enable()
                progress.end()
                control = ControlSocket(str(mountpoint))  # before anybody may ask
                _leave_terminal(options, ready)
                images.tend()
                images.start_soon(fill_from_the_start, images, first)
                handlers = {
                    "prefetch": prefetching(images),
                    "status": telling(state),
                }
                parcel = None
                if hand_over is not None:
                    handlers["mounted"] = hand_over.mounted
                    parcel = Parcel(hand_over.descriptor, images.complete.is_set)
                images.start_soon(control.serve, handlers, parcel)
                images.start_soon(notifier.stay_alive)
                images.start_soon(notifier.tell_status, state.line)
                images.start_soon(_tell_repeats)
                notifier.ready()

            def stop() -> None:
                notifier.stopping()
                images.stop()

            await hold(
                namespace,
                options.mount,
                source=options.source,
                ready=now_ready,
                complete=images.complete,
                stop=stop,
                hand_over=hand_over,
                xattrs=xattrs(state),
                hangup=hangup,
                reload=partial(reload, options, images, notifier) if options.reread else None,
            )


@contextlib.contextmanager
def _exporter(options: DaemonOptions) -> Iterator[Listening | Written | None]:
    """Have what gives metrics away, if that was asked for; what is wrong with it is said before all else."""
    if options.metrics is None:
        yield None
        return
    from jigdofs.control.exporter import exporter

    with contextlib.closing(exporter(options.metrics)) as made:
        yield made


async def _tell_repeats() -> None:
    """Log now and then how often messages were kept back, and all of it at the end."""
    import trio

    try:
        while True:
            await trio.sleep(SAME_S)
            logs.tell_repeats()
    finally:
        logs.tell_repeats(all_of_it=True)


def _is_single(options: DaemonOptions) -> bool:
    """Look at the mount point, and tell whether one image is to be shown as that file."""
    from jigdofs.fuse.mountpoint import prepare

    if options.hand_over:  # where somebody else mounts, it is theirs to look
        return False
    single = prepare(options.mount.mountpoint)
    if single and options.contents:
        raise UsageError(f"{options.mount.mountpoint} is a regular file: --contents needs a directory")
    return single


def _leave_terminal(options: DaemonOptions, ready: Ready) -> None:
    """Say that the mount can be used; in the background, log elsewhere from now on."""
    if not options.foreground:
        _log_in_background(options)
        ready()
    elif sys.stderr.isatty():
        print(f"mounted at {options.mount.mountpoint}; Ctrl-C ends it", file=sys.stderr)


def _log_in_background(options: DaemonOptions) -> None:
    """Send the log where the user wants it; a default place that cannot be written to is done without."""
    target, where = options.log_target, str(options.mount.mountpoint)
    try:
        logs.to_background(target or logs.default_target(), options.log_level, where)
    except OSError as error:
        if target:
            raise MountError(f"cannot log to {target}: {error.strerror}") from error
        print(f"jigdofs: warning: nothing is logged: {error.filename}: {error.strerror}", file=sys.stderr)
        logs.to_nowhere()
