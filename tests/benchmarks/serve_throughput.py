"""Measure how fast a warm image is served, against nginx serving the plain file, in the same run.

    .venv/bin/python -m tests.benchmarks.serve_throughput [--mib 500] [--rounds 5]

Builds an image, reads it once through `jigdofs serve` into the cache, then has curl read it from both in
turn. Needs jigdo-file, nginx and curl. Prints one JSON object: MB/s of whole transfers, and their ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from tests.benchmarks.pool import write_pool
from tests.kit.nginx import Nginx
from tests.kit.running import run
from tests.kit.serving import serving


def main() -> None:
    parser = argparse.ArgumentParser(description="Serving against nginx.")
    parser.add_argument("--mib", type=int, default=500)
    parser.add_argument("--parts", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {"nginx": [], "jigdofs": []}
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        root = Path(name) / "site"
        pool, image = write_pool(root, arguments.parts, arguments.mib << 20)
        command = ["jigdo-file", "make-template", f"--image={image}", "--label", f"Pool={pool}"]
        command += ["--uri", f"Pool=file:{pool}/", "-r", "quiet", f"{pool}//"]
        subprocess.run(command, check=True, capture_output=True)
        with Nginx(root) as nginx, serving([root / "image.jigdo"], Path(name)) as server:
            urls = {"nginx": nginx.url("/image.img"), "jigdofs": server.url("/image.img")}
            for url in urls.values():
                _rate(url)
            for _ in range(arguments.rounds):
                for peer, url in urls.items():
                    rates[peer].append(_rate(url))
    medians = {peer: statistics.median(values) for peer, values in rates.items()}
    report = {
        "mb_per_s": {peer: [round(rate) for rate in values] for peer, values in rates.items()},
        "median_mb_per_s": {peer: round(rate) for peer, rate in medians.items()},
        "ratio": round(medians["jigdofs"] / medians["nginx"], 2),
    }
    print(json.dumps(report, indent=2))


def _rate(url: str) -> float:
    """Return MB/s of one transfer by curl."""
    command = ["curl", "--silent", "--fail", "--noproxy", "*", "--output", os.devnull]
    done = subprocess.run(
        [*command, "--write-out", "%{speed_download}", url], check=True, capture_output=True
    )
    return float(done.stdout) / 1e6


if __name__ == "__main__":
    run(main, "jigdo-file", "nginx", "curl")
