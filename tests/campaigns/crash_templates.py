"""Kill `jigdofs make-template` again and again: both files old, both new, or none; and nothing piles up."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

from tests.campaigns.crash_kit import Findings, Moment, begun, files_below, kill
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, clean_environ

_EVENTS = ("os.rename", "os.rename", "os.remove", "os.truncate", "fcntl.flock", "open")
_TEXT_BYTES = 12 << 20
_END_S = 120.0
_NAMES = ("kit.jigdo", "kit.template")
_HIDDEN = (".kit.jigdo.part", ".kit.jigdo.whole", ".kit.template.part")
"""What killed runs may leave until the next one: these, however many they were."""


class Templates:
    """Templates of one image that are being made.

    Args:
        built: whose image, with much text behind it, and whose pool are used.
        root: where to work.
        findings: where what is found is told.
        seed: of all that is drawn.
    """

    def __init__(self, built: BuiltImage, root: Path, findings: Findings, seed: int) -> None:
        self._findings, self._seed = findings, seed
        self._dice = random.Random(f"template {seed}")
        self._pool, self._home = built.pool, root / "template"
        self._out = self._home / "out"
        (self._home / "tmp").mkdir(parents=True)
        self._environ = clean_environ(self._home) | {"TMPDIR": str(self._home / "tmp")}
        words = [hashlib.md5(b"%d" % number).hexdigest().encode() for number in range(1000)]
        text = b" ".join(words[number * number % 997] for number in range(_TEXT_BYTES // 33))
        self._image = self._home / "kit.iso"
        self._image.write_bytes(built.image.read_bytes() + text)
        self._new = self._made(built.pool)
        self._old = self._made(built.pool / "main" / "a")

    def _made(self, pool: Path) -> dict[str, bytes]:
        """Return what a run that nobody disturbs makes of these files."""
        self._out.mkdir()
        subprocess.run(self._command(pool), cwd=self._home, env=self._environ, check=True, timeout=_END_S)
        files = self._files()
        shutil.rmtree(self._out)
        return files

    def _files(self) -> dict[str, bytes]:
        return {name: (self._out / name).read_bytes() for name in _NAMES if (self._out / name).exists()}

    def _command(self, pool: Path, *, force: bool = False) -> list[str]:
        options = ["--report=quiet", "--no-cache", "-i", str(self._image), "--label", f"Debian={self._pool}"]
        options += [f"--{name.partition('.')[2]}={self._out / name}" for name in _NAMES]
        return [*PROGRAM, "make-template", *options, *(["--force"] if force else []), str(pool)]

    def run(self, kills: int) -> None:
        """Kill so many, each after none or some that were killed before it, in the same place."""
        number = 0
        while (left := kills - self._findings.kills.get("make-template", 0)) > 0:
            force = self._dice.random() < 0.6
            before = self._old if force else {}
            self._out.mkdir()
            for name, data in before.items():
                (self._out / name).write_bytes(data)
            where = f"make-template, seed {self._seed}, round {number}{', --force' if force else ''}"
            for count in range(min(left, 5)):
                if not self._kill(f"{where}, kill {count}", before, force=force):
                    break
            self._end(where, force=force)
            shutil.rmtree(self._out)
            number += 1

    def _moment(self) -> Moment:
        if self._dice.random() < 0.5:
            return Moment("delay", self._dice.randrange(50, 1800))
        event = self._dice.choice(_EVENTS)
        return Moment(event, self._dice.randrange(1, 4 if event == "os.rename" else 6))

    def _kill(self, where: str, before: dict[str, bytes], *, force: bool) -> bool:
        """Kill one run; tell whether it was not faster."""
        earlier = self._files()
        moment = self._moment()
        environ = self._environ | moment.environ(self._home) | {"KIT_KILL_BELOW": str(self._out)}
        log = self._home / "log"
        with (
            FaultyServer() as nobody,
            begun(self._command(self._pool, force=force), environ, self._home, log) as process,
        ):
            moment.wait(nobody, lambda: process.poll() is not None)
            kill(process.pid)
            code = process.wait()
        where = f"{where}, {moment}"
        if code not in (-signal.SIGKILL, 0):
            self._findings.hands.append(f"{where}: exit code {code}: {log.read_text(errors='replace')}")
        found = self._files()
        if code == 0:
            if found != self._new:
                self._findings.wrong.append(f"{where}: other files than ever")
            return False
        self._findings.killed("make-template")
        waiting = self._out / _HIDDEN[1]
        between = {**before, "kit.template": self._new["kit.template"]}
        if found == between and waiting.exists() and waiting.read_bytes() == self._new["kit.jigdo"]:
            self._findings.between += found != earlier
        elif found not in (before, self._new):
            self._findings.half.append(f"{where}: {sorted(found)}")
        others = set(os.listdir(self._out)) - {*_NAMES, *_HIDDEN}
        if others:
            self._findings.left.append(f"{where}: {sorted(others)}")
        return force or found != self._new  # else it was killed when all was done

    def _end(self, where: str, *, force: bool) -> None:
        """Run once more, undisturbed: it works, makes the same as ever, and leaves nothing else."""
        if not force and self._files() == self._new:
            return  # nothing is left to be done
        command = self._command(self._pool, force=force)
        done = subprocess.run(
            command,
            cwd=self._home,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=_END_S,
            check=False,
        )
        if done.returncode or done.stderr:
            self._findings.hands.append(f"{where}, in the end: {done.returncode}: {done.stderr}")
        elif self._files() != self._new:
            self._findings.wrong.append(f"{where}, in the end: other files than ever")
        left = {name for name in os.listdir(self._out) if name not in _NAMES} | files_below(
            self._home / "tmp"
        )
        if left:
            self._findings.left.append(f"{where}, in the end: {sorted(left)}")
