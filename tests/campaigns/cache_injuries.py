"""What may happen to a cache directory behind the back of jigdofs: injuries, each drawn from a seed.

An injury is done to one file, to a directory or to the index, while no daemon runs or while one does; what is
not there (any more) is left out. None of them writes outside the cache: they only put ways there into it.
"""

import contextlib
import os
import random
import shutil
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MISSED = "met nothing)"
_OTHER_USER = 65534
_MOST_BYTES = 4 << 20  # written at once; some are huge and sparse by then


@dataclass(frozen=True, slots=True)
class Patient:
    """One cache directory, a place outside of it that nobody may touch, and the choices that a seed makes.

    Attributes:
        cache: the directory.
        outside: has `secret`, and directories as the cache has them, with files of the same names.
        source: decides everything.
    """

    cache: Path
    outside: Path
    source: random.Random

    def place(self, name: str) -> Path:
        """Return a path in the cache; raise `FileNotFoundError` where the way there leads out of it."""
        path = self.cache
        for step in Path(name).parts:
            if path.is_symlink():
                raise FileNotFoundError(path)
            path /= step
        return path

    def plain(self, name: str) -> Path:
        """Return the path of a file that may be written to: it is none of those outside by another name."""
        path = self.place(name)
        if path.is_symlink() or (path.exists() and path.stat().st_nlink != 1):
            raise FileNotFoundError(path)
        return path

    def plain_directory(self, name: str) -> Path:
        """Return the path of a directory; raise `FileNotFoundError` where it is a link."""
        path = self.place(name)
        if path.is_symlink():
            raise FileNotFoundError(path)
        return path

    def files(self, *below: str) -> list[Path]:
        """Return the plain files below some of its directories, in order; no link is followed."""
        found: list[Path] = []
        for name in below:
            with contextlib.suppress(FileNotFoundError):
                found += _plain_files(self.place(name))
        return sorted(found)

    def file(self, *below: str) -> Path:
        """Choose one of them; raise `FileNotFoundError` where there is none."""
        found = self.files(*below or ("objects",))
        if not found:
            raise FileNotFoundError
        return self.source.choice(found)


Injury = Callable[[Patient], str]


def injure(patient: Patient, injuries: tuple[Injury, ...]) -> str:
    """Do one of these injuries, and say which and where."""
    injury = patient.source.choice(injuries)
    try:
        where = injury(patient)
    except (OSError, sqlite3.Error) as error:  # it is not there, or busy: that depends on the daemon
        where = f"({type(error).__name__} {MISSED}"
    return f"{injury.__name__.strip('_')} {where}"


def recover(patient: Patient) -> None:
    """Take away what leads out in the place of the whole directory, so that it can be injured again."""
    if patient.cache.is_symlink():
        patient.cache.unlink()
    aside = _aside(patient)
    if aside.exists() and not patient.cache.exists():
        aside.rename(patient.cache)
    shutil.rmtree(aside, ignore_errors=True)


def _plain_files(directory: Path) -> Iterator[Path]:
    if directory.is_symlink():
        return
    for root, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not os.path.islink(os.path.join(root, name)))
        for name in names:
            path = Path(root, name)
            with contextlib.suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                    yield path


def _aside(patient: Patient) -> Path:
    return patient.cache.with_name(patient.cache.name + "-aside")


@contextlib.contextmanager
def _times_kept(path: Path) -> Iterator[None]:
    before = path.lstat()
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _overwrite(path: Path, source: random.Random, count: int) -> None:
    size = path.lstat().st_size
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        for _ in range(count if size else 0):
            at = source.randrange(size)
            old = os.pread(fd, 1, at)
            if old:
                os.pwrite(fd, bytes([old[0] ^ 1 << source.randrange(8)]), at)
    finally:
        os.close(fd)


# -- one file ----------------------------------------------------------------------------------------


def _flip(patient: Patient) -> str:
    path = patient.file("objects", "incoming")
    _overwrite(path, patient.source, patient.source.choice((1, 1, 50)))
    return path.name


def _flip_unseen(patient: Patient) -> str:
    path = patient.file("objects", "incoming")
    with _times_kept(path):
        _overwrite(path, patient.source, 20)
    return path.name


def _truncate(patient: Patient) -> str:
    path = patient.file("objects", "incoming")
    os.truncate(path, patient.source.choice((0, path.lstat().st_size // 2, path.lstat().st_size + 1)))
    return path.name


def _huge_and_sparse(patient: Patient) -> str:
    path = patient.file("objects", "incoming")
    os.truncate(path, 1 << patient.source.choice((36, 40, 43)))
    return path.name


def _holes_of_the_same_length(patient: Patient) -> str:
    path = patient.file()
    with _times_kept(path):
        size = path.lstat().st_size
        os.truncate(path, 0)
        os.truncate(path, size)
    return path.name


def _delete(patient: Patient) -> str:
    path = patient.file("objects", "incoming", "sessions", "index")
    path.unlink()
    return path.name


def _replace(patient: Patient) -> str:
    path = patient.file()
    other = path.with_name("other")
    other.write_bytes(patient.source.randbytes(min(path.lstat().st_size, _MOST_BYTES)))
    with contextlib.suppress(FileNotFoundError):
        shutil.copystat(path, other)
    other.replace(path)
    return path.name


def _swap(patient: Patient) -> str:
    one, other = patient.file(), patient.file()
    spare = one.with_name("spare")
    one.rename(spare)
    with contextlib.suppress(FileNotFoundError):
        other.rename(one)
    spare.rename(other)
    return f"{one.name} {other.name}"


def _link_outside(patient: Patient) -> str:
    path = patient.file("objects", "sessions", "incoming")
    path.unlink()
    path.symlink_to(patient.source.choice((patient.outside / "secret", Path("/etc/shadow"))))
    return path.name


def _hard_link_outside(patient: Patient) -> str:
    path = patient.file("objects", "sessions", "incoming")
    path.unlink()
    path.hardlink_to(patient.outside / "secret")
    return path.name


def _no_plain_file(patient: Patient) -> str:
    path = patient.file("objects", "sessions", "incoming")
    path.unlink()
    match patient.source.randrange(4):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path.parent):
                listener.bind(path.name)
        case _:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, patient.source.choice((3, 5, 7))))
    return path.name


def _rights(patient: Patient) -> str:
    path = patient.file("objects", "index", "sessions")
    if patient.source.randrange(2):
        path.chmod(patient.source.choice((0, 0o200, 0o400, 0o777)))
    else:
        os.chown(path, _OTHER_USER, _OTHER_USER)
    return path.name


def _foreign_file(patient: Patient) -> str:
    folder = patient.source.choice(("", "objects/", "objects/md5/", "incoming/", "sessions/"))
    name = patient.source.choice(("new\nline", "\x1b[31m", "-rf", "0" * 16, "a" * 255, "md5", "00", " "))
    path = patient.place(folder + name)
    with contextlib.suppress(FileExistsError), path.open("xb") as file:
        file.write(b"none of ours")
    return str(path.relative_to(patient.cache))


# -- directories -------------------------------------------------------------------------------------


def _directory_leads_outside(patient: Patient) -> str:
    name = patient.source.choice(
        ("objects", "objects/md5", "objects/raw", "objects/doc", "incoming", "sessions", "index")
    )
    path = patient.place(name)
    gone = path.with_name(f"gone-{patient.source.randrange(1 << 30)}")
    path.rename(gone)
    path.symlink_to(patient.outside / name)
    return name


def _shard_leads_outside(patient: Patient) -> str:
    shard = patient.file().parent
    gone = shard.with_name(f"gone-{patient.source.randrange(1 << 30)}")
    shard.rename(gone)
    shard.symlink_to(patient.outside / shard.relative_to(patient.cache))
    return str(shard.relative_to(patient.cache))


def _directory_gone(patient: Patient) -> str:
    name = patient.source.choice(("objects", "objects/md5", "objects/raw", "incoming", "sessions", "index"))
    shutil.rmtree(patient.plain_directory(name))
    return name


def _directory_is_a_file(patient: Patient) -> str:
    name = patient.source.choice(("objects/md5", "objects/raw", "incoming", "sessions", "index"))
    path = patient.plain_directory(name)
    shutil.rmtree(path)
    path.write_bytes(b"no directory")
    return name


def _directory_rights(patient: Patient) -> str:
    name = patient.source.choice(("objects", "objects/md5", "incoming", "sessions", "index"))
    patient.plain_directory(name).chmod(patient.source.choice((0, 0o500, 0o300)))
    return name


def _whole_gone(patient: Patient) -> str:
    if patient.cache.is_symlink():
        raise FileNotFoundError
    shutil.rmtree(patient.cache)
    return ""


def _whole_renamed(patient: Patient) -> str:
    patient.cache.rename(_aside(patient))
    if patient.source.randrange(2):
        patient.cache.symlink_to(patient.outside)
        return "and leads outside"
    return ""


# -- the index ---------------------------------------------------------------------------------------


def _index_flip(patient: Patient) -> str:
    path = patient.file("index")
    _overwrite(path, patient.source, patient.source.choice((1, 200)))
    return path.name


def _index_garbage(patient: Patient) -> str:
    name = patient.source.choice(("cache.db", "cache.db-wal", "cache.db-shm"))
    path = patient.plain(f"index/{name}")
    match patient.source.randrange(3):
        case 0:
            path.write_bytes(patient.source.randbytes(100_000))
        case 1:
            path.write_bytes(b"")
        case _:
            os.truncate(path, path.lstat().st_size // 2)
    return name


def _index_file_leads_outside(patient: Patient) -> str:
    name = patient.source.choice(("cache.db", "cache.db-wal", "cache.db-shm", "cache.db-journal"))
    path = patient.place(f"index/{name}")
    path.unlink(missing_ok=True)
    target = patient.outside / "index" / name
    if patient.source.randrange(2):
        path.symlink_to(target)
    else:
        path.hardlink_to(target)
    return name


_SCHEMAS = (
    "DROP TABLE Cache",
    "DROP TABLE Settings",
    "ALTER TABLE Cache RENAME COLUMN value TO valued",
    "ALTER TABLE Cache DROP COLUMN filename",
    "INSERT INTO Settings VALUES ('directory', '/etc')",
    "UPDATE Settings SET value = 'x'",
    "UPDATE Settings SET value = 1 << 62",
    "CREATE TRIGGER gone AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
    "CREATE TRIGGER loud BEFORE UPDATE ON Cache BEGIN SELECT RAISE(ABORT, 'no'); END",
    "DELETE FROM Cache",
    "PRAGMA user_version = 99",
)
_ROWS = (
    "UPDATE Cache SET value = NULL",
    "UPDATE Cache SET value = 1e308",
    "UPDATE Cache SET value = zeroblob(1000)",
    "UPDATE Cache SET value = replace(value, '[', '[[[[[[')",
    "UPDATE Cache SET value = '[' || (1 << 62) || substr(value, instr(value, ','))",
    "UPDATE Cache SET value = '[-1, null, \"x\", 4, {{}}]'",
    "UPDATE Cache SET value = replace(value, '0', '1')",
    "UPDATE Cache SET value = (SELECT max(value) FROM Cache WHERE key LIKE 'file:%')",
    "UPDATE Cache SET key = NULL",
    "UPDATE Cache SET raw = 0",
    "UPDATE Cache SET mode = 4",
    "UPDATE Cache SET expire_time = 1",
    "UPDATE Cache SET mode = 2, filename = '{secret}', size = 999999999999",
    "UPDATE Cache SET filename = '../../../../../../{secret}'",
    "UPDATE Cache SET filename = '/etc/shadow'",
    'UPDATE Cache SET value = \'{{"used": -5, "grants": {{"x": 1e99}}}}\' WHERE key = \'ledger\'',
    'UPDATE Cache SET value = \'{{"used": 0, "grants": {{"../../x": 1e18}}}}\' WHERE key = \'ledger\'',
    "UPDATE Cache SET value = replace(hex(zeroblob(200000)), '0', '[') WHERE key = 'ledger'",
    "UPDATE Cache SET value = replace(hex(zeroblob(200000)), '0', '9') WHERE key = 'ledger'",
)


def _index_schema(patient: Patient) -> str:
    statement = patient.source.choice(_SCHEMAS)
    _change(patient.plain("index/cache.db"), statement)
    return statement


def _index_rows(patient: Patient) -> str:
    statement = patient.source.choice(_ROWS).format(secret=patient.outside / "secret")
    _change(patient.plain("index/cache.db"), statement)
    return statement


def _remembered(patient: Patient) -> str:
    path = patient.plain("scanned.db")
    match patient.source.randrange(6):
        case 0:
            path.write_bytes(patient.source.randbytes(20_000))
            return "garbage"
        case 1:
            _overwrite(path, patient.source, 100)
            return "flipped"
        case 2:
            path.unlink()
            path.symlink_to(patient.outside / "scanned.db")
            return "leads outside"
        case 3:
            _change(path, "DROP TABLE pieces")
            return "no table"
        case 4:
            _change(
                path,
                "UPDATE pieces SET md5 = (SELECT md5 FROM pieces ORDER BY random() LIMIT 1), length = -1",
            )
            return "rows"
        case _:
            path.unlink()
            path.hardlink_to(patient.outside / "scanned.db")
            return "hard link"


def _change(path: Path, statement: str) -> None:
    path.stat()  # to be changed, not made
    for beside in ("-wal", "-shm", "-journal"):
        other = path.with_name(path.name + beside)
        if other.is_symlink() or (other.exists() and other.stat().st_nlink != 1):
            raise FileNotFoundError(other)
    with contextlib.closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as database:
        database.execute(statement)


FILES: tuple[Injury, ...] = (
    _flip,
    _flip_unseen,
    _truncate,
    _huge_and_sparse,
    _holes_of_the_same_length,
    _delete,
    _replace,
    _swap,
    _link_outside,
    _hard_link_outside,
    _no_plain_file,
    _rights,
    _foreign_file,
)
INDEX: tuple[Injury, ...] = (
    _index_flip,
    _index_garbage,
    _index_file_leads_outside,
    _index_schema,
    _index_rows,
    _index_rows,
    _remembered,
)
DIRECTORIES: tuple[Injury, ...] = (
    _directory_leads_outside,
    _shard_leads_outside,
    _directory_gone,
    _directory_is_a_file,
    _directory_rights,
)
WHOLE: tuple[Injury, ...] = (_whole_gone, _whole_renamed)
IDLE = FILES + FILES + INDEX + DIRECTORIES
"""Injuries while no daemon runs. Where the whole directory is, is the user's choice then."""
RUNNING = FILES + FILES + INDEX + DIRECTORIES + WHOLE
