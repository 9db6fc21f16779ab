"""What the crash campaign is made of: what was found, when a process is killed, and what is looked at then.

A kill comes after so many requests or bytes at the server, after a while, or, exactly, right before the
n-th of a kind of system call: Python raises an audit event for each, and a `sitecustomize` kills there.
"""

import hashlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.faults import WELL, Drip, Fault, Reset, Stall, Status, Truncate, WrongBytes
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import REPOSITORY, mounted_at
from tests.kit.scenes import ended, wait_until

PREFIX = "/pool/"
MOMENT_S = 3.0
"""A moment that does not come within that time is now: then nothing is left to do."""
_DEATH_S = 20.0
_PACE_BYTES_PER_S = (200_000, 1_000_000, 8_000_000)

_KILLER = '''\
"""Kill this process right before a certain system call of Python's."""
import os, signal, sys
name, _, number = os.environ.get("KIT_KILL_AT", "").partition(":")
below = os.environ.get("KIT_KILL_BELOW", "")
left = int(number or 0)
def look(event, arguments):
    global left
    if event != name:
        return
    names = [os.fsencode(one) for one in arguments if isinstance(one, (str, bytes))]
    if below and not any(os.fsencode(below) in one for one in names):
        return
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
if name:
    sys.addaudithook(look)
'''


@dataclass(slots=True)
class Findings:
    """What was done, and what was not as promised; each line tells which kill of which seed.

    Attributes:
        kills: how many processes were killed, by what was killed.
        hands: starts that did not work by themselves.
        wrong: wrong bytes.
        lost: verified parts that were fetched again.
        left: what stayed behind.
        half: pairs of output files that do not belong together.
        between: kills between the two renames of a pair.
        most_in_flight: answers that had been sent whole and were lost, at one kill.
        most_where: which kill that was.
        bytes_compared: what was read.
    """

    kills: dict[str, int] = field(default_factory=dict)
    hands: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    half: list[str] = field(default_factory=list)
    between: int = 0
    most_in_flight: int = 0
    most_where: str = ""
    bytes_compared: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def killed(self, what: str) -> None:
        """Count a kill."""
        self.kills[what] = self.kills.get(what, 0) + 1

    def in_flight(self, where: str, count: int) -> None:
        """Note how many answers a kill lost."""
        if count > self.most_in_flight:
            self.most_in_flight, self.most_where = count, where

    def compared(self, length: int) -> None:
        """Count bytes that were read; called by many threads."""
        with self._lock:
            self.bytes_compared += length

    @property
    def broken(self) -> list[str]:
        """Everything that is not as promised."""
        return [*self.hands, *self.wrong, *self.lost, *self.left, *self.half]


@dataclass(frozen=True, slots=True)
class Moment:
    """When a process is to be killed.

    Attributes:
        kind: `requests`, `bytes`, `delay`, or the name of an audit event.
        amount: so many requests, bytes or events; milliseconds of `delay`.
    """

    kind: str
    amount: int

    def environ(self, directory: Path) -> dict[str, str]:
        """Return what the environment of the process needs, so that it kills itself if it is to.

        Args:
            directory: where the killer may be written; the events that count have a path below it.
        """
        if self.kind in ("requests", "bytes", "delay"):
            return {}
        hook = directory / "killer"
        hook.mkdir(exist_ok=True)
        (hook / "sitecustomize.py").write_text(_KILLER)
        return {"KIT_KILL_AT": f"{self.kind}:{self.amount}", "PYTHONPATH": f"{hook}:{REPOSITORY}"}

    def wait(self, server: FaultyServer, is_over: Callable[[], bool]) -> None:
        """Wait for the moment, or until the process has ended."""
        with suppress(AssertionError):
            if self.kind == "requests":
                wait_until(lambda: len(server.requests) >= self.amount or is_over(), "the moment", MOMENT_S)
            elif self.kind == "bytes":
                wait_until(lambda: sent_bytes(server) >= self.amount or is_over(), "the moment", MOMENT_S)
            elif self.kind == "delay":
                wait_until(is_over, "its end", self.amount / 1000)
            else:
                wait_until(is_over, "its end", MOMENT_S)


def sent_bytes(server: FaultyServer) -> int:
    """Return how many bytes of content the server has sent."""
    return sum(request.body_bytes for request in server.requests)


def misbehave(server: FaultyServer, built: BuiltImage, dice: random.Random) -> None:
    """Have the server serve at some pace, and a third of the parts badly, once each."""
    server.behave()
    server.always(f"{PREFIX}*", Drip(dice.choice(_PACE_BYTES_PER_S)))
    for path in built.parts.values():
        if dice.random() < 0.33:
            server.script(PREFIX + path, _fault(dice))


def _fault(dice: random.Random) -> Fault:
    after = dice.randrange(0, 3000)
    faults = (Stall(after), Truncate(after), Reset(after), Reset(), Status(503), WrongBytes(), WELL)
    return dice.choice(faults)


def settle(server: FaultyServer) -> None:
    """Have nothing under way at the server any more: whoever asked is dead."""
    server.behave()
    server.release()
    server.wait_until(lambda one: one._in_flight == 0, 30)


def kill(pid: int) -> None:
    """Kill a process and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: ended(pid), "its death", _DEATH_S)


def children(pid: int) -> list[int]:
    """Return the children of a process's main thread."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def asked_for(server: FaultyServer, built: BuiltImage) -> list[str]:
    """Return the checksum of each part that was asked for."""
    checksums = {PREFIX + path: checksum for checksum, path in built.parts.items()}
    return [checksums[path] for path in server.paths() if path in checksums]


def answered(server: FaultyServer, built: BuiltImage) -> set[str]:
    """Return the checksums of the parts that were sent in full, rightly or not."""
    checksums = {PREFIX + path: checksum for checksum, path in built.parts.items()}
    found = set()
    for request in server.requests:
        checksum = checksums.get(request.path)
        if checksum is None or request.status not in (200, 206):
            continue
        if request.body_bytes == (built.pool / built.parts[checksum]).stat().st_size:
            found.add(checksum)
    return found


def in_cache(cache: Path) -> set[str]:
    """Return the checksums of the parts that lie in a cache."""
    return {path.name for path in cache.glob("objects/md5/*/*")}


def wrong_in_cache(cache: Path) -> list[Path]:
    """Return the parts in a cache whose content is wrong."""
    files = cache.glob("objects/md5/*/*")
    return [path for path in files if hashlib.md5(path.read_bytes()).hexdigest() != path.name]


def age(cache: Path) -> None:
    """Have a minute gone by since a start that was killed before its session was seen by others."""
    for path in cache.glob("sessions/*.new"):
        os.utime(path, (0, 0))


def files_below(directory: Path) -> set[str]:
    """Return the names of all files below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def mounts_at(point: Path) -> int:
    """Count the mounts at a mount point."""
    lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    return sum(line.split(" ")[4] == str(point) for line in lines)


def dead_or_alive(point: Path) -> bool:
    """Tell whether a mount is left at a point."""
    return mounted_at(point)


@contextmanager
def begun(
    command: Collection[str], environ: dict[str, str], cwd: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Have a program at work whose words go to a file; at the end it, not its children, is gone."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            list(command), env=environ, cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
