"""Sources as a whole: what is found, in which order, and that nothing is hashed twice."""

import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jigdofs.errors import SourceChanged
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.sources.piece import Piece, hash_piece, open_piece
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.sources import Sources
from tests.kit.images import BuiltImage
from tests.kit.requirements import as_user, require_root


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Fifty files of a hundred lengths, two of each."""
    tree = tmp_path.resolve() / "tree"
    (tree / "sub").mkdir(parents=True)
    source = random.Random(11)
    for number in range(100):
        (tree / ("sub" if number % 3 else "") / f"{number}.deb").write_bytes(
            source.randbytes(1000 + number // 2)
        )
    return tree


def part_of(path: Path, algorithm: Algorithm = Algorithm.MD5) -> Part:
    data = path.read_bytes()
    return Part(Checksum.of(algorithm, data), len(data))


def test_a_part_is_found_by_its_content(tree: Path, lines: list[str]) -> None:
    """By MD5 and by SHA-256, whatever the file is called, and only the wanted lengths are kept."""
    wanted = [part_of(tree / "0.deb"), part_of(tree / "sub" / "50.deb", Algorithm.SHA256)]
    sources = Sources([str(tree)], report=lines.append)
    sources.scan({part.length for part in wanted})
    assert [found and found.path for found in map(sources.find, wanted)] == [
        str(tree / "0.deb"),
        str(tree / "sub" / "50.deb"),
    ]
    assert (sources.counts.files, sources.counts.pieces) == (100, 4)
    assert sources.find(Part(Checksum.of(Algorithm.MD5, b"other"), 1000)) is None
    assert sources.find(part_of(tree / "sub" / "80.deb")) is None, "its length was not wanted"
    assert sources.find(Part(Checksum.of(Algorithm.MD5, b""), 0)) is None
    assert lines == []


def test_the_likely_one_comes_first(tree: Path, lines: list[str]) -> None:
    """What is known to be the part, then what has its name, then others; what is known to differ, never."""
    part = part_of(tree / "0.deb")
    sources = Sources([str(tree)], report=lines.append)
    sources.scan(None)
    assert [os.path.basename(piece.path) for piece in sources.candidates(part, {"1.deb"})] == [
        "1.deb",
        "0.deb",
    ]
    assert [os.path.basename(piece.path) for piece in sources.candidates(part, {"0.deb"})] == [
        "0.deb",
        "1.deb",
    ]
    right, wrong = sources.candidates(part, {"0.deb"})
    sources.learn(right, part.checksum)
    assert sources.candidates(part, {"1.deb"})[0].path == right.path
    sources.identify(wrong, Algorithm.MD5)
    assert [piece.path for piece in sources.candidates(part)] == [right.path]
    other = Part(Checksum.of(Algorithm.SHA256, b"x"), part.length)
    assert len(sources.candidates(other)) == 2, "an MD5 says nothing about a SHA-256"


def test_a_second_run_hashes_nothing(
    tree: Path, iso_md5: BuiltImage, tmp_path: Path, lines: list[str]
) -> None:
    """What one run computed, the next one knows: checksums, wrong candidates, the directory of an image."""
    wanted = [part_of(path) for path in sorted(tree.rglob("*.deb"))]
    wanted += [part_of(iso_md5.pool / path, Algorithm.SHA256) for path in iso_md5.parts.values()]
    bare = tmp_path / "bare.iso"
    bare.write_bytes(iso_md5.image.read_bytes())
    hashed = []
    for _ in range(2):
        remembered = Remembered(str(tmp_path / "scanned.db"), report=lines.append)
        sources = Sources([str(tree), str(bare)], remembered=remembered, report=lines.append)
        sources.scan({part.length for part in wanted})
        for part in wanted:
            for piece in sources.candidates(part):
                sources.identify(piece, part.checksum.algorithm)
            assert sources.candidates(part)[0].checksum(part.checksum.algorithm) == part.checksum
        assert sources.counts.images == 1
        hashed.append(sources.counts.hashed_bytes)
        sources.close()
    assert hashed[0] > 0
    assert hashed[1] == 0
    assert lines == []


def test_what_an_earlier_run_noted_is_not_vouched_for(tmp_path: Path, lines: list[str]) -> None:
    """A row that claims a wrong file is the part, forged or of another medium, leads to no wrong bytes."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(b"r" * 5000)
    part = part_of(right)
    right.unlink()
    wrong.write_bytes(b"w" * 5000)
    remembered = Remembered(str(tmp_path / "scanned.db"), report=lines.append)
    sources = Sources([str(wrong)], remembered=remembered, report=lines.append)
    sources.scan(None)
    (piece,) = sources.pieces()
    remembered.note(piece, part.checksum)
    assert sources.find(part) is None
    sources.close()
    assert lines == []


def test_many_of_one_length_are_hashed_once(tmp_path: Path, lines: list[str]) -> None:
    """Of a thousand files of one length each is read once, not once for each part."""
    parts = []
    for number in range(1000):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(number.to_bytes(4, "big") * 25)
        parts.append(part_of(path))
    sources = Sources([str(tmp_path)], report=lines.append)
    sources.scan(None)
    assert all(sources.find(part) is not None for part in parts)
    assert sources.counts.hashed_bytes == 1000 * 100
    assert lines == []


def test_a_file_that_changed_is_dropped(tree: Path, lines: list[str]) -> None:
    """Written to, replaced or gone since the search: reported in one line, and not offered again."""
    sources = Sources([str(tree)], report=lines.append)
    sources.scan(None)
    victims = [tree / "0.deb", tree / "sub" / "4.deb", tree / "6.deb"]
    parts = [part_of(path) for path in victims]
    pieces = [next(piece for piece in sources.pieces() if piece.path == str(path)) for path in victims]
    victims[0].write_bytes(victims[0].read_bytes() + b"x")
    os.replace(tree / "sub" / "5.deb", victims[1])
    victims[2].unlink()
    os.mkfifo(victims[2])
    for part, piece in zip(parts, pieces, strict=True):
        with pytest.raises(SourceChanged):
            sources.identify(piece, Algorithm.MD5)
        assert sources.find(part) is None
        assert piece.path not in [candidate.path for candidate in sources.candidates(part)]
    sources.drop(pieces[0], "again")
    # the file that took the other's place is missed under its own name
    assert [line.partition(": ")[0] for line in lines] == [
        str(victims[0]), str(victims[1]), str(tree / "sub" / "5.deb"), str(victims[2])
    ]  # fmt: skip
    sources.scan(None)
    assert sources.find(part_of(victims[0])) is not None, "a new search finds it as it is now"


def test_a_file_that_changes_while_it_is_hashed_is_found_out(tmp_path: Path) -> None:
    """The fingerprint is taken again at the end."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 5000)
    sources = Sources([str(path)], report=pytest.fail)
    sources.scan(None)
    piece = next(sources.pieces())
    fd = open_piece(piece)
    try:
        assert hash_piece(fd, piece, Algorithm.MD5) == Checksum.of(Algorithm.MD5, b"a" * 5000)
        path.write_bytes(b"b" * 5000)
        os.utime(path, ns=(0, 0))
        with pytest.raises(SourceChanged):
            hash_piece(fd, piece, Algorithm.MD5)
    finally:
        os.close(fd)


def test_threads_hash_a_piece_once(tmp_path: Path, lines: list[str]) -> None:
    """Eight threads that want the same part at the same time read it once."""
    path = tmp_path / "large.deb"
    path.write_bytes(random.Random(12).randbytes(8_000_000))
    part = part_of(path)
    sources = Sources([str(tmp_path)], report=lines.append)
    sources.scan({part.length})
    gate = threading.Barrier(8)

    def work(_: int) -> Piece | None:
        gate.wait(10)
        return sources.find(part)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
    assert sources.counts.hashed_bytes == part.length


def test_many_threads_get_along(tree: Path, tmp_path: Path, lines: list[str]) -> None:
    """Threads that look for different parts, with an index, all find theirs."""
    wanted = [part_of(path) for path in tree.rglob("*.deb")] * 3
    remembered = Remembered(str(tmp_path / "scanned.db"), report=lines.append)
    sources = Sources([str(tree)], remembered=remembered, report=lines.append)
    sources.scan(None)
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(sources.find, wanted))
    assert sources.counts.hashed_bytes <= sum(
        {piece.path: piece.length for piece in sources.pieces()}.values()
    )
    sources.close()
    assert lines == []


def test_a_damaged_image_costs_a_line(iso_md5: BuiltImage, tmp_path: Path, lines: list[str]) -> None:
    """An image whose directory is broken is skipped with a line, and what else is there is found."""
    data = bytearray(iso_md5.image.read_bytes())
    data[17 * 2048 : 60 * 2048] = random.Random(13).randbytes(43 * 2048)
    (tmp_path / "broken.iso").write_bytes(data)
    (tmp_path / "good.deb").write_bytes(b"x" * 2000)
    sources = Sources([str(tmp_path)], report=lines.append)
    sources.scan(None)
    assert sources.find(part_of(tmp_path / "good.deb")) is not None
    assert len(lines) == 1
    assert "broken.iso: cannot be read as an ISO 9660 image" in lines[0]


def test_an_image_needs_no_name(iso_md5: BuiltImage, tmp_path: Path, lines: list[str]) -> None:
    """A large file without a suffix is looked into in a tree, one with any suffix when it is named."""
    for name, found in (("DVD1", True), ("dvd.old", False)):
        directory = tmp_path / name
        directory.mkdir()
        (directory / name).write_bytes(iso_md5.image.read_bytes())
        part = part_of(iso_md5.pool / "main" / "a" / "large.deb")
        for path, expected in ((directory, found), (directory / name, True)):
            sources = Sources([str(path)], report=lines.append)
            sources.scan({part.length})
            assert (sources.find(part) is not None) is expected
    assert lines == []


def test_the_mount_point_to_be_is_kept_out_of(tmp_path: Path, lines: list[str]) -> None:
    """A place named as such is not searched, and nobody need be told."""
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt" / "file").write_bytes(b"x" * 100)
    sources = Sources([str(tmp_path)], report=lines.append, besides=[str(tmp_path / "mnt")])
    sources.scan(None)
    assert sources.counts.pieces == 0
    assert lines == []


UNREADABLE = """
import hashlib, sys
from jigdofs.format.checksum import Checksum
from jigdofs.format.part import Part
from jigdofs.sources.sources import Sources
sources = Sources(sys.argv[1:], report=print)
sources.scan(None)
print(sources.find(Part(Checksum(hashlib.md5(b"x" * 100).digest()), 100)))
"""


def test_an_unreadable_file_is_dropped(public_dir: Path) -> None:
    """A file that may be seen but not read is reported when it is wanted."""
    require_root()
    path = public_dir / "closed"
    path.write_bytes(b"x" * 100)
    path.chmod(0o000)
    command = as_user("nobody", [sys.executable, "-c", UNREADABLE, str(public_dir)])
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout.splitlines() == [
        f"{path}: cannot be read: Permission denied; it is not used",
        "None",
    ], done
