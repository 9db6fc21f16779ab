"""Make ISO images of trees with all that Rock Ridge can describe, and look at them."""

import os
import random
import stat
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jigdofs.contents.namespace import walk
from jigdofs.iso9660 import process, volume
from jigdofs.iso9660.tree import Tree, pack
from tests.kit.requirements import tool

SECTOR = 2048
EPOCH = 1_690_000_000
LATER = 2_100_000_000  # as time of access, so that to read does not change it
ROOT_RECORD = 16 * SECTOR + 156
_FILES: tuple[tuple[bytes, int], ...] = (
    (b"plain.txt", 0o644),
    (b"setuid", 0o4755),
    (b"setgid", 0o2711),
    (b"sticky", 0o1666),
    (b"not readable", 0o000),
    (b"UPPER.Case", 0o444),
    ("caf\u00e9-\u96ea".encode(), 0o600),
    (b"with two  blanks", 0o400),
    (b"semi;1", 0o755),
    (b"dot at the end.", 0o555),
    (b"...", 0o640),
    (b"#~'\"$&", 0o604),
    (b"n" * 100, 0o644),
    (b"n" * 99 + b"m", 0o644),
    (b"pool/main/x/one.deb", 0o644),
    (b"pool/main/x/two.deb", 0o644),
    (b"/".join(b"deep%d" % level for level in range(12)) + b"/end.txt", 0o644),
    (b"/".join(b"deep%d" % level for level in range(9)) + b"/other/end.txt", 0o644),
)
_XORRISO_FILES = (
    (b"l" * 255, 0o644),
    (b"l" * 254 + b"m", 0o644),
    (b"latin-\xfc", 0o644),
    (b"new\nline", 0o644),
    (b"back\\slash", 0o644),
)
_LINKS = (
    b"plain.txt",
    b"/usr/share/doc",
    b"/",
    b".",
    b"..",
    b"../../..",
    b"../a/./b/../x",
    b"a//b",
    b"...",
    b"/..",
    b"caf\xc3\xa9",
)
# genisoimage writes these without end, or wrongly
_XORRISO_LINKS = (b"x/" * 200 + b"y", b"k" * 250 + b"/" + b"j" * 250, b"z" * 255)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is to be seen of a file: kind and rights, time, and its bytes, target or device number."""

    mode: str
    mtime_ns: int
    holds: bytes | int | None


def rich_tree(top: Path, program: str = "xorriso") -> Path:
    """Write a tree with all that `program` can put into an image."""
    source = random.Random(9)
    root = os.fsencode(top)
    every = program == "xorriso"
    for name, mode in _FILES + (_XORRISO_FILES if every else ()):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(source.randbytes(source.choice((0, 1, 2047, 2048, 2049, 9000))))
        os.chmod(path, mode)
    for number, target in enumerate(_LINKS + (_XORRISO_LINKS if every else ())):
        os.symlink(target, os.path.join(root, b"link%d" % number))
    for folder, mode in (("sticky-dir", 0o1777), ("private", 0o700), ("empty-dir", 0o755)):
        (top / folder).mkdir()
        (top / folder).chmod(mode)
    os.mkfifo(top / "fifo")
    os.link(top / "plain.txt", top / "pool" / "hard")
    mtime = EPOCH
    for place, directories, names in os.walk(root, topdown=False):
        links = [name for name in directories if os.path.islink(os.path.join(place, name))]
        for name in [*names, *links, b"."]:
            mtime += 2
            os.utime(os.path.join(place, name), (LATER, mtime), follow_symlinks=False)
    return top


def make_iso(top: Path, program: str, *options: str, zone: str = "UTC") -> Path:
    """Make an image of a directory, beside it."""
    image = top.with_name(f"{top.name}.{program}{''.join(options).replace('/', '')}.iso")
    command = [tool("xorriso"), "-as", "mkisofs"] if program == "xorriso" else [tool("genisoimage")]
    done = subprocess.run(
        [*command, "-quiet", *options, "-o", str(image), str(top)],
        env={**os.environ, "TZ": zone, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return image


def extract(image: Path, directory: Path) -> Path:
    """Have xorriso extract everything, with rights and times."""
    command = [tool("xorriso"), "-osirrox", "on", "-indev", f"stdio:{image}", "-extract", "/", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    return directory


def tree_of(image: Path) -> Tree:
    """Return the tree of an image, read in this process."""
    with image.open("rb") as file:
        return Tree(pack(volume.tree(file)), str(image))


def answer_of(image: Path) -> tuple[int, bytes]:
    """Return code and output of the process that reads an image."""
    with image.open("rb") as file:
        command = process.command("tree")
        done = subprocess.run(command, stdin=file, capture_output=True, check=False, timeout=60)
    assert done.stderr == b""
    return done.returncode, done.stdout


def seen_in(image: Path) -> dict[bytes, Seen]:
    """Return all that is in an image, by path, as we see it."""
    tree = tree_of(image)
    found: dict[bytes, Seen] = {}
    with image.open("rb") as file:
        for number in walk(tree):
            node = tree.node(number)
            holds: bytes | int | None = None
            if stat.S_ISREG(node.mode):
                holds = b"".join(os.pread(file.fileno(), length, at) for at, length in tree.extents(number))
            elif stat.S_ISLNK(node.mode):
                holds = tree.target(number)
            elif not stat.S_ISDIR(node.mode):
                holds = node.rdev
            found[tree.path(number)] = Seen(stat.filemode(node.mode), node.mtime_ns, holds)
    return found


def seen_below(top: Path, *, link_times: bool = True) -> dict[bytes, Seen]:
    """Return the same of a directory; xorriso extracts links with the time of now."""
    found: dict[bytes, Seen] = {}
    root = os.fsencode(top)
    for folder, directories, names in os.walk(root):
        for name in [*directories, *names]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            holds: bytes | int | None = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    holds = file.read()
            elif stat.S_ISLNK(status.st_mode):
                holds = os.readlink(path)
            elif not stat.S_ISDIR(status.st_mode):
                holds = status.st_rdev
            timeless = stat.S_ISLNK(status.st_mode) and not link_times
            mtime_ns = 0 if timeless else status.st_mtime_ns
            found[os.path.relpath(path, root)] = Seen(stat.filemode(status.st_mode), mtime_ns, holds)
    return found


def without_link_times(seen: dict[bytes, Seen]) -> dict[bytes, Seen]:
    """Forget when links were made."""
    return {
        path: Seen(one.mode, 0, one.holds) if one.mode.startswith("l") else one for path, one in seen.items()
    }


def records(data: bytes | bytearray, name: bytes) -> Iterator[int]:
    """Yield where the directory records with that identifier begin."""
    at = -1
    while (at := data.find(name, at + 1)) >= 0:
        if at >= 33 and data[at - 1] == len(name) and data[at - 33] >= 33 + len(name):
            yield at - 33


def both(number: int) -> bytes:
    """Return a number as ISO 9660 writes it: in either order of bytes."""
    return struct.pack("<I", number) + struct.pack(">I", number)
