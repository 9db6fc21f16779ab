"""Where files lie in ISO images, held against real images made by xorriso."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from jigdofs.errors import FormatError
from jigdofs.iso9660 import volume
from jigdofs.iso9660.tree import Extent
from jigdofs.sources import iso
from tests.kit.requirements import tool

_SECTOR = 2048


def make_iso(tree: Path, *options: str) -> Path:
    image = tree.with_suffix(".iso")
    command = [tool("xorriso"), "-as", "mkisofs", "-quiet", *options, "-o", str(image), str(tree)]
    subprocess.run(command, check=True, capture_output=True)
    return image


def make_tree(tree: Path) -> dict[str, bytes]:
    """Write files into directories, some ten levels deep, one of them empty, and two names for one."""
    source = random.Random(5)
    names = [
        "top.bin",
        "a/one.deb",
        "a/two.deb",
        "b/two.deb",
        "/".join("deep" * 10) + "/end.txt",
        "a/.hidden",
    ]
    files = {name: source.randbytes(source.randrange(1, 9000)) for name in names}
    files["a/sector"] = source.randbytes(2 * _SECTOR)
    files["empty"] = b""
    for name, data in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tree / "empty-dir").mkdir()
    os.link(tree / "top.bin", tree / "b" / "again.bin")
    (tree / "b" / "soft").symlink_to("two.deb")
    return files


def extents_of(image: Path) -> list[Extent]:
    fd = os.open(image, os.O_RDONLY)
    try:
        return iso.extents(fd, str(image))
    finally:
        os.close(fd)


def outcome(image: Path) -> str:
    """Read an image that may be damaged: all that may come of it is stretches within it, or our error."""
    try:
        extents = extents_of(image)
    except FormatError:
        return "refused"
    check_bounds(image, extents)
    return "read"


def outcome_here(image: Path) -> str:
    """Read it without a process of its own: what pycdlib raises would end in an answer of that process."""
    fd = os.open(image, os.O_RDONLY)
    try:
        with open(fd, "rb", closefd=False) as file:
            extents = volume.stretches(file)
    except Exception:  # noqa: BLE001  all but these would get past the answer, and fail the test
        return "refused"
    finally:
        os.close(fd)
    check_bounds(image, extents)
    return "read"


def check_bounds(image: Path, extents: Sequence[Extent]) -> None:
    size = image.stat().st_size
    assert all(offset > 0 and length > 0 and offset + length <= size for offset, length in extents)


def contents(image: Path, extents: Sequence[Extent]) -> set[bytes]:
    data = image.read_bytes()
    return {data[offset : offset + length] for offset, length in extents}


@pytest.mark.parametrize(
    "options", [("-r",), ("-r", "-J"), ("-J",), ("-iso-level", "3")], ids=["rock", "both", "joliet", "plain"]
)
def test_every_file_is_found(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Whatever extensions an image has, every file that holds something is found where it lies, once."""
    files = make_tree(tmp_path / "tree")
    image = make_iso(tmp_path / "tree", *options)
    extents = extents_of(image)
    assert {data for data in files.values() if data} <= contents(image, extents)
    assert extents == sorted(set(extents))
    assert all(offset % _SECTOR == 0 and length > 0 for offset, length in extents)


def test_magic_tells_an_iso(tmp_path: Path) -> None:
    """The descriptor's magic tells, whatever the name is."""
    make_tree(tmp_path / "tree")
    (tmp_path / "not.iso").write_bytes(bytes(40000))
    for path, expected in ((make_iso(tmp_path / "tree"), True), (tmp_path / "not.iso", False)):
        fd = os.open(path, os.O_RDONLY)
        assert iso.looks_like_iso(fd) is expected
        os.close(fd)


def test_a_file_of_several_records_is_joined(tmp_path: Path) -> None:
    """Records of one name that follow each other on the disk are one file, as those above 4 GiB are.

    Nobody splits a small file, so two neighbours are given one name and the first the flag.
    """
    tree = tmp_path / "tree"
    tree.mkdir()
    first, second = random.Random(6).randbytes(2 * _SECTOR), random.Random(7).randbytes(3000)
    (tree / "AAA1.BIN").write_bytes(first)
    (tree / "AAA2.BIN").write_bytes(second)
    image = make_iso(tree, "-iso-level", "3")
    data = bytearray(image.read_bytes())
    at = data.index(b"AAA1.BIN")
    assert data[at - 1] == len("AAA1.BIN;1")
    data[at - 8] |= 0x80
    at = data.index(b"AAA2.BIN")
    data[at : at + 8] = b"AAA1.BIN"
    image.write_bytes(data)
    assert first + second in contents(image, extents_of(image))


def test_nothing_reaches_outside_of_a_file_cut_short(tmp_path: Path) -> None:
    """Of an image whose end is missing, what is there is found and nothing else is claimed."""
    files = make_tree(tmp_path / "tree")
    image = make_iso(tmp_path / "tree", "-r")
    last = max(extents_of(image))
    os.truncate(image, last[0] + 1)
    extents = extents_of(image)
    assert all(offset + length <= last[0] + 1 for offset, length in extents)
    assert len({data for data in files.values() if data} & contents(image, extents)) >= len(files) - 3


def test_directories_without_end_are_given_up(tmp_path: Path) -> None:
    """A directory that claims 4 GiB, in a sparse file that has them, is not read."""
    make_tree(tmp_path / "tree")
    image = make_iso(tmp_path / "tree")
    with image.open("r+b") as file:
        root = 16 * _SECTOR + 156
        file.seek(root + 10)
        file.write((0xFFFFF800).to_bytes(4, "little") + (0xFFFFF800).to_bytes(4, "big"))
        file.truncate(5 << 30)
    with pytest.raises(FormatError, match="32 MiB"):
        extents_of(image)


def test_a_directory_that_contains_itself_ends(tmp_path: Path) -> None:
    """A record that leads back to the root is an error or passed over, and takes no time."""
    (tmp_path / "tree" / "SUBDIR").mkdir(parents=True)
    (tmp_path / "tree" / "SUBDIR" / "FILE").write_bytes(b"x")
    image = make_iso(tmp_path / "tree")
    data = bytearray(image.read_bytes())
    root = data[16 * _SECTOR + 158 : 16 * _SECTOR + 166]
    at = data.index(b"\x06SUBDIR", int.from_bytes(root[:4], "little") * _SECTOR) - 32
    data[at + 2 : at + 10] = root
    image.write_bytes(data)
    begun = time.monotonic()
    outcome(image)
    assert time.monotonic() - begun < 60


def test_damage_is_an_error_of_ours(tmp_path: Path) -> None:
    """Two hundred images with flipped bytes give stretches within them or a FormatError, in bounded time."""
    make_tree(tmp_path / "tree")
    whole = make_iso(tmp_path / "tree", "-r", "-J", "-b", "top.bin", "-no-emul-boot").read_bytes()
    first_file = min(offset for offset, _ in extents_of(tmp_path / "tree.iso"))
    source = random.Random(8)
    image = tmp_path / "damaged.iso"
    outcomes = {"read": 0, "refused": 0}
    slowest = 0.0
    # descriptors, path tables, directories; pycdlib is strict about padding, so most hit what means something
    metadata = range(16 * _SECTOR, first_file)
    telling = [at for at in metadata if whole[at]]
    for round_ in range(200):
        data = bytearray(whole)
        for _ in range(source.randint(1, 4)):
            data[source.choice(metadata if round_ % 4 == 3 else telling)] = source.randrange(256)
        image.write_bytes(data[: source.randrange(len(data))] if round_ % 10 == 9 else data)
        begun = time.monotonic()
        outcomes[outcome_here(image)] += 1
        slowest = max(slowest, time.monotonic() - begun)
        if round_ % 20 == 0:
            outcome(image)
    assert min(outcomes.values()) > 10, outcomes
    assert slowest < 60
    shutil.rmtree(tmp_path / "tree")


def test_a_directory_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not come to an end is ended."""
    (tmp_path / "python").write_text("#!/bin/sh\nkill -XCPU $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FormatError, match="too much time"):
        extents_of(tmp_path / "python")


def test_what_is_no_iso_is_refused(tmp_path: Path) -> None:
    """Empty files, zeros and noise are errors of ours."""
    for number, data in enumerate((b"", bytes(100_000), random.Random(9).randbytes(100_000))):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with pytest.raises(FormatError, match="ISO 9660"):
            extents_of(path)
