"""Read an image at random over mirrors that fail at random: the exact bytes or an error, in bounded time.

    python -m tests.campaigns.servers --seed 7 --count 10000

A round is a fresh mount with a small cache, over servers whose faults are drawn anew; in its middle they are
drawn once more, under the same mount. `--only ROUND` does one round of a seed again.
"""

import argparse
import base64
import errno
import math
import os
import queue
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.campaigns.server_documents import try_documents
from tests.campaigns.server_faults import (
    PASSWORD,
    House,
    Mirror,
    Plan,
    apply,
    draw_plan,
    serving_house,
)
from tests.campaigns.server_tally import MAX_TOLD, Read, Tally, figures
from tests.campaigns.verdict import conclude
from tests.kit.images import BuiltImage, iso_by_jigdo_file
from tests.kit.mounts import Mounted
from tests.kit.running import run
from tests.kit.scenes import occurrences

READ_TIMEOUT_S = 40.0
ROOM_S = 5.0
"""The machine may be busy: a read that ends so much later than its timeout is in time."""
OPTIONS = (
    *("--connect-timeout", "2s", "--stall-timeout", "2s", "--read-timeout", f"{READ_TIMEOUT_S:g}s"),
    *("--readahead", "0", "--cache-max-size", "1M"),  # 5 MB are in the parts: most reads are cold
)
ALLOWED_LOG = ("wrong content from mirror", "cannot be had", "could not be had within", "is avoided for")
LABELS = 12
MAX_READ_BYTES = 128 << 10
"""So a read is one request of the kernel, and comes back whole or not at all."""
REMEMBERED_S = 2.0
"""Longer than a mount remembers that a part could not be had: only then it asks anew."""
PER_ROUND = 400
READERS = (8, 16, 32)


class Campaign:
    """Reads over faults, from a seed.

    Args:
        built: the image.
        directory: to work in.
        seed: of everything.
    """

    def __init__(self, built: BuiltImage, directory: Path, seed: int) -> None:
        self._built = built
        self._directory = directory
        self._seed = seed
        self._data = built.image.read_bytes()
        self._parts = occurrences(built)
        self._tally = Tally()
        self._lock = threading.Lock()
        self._failed: dict[str, float] = {}  # parts that nobody had, and when that was last said

    def run(self, rounds: Sequence[int], count: int = PER_ROUND) -> Tally:
        """Do these rounds of the seed, each of so many reads."""
        for number in rounds:
            directory = self._directory / f"round-{number}"
            directory.mkdir(parents=True)
            with serving_house(self._built.pool, list(self._built.parts.values()), directory) as house:
                try:
                    self._round(number, count, house, directory)
                except subprocess.TimeoutExpired as error:
                    self._tally.tell("stuck", f"seed {self._seed}, round {number}: {error}")
                self._tally.leaks += house.leaks()
                self._tally.downgrades += house.downgrades()
                servers = {mirror.server for mirror in house.mirrors}
                self._tally.asked += sum(len(server.requests) for server in servers)
            shutil.rmtree(directory)
        return self._tally

    def _round(self, number: int, count: int, house: House, directory: Path) -> None:
        dice = random.Random(f"{self._seed} {number}")
        labels = _draw_labels(dice, house)
        owned = {path: dice.choice(sorted(labels)) for path in self._built.parts.values()}
        jigdo = self._publish(directory / "in", labels, owned)
        user = dice.choice(sorted(labels))
        options = [*OPTIONS, "--cache-dir", str(directory / "cache")]
        options.append(f"--mirror={user}={labels[user][0].url}")
        environ = {"SSL_CERT_FILE": str(house.certificate), "NO_PROXY": "*"}
        self._failed.clear()
        with Mounted(
            jigdo, directory / "mnt", options, allow_log=ALLOWED_LOG, environ=environ, home=directory / "home"
        ) as mounted:
            for phase in range(2):
                plans = self._plans(dice, house, labels, owned)
                apply(house, plans)
                reads = self._draw_reads(dice, count // 2, {path: plan for path, (_, plan) in plans.items()})
                self._read(directory / "mnt" / self._built.image.name, reads, dice, house, (number, phase))
                house.release()
            if self._tally.broken:
                self._tally.log += [line for line in mounted.stderr() if line.startswith("ERROR")]
            if any(PASSWORD in line for line in mounted.stderr()):
                self._tally.tell("leaked", f"a password into the log, seed {self._seed} round {number}")

    def _plans(
        self, dice: random.Random, house: House, labels: dict[str, list[Mirror]], owned: dict[str, str]
    ) -> dict[str, tuple[Sequence[Mirror], Plan]]:
        plans: dict[str, tuple[Sequence[Mirror], Plan]] = {}
        for path in sorted(owned):
            length = (self._built.pool / path).stat().st_size
            mirrors = labels[owned[path]]
            plan = draw_plan(dice, house, mirrors, path, length)
            plans[path] = mirrors, plan
            self._tally.kinds.update(behaviour.kind for behaviour in plan.behaviours)
        return plans

    def _publish(self, directory: Path, labels: dict[str, list[Mirror]], owned: dict[str, str]) -> Path:
        """Write a .jigdo in which each part has the label that was drawn for it."""
        servers = {label: [mirror.url for mirror in mirrors] for label, mirrors in labels.items()}
        jigdo = self._built.with_servers(directory, servers).jigdo
        lines = jigdo.read_bytes().split(b"\n")
        for hexadecimal, path in self._built.parts.items():
            checksum = base64.urlsafe_b64encode(bytes.fromhex(hexadecimal)).rstrip(b"=") + b"="
            (at,) = [number for number, line in enumerate(lines) if line.startswith(checksum)]
            lines[at] = lines[at].replace(b"Debian:", owned[path].encode() + b":", 1)
        jigdo.write_bytes(b"\n".join(lines))
        return jigdo

    def _draw_reads(self, dice: random.Random, count: int, plans: dict[str, Plan]) -> list[Read]:
        reads = []
        for number in range(count):
            part = dice.choice(self._parts)
            offset = max(0, part.offset + dice.randrange(-4096, part.length))
            length = dice.choice(
                [1, dice.randrange(1, 4096), dice.randrange(1, MAX_READ_BYTES), MAX_READ_BYTES]
            )
            length = min(length, len(self._data) - offset)
            touched = [each for each in self._parts if each.offset < offset + length and offset < each.end]
            paths = tuple(sorted({each.path for each in touched}))
            doubtful = tuple(path for path in paths if not plans[path].healthy)
            forbidden = any(plans[path].forbidden for path in paths)
            reads.append(Read(number, offset, length, paths, doubtful, forbidden))
        return reads

    def _read(
        self, image: Path, reads: list[Read], dice: random.Random, house: House, where: tuple[int, int]
    ) -> None:
        """Read with many threads, while one server goes and comes back."""
        waiting: queue.SimpleQueue[Read] = queue.SimpleQueue()
        for read in reads:
            waiting.put(read)
        outages = set(dice.sample(range(len(reads)), min(4, len(reads))))
        fickle = threading.Lock()
        away = False

        def come_or_go() -> None:
            nonlocal away
            with fickle:
                (house.fickle.start if away else house.fickle.stop)()
                away = not away

        def work() -> None:
            fd = os.open(image, os.O_RDONLY | os.O_DIRECT)
            try:
                with suppress(queue.Empty):
                    while True:
                        read = waiting.get_nowait()
                        if read.number in outages:
                            come_or_go()
                        self._one(fd, read, where)
            finally:
                os.close(fd)

        threads = [threading.Thread(target=work, name="reader") for _ in range(dice.choice(READERS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if away:
            come_or_go()

    def _one(self, fd: int, read: Read, where: tuple[int, int]) -> None:
        began = time.monotonic()
        with self._lock:
            known = any(self._failed.get(path, -math.inf) > began - REMEMBERED_S for path in read.touched)
        healthy = not read.doubtful and not known
        got: bytes | None = None
        code = 0
        try:
            got = os.pread(fd, read.length, read.offset)
        except OSError as error:
            code = error.errno or 0
        took_s = time.monotonic() - began
        text = (
            f"seed {self._seed}, round {where[0]}, phase {where[1]}, read {read.number}: {read.length} bytes"
            f" at {read.offset} after {took_s:.1f} s"
        )
        with self._lock:
            tally = self._tally
            tally.longest_s["all"] = max(tally.longest_s["all"], took_s)
            if healthy:
                tally.longest_s["healthy"] = max(tally.longest_s["healthy"], took_s)
            if got is None:
                tally.outcomes["error"] += 1
                if code != errno.EIO:
                    tally.tell("wrong", f"{os.strerror(code)}, {text}")
                # a part whose time was over may still be on its way, and fail for others later
                until = time.monotonic() + (READ_TIMEOUT_S if took_s > READ_TIMEOUT_S - 1 else 0)
                self._failed.update(dict.fromkeys(read.doubtful, until))
                if healthy:
                    tally.tell("lost", text)
            elif got != self._data[read.offset : read.offset + read.length]:
                tally.tell("wrong", text)
            else:
                tally.outcomes["right"] += 1
                if read.forbidden and where[1] == 0:  # later it may be in the cache, had rightly
                    tally.tell("forbidden", text)
            if took_s > READ_TIMEOUT_S + ROOM_S:
                tally.tell("late", text)


def _draw_labels(dice: random.Random, house: House) -> dict[str, list[Mirror]]:
    """Draw labels that stand for two to four mirrors each, in different orders."""
    return {f"L{number}": dice.sample(house.mirrors, dice.choice([2, 3, 4])) for number in range(LABELS)}


def main() -> None:
    """Run it in full."""
    parser = argparse.ArgumentParser(description="Read over mirrors that fail at random.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000, help="reads (default: %(default)s)")
    parser.add_argument("--mounts", type=int, default=100, help="mounts over faults (default: %(default)s)")
    parser.add_argument("--only", type=int, metavar="ROUND", help="do this round only")
    arguments = parser.parse_args()
    rounds = range(-(-arguments.count // PER_ROUND)) if arguments.only is None else [arguments.only]
    with tempfile.TemporaryDirectory(prefix="campaign-servers-") as name:
        directory = Path(name)
        built = iso_by_jigdo_file(directory / "built")
        began = time.monotonic()
        tally = Campaign(built, directory / "rounds", arguments.seed).run(list(rounds))
        reading_s = time.monotonic() - began
        trials = try_documents(built, directory / "trials", arguments.seed, arguments.mounts)
        conclude(
            figures(tally, trials),
            seed=arguments.seed,
            reads=dict(tally.outcomes),
            longest_s={name: round(value, 2) for name, value in tally.longest_s.items()},
            reading_s=round(reading_s, 1),
            requests=tally.asked,
            behaviours=dict(sorted(tally.kinds.items())),
            mounts=dict(trials.outcomes),
            broken=[*tally.broken, *trials.broken],
            log=tally.log[:MAX_TOLD],
        )


if __name__ == "__main__":
    run(main, "jigdo-file", "xorriso", "openssl")
