"""Run a command in a mount namespace of its own: what is changed there nobody else sees."""

from collections.abc import Sequence
from pathlib import Path

from tests.kit.requirements import tool


def in_namespace(
    setup: str, command: Sequence[str], *arguments: str | Path, propagation: str = "private"
) -> list[str]:
    """Return the command line that runs a command in a mount namespace that was set up by a script."""
    words = [tool("unshare"), "--mount", "--propagation", propagation, "sh", "-euc"]
    shift = f"shift {len(arguments)}"
    return [*words, f'{setup}\n{shift}; exec "$@"', "sh", *map(str, arguments), *command]
