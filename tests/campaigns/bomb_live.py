"""Hold a good image and a hostile one in one daemon, and look how long readers of the good one wait."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jigdofs import demo
from tests.campaigns.bomb_makers import Files
from tests.campaigns.bomb_runs import peak_mib
from tests.kit.mounts import Mounted
from tests.kit.scenes import QUICK, read_direct

PAGE = 4096
_WAIT_S = 30
_READ_ALL = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
for at in range(0, min(size, int(sys.argv[2])), 131072):
    try:
        os.pread(fd, 131072, at)
    except OSError:
        pass
"""
ALLOWED = (
    "cannot be had",
    "within",
    "failed",
    "a part",
    "damaged",
    "DATA part",
    "cannot be reached",
    "room",
    "is no ISO",
)


@dataclass(slots=True)
class Watched:
    """What a reader of the good image saw while something went on.

    Attributes:
        what: went on.
        longest_s: that one read of 4 KiB took.
        reads: how many there were.
        rss_mib: peak of the daemon.
        problems: promises that were broken.
    """

    what: str
    longest_s: float = 0.0
    reads: int = 0
    rss_mib: float = 0.0
    problems: list[str] = field(default_factory=list)


@contextmanager
def watching(what: str, read: Callable[[int], bytes], expected: bytes, pid: int) -> Iterator[Watched]:
    """Read pages again and again, and time each, until the block ends."""
    watched = Watched(what)
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            at = watched.reads * PAGE % (len(expected) // PAGE * PAGE)
            began = time.monotonic()
            try:
                data = read(at)
            except OSError as error:
                watched.problems.append(f"a good read failed: {error}")
                return
            watched.longest_s = max(watched.longest_s, time.monotonic() - began)
            watched.reads += 1
            if data != expected[at : at + PAGE]:
                watched.problems.append("wrong bytes")
                return

    thread = threading.Thread(target=watch, name="watcher")
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join()
        watched.rss_mib = peak_mib(pid)
    if not watched.reads:
        watched.problems.append("no read came to its end")


def mounts_beside(directory: Path, name: str, files: Files, readers: int, read_bytes: int) -> Watched:
    """Mount the demo image and a hostile one together, and read the hostile one in other processes."""
    good = directory / "good"
    good.mkdir()
    demo.build(good, 2)
    options = [*QUICK, "--cache-dir", str(directory / "cache"), "--image", "all"]
    sources = [good / "demo.jigdo", Path(files.jigdo)]
    with Mounted(sources, directory / "mnt", options, home=good, allow_log=ALLOWED) as mount:
        image = mount.mountpoint / "demo.img"
        expected = image.read_bytes()
        hostile = next(path for path in mount.mountpoint.iterdir() if path.name != "demo.img")

        def read(at: int) -> bytes:
            return read_direct(image, at, PAGE, PAGE)

        with watching(f"mount beside {name}", read, expected, mount.process.pid) as watched:
            _end_all(
                [
                    subprocess.Popen([sys.executable, "-c", _READ_ALL, str(hostile), str(read_bytes)])
                    for _ in range(readers)
                ]
            )
        return watched


def _end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let readers go on for a while at most."""
    deadline = time.monotonic() + _WAIT_S
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
