"""`jigdofs mount`: show images as files."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jigdofs import logs
from jigdofs.cli import configured, options
from jigdofs.cli import parser as types
from jigdofs.cli.fuse_options import translate
from jigdofs.cli.mount_reload import Rereader
from jigdofs.cli.parser import Parser
from jigdofs.config import (
    COMPLETE_READ_AHEAD_KB,
    LAZY_READ_AHEAD_KB,
    DaemonOptions,
    MountOptions,
    SourceOptions,
)
from jigdofs.errors import UsageError
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
    parser.usage = (
        "jigdofs mount JIGDO [JIGDO...] MOUNTPOINT [options]\n"
        "       jigdofs mount --config FILE [[JIGDO...] MOUNTPOINT] [options]"
    )
    parser.add_argument(
        "sources", nargs="*", metavar="JIGDO", help="path or URL of a .jigdo file, or path of a plain .iso"
    )
    parser.add_argument(
        "mountpoint",
        nargs="?",  # the last of the sources, if any; --config may name both
        metavar="MOUNTPOINT",
        help="a directory or a regular file",
    )
    _add_options(parser)


def _add_options(parser: Parser) -> None:
    options.add_config(parser)
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
        "--hand-over",
        action="store_true",
        help="for the unit of a service: stay in the foreground, and let `jigdofs service attach' make the"
        " mount",
    )
    group.add_argument(
        "--log-file",
        metavar="FILE|syslog",
        help=f"log there (default: the terminal in the foreground, else {logs.default_target()})",
    )
    group.add_argument(
        "--metrics",
        metavar="HOST:PORT|unix:PATH|FILE",
        type=_metrics,
        help="have Prometheus metrics asked for there, at /metrics, or write them to this file, whose name"
        " ends in .prom, every 15 seconds (default: neither)",
    )
    group.add_argument("-v", "--verbose", action="count", default=0, help="log more; twice for everything")
    group.add_argument(
        "-o",
        metavar="OPT[,OPT...]",
        dest="fuse_options",
        action=_MountOptions,
        type=lambda text: translate([text]),
        default=[],
        help="options as for mount(8)",
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


def _metrics(text: str) -> str:
    """Make the path of a file absolute: a daemon is nowhere in particular."""
    from jigdofs.control.exporter import check_target

    target = os.path.abspath(text) if text.endswith(".prom") else text
    check_target(target)
    return target


class _MountOptions(configured.SettingAction):
    """Take what stands behind `-o`: options of our own as if they were typed as such, FUSE's as they are."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # what `translate` returned
        option_string: str | None = None,
    ) -> None:
        """Read ours, and keep FUSE's."""
        extra = Parser(prog="jigdofs mount", description="")
        _add_options(extra)
        extra.parse_args(list(values.arguments), namespace=namespace)
        namespace.fuse_options = [*(namespace.fuse_options or []), *values.fuse]

    def of_setting(self, text: str) -> object:
        """Return an option of FUSE."""
        translated = translate([text])
        if translated.arguments:
            name = translated.arguments[0].lstrip("-").partition("=")[0]
            raise UsageError(f"{name} is none of FUSE's, but a setting of its own")
        if len(translated.fuse) > 1:
            raise UsageError(f"`{text}' is several options: give each a text of its own")
        return "".join(translated.fuse)


def run(arguments: argparse.Namespace) -> int:
    """Mount and, unless in the foreground, return when the mount can be used."""
    daemon = _daemon_options(arguments)
    from jigdofs.cli import mount_daemon

    if daemon.foreground:
        return mount_daemon.serve(daemon, lambda: None)
    from jigdofs.daemon import run_detached

    return run_detached(lambda ready: mount_daemon.report(daemon, ready))


def daemon_options(argv: Sequence[str]) -> DaemonOptions:
    """Return what `jigdofs mount ARGV` would do, settings included; raise what it would."""
    parser = Parser(prog="jigdofs mount", description="")
    add_arguments(parser)
    return _daemon_options(configured.parse(parser, argv))


_IN_IMAGE_SETS = {"JIGDO": "`images'", "MOUNTPOINT": "`mountpoint'"}


def _what_and_where(arguments: argparse.Namespace) -> tuple[list[str], Path]:
    """Return the sources and the mount point: the command line's, else those of the image set."""
    *sources, last = arguments.sources or [None]
    if last is None:
        last = next(iter(_of_image_set(arguments, "mountpoint")), None)
    sources = sources or _of_image_set(arguments, "images")
    missing = [name for name, there in (("JIGDO", sources), ("MOUNTPOINT", last)) if not there]
    if len(arguments.sources) == 1 and arguments.config is None:
        missing = ["MOUNTPOINT"]  # it was no mount point then
    if missing:
        if arguments.config is not None:
            lacking = " and no ".join(_IN_IMAGE_SETS[name] for name in missing)
            raise UsageError(f"{arguments.config}: has no {lacking}, and the command line names none")
        raise UsageError(
            f"the following arguments are required: {', '.join(missing)}; see `jigdofs mount --help'"
        )
    mountpoint = Path(resolve(last))
    if mountpoint.suffix in (".jigdo", ".template") and not mountpoint.is_dir():
        raise UsageError(f"the mount point is missing: `{mountpoint.name}' looks like an input")
    return sources, mountpoint


def _of_image_set(arguments: argparse.Namespace, name: str) -> list[str]:
    setting = arguments.settings.get(name)
    return [] if setting is None else list(setting.texts)


def _are_named(arguments: argparse.Namespace) -> bool:
    """Tell whether the command line names the images, and no image set does."""
    return len(arguments.sources) > 1 or not _of_image_set(arguments, "images") or arguments.config is None


def _own_paths(arguments: argparse.Namespace) -> list[tuple[str, str | Path | None]]:
    """Return what is read or written while the mount exists, and would wait for the mount itself."""
    foreground = arguments.foreground or arguments.hand_over
    log = logs.default_target() if not arguments.log_file and not foreground else arguments.log_file
    return [
        ("--log-file", log if log != logs.SYSLOG else None),
        ("--cache-dir", None if arguments.no_cache else arguments.cache_dir or options.default_cache_dir()),
        ("--record", arguments.record),
    ]


def _daemon_options(arguments: argparse.Namespace) -> DaemonOptions:
    """Build the value; raise `UsageError` for what makes no sense together."""
    sources, mountpoint = _what_and_where(arguments)
    for name, path in _own_paths(arguments):
        if path and Path(resolve(path)).is_relative_to(mountpoint):
            raise UsageError(f"{name} {path} lies below the mount point, which would hide it")
    log_file = arguments.log_file
    return DaemonOptions(
        inputs=options.input_options(arguments, sources),
        sources=SourceOptions(options.scan_paths(arguments), avoid=(str(mountpoint),)),
        cache=options.cache_options(arguments),
        fetch=options.fetch_options(arguments),
        read=options.read_options(arguments),
        background=options.background_options(arguments),
        mount=MountOptions(
            mountpoint=mountpoint,
            allow_other=arguments.allow_other,
            uid=arguments.uid,
            gid=arguments.gid,
            umask=arguments.umask,
            fuse=tuple(option for option in arguments.fuse_options if option),
            max_background=arguments.max_background,
            read_ahead_kb=arguments.read_ahead_kb,
        ),
        contents=arguments.contents,
        foreground=arguments.foreground or arguments.hand_over,
        hand_over=arguments.hand_over,
        log_target=log_file if log_file in (None, logs.SYSLOG) else os.path.abspath(log_file),
        metrics=arguments.metrics,
        source=sources[0] if _are_named(arguments) else os.path.abspath(arguments.config),
        log_level=options.log_level(arguments),
        reread=Rereader(arguments),
    )
