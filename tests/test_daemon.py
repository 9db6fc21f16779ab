"""Going into the background: the caller learns how it went."""

import os
import signal
import subprocess
import sys

import pytest

from jigdofs.errors import EXIT_MOUNT
from tests.kit.mounts import REPOSITORY
from tests.kit.scenes import ended, wait_until

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


def test_a_child_that_is_killed() -> None:
    """One that a signal ends before it is ready is told of in one line."""
    work = "__import__('os').kill(__import__('os').getpid(), 9)"
    command = [sys.executable, "-c", PROGRAM.format(work)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_MOUNT
    assert done.stderr == "jigdofs: the daemon died before it was ready: Killed\n"


@pytest.mark.parametrize("late", [False, True])
def test_a_parent_that_is_killed(*, late: bool) -> None:
    """A child does not go on for nobody: it ends with whom it was started by, unless it was ready."""
    wait = "(print(__import__('os').getpid(), flush=True), {}, __import__('signal').pause())"
    work = wait.format("ready()" if late else "0")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        if late:
            assert process.wait(10) == 0
            assert not ended(child)
            os.kill(child, signal.SIGKILL)
        else:
            process.kill()
        wait_until(lambda: ended(child), "its end")
