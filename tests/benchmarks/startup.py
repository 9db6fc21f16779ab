"""Measure how quickly the program starts, against the bare interpreter, in the same run.

    .venv/bin/python -m tests.benchmarks.startup [--rounds 30] [--mounts 7]

Runs the installed `jigdofs --help`, or `python -m jigdofs --help` where it is not installed, and
`python -c pass` of the same interpreter in turn. Then a small .jigdo with its parts in a directory beside it
is mounted in the background, until the command returns, and it is told what of that time is imports. Prints
one JSON object: milliseconds, and a ratio of medians.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from jigdofs.demo import build
from tests.kit.figures import Figure, ratio, report, summary
from tests.kit.mounts import PROGRAM, REPOSITORY, clean_environ, detach_everything
from tests.kit.running import run

_NUMBER = 12
_GOAL = "<= 4"
_PARTS = 8
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)")
_ENDED_S = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Starting up.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--mounts", type=int, default=7)
    arguments = parser.parse_args()
    script = Path(sys.executable).with_name("jigdofs")
    program = [str(script)] if os.access(script, os.X_OK) else list(PROGRAM)
    runs: dict[str, list[float]] = {}
    commands = {"python -c pass": [sys.executable, "-c", "pass"], "jigdofs --help": [*program, "--help"]}
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        directory = Path(name)
        for turn in range(arguments.rounds + 1):
            for what, command in commands.items():
                taken = _milliseconds(command, directory)
                if turn:  # the first writes and reads the compiled modules
                    runs.setdefault(what, []).append(taken)
        mount = [*program, "mount", *_arguments(directory)]
        for turn in range(arguments.mounts + 1):
            taken = _mount_milliseconds(mount, program, directory)
            if turn:
                runs.setdefault("jigdofs mount", []).append(taken)
        imports = _imports(directory)
    report(
        [
            Figure(
                _NUMBER,
                "jigdofs --help against python -c pass",
                ratio(runs, "jigdofs --help", "python -c pass"),
                _GOAL,
            )
        ],
        milliseconds=summary(runs, 1),
        imports_of_a_mount_ms=imports,
    )


def _arguments(directory: Path) -> list[str]:
    """Publish a small image and return what is mounted where."""
    site = directory / "site"
    site.mkdir()
    build(site, _PARTS)
    (directory / "mnt").mkdir()
    options = ["--mirror", f"Demo={site}/", "--cache-dir", str(directory / "cache")]
    return [str(site / "demo.jigdo"), str(directory / "mnt"), *options, "--log-file", str(directory / "log")]


def _milliseconds(command: Sequence[str], directory: Path) -> float:
    environ = clean_environ(directory)
    began = time.perf_counter()
    subprocess.run(command, cwd=directory, env=environ, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def _mount_milliseconds(mount: Sequence[str], program: Sequence[str], directory: Path) -> float:
    try:
        taken = _milliseconds(mount, directory)
        command = [*program, "umount", str(directory / "mnt")]
        subprocess.run(command, cwd=directory, env=clean_environ(directory), check=True)
    finally:
        detach_everything(directory / "mnt")
    return taken


def _imports(directory: Path) -> dict[str, float]:
    """Mount in the foreground until it can be read, and return milliseconds of importing by package."""
    mountpoint = directory / "mnt"
    site = directory / "site"
    command = [sys.executable, "-X", "importtime", "-m", "jigdofs", "mount", str(site / "demo.jigdo")]
    command += [str(mountpoint), "--foreground", "--mirror", f"Demo={site}/"]
    command += ["--cache-dir", str(directory / "cache")]
    trace = directory / "importtime"
    environ = clean_environ(directory) | {"PYTHONPATH": str(REPOSITORY)}
    with (
        trace.open("wb") as log,
        subprocess.Popen(
            command, cwd=directory, env=environ, stdin=subprocess.DEVNULL, stderr=log
        ) as process,
    ):
        try:
            deadline = time.monotonic() + _ENDED_S
            while not list(mountpoint.iterdir()):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{' '.join(command)} does not mount")
                time.sleep(0.01)
            process.terminate()
            process.wait(_ENDED_S)
        finally:
            detach_everything(mountpoint)
            if process.poll() is None:
                process.kill()
    taken: dict[str, float] = {}
    for match in _IMPORT.finditer(trace.read_text("utf-8", "replace")):
        package = match[2].partition(".")[0]
        room = "standard library" if package in sys.stdlib_module_names else package
        taken[room] = taken.get(room, 0.0) + int(match[1]) / 1000
    ordered = sorted(taken.items(), key=lambda item: -item[1])
    return {package: round(ms, 1) for package, ms in ordered if ms >= 1}


if __name__ == "__main__":
    run(main)
