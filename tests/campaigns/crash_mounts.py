"""Kill the daemon of a mount again and again, under load and while it starts, and look at the next start."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jigdofs.control import place
from tests.campaigns.crash_kit import (
    PREFIX,
    Findings,
    Moment,
    age,
    answered,
    asked_for,
    begun,
    children,
    files_below,
    in_cache,
    kill,
    misbehave,
    mounts_at,
    settle,
    wrong_in_cache,
)
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, clean_environ, detach_everything, mounted_at
from tests.kit.scenes import (
    PAGE_BYTES,
    daemon_pid,
    ended,
    occurrences,
    pool_files,
    read_buffered,
    read_direct,
    wait_until,
)

_QUICK = ("--connect-timeout", "1s", "--stall-timeout", "1s", "--read-timeout", "8s")
_EVENTS = ("os.rename", "os.rename", "os.remove", "os.utime", "fcntl.flock", "open")
_IN_A_ROW = 5
_READERS = 4
_QUOTA_BYTES = 2_000_000
_START_S = 40.0
_NOTES_S = 8.0  # they are written every 5 s
_STARTING = 0.3
"""So many of the kills come before the mount is ready."""


@dataclass(frozen=True, slots=True)
class _Manner:
    """How an image is mounted, for some kills in a row.

    Attributes:
        contents: with the files inside.
        prefetch: everything is fetched ahead.
        quota: the cache is much smaller than the image.
        power: after some kills, as after a power cut, what was written last is not on the disk.
    """

    contents: bool
    prefetch: bool
    quota: bool
    power: bool

    @property
    def options(self) -> list[str]:
        """What stands on the command line for it."""
        options = ["--contents"] if self.contents else []
        options += ["--prefetch", "all"] if self.prefetch else []
        return [*options, *(["--cache-max-size", str(_QUOTA_BYTES)] if self.quota else [])]


class Mounts:
    """Mounts of one image that are killed.

    Args:
        built: the image; it has the pool's files in `/pool`.
        root: where to work.
        findings: where what is found is told.
        seed: of all that is drawn.
    """

    def __init__(self, built: BuiltImage, root: Path, findings: Findings, seed: int) -> None:
        self._built, self._root, self._findings, self._seed = built, root, findings, seed

    def run(self, kills: int) -> None:
        """Kill so many."""
        number = 0
        while (left := kills - self._done()) > 0:
            dice = random.Random(f"mount {self._seed} {number}")
            with FaultyServer(pool_files(self._built, PREFIX)) as server:
                home = self._root / f"mount-{number}"
                home.mkdir()
                where = f"mount, seed {self._seed}, round {number}"
                life = _Lives(self._built, self._findings, server, dice=dice, home=home, where=where)
                with life.tidied_up():
                    life.run(left)
            shutil.rmtree(home)
            number += 1

    def _done(self) -> int:
        return sum(count for what, count in self._findings.kills.items() if what.startswith("mount"))


class _Lives:
    """One mount point and one cache, and the daemons that live and die there."""

    def __init__(
        self,
        built: BuiltImage,
        findings: Findings,
        server: FaultyServer,
        *,
        dice: random.Random,
        home: Path,
        where: str,
    ) -> None:
        self._findings, self._server, self._dice, self._home = findings, server, dice, home
        self._manner = _Manner(
            contents=dice.random() < 0.3,
            prefetch=dice.random() < 0.3,
            quota=dice.random() < 0.25,
            power=dice.random() < 0.3,
        )
        self._where = f"{where} ({self._manner})"
        self._built = built.with_servers(home / "in", {"Debian": server.url(PREFIX)})
        self._data = built.image.read_bytes()
        self._places = occurrences(built)
        self._point = home / "mnt"
        self._cache = home / "cache"
        self._tmp = home / "tmp"
        for directory in (self._point, self._tmp):
            directory.mkdir()
        self._environ = clean_environ(home) | {"TMPDIR": str(self._tmp)}
        self._whole: set[str] = set()  # verified, as far as we know, and not to be fetched again
        self._power_cut = False

    @property
    def _image(self) -> Path:
        return self._point / self._built.image.name

    @contextmanager
    def tidied_up(self) -> Iterator[None]:
        """Leave nothing of ours mounted or running, whatever went wrong."""
        try:
            yield
        finally:
            with suppress(OSError, ValueError):
                kill(daemon_pid(self._point))
            detach_everything(self._point)

    def run(self, kills: int) -> None:
        """Kill some daemons in a row, then have one live and end well."""
        for count in range(min(_IN_A_ROW, kills)):
            where = f"{self._where}, kill {count}"
            if self._dice.random() < _STARTING:
                self._kill_while_it_starts(where)
            else:
                self._kill_under_load(where)
        self._live_well()

    # -- starting --------------------------------------------------------------------------------

    def _command(self, *, foreground: bool) -> list[str]:
        options = ["--cache-dir", str(self._cache), "--log-file", str(self._home / "daemon.log"), *_QUICK]
        options += ["--foreground"] if foreground else []
        command = [*PROGRAM, "mount", str(self._built.jigdo), str(self._point), *options]
        return [*command, *self._manner.options]

    def _ready(self, pid: int | None = None) -> bool:
        """Tell whether a living daemon answers, that one if it is given."""
        if not mounted_at(self._point):
            return False
        try:
            found = daemon_pid(self._point)
        except OSError:
            return False
        return found == pid if pid is not None else not ended(found)

    def _log(self) -> str:
        logs = [self._home / name for name in ("log", "daemon.log")]
        return " / ".join(log.read_text(errors="replace")[-400:] for log in logs if log.exists())

    @contextmanager
    def _started(self, where: str, environ: dict[str, str], *, foreground: bool) -> Iterator[int | None]:
        """Have a daemon that is ready, and yield its pid, None if it did not start by itself."""
        environ = self._environ | environ
        command = self._command(foreground=foreground)
        with begun(command, environ, self._home, self._home / "log") as process:
            over = (
                (lambda: self._ready(process.pid) or process.poll() is not None)
                if foreground
                else (lambda: process.poll() is not None)
            )
            wait_until(over, "ready or not", _START_S)
            if self._ready(process.pid if foreground else None):
                yield daemon_pid(self._point)
            else:
                if "KIT_KILL_AT" not in environ:
                    self._findings.hands.append(f"{where}: did not start: {self._log()}")
                yield None

    # -- killing ---------------------------------------------------------------------------------

    def _kill_while_it_starts(self, where: str) -> None:
        """Kill whom the user started, or the daemon, before the mount is ready or just then."""
        self._begin_life()
        foreground = self._dice.random() < 0.5
        by_event = self._dice.random() < 0.5
        moment = Moment("delay", self._dice.randrange(1, 700))
        if by_event:
            moment = Moment(self._dice.choice(_EVENTS), self._dice.randrange(1, 12))
        whom = self._dice.choice(("parent", "daemon"))
        environ = self._environ | moment.environ(self._home) | {"KIT_KILL_BELOW": str(self._home)}
        command = self._command(foreground=foreground)
        with begun(command, environ, self._home, self._home / "log") as process:
            moment.wait(self._server, lambda: process.poll() is not None or self._ready())
            others = children(process.pid) if not foreground else []
            with suppress(OSError):
                if self._ready():
                    others.append(daemon_pid(self._point))
            if foreground or (whom == "parent" and process.poll() is None):
                kill(process.pid)
            for other in others:
                if whom == "parent" and not self._ends_or_serves(other):
                    self._findings.left.append(f"{where}, {moment}: process {other} goes on for nobody")
                kill(other)
            process.wait()
        self._findings.killed("mount, starting")
        self._after(f"{where}, starting, {moment}, {whom}")

    def _ends_or_serves(self, pid: int) -> bool:
        """Tell whether a daemon whose starter was killed ends soon, unless it was ready already."""
        with suppress(AssertionError):
            wait_until(lambda: ended(pid) or self._ready(pid), "its end", _START_S)
            return True
        return False

    def _kill_under_load(self, where: str) -> None:
        """Kill a daemon that readers and mirrors keep busy."""
        self._begin_life()
        kind = self._dice.choice(("requests", "requests", "bytes", "bytes", "delay", "event"))
        moment = Moment(kind, self._dice.randrange(1, 24))
        if kind == "bytes":
            moment = Moment(kind, self._dice.randrange(1, len(self._data)))
        elif kind == "delay":
            moment = Moment(kind, self._dice.randrange(1, 1200))
        elif kind == "event":
            moment = Moment(self._dice.choice(_EVENTS), self._dice.randrange(12, 60))
        where = f"{where}, {moment}"
        foreground = self._dice.random() < 0.5
        seeds = [self._dice.random() for _ in range(_READERS)]
        with self._started(where, moment.environ(self._home), foreground=foreground) as pid:
            if pid is None:
                self._findings.killed("mount, starting")
            else:
                over = threading.Event()
                with ThreadPoolExecutor(_READERS) as threads:
                    works = [threads.submit(self._read, where, seed, over) for seed in seeds]
                    moment.wait(self._server, lambda: ended(pid))
                    if self._manner.power and not ended(pid):
                        self._wait_for_notes(pid)
                    kill(pid)
                    over.set()
                    got = {checksum for work in works for checksum in work.result()}
                lost = got - in_cache(self._cache)
                if lost and not self._manner.quota:
                    self._findings.lost.append(f"{where}: read, and not kept: {sorted(lost)}")
                self._findings.killed("mount, under load")
        self._after(where)

    def _wait_for_notes(self, pid: int) -> None:
        """Wait until the index has notes of the daemon: else nothing could be believed after its death."""
        database = f"file:{self._cache}/index/cache.db?mode=ro"

        def noted() -> bool:
            with suppress(sqlite3.Error), closing(sqlite3.connect(database, uri=True)) as notes:
                rows = notes.execute("SELECT count(*) FROM Cache WHERE key LIKE 'file:%'").fetchone()
                return bool(rows[0])
            return False

        with suppress(AssertionError):
            wait_until(lambda: ended(pid) or noted(), "notes", _NOTES_S)

    def _begin_life(self) -> None:
        misbehave(self._server, self._built, self._dice)
        self._server.forget_requests()

    def _read(self, where: str, seed: float, over: threading.Event) -> set[str]:
        """Read at random until it is over, and compare; return the checksums of parts of which bytes came."""
        dice = random.Random(seed)
        got: set[str] = set()
        while not over.is_set():
            at = dice.randrange(0, len(self._data)) // PAGE_BYTES * PAGE_BYTES
            length = min(dice.choice((4096, 65_536, 300_000)), len(self._data) - at)
            try:
                if self._manner.contents and dice.random() < 0.3:
                    got.add(self._read_inside(where, dice))
                    continue
                reader = dice.choice((read_buffered, read_direct))
                piece = reader(self._image, at, length)
            except OSError:
                continue  # mirrors are bad, or it is dead
            if piece != self._data[at : at + length]:
                self._findings.wrong.append(f"{where}: {length} bytes at {at}")
            self._findings.compared(length)
            got |= {one.checksum for one in self._places if at < one.end and one.offset < at + length}
        return got

    def _read_inside(self, where: str, dice: random.Random) -> str:
        """Read one of the files inside, and compare; return its checksum."""
        checksum, name = dice.choice(list(self._built.parts.items()))
        data = (self._point / self._built.image.stem / "pool" / name).read_bytes()
        if data != (self._built.pool / name).read_bytes():
            self._findings.wrong.append(f"{where}: {name} inside")
        self._findings.compared(len(data))
        return checksum

    # -- what is left ----------------------------------------------------------------------------

    def _after(self, where: str) -> None:
        """Look at what a killed daemon left."""
        settle(self._server)
        if not self._power_cut:
            self._fetched_again(where)
        now = in_cache(self._cache)
        if self._whole - now and not self._manner.quota and not self._power_cut:
            self._findings.lost.append(f"{where}: no longer kept: {sorted(self._whole - now)}")
        if not self._manner.quota:
            lost = answered(self._server, self._built) - now
            self._findings.in_flight(where, len(lost))
        for path in wrong_in_cache(self._cache):
            if not self._power_cut:
                self._findings.wrong.append(f"{where}: {path} is wrong")
        self._whole = now
        if self._manner.power and self._dice.random() < 0.7:
            self._cut_power()

    def _fetched_again(self, where: str) -> None:
        again = self._whole & set(asked_for(self._server, self._built))
        if again and not self._manner.quota:
            self._findings.lost.append(f"{where}: fetched again: {sorted(again)}")

    def _cut_power(self) -> None:
        """Take from the disk what a power cut may take: the content of young files, not what tells of it.

        Length, times and inode stay in most of them, as when the journal was written and the data was not.
        """
        self._power_cut = True
        changed: dict[int, int] = {}
        files = [path for path in self._cache.glob("objects/*/*/*") if path.is_file()]
        files.sort(key=lambda path: path.stat().st_mtime_ns)
        for path in files[len(files) // 2 :]:
            status = path.stat()
            kind = self._dice.randrange(4)
            with path.open("r+b") as file:
                if kind == 0:
                    file.truncate(status.st_size // 2)
                elif kind == 1:
                    file.truncate(0)
                    file.truncate(status.st_size)
                elif kind == 2 and status.st_size > PAGE_BYTES:
                    file.seek(status.st_size // 2 // PAGE_BYTES * PAGE_BYTES)
                    file.write(bytes(PAGE_BYTES))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            changed[status.st_ctime_ns] = path.stat().st_ctime_ns
        log = self._cache / "index" / "cache.db-wal"
        if self._dice.random() < 0.5:
            _change_notes(self._cache / "index" / "cache.db", changed)
        elif log.exists():
            os.truncate(log, log.stat().st_size // 2)

    def _live_well(self) -> None:
        """Start once more: everything is read and right, nothing verified fetched again, nothing left."""
        where = f"{self._where}, in the end"
        self._server.behave()
        self._server.forget_requests()
        age(self._cache)
        foreground = self._dice.random() < 0.5
        with self._started(where, {}, foreground=foreground) as pid:
            if pid is None:
                return
            if mounts_at(self._point) != 1:
                self._findings.left.append(f"{where}: {mounts_at(self._point)} mounts")
            sessions = list((self._cache / "sessions").iterdir())
            if len(sessions) != 1:
                self._findings.left.append(f"{where}: sessions {[path.name for path in sessions]}")
            for left in (self._cache / "incoming").iterdir():
                if not left.name.startswith(sessions[0].name):
                    self._findings.left.append(f"{where}: {left}")
            try:
                if self._image.read_bytes() != self._data:
                    self._findings.wrong.append(f"{where}: the image")
            except OSError as error:
                self._findings.hands.append(f"{where}: {error}: {self._log()}")
            self._findings.compared(len(self._data))
            if not self._power_cut:
                self._fetched_again(where)
            done = subprocess.run(
                [*PROGRAM, "umount", str(self._point)],
                env=self._environ,
                cwd=self._home,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode or done.stderr:
                self._findings.hands.append(f"{where}: umount: {done.stderr}")
            wait_until(lambda: ended(pid), "the daemon's end", _START_S)
        self._look_around(where)

    def _look_around(self, where: str) -> None:
        """Look for what stays behind after a clean end."""
        left = [f"{mounts_at(self._point)} mounts"] * bool(mounts_at(self._point))
        left += map(str, place.find(str(self._point), os.geteuid()))
        left += files_below(self._tmp)
        left += (
            f"{name}/{path}" for name in ("incoming", "sessions") for path in files_below(self._cache / name)
        )
        left += map(str, wrong_in_cache(self._cache))
        if left:
            self._findings.left.append(f"{where}: {left}")
        if self._manner.quota:
            used = sum(path.stat().st_size for path in self._cache.glob("objects/*/*/*"))
            if used > _QUOTA_BYTES:
                self._findings.left.append(f"{where}: {used} bytes in a cache for {_QUOTA_BYTES}")


def _change_notes(database: Path, changed: Mapping[int, int]) -> None:
    """Have the index note the new times of status changes, which a power cut would not have changed."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as notes, notes:
        rows = notes.execute("SELECT rowid, value FROM Cache WHERE key LIKE 'file:%'").fetchall()
        for row, text in rows:
            values = [changed.get(value, value) for value in json.loads(text)]
            notes.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (json.dumps(values), row))
