"""All that a mount or a server shows, as numbered nodes: images, and beside them the trees of their files.

A node's number never changes while it is shown, and tells by itself what it is: `ROOT`, an image, or in
the upper bits which contents, in the lower ones which entry of its tree. So nothing is kept per node.

Invariants of this file:
* Whatever leaves it is a `JigdofsError`.
* A file inside an image is read through the image's reader: the same verified bytes, and a file that is a
  part touches that part alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from jigdofs.contents.opened_file import OpenedFile
from jigdofs.errors import FormatError, NoSuchFile, WrongKind, printable
from jigdofs.image.reader import ImageReader
from jigdofs.iso9660 import tree
from jigdofs.iso9660.tree import Extent, Tree

ROOT = 1
BLOCK_BYTES = 512
_CONTENTS_SHIFT = 40  # a tree has less than 2**40 entries, and 2**23 images are enough
_ENTRY_MASK = (1 << _CONTENTS_SHIFT) - 1
_MANY_EXTENTS = 4  # a hostile file has 20,000
_MAX_LINKS = 40  # as many as the kernel follows
_TOP_OF_TREE = 2  # steps from the root to the top of an image's files: links lead no higher


class Image(Protocol):
    """An image that is shown."""

    @property
    def name(self) -> str:
        """Its leaf name."""

    @property
    def identity(self) -> str:
        """What tells its content from any other: the hex digest of the image, or of what makes it."""

    @property
    def reader(self) -> ImageReader:
        """How its bytes are had."""

    @property
    def present_bytes(self) -> int:
        """How many of them are here."""

    @property
    def mtime_ns(self) -> int:
        """When it was last changed."""


class Contents(Protocol):
    """The files inside an image."""

    @property
    def known(self) -> Tree | None:
        """The files, if they are known already."""

    async def tree(self) -> Tree:
        """Return the files, waiting for them to be known; raise `JigdofsError`."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One image, and the directory of what is inside, if that is shown.

    Attributes:
        image: the image.
        contents: the files inside; None to show none.
        directory: the name of the directory they are shown in.
    """

    image: Image
    contents: Contents | None = None
    directory: str = ""


class Attributes(NamedTuple):
    """What stat(2) tells of a node; rights are those in the image, the owner is for the face to say."""

    mode: int
    size: int
    blocks: int
    nlink: int
    rdev: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int


class Directory(Sequence[tuple[bytes, int]]):
    """What is in a directory, by name and node; made as it is looked at, however much there is."""

    def __init__(self, files: Tree, number: int, origin: int) -> None:
        self._tree = files
        self._numbers = files.children(number)
        self._origin = origin

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> tuple[bytes, int]:  # type: ignore[override]  # no slices are taken
        number = self._numbers[index]
        return self._tree.name(number), self._origin + number


class Namespace:
    """The nodes.

    Args:
        shown: the images, in order; names of images and directories differ.
        single: the root is the one image itself, not a directory.
    """

    def __init__(self, shown: Sequence[Shown], *, single: bool = False) -> None:
        self._shown = tuple(shown)
        self._created_ns = time.time_ns()
        self._first_image = ROOT if single else ROOT + 1
        self._root: list[tuple[bytes, int]] = []
        for number, one in enumerate(self._shown):
            self._root.append((os.fsencode(one.image.name), self._first_image + number))
            if one.contents is not None:
                self._root.append((os.fsencode(one.directory), (number + 1) << _CONTENTS_SHIFT))
        self._by_name = dict(self._root)

    @property
    def total_bytes(self) -> int:
        """Bytes of all images."""
        return sum(one.image.reader.layout.length for one in self._shown)

    @property
    def names(self) -> list[bytes]:
        """What is in the root: images, and directories with a slash at their end."""
        return [name + b"/" * (node >= 1 << _CONTENTS_SHIFT) for name, node in self._root]

    @property
    def images(self) -> Sequence[Image]:
        """The images, in order."""
        return [one.image for one in self._shown]

    async def lookup(self, parent: int, name: bytes) -> int:
        """Return the node of that name in a directory; raise `NoSuchFile` or `WrongKind`."""
        if parent == ROOT and self._first_image != ROOT:
            node = ROOT if name in (b".", b"..") else self._by_name.get(name)
        else:
            number, files = await self._entry(parent)
            self._demand_directory(files, number)
            node = self._child(files, number, parent, name)
        if node is None:
            raise NoSuchFile(f"{_text(name)}: there is no such file")
        return node

    def _child(self, files: Tree, number: int, node: int, name: bytes) -> int | None:
        if name == b".":
            return node
        if name == b"..":
            return ROOT if number == tree.ROOT else node - number + files.node(number).parent
        child = files.child(number, name)
        return None if child is None else node - number + child

    async def attributes(self, node: int) -> Attributes:
        """Describe a node; raise `NoSuchFile` if there is none of that number."""
        image = self.image(node)
        if image is not None:
            size, changed_ns = image.reader.layout.length, image.mtime_ns
            blocks = -(-image.present_bytes // BLOCK_BYTES)
            return Attributes(stat.S_IFREG | 0o444, size, blocks, 1, 0, changed_ns, changed_ns, changed_ns)
        if node == ROOT:
            directories = sum(one.contents is not None for one in self._shown)
            mode, created_ns = stat.S_IFDIR | 0o555, self._created_ns
            return Attributes(mode, 0, 0, 2 + directories, 0, created_ns, created_ns, created_ns)
        if not node & _ENTRY_MASK and (provisional := self._provisional(node)) is not None:
            return provisional
        number, files = await self._entry(node)
        entry = files.node(number)
        return Attributes(
            entry.mode,
            entry.size,
            -(-entry.size // BLOCK_BYTES),
            entry.nlink,
            entry.rdev,
            entry.mtime_ns,
            entry.atime_ns,
            entry.ctime_ns,
        )

    def _provisional(self, node: int) -> Attributes | None:
        """Describe the top of an image's files before they are known: listing `ROOT` waits for none."""
        which = (node >> _CONTENTS_SHIFT) - 1
        one = self._shown[which] if 0 <= which < len(self._shown) else None
        if one is None or one.contents is None or one.contents.known is not None:
            return None
        changed_ns = one.image.mtime_ns
        return Attributes(stat.S_IFDIR | 0o555, 0, 0, 2, 0, changed_ns, changed_ns, changed_ns)

    async def directory(self, node: int) -> Sequence[tuple[bytes, int]]:
        """Return names and nodes of what is in a directory, in order; raise `WrongKind`."""
        if node == ROOT and self._first_image != ROOT:
            return self._root
        number, files = await self._entry(node)
        self._demand_directory(files, number)
        return Directory(files, number, node - number)

    async def target(self, node: int) -> bytes:
        """Return where a symbolic link leads; raise `WrongKind` if it is none."""
        number, files = await self._entry(node)
        if not stat.S_ISLNK(files.node(number).mode):
            raise WrongKind("is no symbolic link", errno.EINVAL)
        return files.target(number)

    async def open(self, node: int) -> OpenedFile:
        """Open an image, or a file inside one, for one reader.

        Raises:
            WrongKind: it is a directory or no file.
            FormatError: it claims to lie where the image is not.
        """
        image = self.image(node)
        if image is not None:
            return OpenedFile(image.reader, [Extent(0, image.reader.layout.length)], printable(image.name))
        number, files = await self._entry(node)
        extents = self._extents(files, number)
        image = self._shown[(node >> _CONTENTS_SHIFT) - 1].image
        label = f"{_text(files.path(number))} in {printable(image.name)}"
        length = image.reader.layout.length
        if any(extent.offset == 0 or extent.offset + extent.length > length for extent in extents):
            raise FormatError("claims to lie outside of the image", source=label)
        return OpenedFile(image.reader, extents, label)

    async def identity(self, node: int) -> str:
        """Return what tells the content of a file from any other; raise `WrongKind`."""
        image = self.image(node)
        if image is not None:
            return image.identity
        number, files = await self._entry(node)
        extents = self._extents(files, number)
        image = self._shown[(node >> _CONTENTS_SHIFT) - 1].image
        where = "-".join(f"{extent.offset:x}+{extent.length:x}" for extent in extents)
        if len(extents) > _MANY_EXTENTS:
            where = hashlib.sha256(where.encode()).hexdigest()
        return f"{image.identity}-{where}"

    async def resolve(self, path: bytes) -> int:
        """Return the node at a path from the root, links followed; they lead nowhere outside of a tree.

        Raises:
            NoSuchFile: there is none.
            WrongKind: something on the way is no directory, or links lead in circles.
        """
        node, trail = ROOT, [ROOT]
        left = [(name, 1) for name in _steps(path)]  # names, and how much of the trail `..` leaves
        links = 0
        while left:
            name, least = left.pop()
            if name == b"..":
                await self.lookup(node, name)  # which must be a directory
                if len(trail) > least:
                    trail.pop()
                node = trail[-1]
                continue
            node = await self.lookup(node, name)
            if stat.S_ISLNK((await self.attributes(node)).mode):
                links += 1
                if links > _MAX_LINKS:
                    raise WrongKind(f"{_text(path)}: too many symbolic links", errno.ELOOP)
                target = await self.target(node)
                if target.startswith(b"/"):
                    del trail[_TOP_OF_TREE:]
                left += [(step, _TOP_OF_TREE) for step in _steps(target)]
                node = trail[-1]
            else:
                trail.append(node)
        return node

    def image(self, node: int) -> Image | None:
        """Return the image that a node is, or None if it is something else."""
        number = node - self._first_image
        return self._shown[number].image if 0 <= number < len(self._shown) else None

    async def _entry(self, node: int) -> tuple[int, Tree]:
        """Return the number of an entry and the tree it is in."""
        which = (node >> _CONTENTS_SHIFT) - 1
        contents = self._shown[which].contents if 0 <= which < len(self._shown) else None
        if contents is None:
            if self.image(node) is not None:
                raise WrongKind("an image is no directory", errno.ENOTDIR)
            raise NoSuchFile(f"there is no file of number {node}")
        files = await contents.tree()
        number = node & _ENTRY_MASK
        if number >= len(files):
            raise NoSuchFile(f"there is no file of number {node}")
        return number, files

    @staticmethod
    def _demand_directory(files: Tree, number: int) -> None:
        if not stat.S_ISDIR(files.node(number).mode):
            raise WrongKind(f"{_text(files.path(number))} is no directory", errno.ENOTDIR)

    @staticmethod
    def _extents(files: Tree, number: int) -> list[Extent]:
        mode = files.node(number).mode
        if stat.S_ISDIR(mode):
            raise WrongKind(f"{_text(files.path(number))} is a directory", errno.EISDIR)
        if not stat.S_ISREG(mode):
            raise WrongKind(f"{_text(files.path(number))} is no regular file", errno.EINVAL)
        return files.extents(number)


def walk(files: Tree, number: int = tree.ROOT) -> Iterator[int]:
    """Yield what is below a directory, each directory before what is in it."""
    pending = [iter(files.children(number))]
    while pending:
        child = next(pending[-1], None)
        if child is None:
            pending.pop()
            continue
        yield child
        if stat.S_ISDIR(files.node(child).mode):
            pending.append(iter(files.children(child)))


def _steps(path: bytes) -> list[bytes]:
    """Return the names of a path, the first one last."""
    return [name for name in path.split(b"/") if name not in (b"", b".")][::-1]


def _text(name: bytes) -> str:
    return printable(os.fsdecode(name))
