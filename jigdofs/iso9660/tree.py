"""The files inside an image as one packed value: names, attributes, and where their bytes lie. Pure.

Invariants of this file:
* A tree that was read has been checked: every number in it points into it, children of a directory are
  sorted by name and one name occurs once, so that no look-up can fail or go round in circles.
* Names are names: never empty, `.` or `..`, without `/` and NUL, of 255 bytes at most. Links lead somewhere.

Packed, because a Blu-ray has 30,000 files: 78 bytes and a name each, where objects would take some 900,
and a tree from the cache needs no parsing beyond its check (measured: 30,000 files with names of 50 bytes
are 3.9 MB, packed in 45 ms and checked in 80 ms).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jigdofs.errors import FormatError

MAGIC = b"jigdofs tree 1\n\n"
ROOT = 0
MAX_NAME_BYTES = 255
MAX_DEPTH = 128
"""Directories in directories, at most: paths below stay usable (PATH_MAX), and walks come to an end."""
MAX_TARGET_BYTES = 4095
_COUNTS = struct.Struct("<QQQQ")  # nodes, extents, bytes of text, entries left out
# mode, nlink, rdev, size, three times in ns, parent, first, count, where the name begins and its length
_NODE = struct.Struct("<IIIQqqqIIIIH")
_EXTENT = struct.Struct("<QQ")


class Extent(NamedTuple):
    """A stretch of the image: offset and length in bytes."""

    offset: int
    length: int


@dataclass(slots=True)
class Entry:
    """A file, directory, symbolic link or special file, as a directory of the image describes it.

    Attributes:
        name: as its bytes; of the root it is empty.
        mode: type and rights, as in `st_mode`.
        mtime_ns: and the other times, in nanoseconds since 1970.
        rdev: number of a device file.
        extents: where the bytes of a regular file lie, in order.
        target: of a symbolic link.
        children: of a directory.
    """

    name: bytes
    mode: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    rdev: int = 0
    extents: tuple[Extent, ...] = ()
    target: bytes = b""
    children: Sequence[Entry] = ()


class Node(NamedTuple):
    """The attributes of one entry of a tree; `first` and `number` say which are its children or extents."""

    mode: int
    nlink: int
    rdev: int
    size: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    parent: int
    first: int
    number: int
    name_at: int
    name_length: int


def is_name(name: bytes) -> bool:
    """Tell whether a directory may hold something of that name."""
    return 0 < len(name) <= MAX_NAME_BYTES and name not in (b".", b"..") and not {0, 0x2F} & set(name)


def is_target(target: bytes) -> bool:
    """Tell whether a symbolic link may lead there."""
    return 0 < len(target) <= MAX_TARGET_BYTES and 0 not in target


def pack(root: Entry) -> bytes:
    """Return a tree as bytes.

    Left out is what no directory can hold: a name that is none, a second entry of one name, a link that
    leads nowhere, and what lies deeper than `MAX_DEPTH`.
    """
    nodes, extents, text = bytearray(), bytearray(), bytearray()
    left_out = 0
    pending: list[tuple[Entry, int, int]] = [(root, 0, 0)]  # entry, number of its parent, depth
    numbered = 1  # how many numbers are given away; children follow their parents, level by level
    for number, (entry, parent, depth) in enumerate(pending):
        nlink, size, first, count = 1, 0, 0, 0
        if stat.S_ISDIR(entry.mode):
            children = _usable(entry.children) if depth < MAX_DEPTH else []
            left_out += len(entry.children) - len(children)
            nlink = 2 + sum(stat.S_ISDIR(child.mode) for child in children)
            first, count = numbered, len(children)
            numbered += count
            pending += [(child, number, depth + 1) for child in children]
        elif stat.S_ISREG(entry.mode):
            first, count = len(extents) // _EXTENT.size, len(entry.extents)
            for extent in entry.extents:
                extents += _EXTENT.pack(*extent)
                size += extent.length
        elif stat.S_ISLNK(entry.mode):
            first, size = len(text), len(entry.target)
            text += entry.target
        nodes += _NODE.pack(
            entry.mode,
            nlink,
            entry.rdev,
            size,
            entry.mtime_ns,
            entry.atime_ns,
            entry.ctime_ns,
            parent,
            first,
            count,
            len(text),
            len(entry.name),
        )
        text += entry.name
    head = MAGIC + _COUNTS.pack(len(pending), len(extents) // _EXTENT.size, len(text), left_out)
    return b"".join((head, nodes, extents, text))


def _usable(children: Iterable[Entry]) -> list[Entry]:
    """Return those entries that a directory can hold, sorted by name."""
    by_name: dict[bytes, Entry] = {}
    for child in children:
        if not is_name(child.name):
            continue
        if stat.S_ISLNK(child.mode) and not is_target(child.target):
            continue
        by_name.setdefault(child.name, child)
    return [by_name[name] for name in sorted(by_name)]


class Tree:
    """A packed tree, looked up in place.

    Args:
        data: what `pack` returned.
        source: of what it is the tree, for messages.

    Attributes:
        left_out: how many entries `pack` left out.

    Raises:
        FormatError: it is not what `pack` returns.
    """

    __slots__ = ("_data", "_extents_at", "_nodes", "_nodes_at", "_text_at", "left_out")

    def __init__(self, data: bytes, source: str) -> None:
        head = len(MAGIC) + _COUNTS.size
        if len(data) < head or not data.startswith(MAGIC):
            raise FormatError("is no index of an image's files", source=source)
        nodes, extents, text, left_out = _COUNTS.unpack_from(data, len(MAGIC))
        self._data = data
        self._nodes_at = head
        self._extents_at = head + nodes * _NODE.size
        self._text_at = self._extents_at + extents * _EXTENT.size
        self._nodes: int = nodes
        self.left_out: int = left_out
        if len(data) != self._text_at + text or not self._is_sound(extents, text):
            raise FormatError("the index of its files is damaged", source=source)

    def __len__(self) -> int:
        """Count files, directories and links, the root included."""
        return self._nodes

    def node(self, number: int) -> Node:
        """Return the attributes of an entry; raise `IndexError` if there is none of that number."""
        if not 0 <= number < self._nodes:
            raise IndexError(number)
        return Node._make(_NODE.unpack_from(self._data, self._nodes_at + number * _NODE.size))

    def name(self, number: int) -> bytes:
        """Return the name of an entry; of the root it is empty."""
        node = self.node(number)
        return self._text(node.name_at, node.name_length)

    def children(self, number: int) -> range:
        """Return the numbers of what is in a directory, in the order of the names."""
        node = self.node(number)
        return range(node.first, node.first + node.number)

    def child(self, number: int, name: bytes) -> int | None:
        """Return the number of what has that name in a directory, or None."""
        children = self.children(number)
        low, high = children.start, children.stop
        while low < high:
            middle = (low + high) // 2
            if self.name(middle) < name:
                low = middle + 1
            else:
                high = middle
        return low if low < children.stop and self.name(low) == name else None

    def extents(self, number: int) -> list[Extent]:
        """Return where the bytes of a file lie, in order."""
        node = self.node(number)
        at = self._extents_at + node.first * _EXTENT.size
        end = at + node.number * _EXTENT.size
        return [Extent._make(pair) for pair in _EXTENT.iter_unpack(self._data[at:end])]

    def target(self, number: int) -> bytes:
        """Return where a symbolic link leads."""
        node = self.node(number)
        return self._text(node.first, node.size)

    def path(self, number: int) -> bytes:
        """Return the path of an entry, without a slash in front; of the root it is empty."""
        names: list[bytes] = []
        while number != ROOT:
            names.append(self.name(number))
            number = self.node(number).parent
        return b"/".join(reversed(names))

    def _text(self, at: int, length: int) -> bytes:
        begin = self._text_at + at
        return self._data[begin : begin + length]

    def _is_sound(self, extents: int, text: int) -> bool:
        """Tell whether every number points into the tree, and children follow their parents in order."""
        if not self._nodes or not stat.S_ISDIR(self.node(ROOT).mode) or self.node(ROOT).parent != ROOT:
            return False
        next_child = 1  # children are numbered level by level, without a gap
        for number in range(self._nodes):
            node = self.node(number)
            if node.name_at + node.name_length > text:
                return False
            if stat.S_ISDIR(node.mode):
                if not number < next_child == node.first <= self._nodes - node.number:
                    return False
                next_child += node.number
                sound = self._is_family_sound(number)
            elif stat.S_ISREG(node.mode):
                sound = node.first + node.number <= extents and node.size == sum(
                    extent.length for extent in self.extents(number)
                )
            elif stat.S_ISLNK(node.mode):
                sound = node.first + node.size <= text and is_target(self.target(number))
            else:
                sound = True
            if not sound:
                return False
        return next_child == self._nodes

    def _is_family_sound(self, number: int) -> bool:
        """Tell whether the children of a directory know it, and are in the order of their names."""
        before = b""
        for child in self.children(number):
            name = self.name(child)
            if self.node(child).parent != number or not is_name(name) or name <= before:
                return False
            before = name
        return True
