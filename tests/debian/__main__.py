"""Run all scenarios in a Debian of its own, and print what came of them as one table.

    .venv/bin/python -m tests.debian [--suite bookworm|trixie] [--tree DIR] [SCENARIO...]

As root; the tree is made with debootstrap the first time (some minutes), and used again. The exit code is 1
if a scenario failed.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.debian.scenarios import SCENARIOS, Scene, publish, tidy
from tests.debian.tree import Tree
from tests.kit.faulty_server import FaultyServer
from tests.kit.running import need


def main() -> int:
    names = [scenario.__name__ for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.debian", description=(__doc__ or "").partition("\n")[0]
    )
    which = f"which (default: all): {', '.join(names)}"
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=which)
    parser.add_argument("--suite", default="bookworm", choices=("bookworm", "trixie"), help="which Debian")
    parser.add_argument("--tree", type=Path, metavar="DIR", help="where it is, or will be made")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios).difference(names):
        parser.error(f"no scenario {', '.join(sorted(unknown))}")
    need("debootstrap", "unshare", "nsenter", "pivot_root")
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    directory = arguments.tree or Path(tempfile.gettempdir()) / f"jigdofs-debian-{arguments.suite}"
    tree = Tree(directory.absolute(), arguments.suite)
    try:
        tree.make()
        tree.install()
    except RuntimeError as error:
        sys.exit(f"tests.debian: {error}")
    rows: list[tuple[str, str, str, str]] = []
    with FaultyServer() as server, tempfile.TemporaryDirectory() as temporary:
        scene = Scene(tree, server, publish(Path(temporary), server))
        try:
            tree.boot()
            version = tree("systemctl", "--version").split("\n", maxsplit=1)[0]
            wanted = arguments.scenarios or names
            rows += [_row(scene, scenario) for scenario in SCENARIOS if scenario.__name__ in wanted]
        finally:
            tidy(scene)
            tree.shutdown()
    _show(f"{arguments.suite}, {version}", rows)
    return 0 if all(verdict == "yes" for _, verdict, _, _ in rows) else 1


def _row(scene: Scene, scenario: Callable[[Scene], str]) -> tuple[str, str, str, str]:
    """Run one scenario; whatever it meets, there is a row."""
    began = time.monotonic()
    what = (scenario.__doc__ or "").partition("\n")[0]
    try:
        verdict, note = "yes", scenario(scene)
    except Exception as error:  # noqa: BLE001
        verdict, note = "no", f"{type(error).__name__}: {error}"[:600]
    print(f"{verdict}: {what}: {note}", file=sys.stderr, flush=True)
    return what, verdict, f"{time.monotonic() - began:.1f} s", note


def _show(title: str, rows: list[tuple[str, str, str, str]]) -> None:
    shown = Table("scenario", "as it should be", "took", "seen", title=title)
    for row in rows:
        shown.add_row(
            *(cell.replace("[", "\\[") for cell in row), style="green" if row[1] == "yes" else "red"
        )
    Console(width=None if sys.stdout.isatty() else 160).print(shown)


if __name__ == "__main__":
    sys.exit(main())
