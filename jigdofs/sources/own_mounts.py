"""Which paths lead into a mount of jigdofs itself: found out without asking anything of that mount.

A source inside our own mount would have us fetch the image we are about to build, or wait for ourselves.

Invariants of this file:
* Everything is decided by comparing names with /proc/self/mountinfo: no stat, open or readlink at or
  below such a mount, which may hang or be served by this very process.
* In doubt a place counts as ours: a mount hidden below another one costs a place that is not searched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

FSTYPE = "fuse.jigdofs"
_KERNEL_FSTYPES = frozenset({"proc", "sysfs"})  # no part lies there; /proc/kcore claims 128 TiB
_MOUNTINFO = "/proc/self/mountinfo"
_MAX_LINKS = 40  # as many as the kernel follows
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_USER_ID = re.compile(r"(?:^|,)user_id=([0-9]{1,10})(?:,|$)", re.ASCII)
_LOOP = re.compile(r"/dev/(loop[0-9]+)(?:p[0-9]+)?")


class MountLine(NamedTuple):
    """One line of mountinfo (proc(5)); `options` are those of the file system."""

    mountpoint: str
    fstype: str
    source: str
    options: str = ""

    @property
    def owner(self) -> int | None:
        """The user who made a FUSE mount; None for other mounts."""
        found = _USER_ID.search(self.options)
        return None if found is None else int(found[1])


def parse_mountinfo(text: bytes) -> list[MountLine]:
    """Read mountinfo; the mounts come in the order in which they were made."""
    found = []
    for line in text.split(b"\n"):  # a carriage return, which `splitlines` ends a line at, is not escaped
        left, _, right = line.partition(b" - ")
        fields, rest = left.split(b" "), right.split(b" ")
        if len(fields) >= 5 and len(rest) >= 2:
            options = os.fsdecode(rest[2]) if len(rest) > 2 else ""
            found.append(MountLine(unescape(fields[4]), unescape(rest[0]), unescape(rest[1]), options))
    return found


def unescape(field: bytes) -> str:
    """Undo the octal escapes of blanks, tabs, line feeds and backslashes."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def closed_points(lines: Iterable[MountLine], backing_file: Callable[[str], str | None]) -> frozenset[str]:
    """Return the mount points that must not be looked into.

    Args:
        lines: of mountinfo.
        backing_file: the file that a loop device (`loop0`) shows, or None.
    """
    points: set[str] = set()
    loops: dict[str, str] = {}
    for line in lines:
        if line.fstype == FSTYPE or line.fstype in _KERNEL_FSTYPES:
            points.add(line.mountpoint)
        elif (device := _LOOP.fullmatch(line.source)) and (file := backing_file(device[1])):
            loops[line.mountpoint] = file
    # an image may lie in an image that lies in a mount of ours
    while inner := {point for point, file in loops.items() if point not in points and _below(file, points)}:
        points |= inner
    return frozenset(points)


def _below(path: str, points: Collection[str]) -> bool:
    """Tell whether an absolute path without links lies at or below one of the points."""
    while path not in points:
        if path == "/":
            return False
        path = os.path.dirname(path)
    return True


def _backing_file(device: str) -> str | None:
    """Return the file behind a loop device; the kernel says where it lies without asking it."""
    try:
        with open(f"/sys/block/{device}/loop/backing_file", "rb") as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:
        return None


class OwnMounts:
    """The places that are not looked into.

    Args:
        points: absolute paths without links; nothing at or below them is touched.
        besides: further ones, which the caller knows of, so that nobody need be told.
    """

    def __init__(self, points: Iterable[str], besides: Iterable[str] = ()) -> None:
        self.besides = frozenset(besides)
        self._points = self.besides.union(points)
        self._names: dict[str, set[str]] = {}
        for point in self._points:
            directory, name = os.path.split(point)
            self._names.setdefault(directory, set()).add(name)

    @classmethod
    def now(cls, besides: Iterable[str] = ()) -> OwnMounts:
        """Look which mounts there are.

        Args:
            besides: further places to keep out of, such as where a mount is about to be made.
        """
        try:
            with open(_MOUNTINFO, "rb") as file:
                lines = parse_mountinfo(file.read())
        except OSError:  # no /proc: nobody could have mounted anything that we must fear
            lines = []
        closed = cls(closed_points(lines, _backing_file))
        further = set()
        for path in besides:
            with contextlib.suppress(OSError):  # we cannot get there, so the search will not
                further.add(closed.resolve(path, missing_ok=True))
        return cls(closed._points, (path for path in further if path is not None))

    def names_in(self, directory: str) -> Collection[str]:
        """Return which entries of a directory (a path without links) are such places themselves."""
        return self._names.get(directory, ())

    def resolve(self, path: str, *, missing_ok: bool = False) -> str | None:
        """Return an absolute path without links, or None if it leads into a closed place.

        Args:
            path: any path.
            missing_ok: where a component does not exist, take the rest as it is.

        Raises:
            OSError: a component does not exist or may not be looked at, or links lead in circles.
        """
        at = ""
        rest = os.path.join(os.getcwd(), path).split("/")[::-1]
        links = 0
        while rest:
            name = rest.pop()
            if name in ("", "."):
                continue
            if name == "..":
                at = os.path.dirname(at).rstrip("/")
                continue
            step = f"{at}/{name}"
            if step in self._points:
                return None
            target = _link_target(step, missing_ok=missing_ok)
            if target is None:
                at = step
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                at = ""
            rest += target.split("/")[::-1]
        return at or "/"


def _link_target(path: str, *, missing_ok: bool) -> str | None:
    """Return where a symbolic link leads, or None for anything else."""
    try:
        return os.readlink(path)
    except OSError as error:
        if error.errno == errno.EINVAL or (missing_ok and error.errno == errno.ENOENT):
            return None
        raise
