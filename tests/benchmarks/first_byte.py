"""Measure how long a reader waits for the first bytes of a cold part, against curl getting that part.

    .venv/bin/python -m tests.benchmarks.first_byte [--parts 40] [--rtt-ms 50] [--large 5] [--rounds 2]
    .venv/bin/python -m tests.benchmarks.first_byte --only distance      # or: large

At a distance: parts of 100 KB behind a delay, one after the other. A part was read just before from the same
mirror, so the connection stands; curl gets another part first, too. Large: parts of 100 MB over loopback, and
over a line of 1 Gbit/s, by whatever checksum verified; curl writes to a file, or nowhere. Of ours counts one
`pread` of 4 KiB in the middle of the part, of curl the time it tells of the transfer, without the start of
its process. How long hashing alone takes is told, too. Prints one JSON object: milliseconds, and ratios.
"""

import argparse
import hashlib
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.delay_proxy import delayed
from tests.benchmarks.mounting import (
    Published,
    mirror,
    mounted,
    port_of,
    pread_seconds,
    publish,
    quiet,
)
from tests.kit.figures import Figure, ratio, report, summary
from tests.kit.mounts import clean_environ
from tests.kit.nginx import Nginx
from tests.kit.running import run

_SMALL_BYTES = 100_000
_LARGE_BYTES = 100_000_000
_GAP_BYTES = 1 << 20  # more than the kernel reads ahead, so that no part comes along with another
_OURS, _CURL, _CURL_FILE = "pread of 4 KiB", "curl", "curl to a file"
_HASHING = "hashing alone, of memory"
_ALGORITHMS = ("md5", "sha256")
_LINES = {"over loopback": math.inf, "at 1 Gbit/s": 10**9 / 8}

Runs = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Places:
    """The parts of an image, by name, with the offset of each, and the length of them all."""

    offsets: dict[str, int]
    length: int

    def middle(self, name: str) -> int:
        """Return the image offset of a page in the middle of a part."""
        return (self.offsets[name] + self.length // 2) // 4096 * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description="First bytes of cold parts.")
    parser.add_argument("--parts", type=int, default=40, help="small ones")
    parser.add_argument("--rtt-ms", type=float, default=50)
    parser.add_argument("--large", type=int, default=5, help="large parts")
    parser.add_argument("--rounds", type=int, default=2, help="how often the cache is emptied")
    parser.add_argument("--only", choices=["distance", "large"], help="one of the two")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    milliseconds: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        work = Path(name)
        if arguments.only != "large":
            runs = _distance(work / "small", arguments.parts, arguments.rtt_ms / 1000, arguments.rounds)
            milliseconds[f"{_SMALL_BYTES} bytes at {arguments.rtt_ms:g} ms"] = summary(runs)
            what = f"first byte of a cold part of 100 KB at {arguments.rtt_ms:g} ms against curl"
            figures.append(Figure(6, what, ratio(runs, _OURS, _CURL), "<= 1.2"))
        if arguments.only != "distance":
            for kind, runs in _large(work / "large", arguments.large, arguments.rounds).items():
                milliseconds[f"{_LARGE_BYTES} bytes, {kind}"] = summary(runs)
                what = f"first byte of a cold part of 100 MB, {kind}, against curl to a file"
                figures.append(Figure(15, what, ratio(runs, _OURS, _CURL_FILE), "<= 1.15"))
    report(figures, milliseconds=milliseconds)


def _distance(root: Path, parts: int, rtt_s: float, rounds: int) -> Runs:
    places = _write(root, parts + 1, _SMALL_BYTES)
    published = publish(root, root / "image.img")
    runs: Runs = {_OURS: [], _CURL: []}
    first, *measured = places.offsets
    run = root / "run"
    with Nginx(root) as nginx, delayed(port_of(nginx), rtt_s) as port:
        for _ in range(rounds):
            quiet(run)
            with mounted(published.jigdo, run, run / "cache", *mirror(port)) as mountpoint:
                image = mountpoint / published.image.name
                pread_seconds(image, places.middle(first))
                for name in measured:
                    runs[_OURS].append(1e3 * pread_seconds(image, places.middle(name)))
                    runs[_CURL].append(1e3 * _curl(root, port, [first, name], Path(os.devnull)))
    return runs


def _large(root: Path, parts: int, rounds: int) -> dict[str, Runs]:
    places = _write(root, parts, _LARGE_BYTES)
    published: dict[str, Published] = {}
    for algorithm in _ALGORITHMS:
        image = root / f"{algorithm}.img"
        image.hardlink_to(root / "image.img")
        published[algorithm] = publish(root, image, "-C", algorithm)
    runs: dict[str, Runs] = {}
    with Nginx(root) as nginx:
        near = port_of(nginx)
        for line, bytes_per_s in _LINES.items():
            with delayed(near, 0, bytes_per_s) if bytes_per_s < math.inf else nullcontext(near) as port:
                for algorithm, one in published.items():
                    of = runs[f"{algorithm}, {line}"] = {_OURS: [], _CURL: [], _CURL_FILE: [], _HASHING: []}
                    for _ in range(rounds):
                        _large_round(root / "run", places, one, port, of)
    return runs


def _large_round(run: Path, places: Places, one: Published, port: int, of: Runs) -> None:
    quiet(run)
    with mounted(one.jigdo, run, run / "cache", *mirror(port)) as mountpoint:
        for name in places.offsets:
            of[_OURS].append(1e3 * pread_seconds(mountpoint / one.image.name, places.middle(name)))
            quiet()
            of[_CURL].append(1e3 * _curl(run, port, [name], Path(os.devnull)))
            of[_CURL_FILE].append(1e3 * _curl(run, port, [name], run / "got"))
            of[_HASHING].append(1e3 * _hashing(run / "got", md5=one.image.stem == "md5"))
            (run / "got").unlink()


def _write(root: Path, parts: int, length: int) -> Places:
    """Write a pool of parts of one length, and an image of them with zeros in between."""
    chance = random.Random(1)
    (root / "pool").mkdir(parents=True)
    offsets: dict[str, int] = {}
    with (root / "image.img").open("wb") as image:
        for number in range(parts):
            image.seek(_GAP_BYTES, os.SEEK_CUR)
            name = f"part{number:03}.deb"
            data = chance.randbytes(length)
            (root / "pool" / name).write_bytes(data)
            offsets[name] = image.tell()
            image.write(data)
    return Places(offsets, length)


def _hashing(path: Path, *, md5: bool) -> float:
    """Return the seconds that a checksum of a file takes, reading not counted."""
    data = path.read_bytes()
    began = time.perf_counter()
    hashlib.new("md5" if md5 else "sha256", data, usedforsecurity=False).digest()
    return time.perf_counter() - began


def _curl(home: Path, port: int, names: Sequence[str], target: Path) -> float:
    """Get parts over one connection; return the seconds of the last."""
    command = [
        "curl",
        "--silent",
        "--fail",
        "--noproxy",
        "*",
        "--write-out",
        "%{num_connects} %{time_total}\\n",
    ]
    for name in names:
        command += ["--output", str(target), f"http://127.0.0.1:{port}/pool/{name}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environ(home))
    connects, seconds = done.stdout.splitlines()[-1].split()
    if len(names) > 1 and connects != "0":
        sys.exit("curl made a second connection")
    return float(seconds)


if __name__ == "__main__":
    run(main, "jigdo-file", "nginx", "curl")
