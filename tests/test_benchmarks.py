"""What benchmarks report: held against the right goals, and gathered into one table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import NAMES, OTHERS
from tests.kit import figures
from tests.kit.figures import Figure, ratio, summary
from tests.kit.mounts import REPOSITORY


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [
        (0.9, ">= 0.9", True),
        (0.89, ">= 0.9", False),
        (1.5, "<= 1.5", True),
        (1.51, "<= 1.5", False),
        (1.0, "> 1", False),
        (1.01, "> 1", True),
        (1.0, "< 1", False),
        (0.99, "< 1", True),
    ],
)
def test_goals(value: float, goal: str, met: bool) -> None:
    """A figure meets its goal, or it does not."""
    assert Figure(1, "something", value, goal).met is met


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    """A report is one JSON object: figures of three digits, and what they come from."""
    runs = {"ours": [1.0, 2.0, 9.0], "peer": [3.0, 3.0, 4.0]}
    figures.report([Figure(7, "ours against peer", ratio(runs, "ours", "peer"), "<= 1")], s=summary(runs))
    assert json.loads(capsys.readouterr().out) == {
        "figures": [
            {
                "number": 7,
                "measure": "ours against peer",
                "value": 0.667,
                "unit": "x",
                "goal": "<= 1",
                "met": True,
            }
        ],
        "s": {
            "ours": {"median": 2.0, "min": 1.0, "max": 9.0},
            "peer": {"median": 3.0, "min": 3.0, "max": 4.0},
        },
    }


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_every_benchmark_says_what_it_does(name: str) -> None:
    """Each can be started, and says how."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage:")


def test_a_benchmark_that_fails(tmp_path: Path) -> None:
    """It is a row of the table that says what is missing, and the exit code says so, too."""
    command = [sys.executable, "-m", "tests.benchmarks", "random_read", "--markdown"]
    environ = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environ, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs jigdo-file, gcc, pkg-config: apt install gcc jigdo-file pkg-config" in done.stdout
    assert "failed" in done.stdout


def test_no_such_benchmark() -> None:
    """A name that is none is refused."""
    command = [sys.executable, "-m", "tests.benchmarks", "none_such"]
    done = subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "none_such" in done.stderr
