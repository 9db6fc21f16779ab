"""The daemon of a mount, from its options to its end."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

from jigdofs import logs
from jigdofs.config import DaemonOptions, ReadOptions
from jigdofs.errors import EXIT_INTERRUPTED, EXIT_OK, JigdofsError, MountError, UsageError, leaf_of

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
        print(f"jigdofs: {leaf}", file=sys.stderr)
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
    trio.run(_serve, options, ready, strict_exception_groups=True)
    return EXIT_OK


async def _serve(options: DaemonOptions, ready: Ready) -> None:
    from jigdofs.cli.progress import template_progress
    from jigdofs.control.prefetching import prefetching
    from jigdofs.control.server import ControlSocket
    from jigdofs.control.status import telling
    from jigdofs.fuse import kernel
    from jigdofs.fuse.mountpoint import prepare
    from jigdofs.prefetch.from_the_start import fill_from_the_start, initial_request
    from jigdofs.wiring.images import open_images

    mountpoint = options.mount.mountpoint
    single = prepare(mountpoint)  # before anything is fetched for it
    if single and options.contents:
        raise UsageError(f"{mountpoint} is a regular file: --contents needs a directory")
    read = ReadOptions(kernel.read_timeout_s(options.read.timeout_s), options.read.readahead_bytes)
    first = initial_request(options.background)
    with template_progress() as progress:
        async with open_images(
            options.inputs,
            options.cache,
            options.fetch,
            read,
            source_options=options.sources,
            background_options=options.background,
            progress=progress,
        ) as images:
            from jigdofs.fuse.mount import hold

            if single and len(images.images) != 1:
                raise MountError(
                    f"{mountpoint} is a regular file: it can show one image, not {len(images.images)}"
                )
            namespace = await images.namespace(contents=options.contents, single=single)

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
                    "status": telling(images.images, images.flights, images.mirrors),
                }
                images.start_soon(control.serve, handlers)

            await hold(
                namespace,
                options.mount,
                source=options.inputs.sources[0],
                ready=now_ready,
                complete=images.complete,
                stop=images.stop,
            )


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
