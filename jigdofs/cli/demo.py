"""`jigdofs demo`: the whole way, on this machine alone, leaving nothing behind."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_MISMATCH, EXIT_OK, MountError

_EPILOG = """\
Builds an image of some 10 MB out of 24 parts with its .jigdo and .template, serves them from a
web server on loopback, mounts the .jigdo, reads one part, then the rest, and compares the
checksum. Needs /dev/fuse and fusermount3 (Debian package fuse3), but neither root nor network.
"""
_READ_BYTES = 1 << 20


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG


if TYPE_CHECKING:
    from jigdofs.demo import DemoImage, Mirror


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001  every verb takes them
    """Show what jigdofs does; return 2 if the checksum were wrong."""
    from jigdofs.demo import Mirror, build

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))  # clean up on the way out
    with tempfile.TemporaryDirectory(prefix="jigdofs-demo-") as name:
        directory = Path(name)
        published = directory / "published"
        published.mkdir()
        image = build(published)
        print(
            f"built     {image.name}: {image.size:,} bytes out of {len(image.parts)} parts;"
            f" its template has {image.template_size:,} bytes"
        )
        mirror = Mirror(published)
        with mirror.serving():
            print(f"serving   {mirror.url} (this machine only)")
            began = time.monotonic()
            with _mounted(f"{mirror.url}demo.jigdo", directory) as mountpoint:
                print(
                    f"mounted   after {time.monotonic() - began:.2f} s, parts fetched so far:"
                    f" {mirror.fetched_parts()} of {len(image.parts)}"
                )
                return _read(mountpoint / image.name, image, mirror)


def _read(path: Path, image: DemoImage, mirror: Mirror) -> int:
    status = path.stat()
    print(f"          {path.name} has {status.st_size:,} bytes, {status.st_blocks * 512:,} of them are here")
    part = image.parts[len(image.parts) // 2]
    # a file object, not a bare descriptor: Ctrl-C just after os.open would leak that, and keep the mount busy
    with path.open("rb", buffering=0) as file:
        # the kernel reads whole pages otherwise, and thus touches the parts beside this one
        fcntl.fcntl(file, fcntl.F_SETFL, os.O_DIRECT)
        data = os.pread(file.fileno(), part.length, part.offset)
    if hashlib.sha256(data).hexdigest() != part.sha256:
        print(f"WRONG     {part.path} has another checksum than on the mirror")
        return EXIT_MISMATCH
    print(
        f"read      the {part.length:,} bytes of {part.path.rsplit('/', 1)[-1]}:"
        f" parts fetched: {mirror.fetched_parts()} of {len(image.parts)}"
    )
    began = time.monotonic()
    with path.open("rb", buffering=0) as file:
        sha256 = hashlib.sha256()
        while data := file.read(_READ_BYTES):
            sha256.update(data)
    rate = image.size / (time.monotonic() - began) / 1e6
    print(f"read      the whole image at {rate:.0f} MB/s: {mirror.fetched_parts()} parts fetched, each once")
    if sha256.hexdigest() != image.sha256:
        print(f"WRONG     sha256 is {sha256.hexdigest()}, should be {image.sha256}")
        return EXIT_MISMATCH
    print(f"proved    sha256 {image.sha256} is that of the original")
    return EXIT_OK


@contextlib.contextmanager
def _mounted(jigdo: str, directory: Path) -> Iterator[Path]:
    """Mount as a user would, with a cache of its own, and unmount in the end."""
    mountpoint = directory / "mnt"
    mountpoint.mkdir()
    program = [sys.executable, "-m", "jigdofs"]
    options = ["--cache-dir", str(directory / "cache"), "--log-file", str(directory / "log")]
    done = subprocess.run([*program, "mount", jigdo, str(mountpoint), *options], check=False)
    if done.returncode:
        raise MountError("the demo needs a FUSE mount; the line above says what is missing")
    try:
        yield mountpoint
    finally:
        if subprocess.run([*program, "umount", str(mountpoint)], check=False).returncode:
            # a desktop's indexer may be looking into it just now
            subprocess.run([*program, "umount", "--lazy", str(mountpoint)], check=True)
        print("unmounted, and everything removed")
