"""Measure warm sequential reads of a mount against libfuse's own C passthrough, in the same run.

    .venv/bin/python -m tests.benchmarks.warm_read [--parts 1200] [--rounds 5]

Both mounts are made anew for each round, so nothing of them is in the page cache; the files below
are. Needs gcc and libfuse3-dev, which ships the source of `passthrough_ll`. Prints one JSON object.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from jigdofs.demo import DemoImage, build
from tests.kit.mounts import mounted_at

_SOURCE = Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")
_READ_BYTES = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description="Warm sequential read against passthrough_ll.")
    parser.add_argument("--parts", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        directory = Path(name)
        image, plain = _make(directory, arguments.parts)
        peer = _compile(directory)
        rates: dict[str, list[float]] = {"passthrough_ll": [], "jigdofs": []}
        for _ in range(arguments.rounds):
            with _passthrough(peer, plain.parent, directory / "peer") as file:
                rates["passthrough_ll"].append(_rate(file / plain.name))
            with _jigdofs(directory) as mountpoint:
                rates["jigdofs"].append(_rate(mountpoint / image.name))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    report = {
        "image_bytes": image.size,
        "parts": len(image.parts),
        "rounds": arguments.rounds,
        "mb_per_s": {name: [round(rate) for rate in values] for name, values in rates.items()},
        "median_mb_per_s": {name: round(rate) for name, rate in medians.items()},
        "ratio": round(medians["jigdofs"] / medians["passthrough_ll"], 2),
    }
    print(json.dumps(report, indent=2))


def _make(directory: Path, parts: int) -> tuple[DemoImage, Path]:
    """Build an image, read it once through a mount into the cache, and keep the plain file."""
    published = directory / "published"
    published.mkdir()
    (directory / "peer").mkdir()
    (directory / "mnt").mkdir()
    (directory / "plain").mkdir()
    image = build(published, parts)
    plain = directory / "plain" / image.name
    with _jigdofs(directory) as mountpoint:
        shutil.copyfile(mountpoint / image.name, plain)
    return image, plain


def _compile(directory: Path) -> Path:
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True
    ).stdout.split()
    program = directory / "passthrough_ll"
    subprocess.run(["gcc", "-O2", str(_SOURCE), *flags, "-o", str(program)], check=True)
    return program


@contextlib.contextmanager
def _passthrough(program: Path, source: Path, mountpoint: Path) -> Iterator[Path]:
    with subprocess.Popen([program, "-s", "-f", "-o", f"source={source}", mountpoint]) as process:
        deadline = time.monotonic() + 10
        while not mounted_at(mountpoint):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit("passthrough_ll does not come up")
        try:
            yield mountpoint
        finally:
            subprocess.run(["fusermount3", "-u", mountpoint], check=True)


@contextlib.contextmanager
def _jigdofs(directory: Path) -> Iterator[Path]:
    program = [sys.executable, "-m", "jigdofs"]
    mountpoint = directory / "mnt"
    jigdo = directory / "published" / "demo.jigdo"
    mirror = f"Demo={directory / 'published'}/"
    options = ["--mirror", mirror, "--cache-dir", str(directory / "cache")]
    subprocess.run([*program, "mount", str(jigdo), str(mountpoint), *options], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run([*program, "umount", mountpoint], check=True)


def _rate(path: Path) -> float:
    """Read a file once, 1 MiB at a time, and return MB/s."""
    buffer = bytearray(_READ_BYTES)
    fd = os.open(path, os.O_RDONLY)
    try:
        began = time.perf_counter()
        count = 0
        while got := os.readv(fd, [buffer]):
            count += got
        return count / (time.perf_counter() - began) / 1e6
    finally:
        os.close(fd)


if __name__ == "__main__":
    main()
