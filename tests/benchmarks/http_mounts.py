"""Measure reads of a mount against what mounts the plain image over HTTP: rclone and httpdirfs.

    .venv/bin/python -m tests.benchmarks.http_mounts [--parts 400] [--mib 500] [--rounds 3] [--only rclone]

One nginx on loopback serves both the plain image and the parts. In each round every program mounts with an
empty cache and the image is read once from end to end; then it is mounted again, so that the kernel has
nothing of it, and read from the program's own cache. Ours verifies every part, the others nothing. What is
not installed is left out. Prints one JSON object: MB/s of the reads, and ratios of their medians.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from tests.benchmarks.mounting import (
    Published,
    mirror,
    mounted,
    mounted_by,
    port_of,
    publish_pool,
    quiet,
    read_seconds,
)
from tests.kit.figures import Figure, ratio, report, summary
from tests.kit.nginx import Nginx
from tests.kit.running import run

OURS, RCLONE, HTTPDIRFS = "jigdofs", "rclone", "httpdirfs"
# rclone and httpdirfs list a directory to see the file; httpdirfs ends where a 206 does not say this
_DIRECTIVES = "autoindex on; add_header Accept-Ranges bytes;"

Mount = Callable[[Path], AbstractContextManager[Path]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Reads against rclone mount and httpdirfs.")
    parser.add_argument("--parts", type=int, default=400)
    parser.add_argument("--mib", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="of the peers, only what has this in its name")
    arguments = parser.parse_args()
    peers = [peer for peer in (RCLONE, HTTPDIRFS) if arguments.only in peer]
    missing = [peer for peer in peers if not shutil.which(peer)]
    names = [OURS, *(peer for peer in peers if peer not in missing)]
    cold: dict[str, list[float]] = {name: [] for name in names}
    warm: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        work = Path(name)
        published = publish_pool(work / "site", arguments.parts, arguments.mib)
        size = published.image.stat().st_size
        plain = published.root / "plain" / published.image.name
        plain.parent.mkdir()
        plain.hardlink_to(published.image)
        with Nginx(published.root, _DIRECTIVES) as nginx:
            mounts = _mounts(published, nginx)
            for _ in range(arguments.rounds):
                for program in names:
                    directory = work / program
                    quiet(directory)
                    directory.mkdir()
                    for rates in (cold[program], warm[program]):
                        with mounts[program](directory) as mountpoint:
                            seconds = read_seconds(mountpoint / published.image.name, size)
                        rates.append(size / seconds / 1e6)
                        quiet()
                    quiet(directory)
    report(
        _figures(cold, warm),
        image_bytes=size,
        parts=arguments.parts,
        rounds=arguments.rounds,
        cold_mb_per_s=summary(cold, 0),
        warm_mb_per_s=summary(warm, 0),
        not_installed=missing,
    )


def _mounts(published: Published, nginx: Nginx) -> dict[str, Mount]:
    jigdo, url = nginx.url(f"/{published.jigdo.name}"), nginx.url("/plain/")
    return {
        OURS: partial(_jigdofs, jigdo, mirror(port_of(nginx))),
        RCLONE: partial(_rclone, url),
        HTTPDIRFS: partial(_httpdirfs, url),
    }


def _jigdofs(jigdo: str, options: tuple[str, ...], directory: Path) -> AbstractContextManager[Path]:
    return mounted(jigdo, directory, directory / "cache", *options)


def _rclone(url: str, directory: Path) -> AbstractContextManager[Path]:
    mountpoint = directory / "mnt"
    command = ["rclone", "mount", ":http:", str(mountpoint), f"--http-url={url}", "--read-only"]
    command += ["--vfs-cache-mode=full", f"--cache-dir={directory / 'cache'}"]
    return mounted_by([*command, f"--config={directory / 'none.conf'}"], mountpoint, directory)


def _httpdirfs(url: str, directory: Path) -> AbstractContextManager[Path]:
    mountpoint, cache = directory / "mnt", directory / "cache"
    cache.mkdir(exist_ok=True)
    command = ["httpdirfs", "-f", "--cache", f"--cache-location={cache}", url, str(mountpoint)]
    return mounted_by(command, mountpoint, directory)


def _figures(cold: dict[str, list[float]], warm: dict[str, list[float]]) -> list[Figure]:
    warm_goal = "read from the daemon's cache against {}"
    cold_goal = "cold read, verified, against {}"
    return [
        *(Figure(13, warm_goal.format(peer), ratio(warm, OURS, peer), "> 1") for peer in list(warm)[1:]),
        *(
            Figure(
                14, cold_goal.format(peer), ratio(cold, OURS, peer), "> 1" if peer == HTTPDIRFS else ">= 0.5"
            )
            for peer in list(cold)[1:]
        ),
    ]


if __name__ == "__main__":
    run(main, "jigdo-file", "nginx")
