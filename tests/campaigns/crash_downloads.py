"""Kill `jigdofs download` again and again, and look at what the next run makes of it."""

import random
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from jigdofs.errors import EXIT_OK, EXIT_UNAVAILABLE
from tests.campaigns.crash_kit import (
    PREFIX,
    Findings,
    Moment,
    age,
    answered,
    asked_for,
    begun,
    files_below,
    in_cache,
    kill,
    misbehave,
    settle,
    wrong_in_cache,
)
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.requirements import tool
from tests.kit.scenes import pool_files

_HASTY = ("--connect-timeout", "1s", "--stall-timeout", "1s")
_EVENTS = ("os.rename", "os.remove", "os.truncate", "fcntl.flock", "sqlite3.connect")
_IN_A_ROW = 4
_END_S = 90.0


@dataclass(frozen=True, slots=True)
class _Round:
    """One image that is downloaded, however often that is killed.

    Attributes:
        keep: whether fetched parts go to the cache first.
        update: whether it replaces an older image.
    """

    keep: bool
    update: bool


class Downloads:
    """Downloads of one image that are killed.

    Args:
        built: the image.
        root: where to work.
        findings: where what is found is told.
        seed: of all that is drawn.
    """

    def __init__(self, built: BuiltImage, root: Path, findings: Findings, seed: int) -> None:
        self._built, self._root, self._findings, self._seed = built, root, findings, seed
        self._data = built.image.read_bytes()
        # an image as it was yesterday: another half of it, and as long
        half = len(self._data) // 2
        self._old = self._data[:half] + bytes(len(self._data) - half)

    def run(self, kills: int) -> None:
        """Kill so many."""
        number = 0
        while (left := kills - self._findings.kills.get("download", 0)) > 0:
            dice = random.Random(f"download {self._seed} {number}")
            with FaultyServer(pool_files(self._built, PREFIX)) as server:
                _Downloading(self, server, dice, self._root / f"download-{number}", number).run(left)
            number += 1


class _Downloading:
    """One round of them."""

    def __init__(
        self, all_: Downloads, server: FaultyServer, dice: random.Random, home: Path, number: int
    ) -> None:
        self._built, self._findings = all_._built, all_._findings
        self._data, self._old = all_._data, all_._old
        self._server, self._dice = server, dice
        self._round = _Round(keep=dice.random() < 0.4, update=dice.random() < 0.4)
        self._home = home
        self._where = f"download, seed {all_._seed}, round {number} ({self._round})"
        home.mkdir()
        self._out = home / "out"
        self._cache = home / "cache"
        self._built = all_._built.with_servers(home / "in", {"Debian": server.url(PREFIX)})
        self._environ = clean_environ(home) | {"TMPDIR": str(home / "tmp")}
        (home / "tmp").mkdir()
        self._out.mkdir()
        if self._round.update:
            self._image.write_bytes(self._old)

    @property
    def _image(self) -> Path:
        return self._out / self._built.image.name

    @property
    def _unfinished(self) -> Path:
        return self._out / f"{self._built.image.name}.tmp"

    def run(self, kills: int) -> None:
        """Kill it some times in a row, then let it come to its end."""
        for count in range(min(_IN_A_ROW, kills)):
            if not self._kill(f"{self._where}, kill {count}"):
                break  # it was faster
        self._complete()

    def _command(self) -> list[str]:
        options = ["--cache-dir", str(self._cache), "--quiet", *_HASTY, "--into", str(self._out)]
        options += ["--keep-parts"] if self._round.keep else []
        options += ["--update"] if self._round.update else []
        return [*PROGRAM, "download", str(self._built.jigdo), *options]

    def _moment(self) -> Moment:
        kind = self._dice.choice(("requests", "requests", "bytes", "bytes", "delay", "event"))
        if kind == "requests":
            return Moment(kind, self._dice.randrange(1, len(self._built.parts) + 8))
        if kind == "bytes":
            return Moment(kind, self._dice.randrange(1, len(self._data)))
        if kind == "delay":
            return Moment(kind, self._dice.randrange(1, 1500))
        return Moment(self._dice.choice(_EVENTS), self._dice.randrange(1, 8))

    def _kill(self, where: str) -> bool:
        """Kill one run; tell whether it was not faster."""
        whole = self._whole()
        misbehave(self._server, self._built, self._dice)
        self._server.forget_requests()
        moment = self._moment()
        environ = self._environ | moment.environ(self._home)
        with begun(self._command(), environ, self._home, self._home / "log") as process:
            moment.wait(self._server, lambda: process.poll() is not None)
            kill(process.pid)
            code = process.wait()
        settle(self._server)
        if code not in (-signal.SIGKILL, EXIT_OK, EXIT_UNAVAILABLE):
            said = (self._home / "log").read_text(errors="replace")[-400:]
            self._findings.hands.append(f"{where}, {moment}: exit code {code}: {said}")
        self._check(f"{where}, {moment}", whole)
        if code == -signal.SIGKILL:
            self._findings.killed("download")
        return code == -signal.SIGKILL

    def _whole(self) -> set[str]:
        """Return the parts that are verified: in place, or in the cache."""
        return self._in_place() | in_cache(self._cache)

    def _in_place(self) -> set[str]:
        """Return the parts that are in place, as jigdo-file reads it, whether the raw data is or not."""
        copy = self._home / "marks"
        try:
            shutil.copyfile(self._unfinished, copy)
        except FileNotFoundError:
            return set()
        if copy.stat().st_size == len(
            self._data
        ):  # killed between the last two steps: it has no marks any more
            return set(self._built.parts) if copy.read_bytes() == self._data else set()
        with copy.open("r+b") as file:
            file.seek(len(self._data))
            file.write(b"DESC")
        command = [tool("jigdo-file"), "list-template", "--hex", f"--template={copy}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return set()
        needed = {line.split()[3] for line in done.stdout.splitlines() if line.startswith("need-file-")}
        return set(self._built.parts) - needed

    def _check(self, where: str, before: set[str]) -> None:
        """Look at what a killed run left."""
        again = before & set(asked_for(self._server, self._built))
        if again:
            self._findings.lost.append(f"{where}: fetched again: {sorted(again)}")
        now = self._whole()
        if self._image.exists():
            data = self._image.read_bytes()
            if data != self._data and not (self._round.update and data == self._old):
                self._findings.wrong.append(f"{where}: an image that is not whole has its name")
            if data == self._data:
                return  # it came to its end
        if before - now:
            self._findings.lost.append(f"{where}: no longer in place: {sorted(before - now)}")
        lost = answered(self._server, self._built) - now
        self._findings.in_flight(where, len(lost))
        for path in wrong_in_cache(self._cache):
            self._findings.wrong.append(f"{where}: {path} is wrong")

    def _complete(self) -> None:
        """Let it come to its end: nothing verified is fetched again, the image is right, nothing is left."""
        self._server.behave()
        whole = self._whole()
        self._server.forget_requests()
        age(self._cache)
        done = subprocess.run(
            self._command(),
            env=self._environ,
            cwd=self._home,
            capture_output=True,
            text=True,
            timeout=_END_S,
            check=False,
        )
        if done.returncode or done.stderr:
            self._findings.hands.append(f"{self._where}: {done.returncode}: {done.stderr[-400:]}")
            return
        if self._image.read_bytes() != self._data:
            self._findings.wrong.append(f"{self._where}: the image is wrong")
        self._findings.compared(len(self._data))
        again = whole & set(asked_for(self._server, self._built))
        if again:
            self._findings.lost.append(f"{self._where}: fetched again in the end: {sorted(again)}")
        rest = files_below(self._out) - {self._image.name} | files_below(self._home / "tmp")
        rest |= files_below(self._cache / "incoming") | files_below(self._cache / "sessions")
        if rest:
            self._findings.left.append(f"{self._where}: {sorted(rest)}")
