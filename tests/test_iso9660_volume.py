"""What is in images made by xorriso and genisoimage, held against what went in and what xorriso extracts."""

import os
import random
import stat
from pathlib import Path

import pytest

from jigdofs.contents.namespace import walk
from jigdofs.iso9660.tree import ROOT, Tree
from tests.kit.isos import (
    EPOCH,
    LATER,
    SECTOR,
    Seen,
    answer_of,
    extract,
    make_iso,
    records,
    rich_tree,
    seen_below,
    seen_in,
    tree_of,
    without_link_times,
)
from tests.kit.requirements import require_root

ROCK, BOTH = ("-R",), ("-R", "-J", "-joliet-long")


@pytest.fixture(scope="module")
def tops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same tree for each program, as far as it can put it into an image."""
    base = tmp_path_factory.mktemp("volume")
    return {program: rich_tree(base / program, program) for program in ("xorriso", "genisoimage")}


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("xorriso", ROCK),
        ("xorriso", BOTH),
        ("xorriso", ("-R", "-iso-level", "3")),
        ("genisoimage", ROCK),
        ("genisoimage", BOTH),
        ("genisoimage", ("-R", "-D")),
        ("genisoimage", ("-R", "-udf")),
    ],
    ids="".join,
)
def test_rock_ridge_is_what_went_in(
    tops: dict[str, Path], tmp_path: Path, program: str, options: tuple[str, ...]
) -> None:
    """Names, rights, times, links and bytes are those that xorriso extracts, and those that went in."""
    top = tops[program]
    image = make_iso(top, program, *options)
    ours = seen_in(image)
    ours.pop(b"rr_moved", None)
    extracted = seen_below(extract(image, tmp_path / "out"), link_times=False)
    extracted.pop(b"rr_moved", None)
    assert without_link_times(ours) == extracted
    assert ours == seen_below(top)
    assert tree_of(image).left_out == 0


def test_every_time_has_its_own_name(tmp_path: Path) -> None:
    """The time of the last change is not that of the last access, which pycdlib takes it for."""
    top = tmp_path / "tree"
    top.mkdir()
    (top / "file").write_bytes(b"x")
    os.utime(top / "file", (LATER, EPOCH))
    status = (top / "file").stat()
    for program in ("xorriso", "genisoimage"):
        tree = tree_of(make_iso(top, program, "-R"))
        number = tree.child(ROOT, b"file")
        assert number is not None
        node = tree.node(number)
        assert node.mtime_ns == EPOCH * 10**9
        assert node.ctime_ns == status.st_ctime_ns // 10**9 * 10**9
        if program == "xorriso":  # genisoimage gives a time so late the zone of another day
            assert node.atime_ns == LATER * 10**9


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati"])
def test_times_of_any_zone(tmp_path: Path, zone: str) -> None:
    """A time is the same wherever the image was made, also where the zone is not of whole hours."""
    top = tmp_path / "tree"
    top.mkdir()
    (top / "file").write_bytes(b"x")
    os.utime(top / "file", (EPOCH, EPOCH))
    for program, options in (("xorriso", ROCK), ("genisoimage", ROCK), ("genisoimage", ("-J",))):
        assert seen_in(make_iso(top, program, *options, zone=zone))[b"file"].mtime_ns == EPOCH * 10**9


def test_the_root_has_attributes_of_its_own(tmp_path: Path) -> None:
    """Rights and time of the top directory are those of the directory that went in."""
    (tmp_path / "tree").mkdir(mode=0o750)
    (tmp_path / "tree" / "file").write_bytes(b"x")
    os.utime(tmp_path / "tree", (EPOCH, EPOCH))
    root = tree_of(make_iso(tmp_path / "tree", "xorriso", "-R")).node(ROOT)
    assert (stat.filemode(root.mode), root.mtime_ns) == ("drwxr-x---", EPOCH * 10**9)


@pytest.mark.parametrize("program", ["xorriso", "genisoimage"])
def test_device_files(tmp_path: Path, program: str) -> None:
    """A device file has its numbers, small and large."""
    require_root()
    top = tmp_path / "tree"
    top.mkdir()
    numbers = {b"null": (1, 3), b"disk": (253, 300), b"large": (259, 70_000)}
    for name, (major, minor) in numbers.items():
        os.mknod(os.fsencode(top) + b"/" + name, 0o660 | stat.S_IFBLK, os.makedev(major, minor))
    found = seen_in(make_iso(top, program, "-R"))
    assert {name: one.holds for name, one in found.items()} == {
        name: os.makedev(*pair) for name, pair in numbers.items()
    }
    assert {one.mode[0] for one in found.values()} == {"b"}


def test_directories_that_were_moved_are_where_they_came_from(tmp_path: Path) -> None:
    """Genisoimage moves what is deeper than eight levels; it is shown in its old place, and only there."""
    top = tmp_path / "tree"
    for branch in ("x", "y"):
        deep = top.joinpath(branch, *(f"level{number}" for number in range(12)))
        deep.mkdir(parents=True)
        (deep / f"{branch}.txt").write_text(branch)
    image = make_iso(top, "genisoimage", "-R")
    assert b"RR_MOVED" in image.read_bytes()
    found = seen_in(image)
    assert found.pop(b"rr_moved").mode.startswith("d")
    assert found.keys() == seen_below(top).keys()


@pytest.mark.parametrize("program", ["xorriso", "genisoimage"])
def test_joliet_alone(tmp_path: Path, program: str) -> None:
    """Joliet's names are shown as they are, with the bytes, times and rights that xorriso gives them."""
    top = tmp_path / "tree"
    (top / "Some Directory").mkdir(parents=True)
    (top / "Some Directory" / "caf\u00e9 \u96ea.txt").write_bytes(b"x" * 5000)
    (top / "Mixed.Case.Name.bin").write_bytes(b"y" * 3000)
    (top / "no-extension").write_bytes(b"")
    image = make_iso(top, program, "-J", *(["--norock"] if program == "xorriso" else []))
    found = seen_in(image)
    assert found == seen_below(extract(image, tmp_path / "out"))
    assert found[b"Mixed.Case.Name.bin"].holds == b"y" * 3000
    assert found["Some Directory/caf\u00e9 \u96ea.txt".encode()].mode == "-r-xr-xr-x"


@pytest.mark.parametrize("options", [("-iso-level", "1"), ("-iso-level", "3")], ids=["level1", "level3"])
def test_plain_names_as_the_kernel_shows_them(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Without any extension names are in lower case, without version and without a bare dot."""
    top = tmp_path / "tree"
    (top / "DIR").mkdir(parents=True)
    (top / "DIR" / "README.TXT").write_bytes(b"text")
    (top / "NOEXT").write_bytes(b"none")
    found = seen_in(make_iso(top, "genisoimage", *options))
    assert {path: (one.mode, one.holds) for path, one in found.items()} == {
        b"dir": ("dr-xr-xr-x", None),
        b"dir/readme.txt": ("-r-xr-xr-x", b"text"),
        b"noext": ("-r-xr-xr-x", b"none"),
    }


def test_a_name_that_no_file_system_holds_is_counted(tmp_path: Path) -> None:
    """A Joliet name whose signs have three bytes each may be more than the 255 bytes that a name may have."""
    top = tmp_path / "tree"
    top.mkdir()
    for digit in "ab":
        (top / (digit * 86)).write_bytes(b"x")
    image = make_iso(top, "xorriso", "-J", "-joliet-long", "--norock")
    data = image.read_bytes().replace(("a" * 86).encode("utf-16-be"), ("\u96ea" * 86).encode("utf-16-be"))
    image.write_bytes(data)
    assert set(seen_in(image)) == {b"b" * 86}
    assert tree_of(image).left_out == 1


def neighbours(tmp_path: Path, size: int) -> tuple[Path, bytearray, bytes]:
    """Make an image of three files, one behind the other; the second and third get the name of the first."""
    top = tmp_path / "tree"
    top.mkdir()
    content = random.Random(6).randbytes(2 * size + 3000)
    (top / "AAA0.BIN").write_bytes(content[:size])
    (top / "AAA1.BIN").write_bytes(content[size : 2 * size])
    (top / "AAA2.BIN").write_bytes(content[2 * size :])
    image = make_iso(top, "genisoimage", "-iso-level", "3")
    return image, bytearray(image.read_bytes()), content


def test_a_file_of_several_records(tmp_path: Path) -> None:
    """Records of one name are one file, as those above 4 GiB are, in the order of the records."""
    image, data, content = neighbours(tmp_path, 2 * SECTOR)
    at = [next(records(data, b"AAA%d.BIN;1" % number)) for number in range(3)]
    for number in (0, 1):
        data[at[number] + 25] |= 0x80
    for place in at[1:]:
        data[place + 33 : place + 41] = b"AAA0.BIN"
    image.write_bytes(data)
    assert seen_in(image)[b"aaa0.bin"].holds == content
    assert len(tree_of(image).extents(1)) == 1
    first, second = (bytes(data[place + 2 : place + 10]) for place in at[:2])
    data[at[0] + 2 : at[0] + 10], data[at[1] + 2 : at[1] + 10] = second, first
    image.write_bytes(data)
    half = 2 * SECTOR
    swapped = content[half : 2 * half] + content[:half] + content[2 * half :]
    assert seen_in(image)[b"aaa0.bin"].holds == swapped


def test_an_associated_file_is_no_part_of_the_file(tmp_path: Path) -> None:
    """The other fork of a file, which has the same name and a flag, is not shown and not mixed in."""
    image, data, content = neighbours(tmp_path, 2 * SECTOR)
    first, second = (next(records(data, b"AAA%d.BIN;1" % number)) for number in range(2))
    data[first + 25] |= 0x04
    data[second + 33 : second + 41] = b"AAA0.BIN"
    image.write_bytes(data)
    found = seen_in(image)
    assert found.keys() == {b"aaa0.bin", b"aaa2.bin"}
    assert found[b"aaa0.bin"].holds == content[2 * SECTOR : 4 * SECTOR]


@pytest.mark.parametrize("stamp", [b"9999123123595999", b"0000010100000000", b"20240229x2345600"])
def test_times_that_no_clock_has(tmp_path: Path, stamp: bytes) -> None:
    """A long time that is none, or beyond what 64 bits hold, costs its own meaning only."""
    top = tmp_path / "tree"
    top.mkdir()
    (top / "AAAA").write_bytes(b"x")
    image = make_iso(top, "genisoimage", "-R")
    data = bytearray(image.read_bytes())
    at = data.index(b"TF\x1a\x01", next(records(data, b"AAAA.;1")))
    data[at : at + 26] = b"TF\x16\x01\x82" + stamp + b"\0" + b"PD\x04\x01"
    image.write_bytes(data)
    found = seen_in(image)[b"AAAA"]
    assert found.holds == b"x"
    assert found.mtime_ns == ((1 << 63) - 1 if stamp.startswith(b"9") else 0)


def test_a_long_time(tmp_path: Path) -> None:
    """A time of the long form has hundredths and a zone."""
    top = tmp_path / "tree"
    top.mkdir()
    (top / "AAAA").write_bytes(b"x")
    image = make_iso(top, "genisoimage", "-R")
    data = bytearray(image.read_bytes())
    at = data.index(b"TF\x1a\x01", next(records(data, b"AAAA.;1")))
    data[at : at + 26] = b"TF\x16\x01\x82" + b"2009021323313042" + b"\x04" + b"PD\x04\x01"
    image.write_bytes(data)
    assert seen_in(image)[b"AAAA"] == Seen("-rw-r--r--", (1234567890 - 3600) * 10**9 + 420_000_000, b"x")


def test_the_process_answers(tmp_path: Path) -> None:
    """The process gives a tree, or one line why there is none, and no traceback."""
    top = tmp_path / "tree"
    top.mkdir()
    (top / "AAAA").write_bytes(b"x")
    image = make_iso(top, "genisoimage", "-R")
    code, output = answer_of(image)
    tree = Tree(output, "x")
    assert (code, [tree.name(number) for number in walk(tree)]) == (0, [b"AAAA"])
    image.write_bytes(bytes(100_000))
    code, output = answer_of(image)
    assert code == 1
    assert len(output.splitlines()) == 1
