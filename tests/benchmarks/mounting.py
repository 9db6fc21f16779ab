"""Images to be mounted, mounts of them by the program itself and by others, and reads that are timed."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.pool import write_pool
from tests.kit.mounts import PROGRAM, clean_environ, detach_everything, mounted_at
from tests.kit.nginx import Nginx

READ_BYTES = 1 << 20
LABEL = "Pool"
_READY_S = 20.0
_END_S = 20.0


@dataclass(frozen=True, slots=True)
class Published:
    """A directory to be served: an image, its .jigdo and .template, and `pool/` with its parts."""

    root: Path
    image: Path

    @property
    def pool(self) -> Path:
        """Return where the parts are."""
        return self.root / "pool"

    @property
    def jigdo(self) -> Path:
        """Return the .jigdo."""
        return self.image.with_suffix(".jigdo")

    @property
    def template(self) -> Path:
        """Return the .template."""
        return self.image.with_suffix(".template")


def publish_pool(root: Path, parts: int, mib: int) -> Published:
    """Make an image of so many parts of very different sizes, and publish it."""
    _, image = write_pool(root, parts, mib << 20)
    return publish(root, image)


def publish(root: Path, image: Path, *options: str) -> Published:
    """Have jigdo-file make the .jigdo and .template of an image of the files in `root/pool`."""
    command = ["jigdo-file", "make-template", f"--image={image}", "--label", f"{LABEL}={root / 'pool'}"]
    command += ["--no-servers-section", "-r", "quiet", *options, f"{root / 'pool'}//"]
    subprocess.run(command, check=True, capture_output=True)
    return Published(root, image)


def port_of(server: Nginx) -> int:
    """Return where it listens."""
    return int(server.url().rstrip("/").rpartition(":")[2])


def mirror(port: int) -> tuple[str, str]:
    """Return the options that name the published pool behind a port."""
    return "--mirror", f"{LABEL}=http://127.0.0.1:{port}/pool/"


@contextlib.contextmanager
def mounted(source: str | Path, directory: Path, cache: Path, *options: str) -> Iterator[Path]:
    """Mount below a directory as a user would, in the background, and yield the mount point.

    It is mounted at `directory/mnt`; the log is in the same directory.
    """
    mountpoint = directory / "mnt"
    mountpoint.mkdir(parents=True, exist_ok=True)
    log = directory / "mount.log"
    command = [*PROGRAM, "mount", str(source), str(mountpoint), "--cache-dir", str(cache)]
    command += ["--log-file", str(log), *options]
    environ = clean_environ(directory)
    try:
        done = subprocess.run(
            command, env=environ, cwd=directory, stdin=subprocess.DEVNULL, timeout=120, check=False
        )
        if done.returncode:
            said = log.read_text("utf-8", "replace")[-2000:] if log.exists() else ""
            sys.exit(f"{' '.join(command)} ended with {done.returncode}: {said}")
        yield mountpoint
        subprocess.run([*PROGRAM, "umount", str(mountpoint)], env=environ, timeout=60, check=True)
    finally:
        detach_everything(mountpoint)


@contextlib.contextmanager
def mounted_by(command: Sequence[str], mountpoint: Path, directory: Path) -> Iterator[Path]:
    """Run another file system's program in the foreground; yield its mount point once it answers."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    environ = clean_environ(directory)
    with (
        (directory / "peer.log").open("ab") as log,
        subprocess.Popen(
            command, env=environ, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            deadline = time.monotonic() + _READY_S
            while not mounted_at(mountpoint):
                if process.poll() is not None or time.monotonic() > deadline:
                    log_text = (directory / "peer.log").read_text("utf-8", "replace")[-2000:]
                    sys.exit(f"{command[0]} does not mount: {log_text}")
                time.sleep(0.01)
            yield mountpoint
            subprocess.run(["fusermount3", "-u", str(mountpoint)], check=True)
            process.wait(_END_S)
        finally:
            detach_everything(mountpoint)
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(_END_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def quiet(*directories: Path) -> None:
    """Remove directories, and have nothing left to be written, so that no run pays for the one before."""
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    os.sync()


def read_seconds(path: Path, size: int, at_once: int = READ_BYTES) -> float:
    """Read a file once, so many bytes at a time, and return the seconds; end if it has other than `size`."""
    buffer = bytearray(at_once)
    fd = os.open(path, os.O_RDONLY)
    try:
        began = time.perf_counter()
        count = 0
        while got := os.readv(fd, [buffer]):
            count += got
        seconds = time.perf_counter() - began
    finally:
        os.close(fd)
    if count != size:
        sys.exit(f"{path} has {count} bytes instead of {size}")
    return seconds


def pread_seconds(path: Path, offset: int, length: int = 4096) -> float:
    """Open a file, read from the middle of it, and return the seconds of the read."""
    fd = os.open(path, os.O_RDONLY)
    try:
        began = time.perf_counter()
        data = os.pread(fd, length, offset)
        seconds = time.perf_counter() - began
    finally:
        os.close(fd)
    if len(data) != length:
        sys.exit(f"{path} gave {len(data)} bytes instead of {length} at {offset}")
    return seconds
