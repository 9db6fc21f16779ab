"""What a directory of the namespace lists: each name as what a request for it would be answered.

Invariant of this file: no link leads to nothing, or back to a directory that it is in.
"""

from __future__ import annotations

import stat
from collections.abc import AsyncGenerator

import trio

from jigdofs.contents.namespace import ROOT, Namespace
from jigdofs.errors import NoSuchFile, WrongKind
from jigdofs.serve.pages import Row

AT_ONCE = 500
"""Rows looked up without letting others run: some 5 ms."""


async def rows_of(namespace: Namespace, path: bytes, node: int) -> AsyncGenerator[list[Row], None]:
    """Yield what a directory lists, some rows at a time: a hostile one has a million.

    `path` leads to it and ends in a slash. Raises `JigdofsError`.
    """
    above = await _above(namespace, node)
    rows: list[Row] = []
    for name, child in await namespace.directory(node):
        rows.append(await _row(namespace, path + name, child, above))
        if len(rows) >= AT_ONCE:
            yield rows
            rows = []
            await trio.lowlevel.checkpoint()
    yield rows


async def _above(namespace: Namespace, node: int) -> set[int]:
    """Return a directory and all it is in: by `..`, as the path may be long and the tree is not deep."""
    found = {node}
    while node != ROOT:
        node = await namespace.lookup(node, b"..")
        found.add(node)
    return found


async def _row(namespace: Namespace, path: bytes, node: int, above: set[int]) -> Row:
    """Describe one name; a symbolic link as what it leads to."""
    name = path.rpartition(b"/")[2]
    attributes = await namespace.attributes(node)
    if stat.S_ISLNK(attributes.mode):
        try:
            node = await namespace.resolve(path)
            attributes = await namespace.attributes(node)
        except (NoSuchFile, WrongKind):
            return Row(name, is_directory=False, size=attributes.size, leads=False)
    if stat.S_ISDIR(attributes.mode):
        # Debian's images have `debian -> .`: wget -r would go round in it until paths are too long
        return Row(name, is_directory=True, size=0, leads=node not in above)
    return Row(name, is_directory=False, size=attributes.size, leads=stat.S_ISREG(attributes.mode))
