"""The fuzzer's short version: inputs that are kept, and a fixed number of mutations of them, unguided."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaigns.fuzz_targets import CORPUS, TARGETS, Target
from tests.campaigns.fuzzing.choices import Choices
from tests.campaigns.fuzzing.isos import BASES
from tests.campaigns.fuzzing.running import TookLong, mutate, replay, run_one
from tests.kit.mounts import REPOSITORY

SEED = 7
# some 0.5 s of each target, as far as it went here
MUTATIONS = {"include": 250, "iso": 250, "answer": 700, "control": 700, "page": 700, "gzip": 1000}
MUTATIONS |= {"merging": 800, "written": 800, "chunk": 500, "layout": 1000}
MOST_BYTES = 200 << 10


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    """What was found once stays mended, and inputs like those that are kept break nothing."""
    target = TARGETS[name]
    count, findings = replay(target)
    assert count
    findings += mutate(target, SEED, MUTATIONS.get(name, 2000))
    assert [(one.name, one.data, one.error) for one in findings] == []


def test_the_corpus_is_small_and_of_targets_that_there_are() -> None:
    """A directory that no target reads would be fed to nobody."""
    assert {path.name for path in CORPUS.iterdir()} == {*TARGETS, BASES.name}
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_BYTES
    for target in TARGETS.values():
        assert all(len(data) <= target.max_bytes for _, data in target.corpus()), target.name


def test_the_same_seed_makes_the_same_inputs() -> None:
    """A finding is told by seed and number."""

    def inputs(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        words = TARGETS["jigdo"].words
        mutate(Target("jigdo", seen.append, 4096, (), words=words), seed, 50)
        return seen

    assert inputs(1) == inputs(1)
    assert inputs(1) != inputs(2)
    assert len(set(inputs(1))) > 40


def test_what_breaks_is_told() -> None:
    """An input that raises, and one that takes too long, are findings, told with their input."""

    def check(data: bytes) -> None:
        assert not data

    findings = mutate(Target("none", check, 8, ()), 3, 20)
    assert findings
    assert all(isinstance(one.error, AssertionError) and one.data for one in findings)
    number = int(findings[0].name.removeprefix("seed 3, input "))
    assert mutate(Target("none", check, 8, ()), 3, number + 1)[0].data == findings[0].data
    with pytest.raises(TookLong, match="0 bytes took"):
        run_one(Target("none", lambda _: None, 8, (), hang_s=-1.0), b"")


def test_choices_end() -> None:
    """Where the bytes have ended every choice is the first."""
    choices = Choices(b"\x01\x05ab")
    assert (choices.of("xyz"), choices.block(100), bool(choices)) == ("y", b"ab", False)
    assert (choices.of("xyz"), choices.number(1 << 40), choices.flag(), choices.rest()) == (
        "x",
        0,
        False,
        b"",
    )


def test_without_atheris_one_line_says_what_to_install(tmp_path: Path) -> None:
    """The long version needs it, and no test does."""
    code = """
import runpy, sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *more: None if name == "atheris" else find(name, *more))
sys.argv = ["fuzz", "url"]
runpy.run_module("tests.campaigns.fuzz", run_name="__main__")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("needs atheris: pip install atheris")
    assert done.stderr.count("\n") == 1
    path = tmp_path / "input"
    path.write_bytes(b"http://h/")
    command = [sys.executable, "-m", "tests.campaigns.fuzz", "url", "--replay", str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"{path}: nothing breaks\n"
