"""Injure a cache directory at random, and see that no read is wrong and nothing outside of it is touched.

    python -m tests.campaigns.cache --seed 3 --count 1000

A round of injuries begins with a new cache that one mount filled. Some are done while no daemon runs; then a
mount is read at random places while more are done; a last mount is read as a whole. After that come disks,
quotas and rights that leave no room, and several daemons on one cache, one of them killed again and again.
"""

import argparse
import contextlib
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.campaigns.cache_image import CAMPAIGN, Found, MountedImage, readers
from tests.campaigns.cache_injuries import IDLE, MISSED, RUNNING, Injury, Patient, injure, recover
from tests.campaigns.cache_room import SCENES
from tests.campaigns.cache_sharing import fetched_at_once, share
from tests.campaigns.verdict import conclude
from tests.campaigns.watched import Watched
from tests.kit.faulty_server import FaultyServer
from tests.kit.figures import Figure
from tests.kit.images import BuiltImage, iso_by_jigdo_file
from tests.kit.mounts import Mounted
from tests.kit.running import run

_IDLE_PER_ROUND = 5
_RUNNING_PER_ROUND = 15
_READS_AFTER_AN_INJURY = 4


def lay_outside(directory: Path, cache: Path) -> None:
    """Write what nobody may touch: the directories of a cache, with files of the same names."""
    directory.mkdir()
    (directory / "secret").write_bytes(b"nobody may read this\n" * 1000)
    for file in sorted(path for path in cache.rglob("*") if path.is_file()):
        other = directory / file.relative_to(cache)
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(file.read_bytes())
    for name in ("incoming", "sessions"):
        (directory / name).mkdir(exist_ok=True)
        (directory / name / "0123456789abcdef").write_bytes(b"")
    (directory / "incoming" / "0123456789abcdef-0").write_bytes(b"kept")
    for name in ("cache.db-wal", "cache.db-shm", "cache.db-journal"):
        (directory / "index" / name).write_bytes(b"kept")
    (directory / "scanned.db").touch()


def injure_round(image: MountedImage, seed: str, idle: int, running: int) -> None:
    """Fill a cache, injure it, and read what comes of it."""
    found = image.found
    source = random.Random(seed)
    cache, outside = image.directory / "cache", image.directory / "outside"
    options = ["--scan", str(image.beside)] if source.randrange(3) == 0 else []
    what = [f"{seed}: filling"]
    patient = Patient(cache, outside, source)
    try:
        with image.mounted(cache, *options):
            image.read_whole(what[-1])
        lay_outside(outside, cache)
        with Watched(outside) as watched:

            def hurt(injuries: tuple[Injury, ...]) -> None:
                recover(patient)
                done = injure(patient, injuries)
                what.append(f"{seed}: {done}")
                found.injuries[done.partition(" ")[0]] += 1
                found.missed += done.endswith(MISSED)

            for _ in range(idle):
                hurt(IDLE)
            with look(found, what), image.mounted(cache, *options) as mounted:
                with readers(image, seed, what):
                    for _ in range(running):
                        hurt(RUNNING)
                        for _ in range(_READS_AFTER_AN_INJURY):
                            image.read_somewhere(source, what[-1])
                tell_traceback(mounted, found, what)
            recover(patient)
            with look(found, what), image.mounted(cache, *options) as mounted:
                image.read_whole(f"{what[-1]}, and mounted again")
                tell_traceback(mounted, found, what)
            touched = watched.touched()
            changed = watched.changed()
            found.outside += [f"{seed}: {name} after {what}" for name in (*touched, *changed)]
    finally:
        for directory in (cache, outside, cache.with_name("cache-aside")):
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def look(found: Found, what: list[str]) -> Iterator[None]:
    """Note a mount that fails, instead of ending the campaign with it."""
    try:
        yield
    except (AssertionError, subprocess.TimeoutExpired) as error:
        found.ended.append(f"{what}: {error}")


def tell_traceback(mounted: Mounted, found: Found, what: list[str]) -> None:
    """Note an internal error that was logged."""
    lines = [line for line in mounted.stderr() if "Traceback" in line or "internal error" in line]
    if lines:
        found.ended.append(f"{what}: {lines}: {mounted.stderr()[-20:]}")


@contextlib.contextmanager
def laid(directory: Path, built: BuiltImage, found: Found) -> Iterator[MountedImage]:
    """Have an image served."""
    directory.chmod(0o755)  # another user mounts there, too
    with FaultyServer() as server:
        yield MountedImage(built, server, directory, found)


def injuries(image: MountedImage, seed: int, count: int, first: int = 0) -> None:
    """Do so many injuries, in rounds; round N of a seed is always the same."""
    rounds = -(-count // (_IDLE_PER_ROUND + _RUNNING_PER_ROUND))
    for number in range(first, first + rounds):
        injure_round(image, f"{seed}/{number}", _IDLE_PER_ROUND, _RUNNING_PER_ROUND)


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--count", type=int, default=1000, help="injuries")
    parser.add_argument("--first", type=int, default=0, help="round of injuries to begin with")
    parser.add_argument("--kills", type=int, default=20, help="of one of eight daemons that share a cache")
    parser.add_argument("--only", choices=("injuries", "room", "sharing"), help="do but this")
    arguments = parser.parse_args()
    begin = time.monotonic()
    found = Found()
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix="campaign-cache-") as directory,
        laid(Path(directory), iso_by_jigdo_file(Path(directory) / "built"), found) as image,
    ):
        if arguments.only in (None, "injuries"):
            injuries(image, arguments.seed, arguments.count, arguments.first)
        if arguments.only in (None, "room"):
            for scene in SCENES:
                scene(image)
        if arguments.only in (None, "sharing"):
            share(image, str(arguments.seed), daemons=2, kills=arguments.kills // 4)
            share(image, str(arguments.seed), daemons=8, kills=arguments.kills)
            times = fetched_at_once(image, daemons=4)
            what = "bytes fetched by 4 daemons that read it all at once into one cache, to those of the parts"
            figures.append(Figure(CAMPAIGN, what, times, "<= 1.2"))
    conclude(
        [*found.figures(), *figures],
        seconds=round(time.monotonic() - begin, 1),
        reads=found.reads,
        injuries_that_met_nothing=found.missed,
        injuries=dict(sorted(found.injuries.items())),
        wrong=found.wrong[:20],
        failed=found.failed[:20],
        outside=found.outside[:20],
        ended=found.ended[:20],
    )


if __name__ == "__main__":
    run(main, "jigdo-file", "xorriso", "mount")
