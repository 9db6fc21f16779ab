"""End daemons while mirrors stall and readers wait, and kill one that a loop device hangs on."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from jigdofs.control import place
from tests.campaigns.crash_kit import PREFIX, files_below, kill, settle
from tests.kit.faults import Stall
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import detach_everything, mounted_at
from tests.kit.scenes import (
    Program,
    daemon_pid,
    ended,
    loop_device,
    loop_devices,
    pool_files,
    read_direct,
    wait_until,
)

WAYS = ("SIGTERM", "SIGINT", "umount", "umount --lazy")
_PATIENT = ("--stall-timeout", "60s", "--read-timeout", "60s", "--readahead", "1M")
_READERS = 6
_END_S = 60.0


@dataclass(slots=True)
class Ends:
    """How daemons ended.

    Attributes:
        seconds: how long each took, by how it was told to.
        wrong: what was not as promised.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def took(self, way: str, begun: float) -> None:
        """Note how long something took that began at a moment of the monotonic clock."""
        self.seconds.setdefault(way, []).append(round(time.monotonic() - begun, 2))

    @property
    def slowest_s(self) -> float:
        """The longest time."""
        return max((max(times) for times in self.seconds.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mount in the background, the server behind it, and the program as its user runs it."""

    server: FaultyServer
    program: Program
    point: Path
    pid: int


class Ending:
    """Mounts of one image that are ended under load.

    Args:
        built: the image.
        root: where to work.
        ends: where it is told.
        seed: of all that is drawn.
    """

    def __init__(self, built: BuiltImage, root: Path, ends: Ends, seed: int) -> None:
        self._built, self._root, self._ends, self._seed = built, root, ends, seed
        self._data = built.image.read_bytes()

    def run(self, count: int) -> None:
        """End so many, in turn by each way."""
        for number in range(count):
            dice = random.Random(f"end {self._seed} {number}")
            way = WAYS[number % len(WAYS)]
            where = f"{way}, seed {self._seed}, number {number}"
            with FaultyServer(pool_files(self._built, PREFIX)) as server:
                home = self._root / f"end-{number}"
                with _mounted(self._built, server, home, dice) as mount:
                    if way == "umount --lazy":
                        self._lazily(where, mount)
                    else:
                        self._end(where, way, mount)
                    self._nothing_left(where, home, mount.point)

    def _end(self, where: str, way: str, mount: _Mount) -> None:
        """Tell it to end, and wait until it is gone and unmounted."""
        image = mount.point / self._built.image.name
        readers = 0 if way == "umount" else _READERS  # what is in use cannot be unmounted
        with ThreadPoolExecutor(_READERS) as threads:
            works = [
                threads.submit(
                    read_direct, image, number * len(self._data) // _READERS // 4096 * 4096, 200_000
                )
                for number in range(readers)
            ]
            mount.server.wait_stalled(2)
            begun = time.monotonic()
            if way == "umount":
                done = mount.program("umount", mount.point)
                if (done.returncode, done.stderr) != (0, ""):
                    self._ends.wrong.append(f"{where}: {done.stderr}")
            else:
                os.kill(mount.pid, signal.Signals[way])
            wait_until(lambda: ended(mount.pid) and not mounted_at(mount.point), "its end", _END_S)
            self._ends.took(way, begun)
            settle(mount.server)
            for work in works:
                with suppress(OSError):  # unless it came in time
                    work.result()

    def _lazily(self, where: str, mount: _Mount) -> None:
        """See umount name who reads, detach it all the same, and let the readers finish."""
        image = mount.point / self._built.image.name
        with ThreadPoolExecutor(1) as threads:
            work = threads.submit(read_direct, image, 0, len(self._data))
            mount.server.wait_stalled()
            attempts: list[tuple[list[str | Path], int]] = [([], 4), (["--lazy"], 0)]
            for options, code in attempts:
                begun = time.monotonic()
                done = mount.program("umount", *options, mount.point)
                self._ends.took(" ".join(["umount, in use", *map(str, options)]), begun)
                if done.returncode != code or (code and f"process {os.getpid()} " not in done.stderr):
                    self._ends.wrong.append(f"{where}: umount {options}: {done.returncode}, {done.stderr}")
            if mounted_at(mount.point):
                self._ends.wrong.append(f"{where}: it is mounted still")
            mount.server.behave()
            mount.server.release()
            if work.result(_END_S) != self._data:
                self._ends.wrong.append(f"{where}: wrong bytes for a reader that was there")
        begun = time.monotonic()
        wait_until(lambda: ended(mount.pid), "its end", _END_S)
        self._ends.took("the last reader of one that was detached", begun)

    def _nothing_left(self, where: str, home: Path, point: Path) -> None:
        left = [*files_below(home / "cache" / "incoming"), *files_below(home / "cache" / "sessions")]
        left += [*files_below(home / "tmp"), *map(str, place.find(str(point), os.geteuid()))]
        if left:
            self._ends.wrong.append(f"{where}: {left}")


@contextmanager
def _mounted(built: BuiltImage, server: FaultyServer, home: Path, dice: random.Random) -> Iterator[_Mount]:
    """Have an image mounted in the background, with a mirror that stalls for all but a few parts."""
    point = home / "mnt"
    for directory in (home, point, home / "tmp"):
        directory.mkdir()
    for path in built.parts.values():
        if dice.random() < 0.8:
            server.always(PREFIX + path, Stall(dice.choice((None, 0, 700))))
    published = built.with_servers(home / "in", {"Debian": server.url(PREFIX)})
    program = Program(home, environ={"TMPDIR": str(home / "tmp")})
    options: list[str | Path] = ["--cache-dir", home / "cache", "--prefetch", "all", *_PATIENT]
    try:
        done = program("mount", published.jigdo, point, *options)
        assert done.returncode == 0, done
        pid = daemon_pid(point)
        try:
            yield _Mount(server, program, point, pid)
        finally:
            if not ended(pid):
                kill(pid)
    finally:
        server.behave()
        server.release()
        detach_everything(point)


def kill_with_a_loop_device(built: BuiltImage, root: Path, ends: Ends, seed: int) -> None:
    """Kill a daemon whose image is attached to a loop device: mount and umount say what to do about it."""
    data = built.image.read_bytes()
    dice = random.Random(f"loop {seed}")
    with FaultyServer(pool_files(built, PREFIX)) as server:
        home = root / "loop"
        with _mounted(built, server, home, dice) as mount:
            program, point = mount.program, mount.point
            server.behave()
            server.release()
            image = point / built.image.name
            with loop_device(image) as device:
                _read_device(device)
                kill(mount.pid)
                words = ("mount", home / "in" / built.jigdo.name, point, "--cache-dir", home / "cache")
                done = program(*words)
                if done.returncode or device not in done.stderr or f"losetup -d {device}" not in done.stderr:
                    ends.wrong.append(f"mount with a loop device: {done}")
            if image.read_bytes() != data:
                ends.wrong.append("wrong bytes after a daemon with a loop device was killed")
            with loop_device(image) as device:
                holder = os.open(device, os.O_RDONLY)
                try:
                    kill(daemon_pid(point))
                    done = program("umount", point)
                finally:
                    os.close(holder)
                if done.returncode != 4 or device not in done.stderr:
                    ends.wrong.append(f"umount with a loop device in use: {done}")
                wait_until(lambda: device not in loop_devices(point), "the device is let go")
                subprocess.run(["losetup", "--read-only", device, str(built.image)], check=True)
            done = program("umount", point)
            if done.returncode or mounted_at(point):
                ends.wrong.append(f"umount after it was let go: {done}")


def _read_device(device: str) -> None:
    fd = os.open(device, os.O_RDONLY)
    try:
        os.pread(fd, 4096, 0)
    finally:
        os.close(fd)
