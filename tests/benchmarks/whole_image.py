"""Measure download, make-image and scan against jigdo-lite, jigdo-file and jigit, in the same run.

    .venv/bin/python -m tests.benchmarks.whole_image [--parts 400] [--mib 500] [--rounds 3] [--rtt-ms 50]

Builds an image of that many parts of very different sizes, serves it from nginx on loopback, and runs
every program in turn, `--rounds` times over. Needs jigdo-file, jigdo-lite, jigit and nginx. Prints one
JSON object: seconds of whole processes, and the ratios of their medians.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.delay_proxy import delayed
from tests.benchmarks.pool import write_pool
from tests.kit.nginx import Nginx
from tests.kit.running import run

_PROGRAM = f"{sys.executable} -m jigdofs"


@dataclass(frozen=True)
class Published:
    """A pool, and the .jigdo and .template of an image of its files, in one directory to be served."""

    root: Path
    pool: Path
    jigdo: Path
    template: Path


def main() -> None:
    parser = argparse.ArgumentParser(description="Whole images against their peers.")
    parser.add_argument("--parts", type=int, default=400)
    parser.add_argument("--mib", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rtt-ms", type=float, default=50)
    parser.add_argument("--only", help="run only what has this in its name")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        work = Path(name)
        published = _build(work / "site", arguments.parts, arguments.mib << 20)
        with Nginx(published.root) as near, delayed(_port(near), arguments.rtt_ms / 1000) as far:
            jobs = {
                **_offline(published),
                **_online("", _port(near)),
                **_online(f" at {arguments.rtt_ms:g} ms", far),
            }
            jobs = {job: command for job, command in jobs.items() if (arguments.only or "") in job}
            runs: dict[str, list[float]] = {job: [] for job in jobs}
            for _ in range(arguments.rounds):
                for job, command in jobs.items():
                    runs[job].append(_run(job, command, work / "run", published))
        print(json.dumps(_report(runs, published), indent=2))


def _build(root: Path, parts: int, size: int) -> Published:
    pool, image = write_pool(root, parts, size)
    command = ["jigdo-file", "make-template", f"--image={image}", "--label", f"Pool={pool}"]
    command += ["--no-servers-section", "-r", "quiet", f"{pool}//"]
    subprocess.run(command, check=True, capture_output=True)
    image.unlink()
    return Published(root, pool, root / "image.jigdo", root / "image.template")


def _port(server: Nginx) -> int:
    return int(server.url().rstrip("/").rpartition(":")[2])


def _offline(published: Published) -> dict[str, str]:
    template, pool, jigdo = published.template, f"{published.pool}/", published.jigdo
    return {
        "make-image: jigdo-file": f"jigdo-file make-image -r quiet -i x.img -t {template} {pool}",
        "make-image: jigit": f"jigit-mkimage -v -j {jigdo} -t {template} -m Pool={pool} -o x.img",
        "make-image: jigdofs": f"{_PROGRAM} make-image -r quiet -i x.img -t {template} {pool}",
        "scan: jigdo-file": f"jigdo-file scan -r quiet --cache c.db --scan-whole-file {pool}",
        "scan: jigdofs": f"{_PROGRAM} scan -r quiet --cache c.db -t {template} {pool}",
        "scan, few match: jigdofs": f"{_PROGRAM} scan -r quiet --cache c.db -t few.template {pool}",
    }


def _online(suffix: str, port: int) -> dict[str, str]:
    url = f"http://127.0.0.1:{port}"
    lite = (
        f"wget -q {url}/image.jigdo && printf '[Servers]\\nPool={url}/pool/\\n' >>image.jigdo"
        f" && sed -i 's|^Template=.*|Template={url}/image.template|' image.jigdo"
        " && HOME=$PWD jigdo-lite --noask image.jigdo"
    )
    return {
        f"download{suffix}: jigdo-lite": lite,
        f"download{suffix}: jigdofs": (
            f"{_PROGRAM} download -q --cache-dir cache --mirror Pool={url}/pool/ {url}/image.jigdo -o x.img"
        ),
    }


def _run(name: str, command: str, directory: Path, published: Published) -> float:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / ".jigdo-lite").write_text("debianMirror=''\nnonusMirror=''\n")
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "LC_ALL": "C"}
    if "few.template" in command:
        _few(published, directory / "few.template")
    with (directory / "log").open("wb") as log:
        began = time.perf_counter()
        done = subprocess.run(
            ["sh", "-c", command], cwd=directory, env=environ, stdout=log, stderr=log, check=False
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{name} failed: {(directory / 'log').read_text('utf-8', 'replace')[-2000:]}")
    return seconds


def _few(published: Published, template: Path) -> None:
    """Make the template of an image that has one file in ten of the pool."""
    files = sorted(path for path in published.pool.rglob("*") if path.is_file())[::10]
    image = template.with_suffix(".img")
    with image.open("wb") as file:
        for path in files:
            file.write(path.read_bytes())
    command = ["jigdo-file", "make-template", "-r", "quiet", f"--image={image}", "-0"]
    subprocess.run([*command, *map(str, files)], check=True, capture_output=True, cwd=template.parent)
    image.unlink()


def _report(runs: dict[str, list[float]], published: Published) -> dict[str, Any]:
    median = {name: statistics.median(done) for name, done in runs.items()}

    def ratio(task: str, peer: str, ours: str = "") -> float | None:
        slow, fast = median.get(f"{task}: {peer}"), median.get(f"{ours or task}: jigdofs")
        return None if slow is None or fast is None else round(slow / fast, 2)

    downloads = [name.partition(":")[0] for name in median if name.endswith("jigdo-lite")]
    return {
        "template_bytes": published.template.stat().st_size,
        "seconds": {name: [round(seconds, 2) for seconds in done] for name, done in runs.items()},
        "median_seconds": {name: round(value, 2) for name, value in median.items()},
        "times_faster": {
            **{f"{task} than jigdo-lite": ratio(task, "jigdo-lite") for task in downloads},
            "make-image than jigdo-file": ratio("make-image", "jigdo-file"),
            "make-image than jigit": ratio("make-image", "jigit"),
            "scan than jigdo-file": ratio("scan", "jigdo-file"),
            "scan, few match, than jigdo-file": ratio("scan", "jigdo-file", "scan, few match"),
        },
    }


if __name__ == "__main__":
    run(main, "jigdo-file", "jigdo-lite", "jigit-mkimage", "nginx", "wget")
