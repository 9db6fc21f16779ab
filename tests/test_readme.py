"""The README's first commands are the ones that CI runs."""

import re
import subprocess

from tests.kit.mounts import REPOSITORY
from tests.kit.requirements import tool


def first_block() -> list[str]:
    found = re.search(r"(?ms)^```[^\n]*\n(.*?)^```$", (REPOSITORY / "README.md").read_text("utf-8"))
    assert found is not None
    return [line for line in found[1].splitlines() if line.strip()]


def test_first_block_is_two_commands() -> None:
    """One line runs the demo, the next the tests; neither is a comment or goes on in another line."""
    demo, tests = first_block()
    assert demo.endswith("jigdofs demo")
    assert "pytest" in tests
    for line in (demo, tests):
        assert not line.startswith(("#", "$", " "))
        assert not line.endswith("\\")


def test_both_commands_are_shell() -> None:
    """A shell can parse them, and the programs of this repository that they name exist."""
    for line in first_block():
        subprocess.run([tool("sh"), "-n", "-c", line], check=True, capture_output=True)
        for name in re.findall(r"(?<!\S)\.ci/\S+", line):
            assert (REPOSITORY / name).stat().st_mode & 0o111, name


def test_ci_runs_the_second_command() -> None:
    """.ci/run takes the command out of the README, so that they cannot drift apart."""
    script = (REPOSITORY / ".ci" / "run").read_text("utf-8")
    found = re.search(r"(?m)^test_command=\$\((.*)\)$", script)
    assert found is not None, "the line that reads the README"
    done = subprocess.run(
        [tool("bash"), "-c", found[1]], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert done.stdout == first_block()[1] + "\n"
    assert re.search(r'(?m)^bash -c "\$test_command"$', script)
    assert re.search(r"(?m)^export JIGDOFS_REQUIRE_ALL=1$", script)
