"""Give a bomb to the program itself, in a process of its own, and look at all that it cost and left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns.bomb_makers import Bomb, Files
from tests.kit.mounts import PROGRAM, clean_environ, detach_everything, mounted_at
from tests.kit.scenes import QUICK, daemon_pid, ended, wait_until

MAX_SECONDS = 120
"""No run may take longer: it is ended then, and counts as one that hangs."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What must not reach a terminal: controls but tab and line feed, and what turns the writing round."""
_OPTIONS = {
    "info": ("--cache-dir", "cache"),
    "mount": ("--cache-dir", "cache", "--log-file", "log", *QUICK),
    "download": ("--cache-dir", "cache", "--output", "target/", "--connect-timeout", "1s"),
}
_ALLOWED = ("cache", "target", "log", "mnt", "tmp")
"""What a run may write to in its home."""


@dataclass(slots=True)
class Run:
    """What one run did.

    Attributes:
        what: bomb and verb.
        code: its exit code, negative for a signal.
        seconds: until it ended.
        rss_mib: peak of resident memory, of a daemon as well.
        disk_mib: what cache and target took on disk in the end.
        errors: what it wrote to stderr.
        problems: promises it broke.
    """

    what: str
    code: int
    seconds: float
    rss_mib: float
    disk_mib: float = 0.0
    errors: str = ""
    problems: list[str] = field(default_factory=list)


def run_bomb(
    bomb: Bomb, verb: str, files: Files, home: Path, environ: Mapping[str, str] | None = None
) -> Run:
    """Run one verb on a bomb in an empty home, and judge it."""
    for name in ("target", "tmp", "mnt"):
        (home / name).mkdir(parents=True)
    before = _tree(home.parent)
    arguments = _arguments(verb, files)
    run = measured([*PROGRAM, verb, *arguments], home, f"{bomb.name} {verb}", environ or {})
    if verb == "mount":
        look_at_mount(run, home)
    _judge(run, bomb)
    log = home / "log"
    if log.exists() and re.search("Traceback|internal error", log.read_text("utf-8", "replace")):
        run.problems.append("internal error in the log")
    after = _tree(home.parent)
    stray = [name for name in after.symmetric_difference(before) if not _may_write(name, home)]
    if stray:
        run.problems.append(f"written outside: {sorted(stray)[:3]}")
    run.disk_mib = _disk_mib(home)
    return run


def _arguments(verb: str, files: Files) -> list[str]:
    image = ("-i", "target/bomb.iso")
    match verb:
        case "info" | "download":
            return [str(files.jigdo), *_OPTIONS[verb]]
        case "mount":
            return [str(files.jigdo), "mnt", *_OPTIONS[verb]]
        case "list-template":
            return [str(files.template)]
        case "print-missing" | "print-missing-all":
            return [*image, "-j", str(files.jigdo), "-t", str(files.template)]
        case "verify":
            return ["-i", str(files.template), "-t", str(files.template), "-j", "none"]
        case "make-image":
            return [*image, "-t", str(files.template), "--no-cache", "tmp"]
    raise AssertionError(verb)


def measured(command: Sequence[str], home: Path, what: str, environ: Mapping[str, str]) -> Run:
    """Run a command to its end; past `MAX_SECONDS` it is killed, with all that it started."""
    out, err = home.parent / "stdout", home.parent / "stderr"
    began = time.monotonic()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            list(command),
            cwd=home,
            env=clean_environ(home) | {"TMPDIR": str(home / "tmp")} | dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    overdue = threading.Timer(MAX_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    overdue.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:  # the campaign itself is ended: nothing of it goes on
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        overdue.cancel()
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    with err.open("rb") as stream:
        errors = stream.read(1 << 20).decode("utf-8", "surrogateescape")
    run = Run(what, process.returncode, seconds, usage.ru_maxrss / 1024, errors=errors)
    for path in (out, err):
        if _dirty(path):
            run.problems.append(f"control characters on {path.name}")
        path.unlink()
    return run


def _dirty(path: Path) -> bool:
    """Tell whether a file has what a terminal would obey."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return any(_CONTROL.search(piece) for piece in iter(lambda: stream.read(1 << 20), ""))


def look_at_mount(run: Run, home: Path) -> None:
    """Read a little of what was mounted, measure the daemon, and unmount."""
    point = home / "mnt"
    try:
        if run.code or not mounted_at(point):
            return
        pid = daemon_pid(point)
        for name in sorted(os.listdir(os.fsencode(point))):
            began = time.monotonic()
            _read_ends(os.path.join(os.fsencode(point), name))
            run.seconds += time.monotonic() - began
            if b"/" in name or name.startswith(b"."):
                run.problems.append(f"the image is called {name!r}")
        run.rss_mib = max(run.rss_mib, peak_mib(pid))
        done = measured([*PROGRAM, "umount", str(point)], home, "umount", {})
        if done.code:
            run.problems.append(f"umount: {done.errors}")
        wait_until(lambda: ended(pid), "the daemon's end", 30)
    finally:
        detach_everything(point)


def _read_ends(path: bytes) -> None:
    """Read the first page of an image; an error is an answer."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.pread(fd, 4096, 0)
        finally:
            os.close(fd)


def peak_mib(pid: int) -> float:
    """Return the peak of resident memory of a process that runs."""
    text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) / 1024


def _judge(run: Run, bomb: Bomb) -> None:
    """Hold exit code and messages against what was promised."""
    verb = run.what.rpartition(" ")[2]
    if run.code not in bomb.codes:
        run.problems.append(f"exit code {run.code}")
    if re.search("Traceback|internal error|MemoryError", run.errors):
        run.problems.append("internal error")
    lines = run.errors.splitlines()
    told = [line for line in lines if line.startswith(("jigdofs: ", f"jigdofs {verb}: ", "ERROR: "))]
    if run.code == 3 and (len(lines) != 1 or len(told) != 1):
        run.problems.append(f"{len(lines)} lines instead of one")
    if run.code == 3 and bomb.hint not in run.errors:
        run.problems.append(f"does not say `{bomb.hint}'")


def _tree(top: Path) -> set[str]:
    return set(_names(str(top)))


def _names(top: str) -> Iterator[str]:
    with os.scandir(top) as entries:
        for entry in entries:
            yield entry.path
            if entry.is_dir(follow_symlinks=False):
                yield from _names(entry.path)


def _may_write(name: str, home: Path) -> bool:
    inside = name.removeprefix(f"{home}/")
    return inside != name and inside.split("/")[0] in _ALLOWED


def _disk_mib(home: Path) -> float:
    """Return what lies in the places that may be written to, as blocks on disk."""
    return sum(os.lstat(name).st_blocks for name in _tree(home)) / 2048
