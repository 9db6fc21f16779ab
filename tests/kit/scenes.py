"""Set the scene of a mount test: a published .jigdo, the program run as a user would, readers that wait."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, clean_environ, detach_everything, mounted_at
from tests.kit.requirements import as_user, require_fuse, tool

PAGE_BYTES = 4096
QUICK = ("--connect-timeout", "1s", "--stall-timeout", "1s", "--read-timeout", "10s")
"""Options under which a server that is gone or silent is given up within a second or two."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One place of the image where a part belongs, as jigdo-file tells it."""

    offset: int
    length: int
    checksum: str
    path: str

    @property
    def end(self) -> int:
        """Where it ends in the image."""
        return self.offset + self.length

    @property
    def pages(self) -> tuple[int, int]:
        """The whole pages that a buffered read of it touches."""
        return self.offset // PAGE_BYTES * PAGE_BYTES, -(-self.end // PAGE_BYTES) * PAGE_BYTES


def occurrences(built: BuiltImage) -> list[Occurrence]:
    """Return where parts lie in an image, in order."""
    command = [tool("jigdo-file"), "list-template", "--hex", f"--template={built.template}"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in listing.splitlines() if line.startswith("need-file-")]
    return [Occurrence(int(row[1]), int(row[2]), row[3], built.parts[row[3]]) for row in rows]


def lonely(built: BuiltImage) -> list[Occurrence]:
    """Return the parts that occur once and share no page with another part, the longest first."""
    listed = occurrences(built)
    counts = [other.checksum for other in listed]
    alone = [
        one
        for one in listed
        if counts.count(one.checksum) == 1
        and not any(
            other.offset < one.pages[1] and one.pages[0] < other.end for other in listed if other is not one
        )
    ]
    assert len(alone) >= 2, "the image is of no use for this test"
    return sorted(alone, key=lambda one: -one.length)


def publish(built: BuiltImage, site: Path, servers: Sequence[str], name: str = "kit") -> BuiltImage:
    """Put an image's .jigdo, naming these servers, with template and pool into a site."""
    published = built.with_servers(site / name, {"Debian": list(servers)})
    if not (site / "pool").is_symlink():
        (site / "pool").symlink_to(built.pool)
    return published


def pool_files(built: BuiltImage, prefix: str = "/pool/") -> dict[str, bytes]:
    """Return what a faulty server is to serve: every part by URL path."""
    return {prefix + path: (built.pool / path).read_bytes() for path in built.parts.values()}


def read_buffered(path: Path, offset: int, length: int) -> bytes:
    """Read through the page cache, without the kernel reading ahead."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        return _read_all(fd, offset, length)
    finally:
        os.close(fd)


def read_direct(path: Path, offset: int, length: int, block: int = 64 << 10) -> bytes:
    """Read past the page cache: the file system is asked for exactly these bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        return _read_all(fd, offset, length, block)
    finally:
        os.close(fd)


def _read_all(fd: int, offset: int, length: int, block: int = 1 << 20) -> bytes:
    pieces: list[bytes] = []
    while length and (piece := os.pread(fd, min(block, length), offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)


def drop_pages(path: Path) -> None:
    """Make the kernel forget what it knows of a file, so that the next read asks the file system again."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@contextmanager
def reading(work: Callable[[], bytes], count: int = 1) -> Iterator[list[Future[bytes]]]:
    """Have so many threads begin to read at the same time, and go on meanwhile."""
    gate = threading.Barrier(count)

    def wait_and_work() -> bytes:
        gate.wait(10)
        return work()

    with ThreadPoolExecutor(count) as threads:
        yield [threads.submit(wait_and_work) for _ in range(count)]


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 10) -> None:
    """Look again and again until the condition holds, or fail."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.01)


def read_again(read: Callable[[], bytes]) -> bytes:
    """Read what could not be had a moment ago: for that moment it is not asked for again."""
    got: list[bytes] = []

    def reads() -> bool:
        with suppress(OSError):
            got.append(read())
        return bool(got)

    wait_until(reads, "it can be read again")
    return got[0]


def ended(pid: int) -> bool:
    """Tell whether a process is gone, or dead and not yet waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def bytes_read_by(pid: int) -> int:
    """Return how many bytes a process has had from read(2) and its kin so far."""
    lines = Path(f"/proc/{pid}/io").read_text("ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


class Program:
    """Run jigdofs as a user types it, with a home of its own."""

    def __init__(self, home: Path, user: str | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.user = user
        self.environ = clean_environ(home) | dict(environ or {})

    def __call__(
        self, *arguments: str | Path, timeout_s: float = 60, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; what it writes that is no UTF-8 is surrogate-escaped."""
        command = [*PROGRAM, *map(str, arguments)]
        return subprocess.run(
            command if self.user is None else as_user(self.user, command),
            cwd=cwd or self.home,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            check=False,
        )

    def fails(self, *arguments: str | Path, code: int) -> str:
        """Run it and assert that it fails as it should: this code, and one line on stderr (returned)."""
        done = self(*arguments)
        lines = done.stderr.splitlines()
        assert (done.returncode, len(lines), done.stdout) == (code, 1, ""), done
        assert lines[0].startswith("jigdofs: "), lines
        return lines[0]


@contextmanager
def detached(
    program: Program,
    *arguments: str | Path,
    mountpoint: Path,
    typed: str | Path = "",
    cwd: Path | None = None,
) -> Iterator[subprocess.CompletedProcess[str]]:
    """Run `jigdofs mount ARGUMENTS MOUNTPOINT` in the background; at the end nothing is left of it.

    `typed` is what is typed for the mount point (itself by default), `cwd` where (home by default).
    """
    require_fuse(program.user)
    try:
        done = program("mount", *arguments, typed or mountpoint, cwd=cwd)
        pid = daemon_pid(mountpoint) if done.returncode == 0 and mounted_at(mountpoint) else None
        yield done
        if mounted_at(mountpoint):
            unmounted = program("umount", mountpoint)
            assert unmounted.returncode == 0, unmounted
        if pid is not None:
            wait_until(lambda: ended(pid), "the daemon's end")
    finally:
        detach_everything(mountpoint)


def daemon_pid(mountpoint: Path) -> int:
    """Return the process that serves a mount."""
    return int(os.getxattr(mountpoint, "user.jigdofs.pid"))


@contextmanager
def tiny_tmpfs(size_bytes: int) -> Iterator[Path]:
    """Mount a small tmpfs (root only)."""
    directory = Path(tempfile.mkdtemp(prefix="kit-tiny-"))
    options = f"size={size_bytes},mode=0700"
    subprocess.run([tool("mount"), "-t", "tmpfs", "-o", options, "kit-tiny", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run([tool("umount"), "--lazy", str(directory)], check=True)
        directory.rmdir()


@contextmanager
def fusectl() -> Iterator[Path]:
    """Have the kernel's directory of FUSE connections mounted (root only), as systemd has it."""
    directory = Path("/sys/fs/fuse/connections")
    if mounted_at(directory):
        yield directory
        return
    subprocess.run([tool("mount"), "-t", "fusectl", "fusectl", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run([tool("umount"), "--lazy", str(directory)], check=True)


def of_connection(device: int, name: str) -> int:
    """Return what the kernel says of the connection of a mount, wherever fusectl is mounted or not."""
    path = f"/sys/fs/fuse/connections/{os.minor(device)}/{name}"
    command = [
        tool("unshare"),
        "--mount",
        "sh",
        "-c",
        f"mount -t fusectl none {Path(path).parents[1]}; cat {path}",
    ]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def loop_devices(below: Path) -> list[str]:
    """Return the loop devices whose files lie below a path."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = backing.read_text("utf-8", "replace").rstrip("\n")
        except OSError:  # detached at this moment
            continue
        if file == str(below) or file.startswith(f"{below}/"):
            found.append(f"/dev/{backing.parts[3]}")
    return found


@contextmanager
def loop_device(file: Path, *options: str) -> Iterator[str]:
    """Attach a loop device (root only); at the end it is detached whatever the test did."""
    command = [tool("losetup"), "--find", "--show", "--read-only", *options, str(file)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        # its file has another name by now if the mount was detached, so it is not looked for by name
        subprocess.run([tool("losetup"), "--detach", device], check=True)
        wait_until(lambda: device not in loop_devices(file), f"{device} is detached")
