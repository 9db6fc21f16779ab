"""Measure many readers of a mount at once: warm ones against a single one, and warm reads beside cold ones.

    .venv/bin/python -m tests.benchmarks.many_readers [--parts 1200] [--mib 500] [--rounds 5] [--readers 64]

First a warm image is read by one reader from end to end, and by many who read a share of it each; both with
a fresh mount, so the kernel has nothing of it. The same is done with libfuse's C passthrough, to tell what
the kernel and two processors make of it. Then half the parts of an image are in the cache, and the others
lie on a server that accepts connections and sends nothing: as many readers wait for one part each, while
4 KiB at a time are read of the cached half, each page once. Needs root, to set the read-ahead. Prints one
JSON object: MB/s, milliseconds, and a ratio of medians.
"""

import argparse
import contextlib
import itertools
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.mounting import LABEL, Published, mounted, publish_pool
from tests.benchmarks.passthrough import OURS, PEER, WarmImage, warm_pool
from tests.kit.faults import Stall
from tests.kit.faulty_server import FaultyServer
from tests.kit.figures import Figure, ratio, report, summary
from tests.kit.running import run

_NUMBER = 11
_READ_AHEAD_KB = 128
_READ_BYTES = 128 << 10
_PAGE = 4096
_COLD_PARTS, _COLD_MIB = 400, 60
_AHEAD_BYTES = 4 << 20  # the kernel's reading ahead leaves that much of the cold half alone
_COLD_TIMEOUT_S = 15.0  # of the reads that wait
_MEASURE_S = 5.0  # the waiting reads outlive it
_WAITING_S = 1.0


@dataclass(frozen=True, slots=True)
class Share:
    """A range of an image that one reader reads from end to end."""

    begin: int
    end: int


def main() -> None:
    parser = argparse.ArgumentParser(description="Many readers at once.")
    parser.add_argument("--parts", type=int, default=1200)
    parser.add_argument("--mib", type=int, default=500, help="of all parts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readers", type=int, default=64)
    parser.add_argument("--reads", type=int, default=2000, help="beside the cold ones")
    arguments = parser.parse_args()
    count = arguments.readers
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        image = warm_pool(Path(name) / "warm", arguments.parts, arguments.mib)
        rates = _rates(image, count, arguments.rounds)
        shutil.rmtree(Path(name) / "warm")
        beside = _beside_cold_reads(Path(name) / "cold", count, arguments.reads)
    cuts = statistics.quantiles(beside.milliseconds, n=100)
    figures = [
        Figure(
            _NUMBER,
            f"{count} warm readers against one, total throughput",
            ratio(rates, f"{OURS}, {count}", f"{OURS}, 1"),
            ">= 0.9",
        ),
        Figure(_NUMBER, f"cached 4 KiB read while {count} cold ones wait, p99", cuts[98], "<= 10", unit="ms"),
    ]
    report(
        figures,
        mb_per_s=summary(rates, 0),
        ratio_of_passthrough=round(ratio(rates, f"{PEER}, {count}", f"{PEER}, 1"), 3),
        beside_cold_reads={
            "reads": len(beside.milliseconds),
            "of": arguments.reads,
            "cold_reads_waiting_at_the_end": beside.waiting,
            "max_background": beside.max_background,
            "p50_ms": round(cuts[49], 3),
            "p99_ms": round(cuts[98], 3),
            "max_ms": round(max(beside.milliseconds), 3),
        },
    )


# -- warm ------------------------------------------------------------------------------------------


def _rates(image: WarmImage, readers: int, rounds: int) -> dict[str, list[float]]:
    """Return MB/s of each round, by program and number of readers."""
    rates: dict[str, list[float]] = {}
    for turn in range(rounds):
        for count in (1, readers) if turn % 2 else (readers, 1):
            for program in (OURS, PEER):
                with image.mounted(program, _READ_AHEAD_KB) as path:
                    seconds = _seconds(path, _shares(image.size, count))
                rates.setdefault(f"{program}, {count}", []).append(image.size / seconds / 1e6)
    return rates


def _shares(size: int, count: int) -> list[Share]:
    cuts = [size * number // count // _PAGE * _PAGE for number in range(count)] + [size]
    return [Share(begin, end) for begin, end in itertools.pairwise(cuts)]


def _seconds(path: Path, shares: Sequence[Share]) -> float:
    """Have a process read each share, all at once; return the time from the first read to the last.

    Processes, as threads of one Python would wait for each other.
    """
    starting, start = os.pipe()
    readers = [_fork(path, share, starting, start) for share in shares]
    os.close(starting)
    began = time.perf_counter()
    os.close(start)  # all see the end of the pipe at once
    failed = [pid for pid in readers if os.waitpid(pid, 0)[1]]
    seconds = time.perf_counter() - began
    if failed:
        sys.exit(f"{len(failed)} of {len(shares)} readers of {path} failed")
    return seconds


def _fork(path: Path, share: Share, starting: int, start: int) -> int:
    """Start a process that reads a share once the pipe ends, and return its number."""
    ready, tell = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(start)
            fd = os.open(path, os.O_RDONLY)
            os.write(tell, b"1")
            os.read(starting, 1)
            _read(fd, share)
            code = 0
        finally:
            os._exit(code)
    os.close(tell)
    os.read(ready, 1)
    os.close(ready)
    return pid


def _read(fd: int, share: Share) -> None:
    buffer = memoryview(bytearray(_READ_BYTES))
    position = share.begin
    while position < share.end:
        got = os.preadv(fd, [buffer[: share.end - position]], position)
        if not got:
            raise EOFError(position)
        position += got


# -- beside cold reads -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beside:
    """What was found.

    Attributes:
        milliseconds: what each read of a cached page took.
        waiting: how many cold reads still waited after the last of them.
        max_background: reads that the kernel lets wait before it holds all others back; None where that
            cannot be looked up, nor set: there is no fusectl, and it is 12.
    """

    milliseconds: list[float]
    waiting: int
    max_background: int | None


def _beside_cold_reads(directory: Path, readers: int, reads: int) -> Beside:
    published = publish_pool(directory, _COLD_PARTS, _COLD_MIB)
    places = _places(published)
    warm_end = places[_COLD_PARTS // 2][0]
    chance = random.Random(1)
    beyond = [offset + length // 2 for offset, length in places if offset > warm_end + _AHEAD_BYTES]
    cold = chance.sample(beyond, readers)
    pages = chance.sample(range(warm_end // _PAGE), min(reads, warm_end // _PAGE))
    _warm(published, directory, warm_end)
    with FaultyServer() as server:
        server.always("/*", Stall())
        options = ["--mirror", f"{LABEL}={server.url()}", "--readahead", "0"]
        options += ["--read-timeout", f"{_COLD_TIMEOUT_S}s", "--stall-timeout", f"{2 * _COLD_TIMEOUT_S}s"]
        with mounted(published.jigdo, directory, directory / "cache", *options) as mountpoint:
            path = mountpoint / published.image.name
            limit = threading.Timer(_MEASURE_S, server.stop)  # then the waiting reads end
            with _waiting(path, cold) as threads:
                server.wait_stalled()
                time.sleep(_WAITING_S)
                limit.start()
                milliseconds = _milliseconds(path, pages)
                still = sum(thread.is_alive() for thread in threads)
                limit.cancel()
                limit.join()
                server.stop()
            return Beside(milliseconds, still, _max_background(mountpoint))


def _max_background(mountpoint: Path) -> int | None:
    minor = os.minor(mountpoint.stat().st_dev)
    try:
        return int(Path(f"/sys/fs/fuse/connections/{minor}/max_background").read_text())
    except OSError:
        return None


def _places(published: Published) -> list[tuple[int, int]]:
    """Return offset and length of each part in the image, as `write_pool` laid them."""
    places: list[tuple[int, int]] = []
    offset = 0
    for path in sorted(published.pool.iterdir()):
        length = path.stat().st_size
        places.append((offset, length))
        offset += length + length // 8
    return places


def _warm(published: Published, directory: Path, end: int) -> None:
    """Have in the cache what is needed for the bytes before `end`."""
    options = ("--mirror", f"{LABEL}={published.pool}/", "--readahead", "0")
    with mounted(published.jigdo, directory, directory / "cache", *options) as mountpoint:
        fd = os.open(mountpoint / published.image.name, os.O_RDONLY)
        try:
            position = 0
            while position < end:
                position += len(os.pread(fd, min(1 << 20, end - position), position))
        finally:
            os.close(fd)


@contextlib.contextmanager
def _waiting(path: Path, places: Sequence[int]) -> Iterator[list[threading.Thread]]:
    """Have threads that read these places, and wait for them at the end."""

    def read(place: int) -> None:
        fd = os.open(path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # nothing comes: that is what it is for
                os.pread(fd, _PAGE, place // _PAGE * _PAGE)
        finally:
            os.close(fd)

    threads = [threading.Thread(target=read, args=(place,), daemon=True) for place in places]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.join(2 * _COLD_TIMEOUT_S)


def _milliseconds(path: Path, pages: Sequence[int]) -> list[float]:
    """Read pages that the kernel does not have, and return what each took; end early if it takes long."""
    taken: list[float] = []
    buffers = [bytearray(_PAGE)]
    fd = os.open(path, os.O_RDONLY)
    try:
        deadline = time.perf_counter() + _MEASURE_S
        for page in pages:
            began = time.perf_counter()
            os.preadv(fd, buffers, page * _PAGE)
            ended = time.perf_counter()
            taken.append((ended - began) * 1000)
            if ended > deadline:
                break
    finally:
        os.close(fd)
    return taken if len(taken) > 1 else taken * 2  # percentiles need two


if __name__ == "__main__":
    run(main, "jigdo-file", "gcc", "pkg-config")
