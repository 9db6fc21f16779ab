"""Files that vanish or change while they are looked for, and images that do."""

import os
import pwd
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jigdofs.create.choose import Occurrence
from jigdofs.create.image_file import ImageFile
from jigdofs.create.local_files import LocalFile, LocalFiles, sort_out
from jigdofs.create.search import search
from jigdofs.errors import InputError, SourceChanged
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.named_files import named_files
from tests.kit.requirements import require_root

GOOD, BAD = (random.Random(seed).randbytes(40_000) for seed in (1, 2))
DATA = b"-" * 99 + BAD + GOOD + BAD


class Place:
    """A directory with a file that goes bad, one that stays good, and an image with both in it."""

    def __init__(self, directory: Path) -> None:
        self.bad, self.good, self.image = (directory / name for name in ("bad", "good", "image"))
        self.bad.write_bytes(BAD)
        self.good.write_bytes(GOOD)
        self.image.write_bytes(DATA)
        self.skipped: list[tuple[str, str]] = []
        found = [LocalFile(str(self.bad), len(BAD)), LocalFile(str(self.good), len(GOOD))]
        self.files = LocalFiles(found, list(Algorithm), lambda path, why: self.skipped.append((path, why)))

    def search(self, progress: Callable[[int], None] = lambda _: None) -> set[Occurrence]:
        with self.image.open("rb") as file:
            image = ImageFile(file.fileno(), "image")
            return set(search(image, self.files, 1024, progress).occurrences)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


GOOD_ONLY = {Occurrence(99 + len(BAD), len(GOOD), 1)}
BOTH = GOOD_ONLY | {Occurrence(99, len(BAD), 0), Occurrence(99 + len(BAD + GOOD), len(BAD), 0)}


def vanish(path: Path) -> None:
    path.unlink()


def shrink_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def shrink(path: Path) -> None:
    os.truncate(path, len(BAD) - 1)


def grow(path: Path) -> None:
    path.write_bytes(BAD + b"more")


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def become_a_device(path: Path) -> None:
    require_root()
    path.unlink()
    path.symlink_to("/dev/zero")


CHANGES = [
    (vanish, "No such file or directory"),
    (shrink_to_nothing, "became shorter meanwhile"),
    (shrink, "changed meanwhile"),
    (grow, "changed meanwhile"),
    (become_a_fifo, "is no regular file"),
    (become_a_directory, "is no regular file"),
    (become_a_dangling_link, "No such file or directory"),
    (become_a_device, "is no regular file"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_before_the_search(place: Place, change: Callable[[Path], None], why: str) -> None:
    """What happened to a file since it was listed is told once, and the other file is found."""
    change(place.bad)
    assert place.search() == GOOD_ONLY
    assert place.skipped == [(str(place.bad), why)]


@pytest.mark.parametrize(("change", "why"), [one for one in CHANGES if one[0] is not shrink_to_nothing])
def test_after_the_beginning_was_read(place: Place, change: Callable[[Path], None], why: str) -> None:
    """What happens between the reading of a beginning and the comparing is told once as well."""
    assert place.search() == BOTH
    (heads,) = place.files.heads(1023)
    assert heads[0] == [0, 1]
    change(place.bad)
    with place.image.open("rb") as file:
        image = ImageFile(file.fileno(), "image")
        assert not place.files.stands_at(0, image, 99)
        assert not place.files.stands_at(0, image, 99)
        assert place.files.stands_at(1, image, 99 + len(BAD))
    assert place.skipped == [(str(place.bad), why)]


@pytest.mark.parametrize("at", [0, 1022, 1023, 16_383, 16_384, len(BAD) - 17, len(BAD) - 1])
def test_other_bytes_at_the_same_length(place: Place, at: int) -> None:
    """A file with one other byte stands nowhere, wherever that byte is; that is no trouble to tell of."""
    changed = bytearray(BAD)
    changed[at] ^= 1
    place.bad.write_bytes(changed)
    assert place.search() == GOOD_ONLY
    assert place.skipped == []


def test_without_permission(public_dir: Path) -> None:
    """A file that may not be read is told of, and the others are found."""
    place = Place(public_dir)
    place.bad.chmod(0)
    user = os.geteuid()
    os.seteuid(user or pwd.getpwnam("nobody").pw_uid)  # root may read everything
    try:
        found = place.search()
    finally:
        os.seteuid(user)
    assert found == GOOD_ONLY
    assert place.skipped == [(str(place.bad), "Permission denied")]


def test_all_files_gone(place: Place) -> None:
    """When no file is left nothing is found, and each is told of once."""
    place.bad.unlink()
    place.good.unlink()
    assert place.search() == set()
    assert [path for path, _ in place.skipped] == [str(place.bad), str(place.good)]


def test_a_piece(place: Place) -> None:
    """A file that was found has the checksums of its bytes, the fingerprint, and an absolute path."""
    assert not place.files.was_found(0)
    place.search()
    assert place.files.was_found(0)
    piece = place.files.piece(0)
    assert (piece.path, piece.offset, piece.length) == (str(place.bad), 0, len(BAD))
    assert piece.checksums == tuple(Checksum.of(algorithm, BAD) for algorithm in Algorithm)
    assert piece.is_whole_file


def test_given_up(place: Place) -> None:
    """When comparing is given up nothing stands anywhere, and nobody is told of it."""
    place.files.give_up()
    assert place.search() == set()
    assert place.skipped == []


def test_sort_out(tmp_path: Path) -> None:
    """Files that are too short, as long as the image or longer, or the image itself, are no parts."""
    for name, length in (("a", 1023), ("b", 1024), ("c", 5000), ("d", 5001), ("image", 5000)):
        (tmp_path / name).write_bytes(bytes(length))
    status = (tmp_path / "image").stat()

    def unvisited(path: str, error: OSError) -> None:
        pytest.fail(f"{path}: {error}")

    given = sort_out(
        named_files([str(tmp_path / name) for name in ("a", "b", "c", "d", "image")], unvisited),
        min_length=1024,
        image_length=5000,
        besides=frozenset([(status.st_dev, status.st_ino)]),
    )
    assert given.may_be_parts == (LocalFile(str(tmp_path / "b"), 1024),)
    assert (given.too_short, given.as_long, given.too_long) == (
        1,
        (str(tmp_path / "c"),),
        (str(tmp_path / "d"),),
    )
    assert given.count == 4


def test_the_image_shrinks(place: Place) -> None:
    """An image that becomes shorter while it is read is an error that says so."""
    with place.image.open("r+b") as file:
        image = ImageFile(file.fileno(), "image")
        os.ftruncate(file.fileno(), len(DATA) - 1)
        with pytest.raises(SourceChanged, match=r"^image: became shorter while it was read; try again$"):
            search(image, place.files, 1024, lambda _: None)
        with pytest.raises(SourceChanged, match="became shorter"):
            image.read(len(DATA) - 10, 10)
        with pytest.raises(SourceChanged, match="was changed while it was read; nothing is written"):
            image.check_unchanged()


def test_the_image_shrinks_during_the_search(place: Place) -> None:
    """So is one that does when half of it was read, while places are being compared."""
    place.image.write_bytes(DATA + bytes(8 << 20) + GOOD)

    def shorten(done: int) -> None:
        os.truncate(place.image, 1000)

    with pytest.raises(SourceChanged, match=r"^image: became shorter while it was read; try again$"):
        place.search(shorten)


def test_an_interrupted_search(place: Place) -> None:
    """What the progress raises ends the search, with no thread left and no file told of."""

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        place.search(interrupt)
    assert threading.active_count() == before
    assert place.skipped == []


def test_an_image_that_cannot_be_read(place: Place, tmp_path: Path) -> None:
    """A pipe, a directory, a file opened for writing: an error that names the image."""
    reader, writer = os.pipe()
    with pytest.raises(InputError, match=r"^pipe: cannot be read from any place: Illegal seek$"):
        ImageFile(reader, "pipe")
    os.close(reader)
    os.close(writer)
    fd = os.open(place.image, os.O_WRONLY)
    with pytest.raises(SourceChanged, match=r"^image: cannot be read at byte 0: Bad file descriptor$"):
        search(ImageFile(fd, "image"), place.files, 1024, lambda _: None)
    with pytest.raises(SourceChanged, match=r"^image: cannot be read at byte 5: Bad file descriptor$"):
        ImageFile(fd, "image").read(5, 1)
    os.close(fd)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(InputError, match=r"^directory: cannot be read"):
        search(ImageFile(fd, "directory"), place.files, 1024, lambda _: None)
    os.close(fd)


def test_a_changed_image(place: Place) -> None:
    """An image whose time of writing is another is not what it was; reading alone changes nothing."""
    with place.image.open("r+b") as file:
        image = ImageFile(file.fileno(), "image")
        status = os.fstat(file.fileno())
        assert image.identity == (status.st_dev, status.st_ino)
        assert image.read(90, 20) == DATA[90:110]
        image.check_unchanged()
        os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        with pytest.raises(SourceChanged):
            image.check_unchanged()
