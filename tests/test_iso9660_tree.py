"""The packed tree of an image's files: what goes in comes out, and what is damaged is refused or sound."""

import stat
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.contents.namespace import walk
from jigdofs.errors import FormatError
from jigdofs.iso9660.tree import MAX_DEPTH, MAX_TARGET_BYTES, ROOT, Entry, Extent, Tree, is_name, pack

names = st.binary(max_size=8) | st.sampled_from([b".", b"..", b"a/b", b"a\0", b"x" * 255, b"x" * 256])
times = st.integers(-(2**62), 2**62)
rights = st.integers(0, 0o7777)
extents = st.lists(st.builds(Extent, st.integers(0, 2**60), st.integers(0, 2**40)), max_size=3)


def entry(kind: int, name: bytes, mode: int, mtime: int, **more: object) -> Entry:
    return Entry(name, kind | mode, mtime, mtime - 1, mtime + 1, **more)  # type: ignore[arg-type]


files = st.builds(
    lambda name, mode, mtime, parts: entry(stat.S_IFREG, name, mode, mtime, extents=tuple(parts)),
    names,
    rights,
    times,
    extents,
)
links = st.builds(
    lambda name, mtime, target: entry(stat.S_IFLNK, name, 0o777, mtime, target=target),
    names,
    times,
    st.binary(max_size=20) | st.just(b"t" * (MAX_TARGET_BYTES + 1)),
)
devices = st.builds(
    lambda name, mode, number: entry(stat.S_IFCHR, name, mode, 0, rdev=number),
    names,
    rights,
    st.integers(0, 2**32 - 1),
)
children = st.recursive(
    st.lists(files | links | devices, max_size=4),
    lambda below: st.lists(
        files
        | links
        | st.builds(
            lambda name, mode, mtime, inner: entry(stat.S_IFDIR, name, mode, mtime, children=inner),
            names,
            rights,
            times,
            below,
        ),
        max_size=4,
    ),
    max_leaves=12,
)
roots = st.builds(lambda inner: entry(stat.S_IFDIR, b"", 0o555, 7, children=inner), children)


def usable(directory: Entry) -> dict[bytes, Entry]:
    """Return what a directory can hold, the first of each name: the model."""
    found: dict[bytes, Entry] = {}
    for child in directory.children:
        leads_nowhere = not 0 < len(child.target) <= MAX_TARGET_BYTES or b"\0" in child.target
        if is_name(child.name) and not (stat.S_ISLNK(child.mode) and leads_nowhere):
            found.setdefault(child.name, child)
    return found


def compare(tree: Tree, number: int, model: Entry, path: bytes) -> Iterator[int]:
    """Hold a node and all below it against the model, and yield the numbers seen."""
    yield number
    node = tree.node(number)
    assert (node.mode, node.mtime_ns, node.atime_ns, node.ctime_ns) == (
        model.mode,
        model.mtime_ns,
        model.atime_ns,
        model.ctime_ns,
    )
    assert tree.path(number) == path
    if stat.S_ISREG(model.mode):
        assert tree.extents(number) == list(model.extents)
        assert node.size == sum(extent.length for extent in model.extents)
    elif stat.S_ISLNK(model.mode):
        assert tree.target(number) == model.target
    elif stat.S_ISCHR(model.mode):
        assert node.rdev == model.rdev
    else:
        below = usable(model)
        assert [tree.name(child) for child in tree.children(number)] == sorted(below)
        assert node.nlink == 2 + sum(stat.S_ISDIR(child.mode) for child in below.values())
        for name, child in below.items():
            found = tree.child(number, name)
            assert found is not None
            assert tree.node(found).parent == number
            yield from compare(tree, found, child, path + b"/" * bool(path) + name)
        for name in (b"", b".", b"..", b"zz", b"\xff" * 9):
            assert (tree.child(number, name) is None) == (name not in below)


@given(roots)
def test_what_is_packed_is_found(root: Entry) -> None:
    """Every entry that a directory can hold is found by its name, with all that belongs to it."""
    tree = Tree(pack(root), "x")
    numbers = list(compare(tree, ROOT, root, b""))
    assert sorted(numbers) == list(range(len(tree)))
    assert sorted(walk(tree)) == list(range(1, len(tree)))
    assert tree.left_out + len(tree) == 1 + sum(len(one.children) for one in directories(root))


def directories(root: Entry) -> Iterator[Entry]:
    """Yield those directories that are in the packed tree."""
    yield root
    for child in usable(root).values():
        if stat.S_ISDIR(child.mode):
            yield from directories(child)


def test_what_lies_too_deep_is_left_out() -> None:
    """Directories end at a depth, and what was left out is counted."""
    bottom = entry(stat.S_IFDIR, b"d", 0o555, 0, children=[entry(stat.S_IFREG, b"f", 0o444, 0)])
    for _ in range(MAX_DEPTH + 5):
        bottom = entry(stat.S_IFDIR, b"d", 0o555, 0, children=[bottom])
    tree = Tree(pack(bottom), "x")
    assert len(tree) == MAX_DEPTH + 1
    assert tree.left_out == 1
    assert tree.path(len(tree) - 1) == b"/".join([b"d"] * MAX_DEPTH)


def explore(tree: Tree) -> None:
    """Ask a tree everything; none of it may fail or go on for ever."""
    for number in range(len(tree)):
        mode = tree.node(number).mode
        tree.path(number)
        if stat.S_ISREG(mode):
            tree.extents(number)
        elif stat.S_ISLNK(mode):
            tree.target(number)
        elif stat.S_ISDIR(mode):
            assert [tree.child(number, tree.name(child)) for child in tree.children(number)] == list(
                tree.children(number)
            )
    assert len(list(walk(tree))) == len(tree) - 1


def check_damaged(data: bytes) -> None:
    try:
        tree = Tree(data, "x")
    except FormatError:
        return
    explore(tree)


@given(roots, st.data())
def test_damage_is_refused_or_harmless(root: Entry, data: st.DataObject) -> None:
    """A tree with bytes changed, cut or added is refused, or everything can still be asked of it."""
    packed = bytearray(pack(root))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(packed) - 1))
        packed[at] = data.draw(st.integers(0, 255))
    check_damaged(bytes(packed))
    check_damaged(bytes(packed[: data.draw(st.integers(0, len(packed)))]))
    with pytest.raises(FormatError):
        Tree(pack(root) + b"x", "x")


@given(st.binary(max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    """What is no tree at all is an error."""
    with pytest.raises(FormatError):
        Tree(data, "x")


def test_a_directory_that_is_its_own_child_is_refused() -> None:
    """A tree that would lead in circles is no tree."""
    root = entry(
        stat.S_IFDIR,
        b"",
        0o555,
        0,
        children=[
            entry(stat.S_IFDIR, b"d", 0o555, 0, children=[entry(stat.S_IFREG, b"f", 0o444, 0)]),
        ],
    )
    packed = bytearray(pack(root))
    tree = Tree(bytes(packed), "x")
    first = tree.node(1).first
    for at in range(len(packed) - 4):
        if int.from_bytes(packed[at : at + 4], "little") == first:
            circular = bytearray(packed)
            circular[at : at + 4] = (1).to_bytes(4, "little")
            check_damaged(bytes(circular))


@pytest.mark.parametrize("value", [0, 1, 2, 3, 2**16 - 1, 2**31, 2**32 - 1])
def test_every_number_in_a_tree_may_lie(value: int) -> None:
    """Whatever four bytes of a tree say, it is refused, or everything can still be asked of it."""
    inner = [
        entry(stat.S_IFREG, b"f", 0o444, 0, extents=(Extent(7, 5), Extent(20, 1))),
        entry(stat.S_IFLNK, b"l", 0o777, 0, target=b"f"),
    ]
    root = entry(
        stat.S_IFDIR,
        b"",
        0o555,
        0,
        children=[*inner, *(entry(stat.S_IFDIR, name, 0o555, 0, children=inner) for name in (b"a", b"b"))],
    )
    packed = pack(root)
    for at in range(len(packed) - 3):
        check_damaged(packed[:at] + value.to_bytes(4, "little") + packed[at + 4 :])


@pytest.mark.parametrize("number", [-1, 1, 10**9])
def test_a_number_that_is_none(number: int) -> None:
    """Only numbers of the tree are answered."""
    with pytest.raises(IndexError):
        Tree(pack(entry(stat.S_IFDIR, b"", 0o555, 0)), "x").node(number)
