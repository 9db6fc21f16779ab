"""Measure what a recorded list saves the next machine, at a distance, in the same run.

    .venv/bin/python -m tests.benchmarks.replay [--parts 400] [--mib 200] [--share 0.25] [--rtt-ms 50]

Builds an image of that many parts and serves it from nginx behind a delay. A reader then reads a share of
the parts one after the other, as an installer reads packages: on a first machine (empty cache, recording),
on one that is given the list, and on one that has everything. Prints one JSON object: seconds of reading,
the mount not counted, and their ratios.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.delay_proxy import delayed
from tests.benchmarks.pool import write_pool
from tests.kit.nginx import Nginx
from tests.kit.running import run

_PROGRAM = [sys.executable, "-m", "jigdofs"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Record and replay.")
    parser.add_argument("--parts", type=int, default=400)
    parser.add_argument("--mib", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rtt-ms", type=float, default=50)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"first": [], "with the list": [], "everything cached": []}
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        work = Path(name)
        places = _build(work / "site", arguments.parts, arguments.mib << 20)
        read = random.Random(1).sample(places, round(len(places) * arguments.share))
        with Nginx(work / "site") as near:
            port = int(near.url().rstrip("/").rpartition(":")[2])
            with delayed(port, arguments.rtt_ms / 1000) as far:
                mirror = ["--mirror", f"Pool=http://127.0.0.1:{far}/pool/"]
                for _ in range(arguments.rounds):
                    for cache in ("one", "two"):
                        shutil.rmtree(work / cache, ignore_errors=True)
                    record = [*mirror, "--record", str(work / "list")]
                    replay = [*mirror, "--prefetch-list", str(work / "list")]
                    seconds["first"].append(_run(work, work / "one", record, read))
                    seconds["with the list"].append(_run(work, work / "two", replay, read))
                    seconds["everything cached"].append(_run(work, work / "two", mirror, read))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "parts_read": len(read),
        "bytes_read": sum(length for _, length in read),
        "rtt_ms": arguments.rtt_ms,
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "ratio": round(medians["first"] / medians["with the list"], 2),
        "ratio_if_nothing_were_to_fetch": round(medians["first"] / medians["everything cached"], 2),
    }
    print(json.dumps(report, indent=2))


def _build(root: Path, parts: int, size: int) -> list[tuple[int, int]]:
    """Make the image's .jigdo and .template; return offset and length of each part in it."""
    pool, image = write_pool(root, parts, size)
    command = ["jigdo-file", "make-template", f"--image={image}", "--label", f"Pool={pool}"]
    command += ["--no-servers-section", "-r", "quiet", f"{pool}//"]
    subprocess.run(command, check=True, capture_output=True)
    image.unlink()
    listing = subprocess.run(
        ["jigdo-file", "list-template", f"--template={root / 'image.template'}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = [line.split() for line in listing.splitlines() if line.startswith("need-file-")]
    return [(int(row[1]), int(row[2])) for row in rows]


def _run(work: Path, cache: Path, options: list[str], read: list[tuple[int, int]]) -> float:
    """Mount, read those places one after the other, unmount; return the seconds of reading."""
    mountpoint = work / "mnt"
    mountpoint.mkdir(exist_ok=True)
    mount = [*_PROGRAM, "mount", str(work / "site" / "image.jigdo"), str(mountpoint)]
    log = ["--log-file", str(work / "log"), "--readahead", "0"]
    subprocess.run([*mount, "--cache-dir", str(cache), *log, *options], check=True)
    try:
        (image,) = mountpoint.iterdir()
        began = time.perf_counter()
        with image.open("rb", buffering=0) as file:
            for offset, length in read:
                file.seek(offset)
                left = length
                while left:
                    left -= len(file.read(min(left, 1 << 20)))
        return time.perf_counter() - began
    finally:
        subprocess.run([*_PROGRAM, "umount", str(mountpoint)], check=True)


if __name__ == "__main__":
    run(main, "jigdo-file", "nginx")
