"""Kill and end jigdofs at any moment: the next start needs no hand, and nothing is wrong, lost or left.

    python -m tests.campaigns.crashes [--seed 1] [--mounts 110] [--downloads 60] [--templates 30]
                                      [--ends 20]

Daemons of mounts, downloads and `make-template` are killed (`kill -9`) while they start, under load, and
right before certain system calls. After some kills the youngest files of the cache are damaged as a power cut
may damage them: zeros and holes under the same length, times and inode, and half of the index's log. Then
the same is run again without any hand, every byte is compared, and the server tells what was fetched again.

A part whose answer had been sent whole, and that was not verified yet, counts as in flight. The state between
the two renames of `make-template` (new template, old .jigdo or none) is counted by itself: only kills aimed
at it find it, and the next run puts it right.
"""

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns.crash_downloads import Downloads
from tests.campaigns.crash_ends import Ending, Ends, kill_with_a_loop_device
from tests.campaigns.crash_kit import Findings
from tests.campaigns.crash_mounts import Mounts
from tests.campaigns.crash_templates import Templates
from tests.campaigns.verdict import conclude
from tests.kit.figures import Figure
from tests.kit.images import BuiltImage, iso_by_jigdo_file
from tests.kit.running import run

_NUMBER = 2
_IN_FLIGHT = 16
"""Parts on 8 connections, and as many that are being verified and put in place meanwhile."""
_SOON_S = 5.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done: kills of each kind, ends under load, and whether with a loop device."""

    mounts: int
    downloads: int
    templates: int
    ends: int
    loop: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was found."""

    findings: Findings = field(default_factory=Findings)
    ends: Ends = field(default_factory=Ends)


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill and end jigdofs at any moment.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mounts", type=int, default=110, metavar="N", help="daemons killed")
    parser.add_argument("--downloads", type=int, default=60, metavar="N", help="downloads killed")
    parser.add_argument("--templates", type=int, default=30, metavar="N", help="make-template killed")
    parser.add_argument("--ends", type=int, default=20, metavar="N", help="daemons ended under load")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jigdofs-crashes-") as name:
        root = Path(name)
        built = iso_by_jigdo_file(root / "image")
        sizes = Sizes(given.mounts, given.downloads, given.templates, given.ends)
        seen = crash(built, root, given.seed, sizes)
    conclude(
        figures(seen),
        seed=given.seed,
        kills=seen.findings.kills,
        most_in_flight_at=seen.findings.most_where,
        between_renames=seen.findings.between,
        bytes_compared=seen.findings.bytes_compared,
        ends=seen.ends.seconds,
        broken=[*seen.findings.broken, *seen.ends.wrong],
    )


def crash(built: BuiltImage, root: Path, seed: int, sizes: Sizes) -> Seen:
    """Do all of it.

    Args:
        built: the image.
        root: where to work.
        seed: of all that is drawn.
        sizes: how much.
    """
    seen = Seen()
    Mounts(built, root, seen.findings, seed).run(sizes.mounts)
    Downloads(built, root, seen.findings, seed).run(sizes.downloads)
    if sizes.templates:
        Templates(built, root, seen.findings, seed).run(sizes.templates)
    Ending(built, root, seen.ends, seed).run(sizes.ends)
    if sizes.loop:
        kill_with_a_loop_device(built, root, seen.ends, seed)
    return seen


def figures(seen: Seen) -> list[Figure]:
    """Return what is promised, and what came out."""
    found = seen.findings
    counted = {
        "next starts that needed a hand": found.hands,
        "wrong bytes, files or images": found.wrong,
        "verified parts lost or fetched again": found.lost,
        "kills that left something behind": found.left,
        "pairs of .jigdo and template that are half": found.half,
        "ends and loop devices not as promised": seen.ends.wrong,
    }
    kills = sum(found.kills.values())
    listed = [
        Figure(_NUMBER, f"{what}, of {kills} kills", len(lines), "<= 0", "")
        for what, lines in counted.items()
    ]
    return [
        *listed,
        Figure(
            _NUMBER,
            "parts in flight lost, most at one kill",
            found.most_in_flight,
            f"<= {_IN_FLIGHT}",
            "parts",
        ),
        Figure(_NUMBER, "end under load, slowest", seen.ends.slowest_s, f"<= {_SOON_S:g}", "s"),
    ]


if __name__ == "__main__":
    run(main, "jigdo-file", "xorriso", "fusermount3", "losetup")
