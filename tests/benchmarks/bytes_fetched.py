"""Measure how many bytes of parts are fetched for listing an ISO and extracting a few packages.

    .venv/bin/python -m tests.benchmarks.bytes_fetched [--packages 300] [--mib 150] [--rounds 5] [--only WAY]

Builds an ISO of that many packages, of very different sizes, with a description of each, and publishes it.
Every way of getting some packages at random starts with an empty cache and lists everything first. Counted is
what nginx sent of parts, not .jigdo and template, against the length of these packages. Needs xorriso.
Prints one JSON object: ratios of sums over all rounds, and the share of it that was fetched for listing.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from jigdofs.iso9660.tree import ROOT, Tree
from tests.benchmarks.mounting import (
    READ_BYTES,
    Published,
    mirror,
    mounted,
    port_of,
    publish,
    quiet,
)
from tests.kit.figures import Figure, report
from tests.kit.isos import make_iso, tree_of
from tests.kit.nginx import Nginx
from tests.kit.running import run

_CONTENTS = "files of mount --contents"
_XORRISO = "xorriso -osirrox of the image"
_EXTENTS = "reads of the image at the files' extents"

Extract = Callable[[Path, Published, Sequence[str], Path], None]


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes fetched against bytes wanted.")
    parser.add_argument("--packages", type=int, default=300)
    parser.add_argument("--mib", type=int, default=150)
    parser.add_argument("--extract", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only the ways that have this in their name")
    arguments = parser.parse_args()
    ways = {name: extract for name, extract in _WAYS.items() if arguments.only in name}
    wanted: dict[str, int] = dict.fromkeys(ways, 0)
    fetched: dict[str, int] = dict.fromkeys(ways, 0)
    listing: dict[str, int] = dict.fromkeys(ways, 0)
    parts: dict[str, int] = dict.fromkeys(ways, 0)
    chance = random.Random(2)
    with tempfile.TemporaryDirectory(prefix="jigdofs-bench-") as name:
        work = Path(name)
        published = _publish(work, arguments.packages, arguments.mib << 20)
        lengths = {
            path.relative_to(published.root).as_posix(): path.stat().st_size
            for path in sorted(published.pool.rglob("*.deb"))
        }
        run = work / "run"
        with Nginx(published.root) as nginx:
            for _ in range(arguments.rounds):
                packages = chance.sample(list(lengths), arguments.extract)
                for way, extract in ways.items():
                    quiet(run)
                    nginx.clear_log()
                    options = ["--contents", *mirror(port_of(nginx))]
                    with mounted(published.jigdo, run, run / "cache", *options) as mountpoint:
                        _list(mountpoint, len(lengths))
                        listing[way] += _sent(nginx)[1]
                        extract(mountpoint, published, packages, run / "out")
                    _compare(run / "out", published, packages)
                    requests, sent = _sent(nginx)
                    fetched[way] += sent
                    parts[way] += requests
                    wanted[way] += sum(lengths[package] for package in packages)
    ratios = {way: fetched[way] / wanted[way] for way in ways}
    what = f"bytes fetched for listing and extracting {arguments.extract} packages against their length"
    report(
        [Figure(7, what, ratios[way], "<= 1.02") for way in ways if way == _CONTENTS],
        packages=len(lengths),
        bytes_in_packages=sum(lengths.values()),
        bytes_wanted=wanted,
        ratio={way: round(value, 4) for way, value in ratios.items()},
        parts_fetched=parts,
        bytes_fetched_for_listing=listing,
        packages_extracted=arguments.extract * arguments.rounds,
    )


def _publish(work: Path, packages: int, size: int) -> Published:
    """Make an ISO as Debian's are: pool, a directory for each source, lists of what is there."""
    chance = random.Random(1)
    root = work / "site"
    shares = [chance.lognormvariate(0, 1.8) for _ in range(packages)]
    index = []
    for number, share in enumerate(shares):
        source = f"{chance.choice('abcdefghijklmnop')}source{number // 3}"
        path = root / "pool" / "main" / source[0] / source / f"package{number:05}_1.0-1_amd64.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(max(2048, int(share / sum(shares) * size))))
        index.append(f"Package: package{number:05}\nFilename: {path.relative_to(root)}\n")
    lists = root / "dists" / "stable" / "main" / "binary-amd64" / "Packages"
    lists.parent.mkdir(parents=True)
    lists.write_text("\n".join(index))
    built = make_iso(root, "xorriso", "-R", "-J", "-V", "BENCH")
    return publish(root, built.rename(root / "image.iso"))


def _list(mountpoint: Path, packages: int) -> None:
    """List everything with all that `ls -l` shows; end where packages are missing."""
    listed = 0
    for folder, _, names in os.walk(mountpoint):
        for name in names:
            os.lstat(os.path.join(folder, name))
            listed += name.endswith(".deb")
    if listed != packages:
        sys.exit(f"{listed} packages are listed instead of {packages}")


def _sent(nginx: Nginx) -> tuple[int, int]:
    """Return how many parts were sent so far, and how many bytes of parts."""
    answers = [access.body_bytes for access in nginx.access_log() if access.path.startswith("/pool/")]
    return len(answers), sum(answers)


def _copy_files(mountpoint: Path, published: Published, packages: Sequence[str], out: Path) -> None:
    for package in packages:
        target = out / package
        target.parent.mkdir(parents=True, exist_ok=True)
        path = mountpoint / published.image.stem / package
        with path.open("rb", buffering=0) as source, target.open("wb") as copy:
            while data := source.read(READ_BYTES):
                copy.write(data)


def _xorriso(mountpoint: Path, published: Published, packages: Sequence[str], out: Path) -> None:
    command = ["xorriso", "-osirrox", "on", "-indev", f"stdio:{mountpoint / published.image.name}"]
    for package in packages:
        command += ["-extract", f"/{package}", str(out / package)]
    subprocess.run(command, check=True, capture_output=True)


def _copy_extents(mountpoint: Path, published: Published, packages: Sequence[str], out: Path) -> None:
    tree = tree_of(published.image)
    with (mountpoint / published.image.name).open("rb", buffering=0) as image:
        for package in packages:
            target = out / package
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as copy:
                for offset, length in tree.extents(_node(tree, package)):
                    for at in range(offset, offset + length, READ_BYTES):
                        copy.write(os.pread(image.fileno(), min(READ_BYTES, offset + length - at), at))


def _node(tree: Tree, path: str) -> int:
    node = ROOT
    for name in path.encode().split(b"/"):
        found = tree.child(node, name)
        assert found is not None, path
        node = found
    return node


def _compare(out: Path, published: Published, packages: Sequence[str]) -> None:
    for package in packages:
        if (out / package).read_bytes() != (published.root / package).read_bytes():
            sys.exit(f"{package} was extracted wrongly")


_WAYS: dict[str, Extract] = {_CONTENTS: _copy_files, _XORRISO: _xorriso, _EXTENTS: _copy_extents}


if __name__ == "__main__":
    run(main, "jigdo-file", "nginx", "xorriso")
