"""What is known of local files from earlier runs: checksums of pieces, and where files lie in images.

Invariants of this file:
* A row counts only while the file has the fingerprint it had when the row was written.
* Trouble with the database costs time, never a run: locked, full, unwritable or damaged, we go on without.
* A file that is not ours is left as it is: a `.db` that somebody names may be anything.

Any number of processes may use one database: nothing is locked but for the moment of a read or of a
transaction that writes some hundred rows. It keeps SQLite's plain journal: WAL fails on network file
systems, and with writes so rare it gains nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from jigdofs.errors import printable
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.open_file import Fingerprint
from jigdofs.sources.piece import Piece, open_regular

_log = logging.getLogger(__name__)

KEEP_DAYS = 30
"""Rows nobody asked for in so many days are dropped, as jigdo-file does by default (format.md 3.2)."""
_FLUSH_ROWS = 256
_BUSY_S = 2
_DAY_S = 86400
_MAGIC = b"SQLite format 3\0"
_HEADER = struct.Struct(">60xI4xI")  # of an SQLite file: user_version at byte 60, application_id at 68
_APPLICATION_ID = 0x4A474653  # "JGFS"
_VERSION = 1
_EXTENT = struct.Struct("<QQ")
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})

_CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS pieces (
    path BLOB NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
    fingerprint TEXT NOT NULL, md5 BLOB, sha256 BLOB, day INTEGER NOT NULL,
    PRIMARY KEY (path, offset, length)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY, fingerprint TEXT NOT NULL, extents BLOB NOT NULL, day INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS pieces_day ON pieces (day);
CREATE INDEX IF NOT EXISTS images_day ON images (day);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_GET_PIECE = "SELECT fingerprint, md5, sha256, day FROM pieces WHERE path = ? AND offset = ? AND length = ?"
_GET_IMAGE = "SELECT fingerprint, extents, day FROM images WHERE path = ?"
_SET_PIECE = """
INSERT INTO pieces VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path, offset, length) DO UPDATE SET
    md5 = CASE WHEN fingerprint = excluded.fingerprint THEN coalesce(excluded.md5, md5) ELSE excluded.md5 END,
    sha256 = CASE WHEN fingerprint = excluded.fingerprint
                  THEN coalesce(excluded.sha256, sha256) ELSE excluded.sha256 END,
    fingerprint = excluded.fingerprint, day = excluded.day
"""
_SET_IMAGE = "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)"
_USE_PIECE = "UPDATE pieces SET day = ? WHERE path = ? AND offset = ? AND length = ?"
_USE_IMAGE = "UPDATE images SET day = ? WHERE path = ?"
_EXPIRE = ("DELETE FROM pieces WHERE day < ?", "DELETE FROM images WHERE day < ?")

T = TypeVar("T")


class Remembered:
    """The database. Its methods block shortly and may be called from any thread, in one process.

    Args:
        path: its file; made if need be, its directory is not.
        report: told, in a line, of a file that is not ours.
        keep_days: how long rows stay that nobody asks for.
        today: days since 1970, for tests.
    """

    def __init__(
        self,
        path: str,
        *,
        report: Callable[[str], None] = _log.info,
        keep_days: int = KEEP_DAYS,
        today: int | None = None,
    ) -> None:
        self._path = path
        self._keep_days = keep_days
        self._today = int(time.time() // _DAY_S) if today is None else today
        self._lock = threading.Lock()
        self._writes: list[tuple[str, tuple[object, ...]]] = []
        self._database: sqlite3.Connection | None = None
        try:
            foreign = _is_foreign(path)
        except OSError as error:
            _log.info("%s: not used: %s", path, error.strerror)
            return
        if foreign:
            report(printable(f"{path}: is no index of jigdofs; it is left as it is, and none is used"))
            return
        self._database = self._open(again=True)

    @property
    def usable(self) -> bool:
        """Tell whether anything is remembered at all."""
        return self._database is not None

    # -- opening -----------------------------------------------------------------------------------

    def _open(self, *, again: bool) -> sqlite3.Connection | None:
        database: sqlite3.Connection | None = None
        try:
            # nobody else need know which files this user has
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            _begin(database)
        except (OSError, sqlite3.Error) as error:
            if database is not None:
                database.close()
            if not _is_damage(error):
                _log.info("%s: not used: %s", self._path, error)
                return None
            self._move_aside(error)
            return self._open(again=False) if again else None
        return database

    def _move_aside(self, error: Exception) -> None:
        """Make room for a new database where this one is damaged."""
        _log.info("%s: damaged (%s); it is moved aside, and a new one is begun", self._path, error)
        with contextlib.suppress(OSError):
            os.replace(self._path, self._path + ".damaged")
        with contextlib.suppress(OSError):
            os.unlink(self._path + "-journal")  # it would be played back into the new one

    # -- asking --------------------------------------------------------------------------------------

    def checksums(self, piece: Piece) -> tuple[Checksum, ...]:
        """Return the checksums of a piece that were computed when its file was what it is now."""
        key = (os.fsencode(piece.path), piece.offset, piece.length)
        row = self._with(lambda database: database.execute(_GET_PIECE, key).fetchone())
        if row is None or row[0] != _text(piece.fingerprint):
            return ()
        if row[3] != self._today:
            self._write(_USE_PIECE, (self._today, *key))
        return tuple(
            Checksum(digest)
            for algorithm, digest in zip((Algorithm.MD5, Algorithm.SHA256), row[1:3], strict=True)
            if isinstance(digest, bytes) and len(digest) == algorithm.digest_size
        )

    def extents(self, path: str, fingerprint: Fingerprint) -> list[tuple[int, int]] | None:
        """Return where the files of an image lie, if that is known of the image as it is now."""
        key = (os.fsencode(path),)
        row = self._with(lambda database: database.execute(_GET_IMAGE, key).fetchone())
        if row is None or row[0] != _text(fingerprint):
            return None
        if not isinstance(row[1], bytes) or len(row[1]) % _EXTENT.size:
            return None
        if row[2] != self._today:
            self._write(_USE_IMAGE, (self._today, *key))
        return [
            (offset, length)
            for offset, length in _EXTENT.iter_unpack(row[1])
            if 0 < length <= fingerprint.size - offset
        ]

    # -- telling -------------------------------------------------------------------------------------

    def note(self, piece: Piece, checksum: Checksum) -> None:
        """Remember the checksum that was computed of a piece; it can be asked for after a `flush`."""
        key = (os.fsencode(piece.path), piece.offset, piece.length)
        is_md5 = checksum.algorithm is Algorithm.MD5
        digests = (checksum.digest, None) if is_md5 else (None, checksum.digest)
        self._write(_SET_PIECE, (*key, _text(piece.fingerprint), *digests, self._today))

    def note_extents(self, path: str, fingerprint: Fingerprint, extents: Sequence[tuple[int, int]]) -> None:
        """Remember where the files of an image lie."""
        packed = b"".join(_EXTENT.pack(offset, length) for offset, length in extents)
        self._write(_SET_IMAGE, (os.fsencode(path), _text(fingerprint), packed, self._today))

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._lock:
            self._writes.append((statement, values))
            full = len(self._writes) >= _FLUSH_ROWS
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered, in one transaction; what cannot be written is forgotten."""
        with self._lock:
            writes, self._writes = self._writes, []
        if writes:
            self._with(lambda database: _write_all(database, writes))

    def close(self) -> None:
        """Write what was gathered, drop what nobody asks for, and close the database."""
        self.flush()
        oldest = (self._today - self._keep_days,)
        self._with(lambda database: _write_all(database, [(statement, oldest) for statement in _EXPIRE]))
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _with(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do something with the database, or nothing where there is none."""
        with self._lock:
            if self._database is None:
                return None
            try:
                return work(self._database)
            except sqlite3.Error as error:
                if _is_damage(error):
                    self._database.close()
                    self._database = None
                    self._move_aside(error)
                else:
                    # busy or full: to ask again for each file would cost the timeout each time
                    _log.info("%s: not used any more: %s", self._path, error)
                    self._database.close()
                    self._database = None
        return None


def _is_foreign(path: str) -> bool:
    """Tell whether a file is neither empty nor a database of this form; raise `OSError`."""
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return False
    try:
        header = os.pread(fd, _HEADER.size, 0)
    finally:
        os.close(fd)
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        return bool(header)
    return _HEADER.unpack(header) != (_VERSION, _APPLICATION_ID)


def _begin(database: sqlite3.Connection) -> None:
    """Make sure of the tables and of what they hold; raise `sqlite3.Error`."""
    database.execute("PRAGMA synchronous = OFF")  # what a power cut takes is computed again
    if database.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
        database.executescript(_CREATE)
    for statement, key in ((_GET_PIECE, (b"", 0, 0)), (_GET_IMAGE, (b"",))):
        database.execute(statement, key).fetchone()


def _write_all(database: sqlite3.Connection, writes: Sequence[tuple[str, tuple[object, ...]]]) -> None:
    with _transaction(database):
        for statement, values in writes:
            database.execute(statement, values)


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _is_damage(error: Exception) -> bool:
    """Tell a database that is no use from one that is merely busy, full or cannot be written."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _DAMAGE


def _text(fingerprint: Fingerprint) -> str:
    """Write a fingerprint down; as text, since an inode may be larger than SQLite's numbers."""
    return " ".join(map(str, fingerprint))
