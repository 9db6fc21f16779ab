"""`jigdofs prefetch`: have parts in the cache of a running mount before they are read."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from jigdofs.cli import parser as types
from jigdofs.cli.parser import Parser
from jigdofs.cli.progress import showing
from jigdofs.errors import EXIT_OK, EXIT_UNAVAILABLE, MountError, UsageError, printable
from jigdofs.fuse.mountpoint import mount_at, resolve
from jigdofs.sources.own_mounts import FSTYPE, MountLine

_EPILOG = """\
The daemon of the mount fetches, below everything that readers want: while somebody waits for a part, it
begins no other, and slows those down that are on their way. It stops where the cache has no more room:
nothing that was read makes way for what nobody has read yet. Ctrl-C ends it; what was fetched stays.

A GLOB is matched against paths inside the image, as in `pool/main/l/*'; `*' matches slashes, too, and a
directory means all that is in it. The image need not be mounted with --contents. A range is in bytes of
the image, `0-64M' or `1G-' for instance; its end is not included.

examples:
  jigdofs prefetch /mnt/iso --all --bwlimit 2M
  jigdofs prefetch /mnt/iso --metadata --path 'pool/main/l/linux*'
  jigdofs prefetch /mnt/iso/dvd-1.iso --range 0-1G

exit codes: 0 all of it is here, 1 some of it is not.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.add_argument("mountpoint", metavar="MNT", help="a mount point, or one image in it")
    parser.add_argument("--all", action="store_true", help="everything")
    parser.add_argument(
        "--metadata", action="store_true", help="what an installer reads first: dists/, .disk/, boot files"
    )
    parser.add_argument(
        "--path", metavar="GLOB", action="append", default=[], help="these files inside; repeatable"
    )
    parser.add_argument("--range", metavar="A-B", type=_range, help="these bytes of the image")
    parser.add_argument(
        "--bwlimit",
        metavar="SIZE",
        type=types.bandwidth_or_off,
        help="bytes a second for all background fetching of this mount together, from now on; off for no"
        " limit; may be given alone",
    )
    parser.add_argument("--json", action="store_true", help="print events, one JSON object a line")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress and print no account")


def _range(text: str) -> tuple[int, int | None]:
    begin, dash, end = text.partition("-")
    if not dash:
        raise argparse.ArgumentTypeError(f"`{text}' is no range; write for instance 0-64M")
    return types.size(begin), types.size(end) if end.strip() else None


def run(arguments: argparse.Namespace) -> int:
    """Have the daemon fetch, and follow it; return 0 if all is here."""
    wishes = (arguments.all, arguments.metadata, arguments.path, arguments.range)
    if not any(wishes) and arguments.bwlimit is None:
        raise UsageError("say what to fetch: --all, --metadata, --path GLOB or --range A-B")
    mount, image = _mount_of(arguments.mountpoint)
    from jigdofs.control import client

    request = {
        "do": "prefetch",
        "metadata": arguments.metadata,
        "globs": [path.removeprefix("./") for path in arguments.path],
        "range": arguments.range,
        "everything": arguments.all,
        "image": image,
        "bytes_per_s": arguments.bwlimit,
    }
    told = client.ask(mount.mountpoint, mount.owner or 0, request)
    try:
        last = _as_json(told) if arguments.json else _followed(told, quiet=arguments.quiet)
        if any(wishes) and not arguments.quiet and not arguments.json:
            print(_account(last))
        return EXIT_OK if last["parts_here"] == last["parts"] else EXIT_UNAVAILABLE
    except (KeyError, TypeError, ValueError) as error:
        raise MountError(f"{mount.mountpoint}: its daemon is of another version: {error!r}") from error


def _mount_of(path: str) -> tuple[MountLine, str]:
    """Return the mount that a path is or lies right below, and the name of the image there."""
    whole = resolve(path)
    directory, name = os.path.split(whole)
    for mountpoint, image in ((whole, ""), (directory, name)):
        mount = mount_at(mountpoint)
        if mount is not None and mount.fstype == FSTYPE:
            return mount, image
    raise MountError(f"{path}: is neither a mount point of jigdofs nor an image in one")


def _as_json(told: Iterator[dict[str, Any]]) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for event in told:
        last = event
        print(json.dumps(event), flush=True)
    return last


def _followed(told: Iterator[dict[str, Any]], *, quiet: bool) -> dict[str, Any]:
    last: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for event in told:
            known = bool(last.get("size"))
            last.update(event)
            if event["size"] and not known:  # before, the daemon finds out what is wanted
                stack.enter_context(
                    showing("prefetch", event["size"], lambda: int(last["bytes_here"]), quiet=quiet)
                )
    return last


def _account(last: dict[str, Any]) -> str:
    text = f"{last['parts_here']} of {last['parts']} parts are here ({last['bytes_here']:,} bytes)"
    if last["parts_failed"]:
        text += f"; {last['parts_failed']} cannot be had"
    if last["ended_early"]:
        text += f"; ended early: {last['ended_early']}"
    if last["last_failure"]:
        text += f"; the last: {last['last_failure']}"
    return printable(text)
