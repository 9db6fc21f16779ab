"""A warm image, mounted by us and, as the plain file it is, by libfuse's own C program `passthrough_ll`.

Needs gcc and libfuse3-dev, which ships the source of `passthrough_ll`.
"""

import contextlib
import filecmp
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jigdofs.demo import build
from tests.benchmarks.mounting import LABEL, mounted, mounted_by, publish_pool

PEER, OURS = "passthrough_ll", "jigdofs"
_SOURCE = Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")
_DEMO_LABEL = "Demo"


@dataclass(frozen=True, slots=True)
class WarmImage:
    """An image whose parts are all in the cache.

    Attributes:
        directory: where everything lies.
        jigdo: what is mounted.
        plain: the same bytes as a plain file, alone in its directory.
        mirror: an option of ours; there is nothing behind it any more.
        program: the compiled peer.
    """

    directory: Path
    jigdo: Path
    plain: Path
    mirror: str
    program: Path

    @property
    def size(self) -> int:
        """Return how many bytes the image has."""
        return self.plain.stat().st_size

    @contextlib.contextmanager
    def mounted(self, name: str, read_ahead_kb: int, *options: str) -> Iterator[Path]:
        """Mount by `PEER` or `OURS`, let the kernel read ahead so far, and yield the image's path."""
        with self._ours(read_ahead_kb, options) if name == OURS else self._peer() as mountpoint:
            set_read_ahead(mountpoint, read_ahead_kb)
            yield mountpoint / self.plain.name

    def _ours(self, read_ahead_kb: int, options: tuple[str, ...]) -> contextlib.AbstractContextManager[Path]:
        options = ("--mirror", self.mirror, "--read-ahead-kb", str(read_ahead_kb), *options)
        return mounted(self.jigdo, self.directory / OURS, self.directory / "cache", *options)

    def _peer(self) -> contextlib.AbstractContextManager[Path]:
        mountpoint = self.directory / "peer"
        # -s: one thread, as ours has one loop
        command = [str(self.program), "-s", "-f", "-o", f"source={self.plain.parent}", str(mountpoint)]
        return mounted_by(command, mountpoint, self.directory)

    def touch(self) -> None:
        """Read all files below both mounts once, so that the disk has no part in what is measured."""
        for path in [self.plain, *(self.directory / "cache").rglob("*")]:
            if path.is_file():
                with path.open("rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass


def warm_pool(directory: Path, parts: int, mib: int) -> WarmImage:
    """Make an image of so many parts of very different sizes, and read it into the cache."""
    published = publish_pool(directory / "site", parts, mib)
    return _warmed(directory, published.jigdo, published.image, f"{LABEL}={published.pool}/", published.pool)


def warm_demo(directory: Path, parts: int) -> WarmImage:
    """Make the image of `jigdofs demo` with so many parts, and read it into the cache."""
    site = directory / "site"
    site.mkdir(parents=True)
    image = build(site, parts)
    mirror = f"{_DEMO_LABEL}={site}/"
    return _warmed(directory, site / "demo.jigdo", Path(image.name), mirror, site / "pool")


def set_read_ahead(mountpoint: Path, kib: int) -> None:
    """Say how far the kernel reads ahead on a mount, for files that are opened from now on."""
    device = mountpoint.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    setting.write_text(f"{kib}\n")


def _warmed(directory: Path, jigdo: Path, image: Path, mirror: str, pool: Path) -> WarmImage:
    """Read an image through a mount of ours once, compare it, and take its parts away."""
    plain = directory / "plain" / image.name
    plain.parent.mkdir()
    warm = WarmImage(directory, jigdo, plain, mirror, _compiled(directory))
    if image.exists():
        image.rename(plain)
    with mounted(jigdo, directory / OURS, directory / "cache", "--mirror", mirror) as mountpoint:
        if not plain.exists():
            shutil.copyfile(mountpoint / image.name, plain)
        elif not filecmp.cmp(mountpoint / image.name, plain, shallow=False):
            raise AssertionError("the mounted image differs from the plain one")
    shutil.rmtree(pool)
    pool.mkdir()  # a mirror has to exist
    os.sync()
    warm.touch()
    return warm


def _compiled(directory: Path) -> Path:
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True
    ).stdout.split()
    program = directory / "passthrough_ll"
    subprocess.run(["gcc", "-O2", str(_SOURCE), *flags, "-o", str(program)], check=True)
    return program
