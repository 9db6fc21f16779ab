"""Read at random over bad lines, for long, with a small cache: nothing wrong, nothing that grows.

    python -m tests.campaigns.load [--minutes 30] [--readers 64] [--parts 500] [--mib 200] [--seed 1]

An image is mounted with a cache of a tenth of it; its parts are on two mirrors behind lines that delay,
stall, garble and break connections. So many readers, in processes of their own, read pieces of 4 KiB to
1 MiB at random places, half of them past the page cache, and compare each with the image. Meanwhile the
daemon is asked for its status every second, and its memory, descriptors and sockets are counted. A read
may fail where both lines were bad; it must not be wrong, nor take longer than it may.
"""

import argparse
import contextlib
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from jigdofs.control import client
from tests.benchmarks.mounting import LABEL, Published, mounted, publish_pool
from tests.campaigns.limping_proxy import limping
from tests.campaigns.verdict import conclude
from tests.kit.figures import Figure
from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.nginx import Nginx
from tests.kit.running import run
from tests.kit.scenes import (
    PAGE_BYTES,
    daemon_pid,
    drop_pages,
    read_buffered,
    read_direct,
    wait_until,
)

_NUMBER = 5
_READ_TIMEOUT_S = 30.0
_BOUND_S = _READ_TIMEOUT_S + 5.0  # the machine is busy
_PROCESSES = 8
_SETTLE_S = 60.0
_OPTIONS = ("--connect-timeout", "2s", "--stall-timeout", "2s", "--read-timeout", f"{_READ_TIMEOUT_S:g}s")


@dataclass(frozen=True, slots=True)
class Work:
    """What one process reads: with `threads` readers, until `ends` (monotonic) or `reads` each, if not 0."""

    shown: Path
    truth: Path
    seed: int
    threads: int
    ends: float
    reads: int = 0


@dataclass(slots=True)
class Tally:
    """What readers found: counts, and the seconds of the slowest read."""

    reads: int = 0
    bytes: int = 0
    failed: int = 0
    wrong: int = 0
    late: int = 0
    slowest_s: float = 0.0

    def add(self, other: "Tally") -> None:
        """Take the findings of another one over."""
        self.reads += other.reads
        self.bytes += other.bytes
        self.failed += other.failed
        self.wrong += other.wrong
        self.late += other.late
        self.slowest_s = max(self.slowest_s, other.slowest_s)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of the daemon at one moment; `status_s` is how long its answer took."""

    rss_bytes: int
    descriptors: int
    sockets: int
    tasks: int
    status_s: float


@dataclass(frozen=True, slots=True)
class Observed:
    """All that was seen: before the load, under it, and after it."""

    tally: Tally
    before: Sample
    samples: Sequence[Sample]
    after: Sample
    command_s: Sequence[float]
    mirrors: Sequence[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Random reads over bad lines.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--readers", type=int, default=64)
    parser.add_argument("--parts", type=int, default=500)
    parser.add_argument("--mib", type=int, default=200, help="of all parts")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jigdofs-load-") as name:
        root = Path(name)
        published = publish_pool(root / "site", arguments.parts, arguments.mib)
        seen = observe(
            published, root, arguments.seed, readers=arguments.readers, seconds=60 * arguments.minutes
        )
    fifth = max(1, len(seen.samples) // 5)
    early, late = seen.samples[fifth : 2 * fifth], seen.samples[-fifth:]
    conclude(
        [
            *promises(seen),
            Figure(
                _NUMBER,
                "resident memory, last fifth against the second",
                (_median(late, "rss_bytes") - _median(early, "rss_bytes")) / 2**20,
                "<= 10",
                "MiB more",
            ),
            Figure(
                _NUMBER,
                "descriptors, last fifth against the second",
                _median(late, "descriptors") - _median(early, "descriptors"),
                "<= 10",
                "more",
            ),
            Figure(
                _NUMBER,
                "status, slowest answer at the socket",
                max(sample.status_s for sample in seen.samples),
                "<= 1",
                "s",
            ),
            Figure(_NUMBER, "jigdofs status --json, slowest", max(seen.command_s), "<= 1", "s"),
        ],
        seed=arguments.seed,
        minutes=arguments.minutes,
        readers=arguments.readers,
        **asdict(seen.tally),
        before=asdict(seen.before),
        after=asdict(seen.after),
        peak={name: max(getattr(one, name) for one in seen.samples) for name in Sample.__slots__},
        rss_mib=_course(seen.samples),
        status_p99_s=round(_p99([sample.status_s for sample in seen.samples]), 3),
        mirrors=seen.mirrors,
    )


def promises(seen: Observed) -> list[Figure]:
    """Return what must hold however short the load was."""
    return [
        Figure(_NUMBER, "reads with a wrong byte", seen.tally.wrong, "<= 0", "reads"),
        Figure(_NUMBER, "reads beyond their time", seen.tally.late, "<= 0", "reads"),
        # the handlers of who asked just before may not have ended; what reads leave behind are hundreds
        Figure(_NUMBER, "tasks left after the load", seen.after.tasks - seen.before.tasks, "<= 2", "tasks"),
        # kept alive for the next request: at most as many as may be open to each of two hosts
        Figure(_NUMBER, "sockets left after the load", seen.after.sockets - seen.before.sockets, "<= 16", ""),
    ]


def observe(
    published: Published, root: Path, seed: int, *, readers: int, seconds: float = 0, reads: int = 0
) -> Observed:
    """Mount an image with mirrors on bad lines, have it read, and look at the daemon meanwhile.

    Args:
        published: the image.
        root: where to work.
        seed: of all that is drawn.
        readers: how many, a multiple of 8 if there are more than 8.
        seconds: how long they read, if `reads` is 0.
        reads: so many each.
    """
    size = published.image.stat().st_size
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Nginx(published.root))
        origin = int(server.url().rstrip("/").rpartition(":")[2])
        lines = [stack.enter_context(limping(origin, seed + number)) for number in range(2)]
        options = [f"--mirror={LABEL}=http://127.0.0.1:{port}/pool/" for port in lines]
        options += ["--cache-max-size", str(size // 10), *_OPTIONS]
        point = stack.enter_context(mounted(published.jigdo, root, root / "cache", *options))
        pid = daemon_pid(point)
        before = look(point, pid)
        processes = min(_PROCESSES, readers)
        works = [
            Work(
                point / published.image.name,
                published.image,
                seed * 1000 + number,
                readers // processes,
                time.monotonic() + seconds,
                reads,
            )
            for number in range(processes)
        ]
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            running = [pool.submit(read_at_random, work) for work in works]
            try:
                samples, command_s = _watch(point, pid, running)
            except BaseException:  # Ctrl-C: the pool would wait for readers that read on
                for reader in active_children():
                    reader.terminate()
                raise
            tally = Tally()
            for one in running:
                tally.add(one.result())
        wait_until(lambda: not _status(point)["parts_in_flight"], "nothing is on its way", _SETTLE_S)
        tasks = before.tasks
        # what was given up is taken down a moment later; a leak stays
        with contextlib.suppress(AssertionError):
            wait_until(lambda: _status(point)["tasks"] <= tasks, "tasks end", 10)
        return Observed(tally, before, samples, look(point, pid), command_s, _status(point)["mirrors"])


def _watch(point: Path, pid: int, running: Sequence[Future[Tally]]) -> tuple[list[Sample], list[float]]:
    """Look at the daemon once a second until the readers have ended; every tenth time as a user would."""
    samples: list[Sample] = []
    command_s: list[float] = []
    while not samples or wait(running, timeout=1).not_done:
        if len(samples) % 10 == 0:
            began = time.monotonic()
            command = [*PROGRAM, "status", "--json", str(point)]
            subprocess.run(command, env=clean_environ(point.parent), check=True, capture_output=True)
            command_s.append(time.monotonic() - began)
        samples.append(look(point, pid))
    return samples, command_s


def look(point: Path, pid: int) -> Sample:
    """Ask the daemon for its status, and the kernel for what it holds."""
    began = time.monotonic()
    status = _status(point)
    status_s = time.monotonic() - began
    names = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            names.append(os.readlink(entry.path))
    rss_pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return Sample(
        rss_bytes=rss_pages * os.sysconf("SC_PAGE_SIZE"),
        descriptors=len(names),
        sockets=sum(name.startswith("socket:") for name in names),
        tasks=status["tasks"],
        status_s=status_s,
    )


def _status(point: Path) -> dict[str, Any]:
    (status,) = client.ask(str(point), os.geteuid(), {"do": "status"})
    return status


def read_at_random(work: Work) -> Tally:
    """Do the reading of one process."""
    tally = Tally()
    with ThreadPoolExecutor(work.threads) as threads:
        for found in threads.map(lambda number: _read(work, number), range(work.threads)):
            tally.add(found)
    return tally


def _read(work: Work, number: int) -> Tally:
    """Read here and there, and compare."""
    chance = random.Random(f"{work.seed} {number}")
    size = work.truth.stat().st_size
    tally = Tally()
    with work.truth.open("rb") as truth:
        while tally.reads < work.reads if work.reads else time.monotonic() < work.ends:
            offset = chance.randrange(size)
            length = 1 << chance.randrange(12, 21)
            read: Callable[[Path, int, int], bytes] = read_direct
            if chance.random() < 0.5:
                read = read_buffered
                drop_pages(work.shown)
            else:
                offset -= offset % PAGE_BYTES
            began = time.monotonic()
            try:
                data = read(work.shown, offset, length)
            except OSError:
                tally.failed += 1
            else:
                truth.seek(offset)
                tally.wrong += data != truth.read(length)
                tally.bytes += len(data)
            seconds = time.monotonic() - began
            # one call asks the mount for each 64 KiB (direct) or MiB, and each may take its time
            tally.late += seconds > _BOUND_S * (1 + length // (64 << 10))
            tally.slowest_s = max(tally.slowest_s, seconds)
            tally.reads += 1
    return tally


def _median(samples: Sequence[Sample], name: str) -> float:
    return float(statistics.median(getattr(sample, name) for sample in samples))


def _course(samples: Sequence[Sample], points: int = 30) -> list[int]:
    """Return resident memory over time, in MiB."""
    step = max(1, len(samples) // points)
    return [sample.rss_bytes >> 20 for sample in samples[::step]]


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


if __name__ == "__main__":
    run(main, "jigdo-file", "nginx")
