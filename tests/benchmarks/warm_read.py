"""Measure warm sequential reads of a mount against libfuse's own C passthrough, in the same run.

    .venv/bin/python -m tests.benchmarks.warm_read [--parts 1200] [--mib 500] [--rounds 5] [--no-demo]

Reads an image of parts of very different sizes from end to end, once with 128 KiB and once with 1 MiB at a
time, and the kernel told to read ahead as far. Both mounts are made anew for each read, so nothing of them
is in the page cache; the files below are. The image of `jigdofs demo`, whose parts are small and alike, is
read besides; the figures are not of it. Needs root, to set the read-ahead. Prints one JSON object.
"""

import argparse
import tempfile
from pathlib import Path

from tests.benchmarks.mounting import read_seconds
from tests.benchmarks.passthrough import OURS, PEER, WarmImage, warm_demo, warm_pool
from tests.kit.figures import Figure, ratio, report, summary
from tests.kit.running import run

_READ_AHEAD_KB = {1: 128, 2: 1024}  # number of the goal -> KiB
_GOAL = ">= 0.9"
_IMAGE_BYTES_PER_PART_BYTES = 9 / 8  # of the pool's images


def main() -> None:
    parser = argparse.ArgumentParser(description="Warm sequential read against passthrough_ll.")
    parser.add_argument("--parts", type=int, default=1200)
    parser.add_argument("--mib", type=int, default=500, help="of the whole image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-demo", action="store_true", help="leave the demo's image out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        part_mib = round(arguments.mib / _IMAGE_BYTES_PER_PART_BYTES)
        image = warm_pool(Path(name) / "pool", arguments.parts, part_mib)
        rates = {"pool": _measure(image, arguments.rounds)}
        sizes = {"pool": image.size}
        if not arguments.no_demo:
            demo = warm_demo(Path(name) / "demo", arguments.parts)
            rates["demo"] = _measure(demo, arguments.rounds)
            sizes["demo"] = demo.size
    figures = [
        Figure(
            number,
            f"warm sequential read, {kib} KiB requests, against {PEER}",
            ratio(rates["pool"], f"{OURS}, {kib}", f"{PEER}, {kib}"),
            _GOAL,
        )
        for number, kib in _READ_AHEAD_KB.items()
    ]
    report(
        figures,
        image_bytes=sizes,
        parts=arguments.parts,
        mb_per_s={image: summary(runs, 0) for image, runs in rates.items()},
        ratios={
            image: {
                f"{kib} KiB": round(ratio(runs, f"{OURS}, {kib}", f"{PEER}, {kib}"), 3)
                for kib in _READ_AHEAD_KB.values()
            }
            for image, runs in rates.items()
        },
    )


def _measure(image: WarmImage, rounds: int) -> dict[str, list[float]]:
    """Return MB/s of each round, by program and read-ahead."""
    rates: dict[str, list[float]] = {}
    for turn in range(rounds):
        for kib in _READ_AHEAD_KB.values():
            for program in (PEER, OURS) if turn % 2 else (OURS, PEER):
                with image.mounted(program, kib) as path:
                    rates.setdefault(f"{program}, {kib}", []).append(
                        image.size / read_seconds(path, image.size, kib << 10) / 1e6
                    )
    return rates


if __name__ == "__main__":
    run(main, "jigdo-file", "gcc", "pkg-config")
