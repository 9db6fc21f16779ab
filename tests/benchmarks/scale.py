"""Measure what many parts and a long image cost: being ready, memory, and reading.

    .venv/bin/python -m tests.benchmarks.scale [--only ready|memory|through|cost] [--rounds 7]

The images are sparse (`sparse_image`), with everything in the cache. A small one is read whole and compared
first. `ready`: from starting `jigdofs mount` until it returns. `memory`: resident size of the daemon after
4 KiB were read of 20,000 parts all over the image, against an image of 2,000 parts, all of them read.
`through`: the same while 50 GB are read from end to end. `cost`: sequential and random reads of the same
number of bytes, warm. Needs some 2 GB of disk, most of it inodes. Prints one JSON object.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.mounting import READ_BYTES, mounted
from tests.benchmarks.sparse_image import SparseImage
from tests.kit.figures import Figure, ratio, report, summary
from tests.kit.running import run

_FEW, _MANY, _MOST = 2_000, 60_000, 200_000
_MEAN_BYTES = 416_000
_SETTLE_S = 4.0  # what runs in the background after mounting has come to its end
_TOUCHED = 20_000
_THROUGH_BYTES = 50_000_000_000
_COST_BYTES = 256 << 20
_COST_READS = 2_000

Found = tuple[list[Figure], dict[str, Any]]
Make = Callable[..., "Scene"]
"""Return the image of so many parts, of so many bytes each if need be."""


@dataclass(frozen=True)
class Scene:
    """An image on disk, with everything in its cache."""

    image: SparseImage
    directory: Path

    @property
    def jigdo(self) -> Path:
        """Return what is mounted."""
        return self.directory / "site" / "sparse.jigdo"

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mount it, and yield the path of the image."""
        # sparse files count with their whole length; and the kernel reads ahead alike, complete or not
        options = ("--cache-max-size", "off", "--read-ahead-kb", "256")
        with mounted(self.jigdo, self.directory / "mount", self.directory / "cache", *options) as mountpoint:
            yield mountpoint / "sparse.iso"

    def seconds_to_mount(self) -> float:
        """Return how long the program takes until it returns from mounting; it is unmounted again."""
        began = time.perf_counter()
        with self.mounted():
            return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Many parts, long images.")
    tasks: dict[str, Callable[[Make, int], Found]] = {
        "ready": _ready,
        "memory": _memory,
        "through": _through,
        "cost": _cost,
    }
    parser.add_argument("--only", choices=list(tasks), help="one of them")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    figures: list[Figure] = []
    detail: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        scenes: dict[int, Scene] = {}

        def scene(parts: int, mean_bytes: int = _MEAN_BYTES) -> Scene:
            if parts not in scenes:
                scenes[parts] = _made(SparseImage(parts, mean_bytes), Path(name) / str(parts))
            return scenes[parts]

        detail["sha256 of a small image"] = _proved(Path(name) / "small")
        for task, measure in tasks.items():
            if arguments.only in (None, task):
                of_task, detail[task] = measure(scene, arguments.rounds)
                figures += of_task
    report(figures, **detail)


def _made(image: SparseImage, directory: Path) -> Scene:
    scene = Scene(image, directory)
    image.publish(directory / "site")
    image.fill_cache(directory / "cache", scene.jigdo)
    os.sync()
    return scene


def _proved(directory: Path) -> str:
    """Read a small image whole through a mount, and end where it is not what it should be."""
    image = SparseImage(300, 20_000)
    wanted = hashlib.sha256()
    for data in image.content():
        wanted.update(data)
    with _made(image, directory).mounted() as path, path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted.hexdigest():
        sys.exit(f"a mounted image has the SHA-256 {found} instead of {wanted.hexdigest()}")
    shutil.rmtree(directory)
    return found


# -- 8: being ready ------------------------------------------------------------------------------------


def _ready(scene: Make, rounds: int) -> Found:
    few, many = scene(_FEW), scene(_MANY)
    text = many.jigdo.read_bytes()
    runs: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, measure in (
            ("few", few.seconds_to_mount),
            ("many", many.seconds_to_mount),
            ("least for the text", partial(_seconds_to_split, many.jigdo)),
        ):
            runs.setdefault(name, []).append(measure())
    median = {name: statistics.median(seconds) for name, seconds in runs.items()}
    allowed = 1.3 * median["few"] + median["least for the text"]
    figures = [
        Figure(8, f"mount ready, {_MANY} parts in the cache", median["many"], "<= 1.5", "s"),
        Figure(
            8,
            f"mount ready, {_MANY} parts, against 1.3 x the time of {_FEW} + splitting the text in Python",
            median["many"] / allowed,
            "<= 1",
        ),
    ]
    return figures, {
        "seconds": summary(runs),
        "image_bytes": many.image.size,
        "template_bytes": many.jigdo.with_suffix(".template").stat().st_size,
        "jigdo_bytes": len(text),
        "many_to_few": round(ratio(runs, "many", "few"), 3),
    }


def _seconds_to_split(jigdo: Path) -> float:
    """Return what it takes in a fresh Python to read a .jigdo and split it into keys and values."""
    program = (
        "import sys, time\n"
        "began = time.perf_counter()\n"
        "text = open(sys.argv[1], 'rb').read().decode()\n"
        "found = {}\n"
        "for line in text.split('\\n'):\n"
        "    key, _, value = line.partition('=')\n"
        "    found[key] = value\n"
        "print(time.perf_counter() - began)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, jigdo], check=True, capture_output=True, text=True)
    return float(done.stdout)


# -- 9: memory -----------------------------------------------------------------------------------------


def _memory(scene: Make, rounds: int) -> Found:
    mib: dict[str, dict[str, float]] = {}
    for parts in (_FEW, _MOST):
        one = scene(parts)
        with one.mounted() as path:
            time.sleep(_SETTLE_S)
            mounted_only = _memory_mib(path)
            _touch(path, one.image)
            mib[str(parts)] = {
                **{f"{name}, mounted": value for name, value in mounted_only.items()},
                **_memory_mib(path),
            }
    more = mib[str(_MOST)]["Rss"] - mib[str(_FEW)]["Rss"]
    figure = Figure(9, f"resident memory, {_MOST} parts against {_FEW}", more, "<= 80", "MiB more")
    return [figure], {"mib": mib}


def _touch(path: Path, image: SparseImage) -> None:
    """Read a page of many parts, in no order."""
    chance = random.Random(4)
    places = list(image.offsets())
    chance.shuffle(places)
    with path.open("rb", buffering=0) as file:
        for offset, part in places[:_TOUCHED]:
            os.pread(file.fileno(), 4096, offset + chance.randrange(part.length))


def _through(scene: Make, rounds: int) -> Found:
    one = scene(_MANY - 1, _THROUGH_BYTES // _MANY)
    buffer = bytearray(READ_BYTES)
    seen: list[float] = []
    with one.mounted() as path, path.open("rb", buffering=0) as file:
        time.sleep(_SETTLE_S)
        began = time.perf_counter()
        count, due = 0, 1_000_000_000
        while got := os.readv(file.fileno(), [buffer]):
            count += got
            if count >= due:
                seen.append(_memory_mib(path)["Rss"])
                due += 1_000_000_000
        seconds = time.perf_counter() - began
    if count != one.image.size:
        sys.exit(f"{count} bytes were read instead of {one.image.size}")
    growth = max(seen) - seen[0]
    return [
        Figure(
            9, f"memory while {count / 1e9:.0f} GB are read through, after the first", growth, "<= 10", "MiB"
        )
    ], {
        "gb_per_s": round(count / 1e9 / seconds, 2),
        "rss_mib_after_each_gb": seen,
    }


def _memory_mib(path: Path) -> dict[str, float]:
    """Return what the daemon behind a mounted image has in memory."""
    rollup = (Path("/proc") / str(_daemon_of(path.parent)) / "smaps_rollup").read_text()
    wanted = ("Rss", "Pss", "Private_Dirty")
    lines = (line.partition(":") for line in rollup.splitlines())
    return {name: round(int(rest.split()[0]) / 1024, 1) for name, _, rest in lines if name in wanted}


def _daemon_of(mountpoint: Path) -> int:
    """Return the process that was started to mount there."""
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if directory.name.isdigit():
                words = (directory / "cmdline").read_bytes().split(b"\0")
                if b"mount" in words and os.fsencode(mountpoint) in words:
                    return int(directory.name)
    sys.exit(f"no process has {mountpoint} mounted")


# -- 10: the cost of a read ----------------------------------------------------------------------------


def _cost(scene: Make, rounds: int) -> Found:
    runs: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        readings = [
            (f"{parts}, {how}", reading)
            for parts in (_FEW, _MOST)
            for how, reading in _readings(stack.enter_context(scene(parts).mounted()), scene(parts).image)
        ]
        time.sleep(_SETTLE_S)
        for turn in range(rounds + 1):
            for name, reading in readings if turn % 2 else readings[::-1]:
                seconds = reading()
                if turn:  # before the first round the daemon has no files open
                    runs.setdefault(name, []).append(seconds)
    figures = [
        Figure(
            10,
            f"{how} warm reads, {_MOST} parts against {_FEW}",
            ratio(runs, f"{_MOST}, {how}", f"{_FEW}, {how}"),
            "<= 1.1",
        )
        for how in ("sequential", "random")
    ]
    return figures, {
        "seconds": summary(runs, 4),
        "sequential_bytes": _COST_BYTES,
        "random_reads": _COST_READS,
    }


def _readings(path: Path, image: SparseImage) -> list[tuple[str, Callable[[], float]]]:
    """Return two ways to read an image of which the kernel knows nothing, each returning its seconds."""
    chance = random.Random(5)
    places = list(image.offsets())
    begin = places[len(places) // 2][0]
    some = [offset + chance.randrange(part.length) for offset, part in chance.sample(places, _COST_READS)]
    return [
        ("sequential", partial(_read, path, range(begin, begin + _COST_BYTES, READ_BYTES), READ_BYTES)),
        ("random", partial(_read, path, some, 4096)),
    ]


def _read(path: Path, offsets: Iterable[int], length: int) -> float:
    """Read so many bytes at each offset and return the seconds; the kernel has none of them."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        for offset in offsets:
            os.pread(file.fileno(), length, offset)
        return time.perf_counter() - began


if __name__ == "__main__":
    run(main)
