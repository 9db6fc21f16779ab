"""`jigdofs status`: what a running mount holds, fetches and waits for."""

from __future__ import annotations

import argparse
import os
from typing import Any

from jigdofs.cli.json_text import json_text
from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_OK, EXIT_UNAVAILABLE, JigdofsError, MountError, printable
from jigdofs.fuse.mountpoint import mount_at, mounts
from jigdofs.sources.own_mounts import FSTYPE, MountLine

_ANSWER_S = 5.0  # it answers from memory; one that does not is stopped or hangs
_EPILOG = """\
The daemon is asked at a socket outside of the mount, and answers from memory: also while every mirror and
every reader hangs. Without a mount point, all mounts that you may ask are asked.

What was evicted, or fetched by others into the same cache, is counted within half a minute.

With --json, one array with an object for each mount; sizes are in bytes, times in seconds. `failures` are
those since a mirror last gave a part; `wrong` counts answers with wrong content since the mount began.

exit codes: 0 all answered, 1 one did not, 4 nothing of jigdofs is mounted there.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "mountpoints", nargs="*", metavar="MNT", help="mount points (default: all that you may ask)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Ask each daemon, and print what it tells."""
    reports = [_asked(mount) for mount in _chosen(arguments.mountpoints)]
    if arguments.json:
        print(json_text(reports))
    else:
        print("\n\n".join(map(_told, reports)) or "nothing is mounted")
    return EXIT_UNAVAILABLE if any("error" in report for report in reports) else EXIT_OK


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


def _asked(mount: MountLine) -> dict[str, Any]:
    """Return what the daemon of a mount tells, or why it does not."""
    from jigdofs.control import client

    report: dict[str, Any] = {"mountpoint": mount.mountpoint, "source": mount.source}
    try:
        for event in client.ask(mount.mountpoint, mount.owner or 0, {"do": "status"}, _ANSWER_S):
            report.update(event)
    except JigdofsError as error:
        report["error"] = str(error).removeprefix(f"{mount.mountpoint}: ")
    report.pop("event", None)
    return report


def _told(report: dict[str, Any]) -> str:
    """Write what a daemon told, whatever it was: it may be of another user, or of another version."""
    try:
        lines = _text(report)
    except (KeyError, TypeError, ValueError, AttributeError):
        report["error"] = "its daemon does not make sense; it may be of another version"
        lines = _text(report)
    return "\n".join(map(printable, lines))


def _text(report: dict[str, Any]) -> list[str]:
    """Write a report for people."""
    lines = [f"{report['mountpoint']}  {report['source']}"]
    if "error" in report:
        return [*lines, f"  {report['error']}"]
    for image in report["images"]:
        share = 100 * image["present_bytes"] / image["size"] if image["size"] else 100
        lines.append(f"  image   {image['name']}: {share:.1f} % of {image['size']:,} bytes are here")
    lines.append(
        f"  now     parts on their way: {report['parts_in_flight']}, readers that wait:"
        f" {report['readers_waiting']}"
    )
    for mirror in report["mirrors"]:
        line = f"  mirror  {mirror['mirror']}: {mirror['parts']} parts, {mirror['bytes']:,} bytes"
        if mirror["failures"]:
            line += f"; failures in a row: {mirror['failures']}"
        if mirror["wrong"]:
            line += f"; wrong answers: {mirror['wrong']}"
        if mirror["avoided_s"]:
            line += f"; avoided for {mirror['avoided_s']:.0f} s"
        lines.append(line)
    lines.append(f"  daemon  process {report['pid']}, for {report['uptime_s']:.0f} s")
    return lines
