"""How a campaign ends: its figures are printed, and one that breaks a promise is its exit code."""

import sys
from collections.abc import Sequence
from typing import Any

from tests.kit.figures import Figure, report


def conclude(figures: Sequence[Figure], **detail: Any) -> None:
    """Print what was found; exit with 1 if a figure is not what is promised."""
    report(figures, **detail)
    if not all(figure.met for figure in figures):
        sys.exit(1)
