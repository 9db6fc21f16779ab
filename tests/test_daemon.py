"""Going into the background: the caller learns how it went."""

import subprocess
import sys

import pytest

from jigdofs.errors import EXIT_MOUNT
from tests.kit.mounts import REPOSITORY

PROGRAM = "import sys; from jigdofs.daemon import run_detached; sys.exit(run_detached(lambda ready: {}))"


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [("ready() or 7", 0, ""), ("7", 7, ""), ("1 // 0", EXIT_MOUNT, "ZeroDivisionError")],
)
def test_outcome(work: str, code: int, said: str) -> None:
    """A child that is ready lets its caller go; one that ends hands its code on, and a fault is seen."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(work)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)
