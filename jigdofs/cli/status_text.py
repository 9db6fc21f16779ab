"""What a daemon told of itself, written for people: as plain lines, or as something for a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from jigdofs.errors import printable
from jigdofs.size_text import size_text

_COLOURS = {"#": "green", "+": "yellow", ">": "cyan", ".": "bright_black"}
_BLOCKS = {"#": "█", "+": "▓", ">": "▒", ".": "░"}
_INDENT = " " * 10
_LAST_ERRORS = 5  # are written; all of them are in the JSON
_LEGEND = {"#": "here", "+": "partly", ">": "on its way", ".": "missing"}


def lines(report: dict[str, Any]) -> list[str]:
    """Write a report as plain text, whatever it was: it may be of another user, or of another version."""
    try:
        written = [text for text, _ in _rows(report)]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
        report["error"] = "its daemon does not make sense; it may be of another version"
        written = [text for text, _ in _rows(report)]
    return list(map(printable, written))


def screen(report: dict[str, Any]) -> Any:
    """Return a report as what rich shows on a terminal."""
    from rich.text import Text

    shown = Text()
    plain = lines(report)  # also sees to it that the rows make sense
    for text, (_, kind) in zip(plain, _rows(report), strict=True):
        if kind == "map":
            head, _, cells = text.rpartition(" ")
            shown.append(head + " ")
            for cell in cells:
                shown.append(_BLOCKS.get(cell, "?"), _COLOURS.get(cell, "red"))
        elif kind == "legend":
            shown.append(_INDENT)
            for cell, word in _LEGEND.items():
                shown.append(_BLOCKS[cell], _COLOURS[cell]).append(f" {word}  ", "bright_black")
        else:
            shown.append(text, {"title": "bold", "bad": "red"}.get(kind, ""))
        shown.append("\n")
    return shown


def _rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield lines, and of which kind each is."""
    yield f"{report['mountpoint']}  {report['source']}", "title"
    if "error" in report:
        yield f"  {report['error']}", "bad"
        return
    for image in report["images"]:
        yield from _image(image)
    if any(image.get("map") for image in report["images"]):
        yield _INDENT + "  ".join(f"{cell} {word}" for cell, word in _LEGEND.items()), "legend"
    yield _now(report), ""
    if reads := report.get("reads"):
        yield from _reads(reads)
    for mirror in report["mirrors"]:
        yield _mirror(mirror), "bad" if mirror["avoided_s"] or mirror["wrong"] else ""
    if (cache := report.get("cache")) is not None:
        yield _cache(cache), ""
    for trouble in report.get("last_errors", ())[:_LAST_ERRORS]:
        yield _trouble(trouble), "bad"
    if log := report.get("log"):
        yield f"  log     {log}", ""
    version = f", jigdofs {report['version']}" if "version" in report else ""
    yield f"  daemon  process {report['pid']}, for {report['uptime_s']:.0f} s{version}", ""


def _image(image: dict[str, Any]) -> Iterator[tuple[str, str]]:
    share = 100 * image["present_bytes"] / image["size"] if image["size"] else 100
    text = f"  image   {image['name']}: {share:.1f} % of {image['size']:,} bytes are here"
    if image.get("parts") is not None:
        text += f", {image['parts_present']:,} of {image['parts']:,} parts"
    yield text, ""
    if drawn := image.get("map"):
        yield _INDENT + drawn, "map"


def _now(report: dict[str, Any]) -> str:
    text = (
        f"  now     parts on their way: {report['parts_in_flight']}, readers that wait:"
        f" {report['readers_waiting']}"
    )
    if "fetched" in report:
        text += f"; mirrors give {_rate(report['fetched']['bytes_per_s'])}"
    if "reads" in report:
        text += f", readers get {_rate(report['reads']['bytes_per_s'])}"
    if report.get("prefetch", {}).get("running"):
        fills = report["prefetch"]["fills"]
        here, parts = sum(fill["parts_here"] for fill in fills), sum(fill["parts"] for fill in fills)
        text += f"; fetching ahead: {here:,} of {parts:,} parts"
    return text


def _reads(reads: dict[str, Any]) -> Iterator[tuple[str, str]]:
    text = f"  reads   {reads['reads']:,}, {reads['bytes']:,} bytes"
    if reads["hit_share"] is not None:
        text += f"; {100 * reads['hit_share']:.1f} % without waiting for a mirror"
    yield text, ""
    if reads["errors"]:
        yield f"  failed  {reads['errors']:,} reads, the last one {_when(reads['last_error_at'])}", "bad"


def _mirror(mirror: dict[str, Any]) -> str:
    line = f"  mirror  {mirror['mirror']}: {mirror['parts']} parts, {mirror['bytes']:,} bytes"
    if mirror["failures"]:
        line += f"; failures in a row: {mirror['failures']}"
    if mirror["wrong"]:
        line += f"; wrong answers: {mirror['wrong']}"
    if mirror["avoided_s"]:
        line += f"; avoided for {mirror['avoided_s']:.0f} s"
    if mirror.get("asked_to_wait_s"):
        line += f"; asked to wait {mirror['asked_to_wait_s']:.0f} s"
    return line


def _cache(cache: dict[str, Any]) -> str:
    if cache["directory"] is None:
        return f"  cache   none: {cache['why']}"
    text = f"  cache   {cache['directory']}"
    said = []
    if cache["bytes"] is not None:
        said.append(f"{size_text(cache['bytes'])} in it")
    if cache["limit_bytes"] is not None:
        said.append(f"{size_text(cache['limit_bytes'])} at most")
    if cache["free_bytes"] is not None:
        said.append(f"{size_text(cache['free_bytes'])} free on its filesystem")
    text += ": " + ", ".join(said) if said else ""
    if cache["evicted_files"]:
        text += f"; {cache['evicted_files']:,} files had to go"
    return text


def _trouble(trouble: dict[str, Any]) -> str:
    why = f": {trouble['why']}" if trouble["why"] else ""
    times = f" ({trouble['times']} times)" if trouble["times"] > 1 else ""
    return f"  {trouble['level']:7s} {_when(trouble['last_at'])} {trouble['what']}{why}{times}"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _rate(bytes_per_s: float) -> str:
    return f"{size_text(bytes_per_s)}/s"
