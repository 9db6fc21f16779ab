"""Feed the program what is small to send and large to take in; it must say no in a line, in little memory.

    python -m tests.campaigns.bombs --seed 1                    # all of it, some 15 minutes
    python -m tests.campaigns.bombs --seed 1 --only labels      # those whose name has this text

Every run is a process of its own; `outliers` names each that broke a promise, by bomb and verb.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns import bomb_list
from tests.campaigns.bomb_live import Watched, mounts_beside
from tests.campaigns.bomb_makers import Bomb
from tests.campaigns.bomb_net import net_bombs, run_net
from tests.campaigns.bomb_runs import Run, run_bomb
from tests.campaigns.bomb_sockets import control_flood, serve_flood
from tests.campaigns.bomb_targets import run_targets
from tests.campaigns.verdict import conclude
from tests.kit.figures import Figure
from tests.kit.running import run

NUMBER = 4
MAX_RSS_MIB = 256
MAX_REFUSAL_S = 10
"""Until a bomb is refused. It is a bound on what the machine is kept busy with, with room."""
MAX_STALL_S = 1
MAX_DISK_MIB = 2200
"""A chunk of 1 GB is in the cache, or in the image that is built; of two such files nothing is left over."""


@dataclass(slots=True)
class Account:
    """All runs, and what readers of a good image saw meanwhile."""

    runs: list[Run] = field(default_factory=list)
    watched: list[Watched] = field(default_factory=list)

    def figures(self) -> list[Figure]:
        """Return what is to be held against the promises."""
        problems = len(self.outliers())
        runs = len(self.runs) + len(self.watched)
        peak = max(0.0, *(one.rss_mib for one in self.runs), *(one.rss_mib for one in self.watched))
        refused = max((one.seconds for one in self.runs if one.code == 3), default=0)
        stall = max((one.longest_s for one in self.watched), default=0)
        disk = max((one.disk_mib for one in self.runs), default=0)
        return [
            Figure(NUMBER, f"runs that broke a promise, of {runs}", problems, "<= 0", "runs"),
            Figure(NUMBER, "peak of resident memory of any process", peak, f"<= {MAX_RSS_MIB}", "MiB"),
            Figure(NUMBER, "longest until a bomb was refused", refused, f"<= {MAX_REFUSAL_S}", "s"),
            Figure(NUMBER, "longest read of a good image beside a bomb", stall, f"<= {MAX_STALL_S}", "s"),
            Figure(NUMBER, "most disk that one bomb took", disk, f"<= {MAX_DISK_MIB}", "MiB"),
        ]

    def outliers(self) -> dict[str, list[str]]:
        """Return which promises were broken, and by what."""
        told = {one.what: one.problems for one in self.runs}
        told |= {one.what: one.problems for one in self.watched}
        return {what: problems for what, problems in told.items() if problems}

    def detail(self) -> dict[str, object]:
        """Return what the figures come from."""
        by_memory = sorted(self.runs, key=lambda one: -one.rss_mib)[:10]
        by_time = sorted(self.runs, key=lambda one: -one.seconds)[:10]
        return {
            "outliers": self.outliers(),
            "largest_mib": {one.what: round(one.rss_mib) for one in by_memory},
            "slowest_s": {one.what: round(one.seconds, 1) for one in by_time},
            "reads_beside": {one.what: round(one.longest_s, 3) for one in self.watched},
        }


def run_files(bomb: Bomb, directory: Path, verbs: tuple[str, ...] = ()) -> Iterator[Run]:
    """Make a bomb, give it to all verbs that take it, and remove it."""
    inside = directory / bomb.name / "in"
    inside.mkdir(parents=True)
    files = bomb.make(inside)
    for verb in verbs or bomb.verbs:
        home = directory / bomb.name / verb / "home"
        home.mkdir(parents=True)
        yield run_bomb(bomb, verb, files, home)
        shutil.rmtree(home.parent)
    shutil.rmtree(inside.parent)


def run_beside(directory: Path) -> Iterator[Watched]:
    """Read a good image beside hostile ones, and while the sockets are tormented."""
    for name, make in bomb_list.beside():
        inside = directory / f"beside-{name}" / "in"
        inside.mkdir(parents=True)
        yield mounts_beside(inside.parent, name, make(inside), readers=4, read_bytes=1 << 20)
        shutil.rmtree(inside.parent)
    floods: tuple[tuple[str, Callable[[Path], list[Watched]]], ...] = (
        ("control", lambda to: control_flood(to, connections=1000, line_bytes=1 << 30)),
        ("serve", lambda to: serve_flood(to, connections=500)),
    )
    for name, flood in floods:
        (directory / name).mkdir()
        yield from flood(directory / name)


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="bombs whose name has this text; `beside', `targets' too")
    arguments = parser.parse_args()
    account = Account()
    with tempfile.TemporaryDirectory(prefix="jigdofs-bombs-") as name:
        directory = Path(name)
        for one in _runs(arguments.seed, arguments.only, directory):
            account.runs.append(one)
            print(
                f"{one.what}: {one.code}, {one.seconds:.1f} s, {one.rss_mib:.0f} MiB {one.problems or ''}",
                file=sys.stderr,
            )
        if arguments.only in "beside":
            account.watched += run_beside(directory)
    conclude(account.figures(), seed=arguments.seed, **account.detail())


def _runs(seed: int, only: str, directory: Path) -> Iterator[Run]:
    for bomb in bomb_list.bombs(seed):
        if only in bomb.name:
            yield from run_files(bomb, directory)
    for from_net in net_bombs():
        if only in from_net.name:
            yield from run_net(from_net, directory / from_net.name)
    if only in "targets":
        yield from run_targets(directory / "targets")


if __name__ == "__main__":
    run(main, "openssl")
