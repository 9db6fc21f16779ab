"""Measure make-template against jigdo-file, in the same run.

    .venv/bin/python -m tests.benchmarks.make_template [--parts 400] [--mib 500] [--rounds 3]
    .venv/bin/python -m tests.benchmarks.make_template --image DVD.iso TREE...

Builds an image of that many parts of very different sizes, or takes a given one, and lets both programs
make its template, `--rounds` times over. Needs jigdo-file. Prints one JSON object: seconds and CPU
seconds of whole processes, peak memory, bytes covered by parts, size of the templates, and ratios of medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.pool import write_pool
from tests.kit.running import run

_PROGRAMS = {"jigdo-file": ["jigdo-file"], "jigdofs": [sys.executable, "-m", "jigdofs"]}


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Making templates against jigdo-file.")
    parser.add_argument("trees", nargs="*", metavar="TREE", help="files of --image")
    parser.add_argument("--image", help="an image to use instead of one that is built")
    parser.add_argument("--parts", type=int, default=400)
    parser.add_argument("--mib", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", default="-C md5 -9", help="for both programs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        work = Path(name)
        image, trees = arguments.image, arguments.trees
        if image is None:
            pool, built = write_pool(work / "site", arguments.parts, arguments.mib << 20)
            image, trees = str(built), [f"{pool}//"]
        image, trees = os.path.abspath(image), [os.path.abspath(tree) + "//" for tree in trees]
        runs: dict[str, list[Run]] = {program: [] for program in _PROGRAMS}
        made: dict[str, dict[str, int]] = {}
        for _ in range(arguments.rounds):
            for program, words in _PROGRAMS.items():
                command = [*words, "make-template", "-r", "quiet", *arguments.options.split()]
                command += ["-i", image, "-j", "x.jigdo", "-t", "x.template", *trees]
                runs[program].append(_run(command, work / "run"))
                made[program] = _made(work / "run" / "x.template")
        print(json.dumps(_report(runs, made), indent=2))


def _run(command: list[str], directory: Path) -> Run:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "LC_ALL": "C"}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=directory, env=environ)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} ended with {process.returncode}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _made(template: Path) -> dict[str, int]:
    command = ["jigdo-file", "list-template", "-t", str(template)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lengths = [int(line.split()[2]) for line in listed.splitlines() if line.startswith("need-file")]
    return {"places": len(lengths), "bytes_in_parts": sum(lengths), "template_bytes": template.stat().st_size}


def _report(runs: dict[str, list[Run]], made: dict[str, dict[str, int]]) -> dict[str, Any]:
    median = {
        program: {
            key: round(statistics.median(asdict(run)[key] for run in done), 2) for key in asdict(done[0])
        }
        for program, done in runs.items()
    }
    theirs, ours = median["jigdo-file"], median["jigdofs"]
    return {
        "seconds": {program: [round(run.seconds, 2) for run in done] for program, done in runs.items()},
        "median": median,
        "made": made,
        "times_faster": round(theirs["seconds"] / ours["seconds"], 2),
        "cpu_share": round(ours["cpu_seconds"] / theirs["cpu_seconds"], 2),
        "template_share": round(made["jigdofs"]["template_bytes"] / made["jigdo-file"]["template_bytes"], 4),
    }


if __name__ == "__main__":
    run(main, "jigdo-file")
