"""Measure a cold sequential read of a mount against `jigdofs download`, and at a distance against jigdo-lite.

    .venv/bin/python -m tests.benchmarks.cold_read [--parts 400] [--mib 500] [--rounds 3] [--far-rounds 1]
    .venv/bin/python -m tests.benchmarks.cold_read --only near      # or: far

Builds an image of that many parts of very different sizes and serves it from nginx on loopback. Near, the
image is read through a new mount with an empty cache, and downloaded with an empty cache. Far, behind a
delay, it is read through a mount and downloaded by jigdo-lite. Prints one JSON object: seconds, and ratios of
their medians.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.delay_proxy import delayed
from tests.benchmarks.mounting import (
    LABEL,
    Published,
    mirror,
    mounted,
    port_of,
    publish_pool,
    quiet,
    read_seconds,
)
from tests.kit.figures import Figure, ratio, report, summary
from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.nginx import Nginx
from tests.kit.running import run

_READ, _MOUNT_AND_READ = "read through the mount", "the same with mounting"
_DOWNLOAD, _LITE = "jigdofs download", "jigdo-lite"

Runs = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Cold sequential reads.")
    parser.add_argument("--parts", type=int, default=400)
    parser.add_argument("--mib", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--far-rounds", type=int, default=1, help="at a distance, as jigdo-lite takes long")
    parser.add_argument("--rtt-ms", type=float, default=50)
    parser.add_argument("--only", choices=["near", "far"], help="one of the two")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    seconds: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        work = Path(name)
        published = publish_pool(work / "site", arguments.parts, arguments.mib)
        size = published.image.stat().st_size
        with Nginx(published.root) as nginx:
            if arguments.only != "far":
                near = _near(published, port_of(nginx), work / "run", size, arguments.rounds)
                seconds["near"] = summary(near)
                what = "rate of a cold read through the mount against download"
                figures.append(Figure(4, what, ratio(near, _DOWNLOAD, _READ), ">= 0.85"))
            if arguments.only != "near":
                with delayed(port_of(nginx), arguments.rtt_ms / 1000) as port:
                    far = _far(published, port, work / "run", size, arguments.far_rounds)
                distance = f"{arguments.rtt_ms:g} ms"
                seconds[f"at {distance}"] = summary(far)
                what = f"times faster than jigdo-lite at {distance}, mounting included"
                figures.append(Figure(5, what, ratio(far, _LITE, _MOUNT_AND_READ), ">= 8"))
        template_bytes = published.template.stat().st_size
    detail = {"image_bytes": size, "template_bytes": template_bytes, "parts": arguments.parts}
    report(figures, **detail, seconds=seconds)


def _near(published: Published, port: int, run: Path, size: int, rounds: int) -> Runs:
    seconds: Runs = {_READ: [], _MOUNT_AND_READ: [], _DOWNLOAD: []}
    for _ in range(rounds):
        with _fresh(run):
            _mount_and_read(published, port, run, size, seconds)
        with _fresh(run):
            began = time.perf_counter()
            _download(published, port, run)
            seconds[_DOWNLOAD].append(time.perf_counter() - began)
    return seconds


def _far(published: Published, port: int, run: Path, size: int, rounds: int) -> Runs:
    seconds: Runs = {_READ: [], _MOUNT_AND_READ: [], _LITE: []}
    for _ in range(rounds):
        with _fresh(run):
            _mount_and_read(published, port, run, size, seconds)
        with _fresh(run):
            began = time.perf_counter()
            _lite(published, port, run)
            seconds[_LITE].append(time.perf_counter() - began)
    return seconds


@contextlib.contextmanager
def _fresh(run: Path) -> Iterator[None]:
    """Have an empty directory, and nothing left of it afterwards."""
    quiet(run)
    run.mkdir()
    yield
    quiet(run)


def _mount_and_read(published: Published, port: int, run: Path, size: int, seconds: Runs) -> None:
    began = time.perf_counter()
    with mounted(_url(published.jigdo, port), run, run / "cache", *mirror(port)) as mountpoint:
        ready = time.perf_counter() - began
        read = read_seconds(mountpoint / published.image.name, size)
    seconds[_READ].append(read)
    seconds[_MOUNT_AND_READ].append(ready + read)


def _download(published: Published, port: int, run: Path) -> None:
    command = [*PROGRAM, "download", "--quiet", "--cache-dir", str(run / "cache"), *mirror(port)]
    _run([*command, _url(published.jigdo, port), "-o", str(run / "x.img")], run)


def _lite(published: Published, port: int, run: Path) -> None:
    name, url, template = published.jigdo.name, _url(published.jigdo, port), _url(published.template, port)
    servers = f"[Servers]\\n{LABEL}={_url(published.pool, port)}/\\n"
    (run / ".jigdo-lite").write_text("debianMirror=''\nnonusMirror=''\n")
    # a .jigdo may name its template relative to itself, which jigdo-lite does not resolve for a local file
    script = (
        f"wget -q {url} && printf '{servers}' >>{name}"
        f" && sed -i 's|^Template=.*|Template={template}|' {name} && jigdo-lite --noask {name}"
    )
    _run(["sh", "-c", script], run)


def _run(command: list[str], run: Path) -> None:
    log = run / "log"
    with log.open("wb") as out:
        done = subprocess.run(
            command,
            cwd=run,
            env=clean_environ(run),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}: {log.read_text('utf-8', 'replace')[-2000:]}")


def _url(path: Path, port: int) -> str:
    return f"http://127.0.0.1:{port}/{path.name}"


if __name__ == "__main__":
    run(main, "jigdo-file", "jigdo-lite", "nginx", "wget")
