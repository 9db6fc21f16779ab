"""Feed parsers and readers with inputs that libFuzzer makes up, and count what breaks (needs atheris).

    python -m tests.campaigns.fuzz jigdo --seconds 60 --seed 7
    python -m tests.campaigns.fuzz --all --seconds 3600 --jobs 2
    python -m tests.campaigns.fuzz jigdo --replay /tmp/x/crash-0123         # without atheris, too

An input that breaks a promise, takes more than a second of processor time or has the process take more than
256 MiB is kept in `--findings`; one that is mended belongs into `tests/corpus/TARGET/`. With `--work` the
inputs that lead to new places are kept from run to run.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from tests.campaigns.fuzz_targets import CORPUS, TARGETS, Target
from tests.campaigns.fuzzing.running import run_one
from tests.campaigns.verdict import conclude
from tests.kit.figures import Figure
from tests.kit.running import run

_NUMBER = 4
_WANTED = 10_000_000
_WANTED_S = 7200
_STUCK_S = 60  # on the clock, with no end in sight
_MOST_FINDINGS = 5  # of one target, before it is given up
_EXECUTED = re.compile(rb"stat::number_of_executed_units:\s*([0-9]+)|^#([0-9]+)\s", re.MULTILINE)


_running: set[subprocess.Popen[bytes]] = set()
_ending = threading.Event()


@dataclass(frozen=True, slots=True)
class Wish:
    """How long to feed a target.

    Attributes:
        seconds: on the clock.
        runs: inputs, at most; 0 or less for no such bound.
        seed: of libFuzzer.
        work: where inputs are kept that lead to new places.
        findings: where those are kept that break something.
    """

    seconds: int
    runs: int
    seed: int
    work: Path
    findings: Path


@dataclass(slots=True)
class Outcome:
    """What became of one target."""

    target: str
    executions: int = 0
    seconds: float = 0.0
    peak_mib: int = 0
    findings: list[str] = field(default_factory=list)


def feed(target: Target, wish: Wish) -> Outcome:
    """Feed a target until its time is over, however often it breaks."""
    outcome = Outcome(target.name)
    began = time.monotonic()
    (wish.work / target.name).mkdir(parents=True, exist_ok=True)
    wish.findings.mkdir(parents=True, exist_ok=True)
    for number in range(_MOST_FINDINGS):
        left_s = round(wish.seconds - (time.monotonic() - began))
        left_runs = wish.runs - outcome.executions
        if _ending.is_set() or left_s <= 0 or (wish.runs and left_runs <= 0):
            break
        left = Wish(left_s, left_runs if wish.runs else -1, wish.seed + number, wish.work, wish.findings)
        _feed_once(target, left, outcome)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _feed_once(target: Target, wish: Wish, outcome: Outcome) -> None:
    """Feed it until something breaks or the time is over, and add what came out."""
    prefix = f"{wish.findings}/{target.name}-{wish.seed}-"
    with tempfile.TemporaryFile() as log, tempfile.NamedTemporaryFile("w", suffix=".dict") as words:
        lines = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words]
        words.write("".join(lines))
        words.flush()
        command = [sys.executable, "-m", "tests.campaigns.fuzzing.guided", target.name]
        command += [f"-max_total_time={wish.seconds}", f"-runs={wish.runs}", f"-seed={wish.seed}"]
        command += [f"-max_len={target.max_bytes}", f"-rss_limit_mb={target.memory_mib}"]
        command += [f"-timeout={round(_STUCK_S + 2 * target.hang_s)}", f"-artifact_prefix={prefix}"]
        command += [f"-dict={words.name}"] if target.words else []
        command += ["-print_final_stats=1", "-verbosity=1", str(wish.work / target.name)]
        command += [str(CORPUS / target.name)] if (CORPUS / target.name).is_dir() else []
        code = _run(command, log, scratch=wish.work)
        log.seek(0)
        text = log.read()
    numbers = [int(final or live) for final, live in _EXECUTED.findall(text)]
    outcome.executions += numbers[-1] if numbers else 0
    peaks = [int(peak) for peak in re.findall(rb"stat::peak_rss_mb:\s*([0-9]+)", text)]
    outcome.peak_mib = max([outcome.peak_mib, *peaks])
    if code:
        kept = re.findall(rb"written to (\S+)", text)
        what = _what(text)
        where = os.fsdecode(kept[-1]) if kept else "no input was kept"
        outcome.findings.append(f"{what} ({where}; exit code {code})")


def _run(command: Sequence[str], log: IO[bytes], scratch: Path) -> int:
    """Run the process that feeds; return what it ended with. Its own files go with the inputs."""
    environ = {**os.environ, "TMPDIR": str(scratch)}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
    _running.add(process)
    try:
        return process.wait()
    finally:
        _running.discard(process)


def _what(text: bytes) -> str:
    """Return the line that says best what broke."""
    lines = [line.strip() for line in text.decode("utf-8", "replace").split("\n")]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|TookLong)\b|==\d+== ?ERROR", line)]
    return errors[0] if errors else next((line for line in reversed(lines) if line), "it said nothing")


def feed_all(targets: Sequence[Target], wish: Wish, jobs: int) -> list[Outcome]:
    """Feed several targets, so many at a time; each gets the same share of the time."""
    share = Wish(max(1, wish.seconds * jobs // len(targets)), wish.runs, wish.seed, wish.work, wish.findings)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(lambda target: feed(target, share), targets))
        except BaseException:  # somebody wants us to end
            pool.shutdown(wait=False, cancel_futures=True)
            _ending.set()
            for process in tuple(_running):
                process.terminate()
            raise


def _replay(target: Target, paths: Sequence[Path]) -> None:
    """Feed these inputs alone; what breaks is raised."""
    for path in paths:
        run_one(target, path.read_bytes())
        print(f"{path}: nothing breaks")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=", ".join(TARGETS)
    )
    parser.add_argument("--all", action="store_true", help="all targets")
    parser.add_argument("--seconds", type=int, default=60, help="for all of them together")
    parser.add_argument("--runs", type=int, default=0, help="inputs for each target, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--work", type=Path, help="keep what leads to new places there")
    parser.add_argument("--findings", type=Path, help="keep what breaks something there")
    parser.add_argument("--replay", type=Path, nargs="+", default=[], help="feed these inputs alone")
    arguments = parser.parse_args()
    targets = [TARGETS[name] for name in (TARGETS if arguments.all else arguments.targets)]
    if not targets:
        parser.error("name a target, or say --all")
    if arguments.replay:
        _replay(targets[0], arguments.replay)
        return
    if importlib.util.find_spec("atheris") is None:
        sys.exit("needs atheris: pip install atheris (it is the dependency group `fuzz`)")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        findings = arguments.findings or Path(tempfile.mkdtemp(prefix="fuzz-findings-"))
        wish = Wish(
            arguments.seconds, arguments.runs, arguments.seed, arguments.work or Path(scratch), findings
        )
        began = time.monotonic()
        outcomes = feed_all(targets, wish, arguments.jobs)
        seconds = time.monotonic() - began
    executions = sum(outcome.executions for outcome in outcomes)
    broken = sum(len(outcome.findings) for outcome in outcomes)
    figures = [
        Figure(
            _NUMBER, "inputs that crash, break a promise, or take over 1 s or 256 MiB", broken, "<= 0", ""
        ),
        Figure(
            _NUMBER, "targets that were not fed at all", sum(not o.executions for o in outcomes), "<= 0", ""
        ),
    ]
    if arguments.all and arguments.seconds >= _WANTED_S // 2:
        share = max(executions / _WANTED, seconds / _WANTED_S)
        figures.append(Figure(_NUMBER, "executions, of 10 million, or time, of 2 hours", share, ">= 1"))
    conclude(
        figures,
        executions=executions,
        seconds=round(seconds, 1),
        seed=arguments.seed,
        kept_in=str(findings),
        targets=[asdict(outcome) for outcome in outcomes],
    )


if __name__ == "__main__":
    run(main)
