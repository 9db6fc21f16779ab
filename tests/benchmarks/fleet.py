"""Count what an origin has to carry for a fleet of mounts: directly, and behind each caching proxy.

    .venv/bin/python -m tests.benchmarks.fleet [--mounts 4] [--parts 300] [--mib 64] [--cold 1,4,16]

Publishes an image from nginx, lets mounts with caches of their own read it through at the same time, and
proves the bytes of each by SHA-256. Needs jigdo-file and curl besides nginx; squid and apt-cacher-ng are left
out where they are not installed. The configurations of the proxies are those of docs/fleet.md. Takes four
minutes, most of them waiting for the proxy that hangs; `--only` leaves parts out. Prints one JSON object.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from tests.benchmarks.caching_proxy import PROXIES, Upstream, installed, reserve_low_port
from tests.benchmarks.pool import write_pool
from tests.kit import figures
from tests.kit.mounts import Mounted
from tests.kit.nginx import Nginx
from tests.kit.running import run

_READ_BYTES = 1 << 20
_SAMPLE_S = 0.05
_LOAD_S = 3.0  # what curl asks of the origin is made to take about so long
_SECTIONS = ("origin", "cold", "direct", "shared", *PROXIES, "faults")
_FAULTS = (("nginx", signal.SIGKILL), ("nginx", signal.SIGSTOP), ("squid", signal.SIGKILL))


@dataclass(frozen=True, slots=True)
class Published:
    """An image on a running origin.

    Attributes:
        root: what the origin serves.
        origin: the server.
        url: of its root.
        sha256: of the image.
        size: of the image.
        files: bytes that one mount has to fetch: .jigdo, .template and parts.
    """

    root: Path
    origin: Nginx
    url: str
    sha256: str
    size: int
    files: int


@dataclass(slots=True)
class Reader:
    """What one reader of a whole image saw."""

    began: float = 0.0
    ended: float = 0.0
    read: int = 0
    longest_s: float = 0.0
    sha256: str = ""
    error: str = ""
    half: threading.Event = field(default_factory=threading.Event)

    def run(self, path: Path, size: int) -> None:
        """Read through; an error ends it."""
        digest, self.began = hashlib.sha256(), time.perf_counter()
        last = self.began
        try:
            with path.open("rb", buffering=0) as file:
                while data := file.read(_READ_BYTES):
                    now = time.perf_counter()
                    self.longest_s, last = max(self.longest_s, now - last), now
                    digest.update(data)
                    self.read += len(data)
                    if self.read * 2 >= size:
                        self.half.set()
        except OSError as error:
            self.error = os.strerror(error.errno or 0)
        self.ended = time.perf_counter()
        self.longest_s = max(self.longest_s, self.ended - last)
        self.sha256 = digest.hexdigest()
        self.half.set()


def main() -> None:
    parser = argparse.ArgumentParser(description="What a fleet of mounts costs the origin.")
    parser.add_argument("--mounts", type=int, default=4)
    parser.add_argument("--parts", type=int, default=300)
    parser.add_argument("--mib", type=int, default=64, help="of all parts")
    parser.add_argument("--cold", default="1,4,16", help="numbers of mounts that read directly at once")
    parser.add_argument("--only", default=",".join(_SECTIONS), help="some of %(default)s")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what runs is ended and unmounted
    only = set(arguments.only.split(","))
    if unknown := only.difference(_SECTIONS):
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(_SECTIONS)}")
    with (
        tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name,
        _published(Path(name), arguments) as image,
    ):
        work = Path(name)
        found: dict[str, Any] = {}
        if "origin" in only:
            found["origin"] = _load(image)
        if "cold" in only:
            found["cold_mounts"] = [
                _fleet("direct", Upstream(image.url), image, work, int(count))
                for count in arguments.cold.split(",")
            ]
        found["ways"], skipped = _ways(image, work, arguments.mounts, only)
        if "faults" in only:
            found["faults"] = [
                _fault(image, work, name, number) for name, number in _FAULTS if installed(name)
            ]
        figures.report(
            [],
            mounts=arguments.mounts,
            parts=arguments.parts,
            image_bytes=image.size,
            bytes_one_mount_needs=image.files,
            not_installed=skipped,
            **found,
        )
    rows = [*found.get("cold_mounts", ()), *found["ways"]]
    if not all(row["sha256_right"] == row["mounts"] for row in rows):
        sys.exit("a mount gave wrong bytes")


@contextmanager
def _published(directory: Path, arguments: argparse.Namespace) -> Iterator[Published]:
    """Build a site as Debian's are, `debian/pool` and `debian-cd`, and serve it."""
    root = directory / "site"
    debian, cd = root / "debian", root / "debian-cd"
    pool, image = write_pool(debian, arguments.parts, arguments.mib << 20)
    cd.mkdir()
    with mock.patch("tests.kit.nginx.reserve_port", reserve_low_port):
        origin = Nginx(root, "sendfile on; tcp_nopush on;")
    command = ["jigdo-file", "make-template", f"--image={image}", "--label", f"Debian={debian}"]
    command += [f"--jigdo={cd / 'image.jigdo'}", f"--template={cd / 'image.template'}"]
    command += ["--uri", f"Debian={origin.url('/debian/')}", "-r", "quiet", f"{debian}//{pool.name}"]
    subprocess.run(command, check=True, capture_output=True)
    with image.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = image.stat().st_size
    image.unlink()
    files = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    with origin:
        yield Published(root, origin, origin.url(), sha256, size, files)


def _load(image: Published) -> dict[str, Any]:
    """Ask the origin for all parts over and over by curl alone, 8 at a time as one mount does, and 64."""
    urls = [
        image.origin.url("/" + str(path.relative_to(image.root)))
        for path in sorted(image.root.rglob("*.deb"))
    ]
    return {f"curl, {count} at a time": _curl(image, urls, count) for count in (8, 64)}


def _curl(image: Published, urls: list[str], count: int) -> dict[str, Any]:
    seconds, repeats = 0.0, 1
    while True:
        image.origin.clear_log()
        asked = "".join(f'url = "{url}"\noutput = "/dev/null"\n' for url in urls * repeats)
        command = ["curl", "--silent", "--fail", "--noproxy", "*", "--parallel"]
        command += ["--parallel-max", str(count), "--config", "-"]
        began = time.perf_counter()
        subprocess.run(command, input=asked.encode(), stderr=subprocess.DEVNULL, check=True)
        seconds = time.perf_counter() - began
        if seconds > _LOAD_S / 2 or repeats >= 100:
            break
        repeats = max(repeats + 1, int(repeats * _LOAD_S / seconds))
    answered = image.origin.access_log()
    carried = sum(access.body_bytes for access in answered)
    return {
        "requests_per_s": round(len(answered) / seconds),
        "mb_per_s": round(carried / seconds / 1e6),
        "seconds": round(seconds, 2),
    }


def _ways(
    image: Published, work: Path, mounts: int, only: set[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Let the fleet read the image by every way; through a proxy again when it has everything."""
    rows: list[dict[str, Any]] = []
    if "direct" in only:
        rows.append(_fleet("direct", Upstream(image.url), image, work, mounts))
    if "shared" in only:
        cache = work / "shared-cache"
        rows += [
            _fleet(f"shared cache directory, {state}", Upstream(image.url), image, work, mounts, cache=cache)
            for state in ("empty", "full")
        ]
    skipped = [name for name in PROXIES if not installed(name)]
    for name, proxy in PROXIES.items():
        if name not in skipped and name in only:
            with proxy(image.url) as upstream:
                rows.append(_fleet(f"{name}, empty", upstream, image, work, mounts))
                rows.append(_fleet(f"{name}, full", upstream, image, work, mounts))
    return rows, skipped


def _fault(image: Published, work: Path, name: str, number: signal.Signals) -> dict[str, Any]:
    """Kill or stop a proxy when one mount has read half."""
    with PROXIES[name](image.url) as upstream:
        return _fleet(f"{name}, {number.name} half way", upstream, image, work, 1, fault=number)


def _fleet(
    way: str,
    upstream: Upstream,
    image: Published,
    work: Path,
    count: int,
    *,
    cache: Path | None = None,
    fault: int | None = None,
) -> dict[str, Any]:
    """Mount so many times at once, then read all mounts at once, and look at what the origin was asked."""
    image.origin.clear_log()
    readers = [Reader() for _ in range(count)]
    with (
        tempfile.TemporaryDirectory(prefix="fleet-", dir=work) as name,
        ExitStack() as mounts,
        ThreadPoolExecutor(2 * count) as pool,
    ):
        homes = [Path(name) / str(number) for number in range(count)]
        began = time.perf_counter()
        mounted = [
            _mount(upstream, home, cache or home / "cache", lenient=fault is not None) for home in homes
        ]
        for _ in pool.map(mounts.enter_context, mounted):
            pass
        ready_s = time.perf_counter() - began
        with _connections(int(image.url.rstrip("/").rpartition(":")[2])) as peak:
            reading = [
                pool.submit(reader.run, mount.mountpoint / "image.img", image.size)
                for reader, mount in zip(readers, mounted, strict=True)
            ]
            if fault is not None:
                assert upstream.process is not None
                readers[0].half.wait()
                os.kill(upstream.process.pid, fault)
            for future in reading:
                future.result()
    return {"way": way, "mounts": count, "mounted_s": round(ready_s, 2)} | _row(image, readers, peak)


def _mount(upstream: Upstream, home: Path, cache: Path, *, lenient: bool) -> Mounted:
    home.mkdir(parents=True)
    options = ["--mirror", f"Debian={upstream.prefix}debian/", "--cache-dir", str(cache)]
    return Mounted(
        f"{upstream.prefix}debian-cd/image.jigdo",
        home / "mnt",
        options,
        home=home,
        environ=dict(upstream.environ),
        allow_log=[""] if lenient else (),
    )


def _row(image: Published, readers: Sequence[Reader], peak: list[int]) -> dict[str, Any]:
    seconds = max(reader.ended for reader in readers) - min(reader.began for reader in readers)
    asked = image.origin.access_log()
    carried = sum(access.body_bytes for access in asked)
    parts = [access for access in asked if access.path.startswith("/debian/")]
    row: dict[str, Any] = {
        "read_s": round(seconds, 2),
        "mb_per_s": round(sum(reader.read for reader in readers) / seconds / 1e6),
        "longest_read_s": round(max(reader.longest_s for reader in readers), 2),
        "sha256_right": sum(reader.sha256 == image.sha256 for reader in readers),
        "origin_requests": len(asked),
        "origin_part_requests": len(parts),
        "origin_bytes": carried,
        "times_fetched": round(carried / image.files, 2),
        "origin_connections": max(peak),
    }
    errors = sorted({reader.error for reader in readers} - {""})
    return row | ({"errors": errors} if errors else {})


@contextmanager
def _connections(port: int) -> Iterator[list[int]]:
    """Sample how many connections stand at a local port; the list grows meanwhile."""
    local, seen, end = f":{port:04X}", [0], threading.Event()

    def sample() -> None:
        while not end.wait(_SAMPLE_S):
            lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
            seen.append(sum(line.split()[1].endswith(local) and line.split()[3] == "01" for line in lines))

    watcher = threading.Thread(target=sample)
    watcher.start()
    try:
        yield seen
    finally:
        end.set()
        watcher.join()


if __name__ == "__main__":
    run(main, "jigdo-file", "nginx", "curl")
