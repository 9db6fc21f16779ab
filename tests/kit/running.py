"""How a benchmark or campaign runs as a program: it ends in one line, whatever is missing."""

import shutil
import signal
import sys
from collections.abc import Callable

_PACKAGES = {
    "gcc": "gcc",
    "pkg-config": "pkg-config",
    "jigdo-file": "jigdo-file",
    "jigdo-lite": "jigdo-file",
    "jigit-mkimage": "jigit",
    "nginx": "nginx",
    "curl": "curl",
    "wget": "wget",
    "xorriso": "xorriso",
}
"""Programs that these start, and the Debian packages they come from."""


def need(*programs: str) -> None:
    """Exit with a word if one of these programs is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = sorted({_PACKAGES.get(program, program) for program in missing})
        sys.exit(f"needs {', '.join(missing)}: apt install {' '.join(packages)}")


def run(main: Callable[[], object], *programs: str) -> None:
    """Run a program that needs these others.

    Ctrl-C ends it with 130, SIGTERM with 143, both after what it started was ended and unmounted.
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    need(*programs)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
