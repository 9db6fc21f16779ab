"""The image that the campaign of the cache mounts and reads, and what was found while that was done."""

import contextlib
import errno
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.faulty_server import FaultyServer
from tests.kit.figures import Figure
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, Mounted
from tests.kit.requirements import as_user
from tests.kit.scenes import drop_pages, pool_files, read_direct

CAMPAIGN = 3
READ_TIMEOUT_S = 10.0
_OPTIONS = (
    *("--connect-timeout", "2s", "--stall-timeout", "5s"),
    *("--read-timeout", f"{READ_TIMEOUT_S:g}s", "--contents"),
)
_READERS = 2
_ALL = "all"


@dataclass
class Found:
    """What a campaign has seen so far; the lists name round and injury.

    Attributes:
        injuries: how often each was tried.
        missed: how many of them met nothing: what they are for was not there any more, or busy.
    """

    injuries: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def figures(self) -> list[Figure]:
        """Return what is promised of it."""
        touched = "files outside the cache opened, changed or removed"
        return [
            Figure(CAMPAIGN, "reads with a wrong byte", len(self.wrong), "<= 0", "reads"),
            Figure(CAMPAIGN, "reads that failed", len(self.failed), "<= 0", "reads"),
            Figure(CAMPAIGN, touched, len(self.outside), "<= 0", "files"),
            Figure(CAMPAIGN, "mounts that ended or told a traceback", len(self.ended), "<= 0", "mounts"),
            Figure(CAMPAIGN, "slowest read", self.slowest_s, f"<= {READ_TIMEOUT_S + 1:g}", "s"),
        ]

    @property
    def broken(self) -> list[str]:
        """All that breaks a promise."""
        return [*self.wrong, *self.failed, *self.outside, *self.ended]


def never() -> bool:
    """Excuse no read that fails."""
    return False


class MountedImage:
    """The image as it is, what serves it, and mounts of it that are compared with it.

    Args:
        built: by the real tools.
        server: gives .jigdo, template and parts.
        directory: for mount points, caches and what lies outside of them.
        found: what is seen is noted there.
    """

    def __init__(self, built: BuiltImage, server: FaultyServer, directory: Path, found: Found) -> None:
        self.data = built.image.read_bytes()
        self.directory = directory
        self.found = found
        self.server = server
        named = built.with_servers(directory / "in", {"Debian": server.url("/pool/")})
        files = pool_files(built)
        files |= {f"/{path.name}": path.read_bytes() for path in (named.jigdo, named.template)}
        server.files = files
        self.url = server.url("/kit.jigdo")
        self.inside = {path: (built.pool / path).read_bytes() for path in sorted(built.parts.values())}
        self.parts_bytes = sum(map(len, self.inside.values()))
        self.beside = directory / "beside"  # some parts lie here, too
        for path in list(self.inside)[::4]:
            (self.beside / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(built.pool / path, self.beside / path)
        self._lock = threading.Lock()

    def mounted(
        self,
        cache: Path,
        *options: str,
        point: str = "mnt",
        program: Sequence[str] = PROGRAM,
        user: str | None = None,
    ) -> Mounted:
        """Mount it; whatever is logged is allowed."""
        listed = [*_OPTIONS, "--cache-dir", str(cache), *options]
        return Mounted(self.url, self.directory / point, listed, allow_log=("",), program=program, user=user)

    def read_somewhere(
        self, source: random.Random, what: str, point: str = "mnt", excused: Callable[[], bool] = never
    ) -> None:
        """Read a random stretch, or a file inside, and note what came; `excused` tells if it may fail."""
        mount = self.directory / point
        if source.randrange(8) == 0:
            path = source.choice(list(self.inside))
            file = mount / "kit" / "pool" / path
            self._compare(f"{what}: {path}", file.read_bytes, self.inside[path], excused)
            return
        offset = source.randrange(len(self.data)) // 4096 * 4096
        length = source.choice((4096, 65536, 299_008))
        wanted = self.data[offset : offset + length]
        what = f"{what}: {offset}+{length}"
        self._compare(what, lambda: read_direct(mount / "kit.iso", offset, length), wanted, excused)

    def read_whole(self, what: str, point: str = "mnt") -> None:
        """Read all of it through the page cache."""
        path = self.directory / point / "kit.iso"
        with contextlib.suppress(OSError):
            drop_pages(path)
        self._compare(f"{what}: {_ALL}", path.read_bytes, self.data, never)

    def read_whole_of(self, user: str, what: str) -> None:
        """Read all of a user's own mount, as that user: nobody else may."""
        command = as_user(user, ["cat", str(self.directory / "mnt" / "kit.iso")])

        def read() -> bytes:
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode:
                raise OSError(errno.EIO, done.stderr.decode(errors="replace"))
            return done.stdout

        self._compare(f"{what}: {_ALL}", read, self.data, never)

    def _compare(
        self, what: str, read: Callable[[], bytes], wanted: bytes, excused: Callable[[], bool]
    ) -> None:
        begin = time.monotonic()
        kind, problem = self.found.failed, ""
        try:
            got = read()
        except OSError as error:
            if excused():
                return
            problem = f"{what}: {error.strerror}"
        else:
            if got != wanted:
                kind, problem = self.found.wrong, f"{what}: wrong"
        took = time.monotonic() - begin
        with self._lock:
            self.found.reads += 1
            if not what.endswith(_ALL):
                self.found.slowest_s = max(self.found.slowest_s, took)
            if problem:
                kind.append(problem)


@contextlib.contextmanager
def readers(image: MountedImage, seed: str, what: Sequence[str]) -> Iterator[None]:
    """Have some read at random all the time; `what` ends with what was done last."""
    stop = threading.Event()

    def read_on(number: int) -> None:
        source = random.Random(f"{seed} reader {number}")
        while not stop.is_set():
            image.read_somewhere(source, f"while {what[-1]}")

    threads = [threading.Thread(target=read_on, args=(number,)) for number in range(_READERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
