"""What a benchmark or campaign found, held against what it should find, as JSON on stdout."""

import json
import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_HOLDS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure.

    Attributes:
        number: which of the goals it is of; several figures may be of one.
        measure: what was measured, against what.
        value: what came out: a ratio of medians of the same run, or what `unit` says.
        goal: such as `>= 0.9`.
        unit: "x" for a ratio.
    """

    number: int
    measure: str
    value: float
    goal: str
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Tell whether the goal is met."""
        comparison, limit = self.goal.split()
        return bool(_HOLDS[comparison](self.value, float(limit)))


def summary(runs: Mapping[str, Sequence[float]], digits: int = 3) -> dict[str, dict[str, float]]:
    """Return median, least and greatest of each series."""
    return {
        name: {
            "median": round(statistics.median(values), digits),
            "min": round(min(values), digits),
            "max": round(max(values), digits),
        }
        for name, values in runs.items()
    }


def ratio(runs: Mapping[str, Sequence[float]], ours: str, peer: str) -> float:
    """Return how many times the peer's median ours is."""
    return statistics.median(runs[ours]) / statistics.median(runs[peer])


def report(figures: Sequence[Figure], **detail: Any) -> None:
    """Print what was found: the figures, and what they come from."""
    print(
        json.dumps(
            {
                "figures": [
                    {
                        "number": figure.number,
                        "measure": figure.measure,
                        "value": float(f"{figure.value:.3g}"),
                        "unit": figure.unit,
                        "goal": figure.goal,
                        "met": figure.met,
                    }
                    for figure in figures
                ],
                **detail,
            },
            indent=2,
        )
    )
