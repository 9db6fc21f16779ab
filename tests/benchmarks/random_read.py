"""Measure warm random 4 KiB reads of a mount against libfuse's own C passthrough, in the same run.

    .venv/bin/python -m tests.benchmarks.random_read [--parts 1200] [--mib 500] [--rounds 5] [--reads 4000]

In each round every program reads the same random pages, each once and in an order of its own, of a mount
that has none of them in the page cache; the files below are in it. The figures are of mounts that have been
read before. What the very first round after mounting takes, in which parts are opened, is told besides.
Needs root, to set the read-ahead of both alike. Prints one JSON object: microseconds, and ratios of the
medians over rounds.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.passthrough import OURS, PEER, WarmImage, warm_pool
from tests.kit.figures import Figure, ratio, report, summary
from tests.kit.running import run

_GOAL = "<= 1.5"
_NUMBER = 3
_READ_AHEAD_KB = 128
_PAGE = 4096
_PERCENTS = (50, 99)


def main() -> None:
    parser = argparse.ArgumentParser(description="Warm random reads against passthrough_ll.")
    parser.add_argument("--parts", type=int, default=1200)
    parser.add_argument("--mib", type=int, default=500, help="of all parts")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reads", type=int, default=4000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        image = warm_pool(Path(name), arguments.parts, arguments.mib)
        size = image.size
        first, later = _measure(image, arguments.rounds, arguments.reads)
    figures = [
        Figure(
            _NUMBER,
            f"warm random 4 KiB reads against {PEER}, p{percent}",
            ratio(later, f"{OURS}, p{percent}", f"{PEER}, p{percent}"),
            _GOAL,
        )
        for percent in _PERCENTS
    ]
    report(
        figures,
        image_bytes=size,
        reads_per_round=arguments.reads,
        microseconds=summary(later, 1),
        microseconds_of_the_first_round=summary(first, 1),
    )


def _measure(
    image: WarmImage, rounds: int, reads: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the percentiles of the first round of both programs, and those of the later ones."""
    chance = random.Random(1)
    pages = chance.sample(range(image.size // _PAGE), reads)
    first: dict[str, list[float]] = {}
    later: dict[str, list[float]] = {}
    with image.mounted(PEER, _READ_AHEAD_KB) as peer, image.mounted(OURS, _READ_AHEAD_KB) as ours:
        paths = {PEER: peer, OURS: ours}
        for turn in range(rounds + 1):
            for program in sorted(paths, reverse=bool(turn % 2)):
                chance.shuffle(pages)
                taken = _microseconds(paths[program], pages)
                cuts = statistics.quantiles(taken, n=100)
                for percent in _PERCENTS:
                    series = later if turn else first
                    series.setdefault(f"{program}, p{percent}", []).append(cuts[percent - 1])
    return first, later


def _microseconds(path: Path, pages: Sequence[int]) -> list[float]:
    """Read pages of a file, none of which the kernel has, and return what each took."""
    fd = os.open(path, os.O_RDONLY)
    buffers = [bytearray(_PAGE)]
    taken: list[float] = []
    now, preadv = time.perf_counter_ns, os.preadv
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for page in pages:
            began = now()
            got = preadv(fd, buffers, page * _PAGE)
            taken.append((now() - began) / 1000)
            if got != _PAGE:
                sys.exit(f"{path} gave {got} bytes instead of {_PAGE} at page {page}")
    finally:
        os.close(fd)
    return taken


if __name__ == "__main__":
    run(main, "jigdo-file", "gcc", "pkg-config")
