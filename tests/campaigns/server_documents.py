"""Mount over HTTP while the .jigdo and the template meet faults: it works, or ends in one clear line."""

import random
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.faults import (
    WELL,
    Changed,
    Chunked,
    Close,
    Drip,
    Empty,
    Fault,
    Gzip,
    Html,
    IgnoreRange,
    Redirect,
    Reset,
    Stall,
    Status,
    TooLong,
    Truncate,
    WrongBytes,
    WrongContentRange,
)
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.scenes import QUICK, Program, detached, pool_files, read_direct

HARMLESS = (WELL, Chunked(), IgnoreRange())
PASSING: tuple[Fault, ...] = (Status(503), Status(500), Close(), Reset(), Truncate(100), Reset(100))

_FAULTS: tuple[Callable[[random.Random], Fault], ...] = (
    lambda dice: dice.choice(HARMLESS),
    lambda dice: Status(dice.choice([403, 404, 410, 500, 503])),
    lambda _dice: Status(429, 1),
    lambda _dice: Close(),
    lambda dice: Reset(dice.choice([None, 0, 100])),
    lambda dice: Truncate(dice.randrange(1, 900)),
    lambda dice: Stall(dice.choice([None, 100])),
    lambda _dice: Drip(1),
    lambda _dice: Html(),
    lambda _dice: WrongBytes(),
    lambda _dice: Empty(),
    lambda dice: TooLong(dice.choice([1, 100_000])),
    lambda _dice: WrongContentRange(),
    lambda _dice: Gzip(),
    lambda _dice: Changed(),
    lambda dice: Redirect(dice.choice(["/none", "/loop", "file:///etc/passwd", "/elsewhere"])),
)


@dataclass(slots=True)
class Trials:
    """What came of the mounts: how many worked or were refused, and which broke a promise."""

    outcomes: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


def try_documents(built: BuiltImage, directory: Path, seed: int, count: int) -> Trials:
    """Mount so often, with other faults each time."""
    trials = Trials()
    for number in range(count):
        dice = random.Random(f"documents {seed} {number}")
        try:
            outcome, problem = _try_one(built, directory / str(number), dice)
        except subprocess.TimeoutExpired as error:
            outcome, problem = "hung", str(error)
        trials.outcomes[outcome] += 1
        if problem:
            trials.broken.append(f"seed {seed}, mount {number}: {problem}")
    return trials


def _try_one(built: BuiltImage, directory: Path, dice: random.Random) -> tuple[str, str]:
    """Return what became of one mount, and what is wrong with that if anything is."""
    with FaultyServer() as server:
        published = built.with_servers(directory / "in", {"Debian": server.url("/pool/")})
        files = pool_files(built)
        files |= {f"/{path.name}": path.read_bytes() for path in (published.jigdo, published.template)}
        server.files = files | {"/elsewhere": b"[Jigdo]\nVersion=1.1\n"}
        server.always("/loop", Redirect("/loop"))
        must_work = True
        for path in (published.jigdo, published.template):
            must_work &= _bend(server, f"/{path.name}", dice)
        home, point = directory / "home", directory / "mnt"
        home.mkdir(parents=True)
        point.mkdir()
        arguments = (server.url(f"/{published.jigdo.name}"), "--cache-dir", str(directory / "cache"), *QUICK)
        with detached(Program(home, environ={"NO_PROXY": "*"}), *arguments, mountpoint=point) as done:
            if done.returncode == 0:
                size = built.image.stat().st_size
                got = read_direct(point / built.image.name, 0, size)
                return "worked", "" if got == built.image.read_bytes() else "it shows wrong bytes"
            lines = [line for line in done.stderr.splitlines() if line.startswith("jigdofs: ")]
            if must_work:
                return "refused", f"it should work, but says {done.stderr!r}"
            clear = len(done.stderr.splitlines()) == len(lines) == 1 and done.returncode in (1, 2, 3)
            return "refused", "" if clear else f"exit code {done.returncode}, and {done.stderr!r}"


def _bend(server: FaultyServer, path: str, dice: random.Random) -> bool:
    """Have the server do something to a file; tell whether it can be had all the same."""
    match dice.randrange(3):
        case 0:
            server.always(path, dice.choice(HARMLESS))
            return True
        case 1:
            server.script(path, dice.choice(PASSING))
            return True
    server.script(path, *(dice.choice(_FAULTS)(dice) for _ in range(dice.randrange(3))))
    server.always(path, dice.choice(_FAULTS)(dice))
    return False
