"""`jigdofs mount`: show images as files."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from jigdofs import logs
from jigdofs.cli import options
from jigdofs.cli import parser as types
from jigdofs.cli.fuse_options import translate
from jigdofs.cli.parser import Parser
from jigdofs.config import COMPLETE_READ_AHEAD_KB, LAZY_READ_AHEAD_KB, MountOptions, SourceOptions
from jigdofs.errors import EXIT_OK, JigdofsError, MountError, UsageError, leaf_of
from jigdofs.fuse.mountpoint import resolve

_EPILOG = """\
The last argument is the mount point: an existing directory, in which every image appears
under its own name, or an existing regular file, which becomes the image. The command
returns when the image can be read; an error before that is printed and is its exit code.

Reading fetches. A part (usually one package) is fetched when its first byte is read, once
however many read it; it is verified before anybody sees it, and kept in the cache for all
images. `ls', `xorriso -find' and the like need the template only. When every mirror of a
part fails, the read ends with an I/O error in bounded time; reading again tries again.

examples:
  jigdofs mount http://cdimage.debian.org/.../debian-12-amd64-DVD-1.jigdo /mnt/iso
  jigdofs mount dvd.jigdo /mnt/iso --mirror Debian=http://ftp.de.debian.org/debian/
  jigdofs mount dvd.jigdo /mnt/iso --mirror Debian=/srv/mirror/debian
  jigdofs mount dvd.jigdo /mnt/iso --scan /srv/old-dvd.iso      # parts of the old image serve the new
  jigdofs mount dvd-1.jigdo dvd-2.jigdo /mnt/iso -o allow_other --cache-max-size 5G
  touch dvd.iso; jigdofs mount dvd.jigdo dvd.iso      # the image as this very file
  jigdofs mount --contents dvd.jigdo /mnt/iso; ls /mnt/iso/dvd/pool    # the files inside, without root
  sudo jigdofs loop /mnt/iso /mnt/cd                  # or the kernel's view; needs -o allow_other if root
                                                      # did not mount the image
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.usage = "jigdofs mount JIGDO [JIGDO...] MOUNTPOINT [options]"
    parser.add_argument(
        "sources", nargs="+", metavar="JIGDO", help="path or URL of a .jigdo file, or path of a plain .iso"
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", type=Path, help="a directory or a regular file")
    _add_options(parser)


def _add_options(parser: Parser) -> None:
    options.add_input(parser)
    options.add_scan(parser)
    options.add_cache(parser)
    options.add_fetch(parser)
    options.add_read(parser)
    options.add_background(parser)
    group = parser.add_argument_group("the mount")
    group.add_argument(
        "--contents",
        action="store_true",
        help="show the files inside each ISO, too, in a directory beside it: dvd/ beside dvd.iso",
    )
    group.add_argument(
        "-f", "--foreground", action="store_true", help="stay in the foreground and log to the terminal"
    )
    group.add_argument(
        "--log-file",
        metavar="FILE|syslog",
        help=f"log there (default: the terminal in the foreground, else {logs.default_target()})",
    )
    group.add_argument("-v", "--verbose", action="count", default=0, help="log more; twice for everything")
    group.add_argument(
        "-o", metavar="OPT[,OPT...]", action="append", default=[], help="options as for mount(8)"
    )
    group.add_argument(
        "--allow-other", action="store_true", help="let other users in (root included, if you are not root)"
    )
    group.add_argument("--uid", type=types.user, metavar="USER", help="owner shown (default: you)")
    group.add_argument("--gid", type=types.group, metavar="GROUP", help="group shown (default: yours)")
    group.add_argument(
        "--umask", type=types.octal, default=0, metavar="OCTAL", help="rights not given (default: 0)"
    )
    group.add_argument(
        "--max-background",
        type=types.up_to_65535,
        default=1024,
        metavar="N",
        help="reads the kernel may have on their way, set where permitted (default: %(default)s)",
    )
    group.add_argument(
        "--read-ahead-kb",
        type=types.positive,
        metavar="KIB",
        help="how far the kernel reads ahead, set where permitted; more is faster, but fetches more that"
        f" nobody asked for (default: {LAZY_READ_AHEAD_KB}, and {COMPLETE_READ_AHEAD_KB} once all parts are"
        " here)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Mount and, unless in the foreground, return when the mount can be used."""
    translated = translate(arguments.o)
    if translated.arguments:
        extra = Parser(prog="jigdofs mount", description="")
        _add_options(extra)
        extra.parse_args(list(translated.arguments), namespace=arguments)
    mountpoint = Path(resolve(arguments.mountpoint))
    if mountpoint.suffix in (".jigdo", ".template") and not mountpoint.is_dir():
        raise UsageError(f"the mount point is missing: `{mountpoint.name}' looks like an input")
    for name, path in _own_paths(arguments):
        if path and Path(resolve(path)).is_relative_to(mountpoint):
            raise UsageError(f"{name} {path} lies below the mount point, which would hide it")
    mount = MountOptions(
        mountpoint=mountpoint,
        allow_other=arguments.allow_other,
        uid=arguments.uid,
        gid=arguments.gid,
        umask=arguments.umask,
        fuse=translated.fuse,
        max_background=arguments.max_background,
        read_ahead_kb=arguments.read_ahead_kb,
    )
    if arguments.foreground:
        return _serve(arguments, mount, lambda: None)
    from jigdofs.daemon import run_detached

    return run_detached(lambda ready: _report(arguments, mount, ready))


def _own_paths(arguments: argparse.Namespace) -> list[tuple[str, str | Path | None]]:
    """Return what is read or written while the mount exists."""
    return [
        ("--log-file", arguments.log_file),
        ("--cache-dir", arguments.cache_dir),
        ("--record", arguments.record),
    ]


def _report(arguments: argparse.Namespace, mount: MountOptions, ready: Callable[[], None]) -> int:
    """Do what `main` does for errors: we are a child that will not return there."""
    try:
        return _serve(arguments, mount, ready)
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        leaf = leaf_of(error)
        if not isinstance(leaf, JigdofsError):
            raise
        print(f"jigdofs: {leaf}", file=sys.stderr)
        return leaf.exit_code


def _log_in_background(target: str | None, level: int, where: str) -> None:
    """Send the log where the user wants it; a default place that cannot be written to is done without."""
    try:
        logs.to_background(target or logs.default_target(), level, where)
    except OSError as error:
        if target:
            raise MountError(f"cannot log to {target}: {error.strerror}") from error
        print(f"jigdofs: warning: nothing is logged: {error.filename}: {error.strerror}", file=sys.stderr)
        logs.to_nowhere()


def _serve(arguments: argparse.Namespace, mount: MountOptions, ready: Callable[[], None]) -> int:
    """Load the images and hold the mount until it ends."""
    os.umask((os.umask(0) | 0o022) & 0o077)  # nothing of ours is for others to write, all is for us to use
    gc.disable()  # what is imported and loaded stays: looking for garbage in it takes 10 % of the start

    import trio

    from jigdofs.cli.progress import template_progress

    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(arguments.verbose, 2)]
    target = arguments.log_file
    if target not in (None, logs.SYSLOG):
        target = os.path.abspath(target)
    logs.to_stderr(level)
    if arguments.foreground and target:
        logs.to_background(target, level, str(mount.mountpoint))

    background_options = options.background_options(arguments)

    async def serve() -> None:
        from jigdofs.control.prefetching import prefetching
        from jigdofs.control.server import ControlSocket
        from jigdofs.control.status import telling
        from jigdofs.fuse import kernel
        from jigdofs.fuse.mountpoint import prepare
        from jigdofs.prefetch.from_the_start import fill_from_the_start, initial_request
        from jigdofs.wiring.images import open_images

        single = prepare(mount.mountpoint)  # before anything is fetched for it
        if single and arguments.contents:
            raise UsageError(f"{mount.mountpoint} is a regular file: --contents needs a directory")
        read = options.read_options(arguments)
        read = type(read)(kernel.read_timeout_s(read.timeout_s), read.readahead_bytes)
        inputs = options.input_options(arguments, arguments.sources)
        first = initial_request(background_options)
        with template_progress() as progress:
            async with open_images(
                inputs,
                options.cache_options(arguments),
                options.fetch_options(arguments),
                read,
                source_options=SourceOptions(options.scan_paths(arguments), avoid=(str(mount.mountpoint),)),
                background_options=background_options,
                progress=progress,
            ) as images:
                from jigdofs.fuse.mount import hold

                if single and len(images.images) != 1:
                    raise MountError(
                        f"{mount.mountpoint} is a regular file: it can show one image, not"
                        f" {len(images.images)}"
                    )
                namespace = await images.namespace(contents=arguments.contents, single=single)

                def now_ready() -> None:
                    gc.freeze()  # what is here stays: no later collection has to walk it
                    gc.enable()
                    progress.end()
                    control = ControlSocket(str(mount.mountpoint))  # before anybody may ask
                    if not arguments.foreground:
                        _log_in_background(target, level, str(mount.mountpoint))
                        ready()
                    elif sys.stderr.isatty():
                        print(f"mounted at {mount.mountpoint}; Ctrl-C ends it", file=sys.stderr)
                    images.tend()
                    images.start_soon(fill_from_the_start, images, first)
                    handlers = {
                        "prefetch": prefetching(images),
                        "status": telling(images.images, images.flights, images.mirrors),
                    }
                    images.start_soon(control.serve, handlers)

                await hold(
                    namespace,
                    mount,
                    source=inputs.sources[0],
                    ready=now_ready,
                    complete=images.complete,
                    stop=images.stop,
                )

    trio.run(serve, strict_exception_groups=True)
    return EXIT_OK
