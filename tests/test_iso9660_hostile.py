"""Images that lie, loop or are damaged: the outcome is a tree within bounds, or an error of one line."""

import random
import shutil
import stat
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from jigdofs.contents.namespace import walk
from jigdofs.iso9660 import process, volume
from jigdofs.iso9660.tree import MAX_DEPTH, ROOT, Tree, is_name, is_target, pack
from tests.kit.isos import (
    ROOT_RECORD,
    SECTOR,
    answer_of,
    both,
    make_iso,
    records,
    rich_tree,
    seen_in,
    tree_of,
)

Change = Callable[[bytearray], None]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images of one small tree, by kind."""
    top = tmp_path_factory.mktemp("hostile") / "tree"
    (top / "AAAA").mkdir(parents=True)
    (top / "AAAA" / "INNER").write_bytes(b"i" * 100)
    (top / "BBBB").write_bytes(b"b" * 100)
    (top / "CCCC").write_bytes(b"c" * 100)
    (top / "DDDD").symlink_to("first/second")
    (top / "EEEE").write_bytes(b"e" * 100)
    (top / "FFFF").mkdir()
    return {
        "rock": make_iso(top, "genisoimage", "-R"),
        "plain": make_iso(top, "genisoimage", "-iso-level", "1"),
    }


def changed(image: Path, directory: Path, change: Change) -> Path:
    data = bytearray(image.read_bytes())
    change(data)
    copy = directory / "changed.iso"
    copy.write_bytes(data)
    return copy


def check(tree: Tree, size: int) -> None:
    """Assert what holds of every tree, whatever it was read from."""
    for number in walk(tree):
        assert is_name(tree.name(number))
        assert tree.path(number).count(b"/") < MAX_DEPTH
        mode = tree.node(number).mode
        if stat.S_ISREG(mode):
            stretches = tree.extents(number)
            inside = all(0 < at < at + length <= size for at, length in stretches)
            assert inside or [at for at, _ in stretches] == [0]
        elif stat.S_ISLNK(mode):
            assert is_target(tree.target(number))


def outcome(image: Path) -> str:
    """Read it in this process: pycdlib raises what it likes, which the process turns into one line."""
    try:
        with image.open("rb") as file:
            packed = pack(volume.tree(file))
    except Exception:  # noqa: BLE001  any error but one of the assertions below
        return "refused"
    check(Tree(packed, "x"), image.stat().st_size)
    return "read"


def set_place(name: bytes, place: int) -> Change:
    def change(data: bytearray) -> None:
        at = next(records(data, name))
        data[at + 2 : at + 10] = both(place)

    return change


def set_size(name: bytes, size: int) -> Change:
    def change(data: bytearray) -> None:
        at = next(records(data, name))
        data[at + 10 : at + 18] = both(size)

    return change


@pytest.mark.parametrize(
    ("change", "size"),
    [
        (set_place(b"BBBB.;1", 2**31), 100),
        (set_place(b"BBBB.;1", 2**32 - 1), 100),
        (set_size(b"BBBB.;1", 2**32 - 1), 2**32 - 1),
        (set_place(b"BBBB.;1", 0), 100),
    ],
)
@pytest.mark.parametrize("kind", ["rock", "plain"])
def test_a_file_outside_of_the_image_is_told_apart(
    small: dict[str, Path], tmp_path: Path, kind: str, change: Change, size: int
) -> None:
    """It is listed with the size it claims and one stretch that begins at 0, and the others are as before."""
    image = changed(small[kind], tmp_path, change)
    tree = tree_of(image)
    name, other = (b"BBBB", b"CCCC") if kind == "rock" else (b"bbbb", b"cccc")
    number = tree.child(ROOT, name)
    assert number is not None
    assert tree.extents(number) == [(0, size)]
    assert tree.node(number).size == size
    assert seen_in(image)[other].holds == b"c" * 100
    check(tree, image.stat().st_size)


def test_one_that_lies_about_its_size_takes_no_other_with_it(small: dict[str, Path], tmp_path: Path) -> None:
    """A file that begins where another one does, and claims more than there is, leaves the other as it is."""

    def change(data: bytearray) -> None:
        first, second = next(records(data, b"BBBB.;1")), next(records(data, b"CCCC.;1"))
        data[second + 2 : second + 10] = data[first + 2 : first + 10]
        data[second + 10 : second + 18] = both(2**31)

    found = seen_in(changed(small["rock"], tmp_path, change))
    assert found[b"BBBB"].holds == b"b" * 100


def test_files_of_an_image_cut_short_keep_their_sizes(small: dict[str, Path], tmp_path: Path) -> None:
    """What lies beyond the end has its size and cannot be read; what lies before it can."""
    image = tmp_path / "short.iso"
    tree = tree_of(small["rock"])
    number = tree.child(ROOT, b"EEEE")
    assert number is not None
    ((at, length),) = tree.extents(number)
    image.write_bytes(small["rock"].read_bytes()[: at + 50])
    assert tree_of(image).extents(number) == [(0, length)]
    assert seen_in(image)[b"BBBB"].holds == b"b" * 100


@pytest.mark.parametrize("name", [b"A/BB", b"A\0BB", b"/etc", b"BBB/", b"\0\0\0\0", b"../x", b"CCCC"])
def test_names_that_lead_elsewhere_are_left_out(small: dict[str, Path], tmp_path: Path, name: bytes) -> None:
    """A name with a slash or NUL in it, and the second of two equal ones, are counted and not shown."""

    def change(data: bytearray) -> None:
        at = data.index(b"NM\x09\x01\x00BBBB")
        data[at + 5 : at + 9] = name

    image = changed(small["rock"], tmp_path, change)
    tree = tree_of(image)
    assert tree.left_out == 1
    assert {tree.name(number) for number in walk(tree)} == {
        b"AAAA",
        b"INNER",
        b"CCCC",
        b"DDDD",
        b"EEEE",
        b"FFFF",
    }


@pytest.mark.parametrize("name", [b".", b".."])
def test_dots_are_no_names(small: dict[str, Path], tmp_path: Path, name: bytes) -> None:
    """A file that is called as the directory or its parent is left out."""

    def change(data: bytearray) -> None:
        at = data.index(b"NM\x09\x01\x00BBBB")
        rest = 9 - 5 - len(name)
        data[at : at + 9] = b"NM" + bytes([5 + len(name)]) + b"\x01\x00" + name + b"\0" * rest
        # what is left of the entry is too short for another one, so it goes to the end of the area
        end = next(records(data, b"BBBB.;1"))
        area = data[at : end + data[end]]
        data[at : end + data[end]] = area[: 5 + len(name)] + area[9:] + area[5 + len(name) : 9]
        data[end] -= rest
        following = end + data[end] + rest
        block = (following // SECTOR + 1) * SECTOR
        data[end + data[end] : block] = data[following:block] + bytes(rest)

    tree = tree_of(changed(small["rock"], tmp_path, change))
    assert tree.left_out == 1
    assert tree.child(ROOT, name) is None
    assert tree.child(ROOT, b"CCCC") is not None


@pytest.mark.parametrize(("part", "target"), [(b"fir/t", b"fir/t/second"), (b"../..", b"../../second")])
def test_a_link_with_slashes_in_a_component_is_a_path(
    small: dict[str, Path], tmp_path: Path, part: bytes, target: bytes
) -> None:
    """A component with a slash in it is text like any other; who follows it is who confines it."""

    def change(data: bytearray) -> None:
        at = data.index(b"\x00\x05first\x00\x06second")
        data[at + 2 : at + 7] = part

    assert seen_in(changed(small["rock"], tmp_path, change))[b"DDDD"].holds == target


def test_a_link_with_nul_is_left_out(small: dict[str, Path], tmp_path: Path) -> None:
    """No path has a NUL in it: readlink would end there."""

    def change(data: bytearray) -> None:
        at = data.index(b"\x00\x05first\x00\x06second")
        data[at + 3] = 0

    tree = tree_of(changed(small["rock"], tmp_path, change))
    assert (tree.child(ROOT, b"DDDD"), tree.left_out) == (None, 1)


@pytest.mark.parametrize("kind", ["rock", "plain"])
def test_directories_in_a_circle_are_refused(small: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """A directory that holds itself, or the root, is an error of one line."""

    def to_root(data: bytearray) -> None:
        at = next(records(data, b"AAAA"))
        data[at + 2 : at + 18] = data[ROOT_RECORD + 2 : ROOT_RECORD + 18]

    def to_itself(data: bytearray) -> None:
        outer, inner = next(records(data, b"AAAA")), next(records(data, b"INNER.;1"))
        data[inner + 2 : inner + 18] = data[outer + 2 : outer + 18]
        data[inner + 25] |= 2

    for change in (to_root, to_itself):
        code, output = answer_of(changed(small[kind], tmp_path, change))
        assert code == 1
        assert len(output.splitlines()) == 1


def test_a_moved_directory_that_leads_back_ends(tmp_path: Path) -> None:
    """The place where a deep directory was moved to may be one above it: it is shown once."""
    top = tmp_path / "tree"
    top.joinpath(*"abcdefghijk").mkdir(parents=True)
    image = make_iso(top, "genisoimage", "-R")

    def back(data: bytearray) -> None:
        upper = next(records(data, b"A"))
        links = 0
        at = -1
        while (at := data.find(b"CL\x0c\x01", at + 1)) >= 0:
            data[at + 4 : at + 12] = data[upper + 2 : upper + 10]
            links += 1
        assert links

    assert outcome(changed(image, tmp_path, back)) == "read"


@pytest.mark.parametrize("size", [2**32 - SECTOR, 33 << 20])
def test_a_directory_of_any_size_is_not_read(small: dict[str, Path], tmp_path: Path, size: int) -> None:
    """A directory that claims more than we read is refused for it, also where the image has so much."""
    image = changed(small["plain"], tmp_path, set_size(b"AAAA", size))
    with image.open("r+b") as file:
        file.truncate(5 << 30)
    code, output = answer_of(image)
    assert (code, b"more than 32 MiB" in output) == (1, True)


def test_deep_directories_are_cut(tmp_path: Path) -> None:
    """Directories are shown to a depth, and what lies below is counted."""
    top = tmp_path / "tree"
    top.joinpath(*["d"] * (MAX_DEPTH + 10)).mkdir(parents=True)
    tree = tree_of(make_iso(top, "xorriso", "-R", "-D"))
    assert (len(tree), tree.left_out) == (MAX_DEPTH + 1, 1)


@pytest.mark.parametrize("entry", [b"ZF", b"AL", b"AA"])
def test_what_pycdlib_does_not_know_is_refused(small: dict[str, Path], tmp_path: Path, entry: bytes) -> None:
    """Entries that pycdlib does not know (ZF of zisofs, AA and AL of AAIP) are a reason, not a traceback."""

    def change(data: bytearray) -> None:
        at = data.index(b"NM\x09\x01\x00BBBB")
        data[at : at + 9] = entry + b"\x09\x01" + b"\xff" * 5

    code, output = answer_of(changed(small["rock"], tmp_path, change))
    assert code == 1
    assert len(output.splitlines()) == 1
    assert process.verdict(code, output).startswith("cannot be read as an ISO 9660 image: ")


def test_random_damage(tmp_path: Path) -> None:
    """Of 400 images with damaged descriptors and directories each is read within its bounds, or refused."""
    image = make_iso(rich_tree(tmp_path / "tree"), "xorriso", "-R", "-J", "-joliet-long")
    shutil.rmtree(tmp_path / "tree")
    real = image.read_bytes()
    tree = tree_of(image)
    files = [tree.extents(number) for number in walk(tree) if stat.S_ISREG(tree.node(number).mode)]
    telling = [
        at for at in range(16 * SECTOR, min(stretch[0].offset for stretch in files if stretch)) if real[at]
    ]
    source = random.Random(11)
    outcomes: Counter[str] = Counter()
    for round_ in range(400):
        data = bytearray(real)
        for _ in range(source.choice((1, 1, 2, 6))):
            data[source.choice(telling)] = source.randrange(256)
        image.write_bytes(data[: source.randrange(len(data))] if round_ % 10 == 9 else data)
        outcomes[outcome(image)] += 1
        if round_ % 50 == 0:
            code, output = answer_of(image)
            assert code in (0, 1)
            if code == 0:
                check(Tree(output, "x"), image.stat().st_size)
    assert min(outcomes.values()) > 40, outcomes
    assert len(outcomes) == 2


def test_lengths_of_names_that_lie(small: dict[str, Path], tmp_path: Path) -> None:
    """A record that is shorter than its name, or longer than its directory, is an error or is passed over."""
    for length in (0, 1, 33, 34, 255):
        for where in (0, 32):

            def change(data: bytearray, length: int = length, where: int = where) -> None:
                data[next(records(data, b"BBBB.;1")) + where] = length

            outcome(changed(small["plain"], tmp_path, change))  # asserts what holds of every tree


def test_two_byte_orders_that_differ(small: dict[str, Path], tmp_path: Path) -> None:
    """Where the two ways to write a place differ, somebody lies: it is refused."""

    def change(data: bytearray) -> None:
        at = next(records(data, b"BBBB.;1"))
        data[at + 6 : at + 10] = struct.pack(">I", 1)

    assert outcome(changed(small["rock"], tmp_path, change)) == "refused"
