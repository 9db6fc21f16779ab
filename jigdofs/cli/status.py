"""`jigdofs status`: what a running mount holds, fetches and waits for."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from jigdofs.cli.json_text import json_text
from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_OK, EXIT_UNAVAILABLE, JigdofsError, MountError, UsageError
from jigdofs.fuse.mountpoint import mount_at, mounts
from jigdofs.sources.own_mounts import FSTYPE, MountLine

_ANSWER_S = 5.0  # it answers from memory; one that does not is stopped or hangs
_WATCH_S = 1.0
_DEFAULT_CELLS, _MOST_CELLS = 64, 1024
_NOTHING = "nothing is mounted that you may ask"
_EPILOG = """\
The daemon is asked at a socket outside of the mount, and answers from memory: also while every mirror and
every reader hangs. Without a mount point, all mounts that you may ask are asked.

What was evicted, or fetched by others into the same cache, is counted within seconds; for images of some
100,000 parts that may be a minute.

The row below an image is its picture, from its first byte to its last: # all parts of that stretch are here,
+ some are, > one is on its way, . none is. A read is a hit if it did not wait for a mirror.

With --json, one array with an object for each mount; sizes are in bytes, times in seconds, what ends in `_at`
in seconds since 1970. `failures` are those since a mirror last gave a part; `wrong` counts answers with wrong
content since the mount began. Other versions tell more or less.

exit codes: 0 all answered, 1 one did not, 4 nothing of jigdofs is mounted there. With --watch, 0 after Ctrl-C
and at the end of the mounts.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "mountpoints", nargs="*", metavar="MNT", help="mount points (default: all that you may ask)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--watch", action="store_true", help="tell it anew every second, until Ctrl-C or the end of the mount"
    )
    parser.add_argument(
        "--cells",
        type=_cells,
        default=_DEFAULT_CELLS,
        metavar="N",
        help=f"cells of the picture of an image, up to {_MOST_CELLS} (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask each daemon, and print what it tells."""
    if arguments.watch:
        if arguments.json:
            raise UsageError("--watch is for people; a program asks again when it wants to know")
        return _watch(arguments)
    reports = [_asked(mount, arguments.cells) for mount in _chosen(arguments.mountpoints)]
    if arguments.json:
        print(json_text(reports))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(_screen(reports), soft_wrap=True, end="")
    else:
        print(_plain(reports))
    return EXIT_UNAVAILABLE if any("error" in report for report in reports) else EXIT_OK


def _plain(reports: list[dict[str, Any]]) -> str:
    from jigdofs.cli.status_text import lines

    return "\n\n".join("\n".join(lines(report)) for report in reports) or _NOTHING


def _screen(reports: list[dict[str, Any]]) -> Any:
    from rich.text import Text

    from jigdofs.cli.status_text import screen

    return Text("\n").join(map(screen, reports)) if reports else Text(_NOTHING + "\n")


def _watch(arguments: argparse.Namespace) -> int:
    """Tell it every second: in place on a terminal, one after another elsewhere."""
    mounts_asked = _chosen(arguments.mountpoints)  # now it is an error if there is none
    try:
        if sys.stdout.isatty():
            from rich.live import Live

            with Live(auto_refresh=False, vertical_overflow="crop") as live:
                _follow(arguments, mounts_asked, lambda told: live.update(_screen(told), refresh=True))
        else:
            _follow(arguments, mounts_asked, lambda told: print(_plain(told) + "\n", flush=True))
    except KeyboardInterrupt:  # the way to end it
        pass
    return EXIT_OK


def _follow(
    arguments: argparse.Namespace, asked: list[MountLine], show: Callable[[list[dict[str, Any]]], object]
) -> None:
    while asked:
        show([_asked(mount, arguments.cells) for mount in asked])
        time.sleep(_WATCH_S)
        if arguments.mountpoints:
            asked = [mount for mount in asked if mount_at(mount.mountpoint) is not None]
        else:
            asked = _chosen([])


def _cells(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_CELLS:
        raise argparse.ArgumentTypeError(f"`{text}' is no number from 1 to {_MOST_CELLS}")
    return int(text)


def _chosen(paths: list[str]) -> list[MountLine]:
    if not paths:
        ours = [mount for mount in mounts() if mount.fstype == FSTYPE and _may_ask(mount)]
        return list({mount.mountpoint: mount for mount in ours}.values())
    chosen = []
    for path in paths:
        mount = mount_at(path)
        if mount is None or mount.fstype != FSTYPE:
            raise MountError(f"{path}: is no mount point of jigdofs")
        chosen.append(mount)
    return chosen


def _may_ask(mount: MountLine) -> bool:
    return os.geteuid() in (0, mount.owner)


def _asked(mount: MountLine, cells: int) -> dict[str, Any]:
    """Return what the daemon of a mount tells, or why it does not."""
    from jigdofs.control import client

    report: dict[str, Any] = {"mountpoint": mount.mountpoint, "source": mount.source}
    request = {"do": "status", "cells": cells}
    try:
        for event in client.ask(mount.mountpoint, mount.owner or 0, request, _ANSWER_S):
            report.update(event)
    except JigdofsError as error:
        report["error"] = str(error).removeprefix(f"{mount.mountpoint}: ")
    report.pop("event", None)
    return report
