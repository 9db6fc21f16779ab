"""The index of local files: what is believed, and what happens when the database is no good."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.open_file import Fingerprint
from jigdofs.sources.piece import Piece
from jigdofs.sources.remembered import Remembered
from tests.kit.mounts import REPOSITORY

FINGERPRINT = Fingerprint(5000, 1_700_000_000_000_000_000, 2**64 - 1)
PIECE = Piece(os.fsdecode(b"/srv/caf\xc3\xa9-\xff"), 2048, 1000, FINGERPRINT)
MD5 = Checksum.of(Algorithm.MD5, b"x")
SHA256 = Checksum.of(Algorithm.SHA256, b"x")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scanned.db"


def unreported(line: str) -> None:
    pytest.fail(f"reported: {line}")


def opened(path: Path, today: int = 20_000) -> Remembered:
    return Remembered(str(path), report=unreported, today=today)


def test_checksums_come_back(path: Path) -> None:
    """Both checksums of a piece survive, noted in different runs, under any name and inode."""
    for checksum in (MD5, SHA256):
        remembered = opened(path)
        remembered.note(PIECE, checksum)
        remembered.close()
    remembered = opened(path)
    assert remembered.checksums(PIECE) == (MD5, SHA256)
    assert remembered.checksums(PIECE._replace(offset=0)) == ()
    remembered.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_row_counts_for_the_file_it_was_made_of(path: Path) -> None:
    """With another fingerprint nothing is known, and what is noted then takes the place of all before."""
    changed = PIECE._replace(fingerprint=FINGERPRINT._replace(mtime_ns=1))
    remembered = opened(path)
    remembered.note(PIECE, MD5)
    remembered.flush()
    assert remembered.checksums(changed) == ()
    remembered.note(changed, SHA256)
    remembered.flush()
    assert remembered.checksums(changed) == (SHA256,)
    assert remembered.checksums(PIECE) == ()
    remembered.close()


def test_extents_come_back(path: Path) -> None:
    """Where files lie in an image is known as long as the image stays the same."""
    remembered = opened(path)
    remembered.note_extents("/srv/a.iso", FINGERPRINT, [(2048, 10), (4096, 904), (4096, 905)])
    remembered.flush()
    # a row that reaches beyond the file was not written by us
    assert remembered.extents("/srv/a.iso", FINGERPRINT) == [(2048, 10), (4096, 904)]
    assert remembered.extents("/srv/a.iso", FINGERPRINT._replace(inode=7)) is None
    assert remembered.extents("/srv/b.iso", FINGERPRINT) is None
    remembered.close()


def test_rows_nobody_asks_for_are_dropped(path: Path) -> None:
    """After thirty days without use a row is gone; one that was used is not."""
    used = PIECE._replace(offset=0)
    remembered = opened(path)
    remembered.note(PIECE, MD5)
    remembered.note(used, MD5)
    remembered.note_extents("/srv/a.iso", FINGERPRINT, [])
    remembered.close()
    remembered = opened(path, today=20_020)
    assert remembered.checksums(used) == (MD5,)
    remembered.close()
    opened(path, today=20_031).close()
    remembered = opened(path, today=20_031)
    assert remembered.checksums(used) == (MD5,)
    assert remembered.checksums(PIECE) == ()
    assert remembered.extents("/srv/a.iso", FINGERPRINT) is None
    remembered.close()


def test_many_rows_are_written_as_they_come(path: Path) -> None:
    """A run that is killed loses the last few hundred rows at most."""
    remembered = opened(path)
    for number in range(1000):
        remembered.note(PIECE._replace(offset=number), MD5)
    other = opened(path)
    known = sum(other.checksums(PIECE._replace(offset=number)) == (MD5,) for number in range(1000))
    assert 700 < known < 1000
    other.close()
    remembered.close()


@pytest.mark.parametrize("data", [b"\x00\x06\x15\x61" * 3000, b"SQLite format", b"notes\n" * 100], ids=len)
def test_a_foreign_file_is_left_alone(path: Path, data: bytes) -> None:
    """A file that is no SQLite database is not touched, and the user hears of it."""
    path.write_bytes(data)
    lines: list[str] = []
    remembered = Remembered(str(path), report=lines.append)
    remembered.note(PIECE, MD5)
    assert remembered.checksums(PIECE) == ()
    remembered.close()
    assert path.read_bytes() == data
    assert len(lines) == 1
    assert str(path) in lines[0]


def test_a_foreign_database_is_left_alone(path: Path) -> None:
    """A database of another program is not touched, not even if its tables are called like ours."""
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE pieces (path)")
    database.close()
    data = path.read_bytes()
    lines: list[str] = []
    Remembered(str(path), report=lines.append).close()
    assert (path.read_bytes(), len(lines)) == (data, 1)


@pytest.mark.parametrize("damage", ["pages", "cut", "tables"])
def test_a_damaged_database_is_moved_aside(path: Path, damage: str) -> None:
    """What is ours and broken makes room for a new database, which works."""
    remembered = opened(path)
    for number in range(1000):
        remembered.note(PIECE._replace(offset=number), MD5)
    remembered.close()
    if damage == "pages":
        data = path.read_bytes()
        path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))
    elif damage == "cut":
        os.truncate(path, 4096)
    else:
        database = sqlite3.connect(path)
        database.execute("DROP TABLE images")
        database.close()
    for _ in range(2):  # what is met only later is moved aside then
        remembered = opened(path)
        for number in range(1000):
            remembered.checksums(PIECE._replace(offset=number))
        remembered.note(PIECE, SHA256)
        remembered.close()
    assert path.with_name("scanned.db.damaged").exists()
    remembered = opened(path)
    assert remembered.checksums(PIECE) == (SHA256,)
    remembered.close()


def test_a_locked_database_is_done_without(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While another process holds the database for long, we go on, and say so to who wants to know."""
    opened(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with caplog.at_level(logging.INFO, "jigdofs"):
        remembered = opened(path)
        remembered.note(PIECE, MD5)
        assert remembered.checksums(PIECE) == ()
        remembered.close()
    assert "locked" in caplog.text
    holder.close()
    assert not path.with_name("scanned.db.damaged").exists()


def test_no_place_for_a_database_is_no_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the directory is missing, or something else has the name, we go on."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with caplog.at_level(logging.INFO, "jigdofs"):
        for name in ("missing/x.db", "directory", "fifo"):
            remembered = opened(tmp_path / name)
            remembered.note(PIECE, MD5)
            remembered.close()
    assert len(caplog.records) == 3


WRITER = """
import sys
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.open_file import Fingerprint
from jigdofs.sources.piece import Piece
from jigdofs.sources.remembered import Remembered
remembered = Remembered(sys.argv[1], report=sys.exit)
for number in range(2000):
    piece = Piece(f"/srv/{sys.argv[2]}", number, 1, Fingerprint(1, 2, 3))
    remembered.note(piece, Checksum.of(Algorithm.MD5, b"x"))
    remembered.checksums(piece)
remembered.close()
"""


def test_several_processes_share_a_database(path: Path) -> None:
    """Four processes that begin and write one database at the same time lose nothing."""
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, str(number)], env=environ) for number in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*) FROM pieces").fetchone() == (8000,)
    database.close()


def test_threads_share_it(path: Path) -> None:
    """Threads that note and ask at the same time get along."""
    remembered = opened(path)

    def work(number: int) -> None:
        for offset in range(500):
            piece = Piece(f"/{number}", offset, 1, FINGERPRINT)
            remembered.note(piece, MD5)
            remembered.checksums(piece)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    remembered.flush()
    assert all(
        remembered.checksums(Piece(f"/{number}", offset, 1, FINGERPRINT)) == (MD5,)
        for number in range(4)
        for offset in range(500)
    )
    remembered.close()
