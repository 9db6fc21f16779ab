"""Directories of ISO 9660 images, and the packed trees that are kept of them."""

import gzip
import io
import stat
import struct
from pathlib import Path

from jigdofs.contents.namespace import walk
from jigdofs.errors import FormatError
from jigdofs.iso9660 import volume
from jigdofs.iso9660.tree import MAX_DEPTH, ROOT, Tree, is_name, is_target, pack
from tests.campaigns.fuzzing.choices import Choices
from tests.campaigns.fuzzing.promises import one_line

SECTOR = 2048
BASES = Path(__file__).parent.parent.parent / "corpus" / "bases"
"""Small images as the usual programs make them, gzipped; an input of `iso` changes one of them."""
_IMAGES: list[bytes] = []
_PLACES: list[list[int]] = []
_NUMBERS = (0, 1, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 28, 34, 255, 2048, 0x7FFFFFFF, 0xFFFFFFFF)


def _load() -> None:
    for path in sorted(BASES.glob("*.iso.gz")):
        image = gzip.decompress(path.read_bytes())
        _IMAGES.append(image)
        # bytes that say anything, and those behind them
        sectors = [at for at in range(0, len(image), SECTOR) if any(image[at : at + SECTOR])]
        _PLACES.append(
            [at + n for at in sectors for n in range(SECTOR) if any(image[at + n - 2 : at + n + 2])]
        )


def changed(data: bytes) -> bytes:
    """Return the image that an input stands for."""
    if not _IMAGES:
        _load()
    choices = Choices(data)
    which = choices.number(len(_IMAGES))
    image, places = bytearray(_IMAGES[which]), _PLACES[which]
    while choices:
        at = places[choices.number(1 << 16) % len(places)]
        kind = choices.number(8)
        if kind < 3:
            image[at : at + 1] = choices.take(1)
        elif kind == 3:
            number = choices.of(_NUMBERS)
            image[at : at + 8] = struct.pack("<I", number) + struct.pack(">I", number)
        elif kind == 4:
            other = places[choices.number(1 << 16) % len(places)]
            count = choices.number(256)
            image[at : at + count] = image[other : other + count]
        elif kind == 5:
            some = choices.block(64)
            image[at : at + len(some)] = some
        elif kind == 6:
            count = choices.number(256)
            image[at : at + count] = bytes(len(image[at : at + count]))
        else:
            del image[at:]
            image += bytes(choices.number(4) * SECTOR)
    return bytes(image)


def iso(data: bytes) -> None:
    """Any image has a sound tree, or an error; whatever error that is, the process around it tells it."""
    image = changed(data)
    try:
        files = Tree(pack(volume.tree(io.BytesIO(image))), "x")
    except FormatError as error:
        raise AssertionError("a tree that was just packed is refused") from error
    except Exception:  # noqa: BLE001  pycdlib raises what it likes: `process` answers with any of it
        pass
    else:
        sound(files, len(image))
    try:
        found = volume.stretches(io.BytesIO(image))
    except Exception:  # noqa: BLE001  the same
        return
    assert found == sorted(set(found))
    assert all(0 < at < at + length <= len(image) for at, length in found)


def sound(files: Tree, size: int) -> None:
    """Assert what holds of every tree, whatever it was read from."""
    seen = {ROOT}
    for number in walk(files):
        assert number not in seen
        seen.add(number)
        name, node = files.name(number), files.node(number)
        assert is_name(name)
        assert files.path(number).count(b"/") < MAX_DEPTH
        assert files.child(node.parent, name) == number
        if stat.S_ISREG(node.mode):
            stretches = files.extents(number)
            inside = all(0 < at < at + length <= size for at, length in stretches)
            assert inside or [at for at, _ in stretches] == [0]
            assert node.size == sum(length for _, length in stretches)
        elif stat.S_ISLNK(node.mode):
            assert is_target(files.target(number))
    assert len(seen) == len(files)


def kept(data: bytes) -> None:
    """A tree from the cache, whatever became of its bytes, is refused or can be walked and looked up."""
    try:
        files = Tree(data, "x")
    except FormatError as error:
        one_line(error)
        return
    seen = {ROOT}
    for number in walk(files):
        assert number not in seen
        seen.add(number)
        node = files.node(number)
        assert is_name(files.name(number))
        assert files.child(node.parent, files.name(number)) == number
        files.path(number)
        if stat.S_ISREG(node.mode):
            assert node.size == sum(length for _, length in files.extents(number))
        elif stat.S_ISLNK(node.mode):
            assert is_target(files.target(number))
    assert len(seen) == len(files)
