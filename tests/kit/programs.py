"""Run benchmarks or campaigns one after the other, each a process of its own, and show all they found."""

import ast
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

_COLUMNS = ("number", "measure", "value", "goal", "met")
_REPOSITORY = Path(__file__).parents[2]
_END_S = 60.0
_ERROR_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a benchmark printed, or why it failed.

    Attributes:
        name: of its module.
        seconds: how long it ran.
        found: its JSON object, or nothing.
        error: what it said in the end, or nothing.
    """

    name: str
    seconds: float
    found: dict[str, Any]
    error: str = ""

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row for each figure, or the one that says what went wrong."""
        if self.error:
            return [("", f"{self.name}: {self.error}", "", "", "failed")]
        missing = self.found.get("not_installed", [])
        return [("", f"{self.name}: {peer} is not installed", "", "", "left out") for peer in missing] + [
            (
                str(figure["number"]),
                figure["measure"],
                f"{figure['value']:g} {figure['unit']}",
                f"{figure['goal']} {figure['unit']}",
                "yes" if figure["met"] else "no",
            )
            for figure in self.found["figures"]
        ]


def outcome_of(package: str, name: str, arguments: Sequence[str], timeout_s: float) -> Outcome:
    """Run one to its end, or until it is late; whatever it does, there is an outcome."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", f"{package}.{name}", *arguments],
        cwd=_REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    late = False
    try:
        out, log = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        late = True
        out, log = _ended(process)
    except KeyboardInterrupt:
        _ended(process)
        raise
    seconds = time.monotonic() - began
    if late:
        return Outcome(name, seconds, {}, f"did not end within {timeout_s:g} s")
    try:
        outcome = Outcome(name, seconds, json.loads(out))
        outcome.rows()
    except (ValueError, TypeError, KeyError) as error:
        said = _last_words(log) if process.returncode else f"did not print figures: {error!r}"
        return Outcome(name, seconds, {}, said or f"exit code {process.returncode}")
    return outcome


def _ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Have it end as Ctrl-C would, so that it cleans up; return what it had printed."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def _last_words(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][-_ERROR_CHARACTERS:] if lines else ""


def record(kind: str, outcome: Outcome) -> dict[str, Any]:
    """Return what is written to a file: all that was found."""
    failed = {"error": outcome.error} if outcome.error else {}
    return {kind: outcome.name, "seconds": round(outcome.seconds, 1), **failed, **outcome.found}


def rows_of(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return the rows of all, by the number of what they measure."""
    return sorted((row for outcome in outcomes for row in outcome.rows()), key=_place)


def _place(row: tuple[str, ...]) -> float:
    """Sort by the number of the goal; what failed comes last."""
    return float(row[0]) if row[0] else float("inf")


def table(rows: list[tuple[str, ...]]) -> Table:
    """Return them as a table for a terminal."""
    shown = Table(*_COLUMNS)
    styles = {"yes": "green", "no": "red", "failed": "bold red", "left out": "yellow"}
    for row in rows:
        # whatever they say is text, no markup
        shown.add_row(*(cell.replace("[", "\\[") for cell in row), style=styles[row[-1]])
    return shown


def markdown(rows: list[tuple[str, ...]]) -> str:
    """Return them as a table for a README."""
    lines = [_COLUMNS, ("---:", "---", "---:", "---:", "---"), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def first_line(package: Path, name: str) -> str:
    """Return what a module says it does, without importing it."""
    source = (package / f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
