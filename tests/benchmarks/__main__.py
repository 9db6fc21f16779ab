"""Run benchmarks and print what they found as one table.

    .venv/bin/python -m tests.benchmarks [NAME...] [--json FILE] [--markdown]

Each benchmark is a process of its own, one after the other; without a name, all that report figures run.
With --json, everything they printed is written to a file, too; with --markdown, the table is for a README.
The exit code is 1 if a benchmark failed; a goal that is not met is no failure.
"""

import argparse
import ast
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

NAMES = (
    "warm_read",
    "random_read",
    "cold_read",
    "first_byte",
    "bytes_fetched",
    "http_mounts",
    "many_readers",
    "startup",
    "scale",
)
"""All benchmarks that report figures: what runs without a name."""
OTHERS = ("fleet", "make_template", "replay", "serve_throughput", "whole_image")
"""Those that compare in ways of their own; each prints its JSON when it is run as a module."""
_COLUMNS = ("number", "measure", "value", "goal", "met")
_REPOSITORY = Path(__file__).parents[2]
_TIMEOUT_S = 600.0
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


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Run benchmarks, in some 12 minutes all of them. They need what `.ci/setup dev` installs,"
        " and say what else is missing.",
        epilog=_descriptions(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write there all that was found")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--timeout", type=float, default=_TIMEOUT_S, help="seconds for one (default: 600)")
    arguments = parser.parse_args()
    if unknown := set(arguments.names).difference(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    outcomes: list[Outcome] = []
    interrupted = False
    try:
        for name in arguments.names or NAMES:
            print(f"{name} ...", file=sys.stderr, flush=True)
            outcomes.append(_run(name, arguments.timeout))
            print(f"{name}: {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
            if arguments.json:
                records = [_record(outcome) for outcome in outcomes]
                arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    except KeyboardInterrupt:  # what was found so far is shown
        interrupted = True
    rows = sorted((row for outcome in outcomes for row in outcome.rows()), key=_place)
    if arguments.markdown:
        print(_markdown(rows), end="")
    else:
        Console().print(_table(rows))
    return 130 if interrupted else int(any(outcome.error for outcome in outcomes))


def _descriptions() -> str:
    """Return what each benchmark measures: the first line of its module, which is not imported for that."""
    lines = ["benchmarks, each with sizes of its own: `python -m tests.benchmarks.NAME --help`", ""]
    for names in (NAMES, OTHERS):
        for name in names:
            source = (Path(__file__).parent / f"{name}.py").read_text()
            first = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
            lines.append(f"  {name:17} {first}")
        lines += ["", "only as modules of their own, printing JSON:", ""] if names is NAMES else []
    return "\n".join(lines)


def _run(name: str, timeout_s: float) -> Outcome:
    """Run a benchmark to its end; whatever it does, there is an outcome."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.benchmarks.{name}"],
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
    if process.returncode:
        return Outcome(name, seconds, {}, _last_words(log) or f"exit code {process.returncode}")
    try:
        found = json.loads(out)
        outcome = Outcome(name, seconds, found)
        outcome.rows()
    except (ValueError, TypeError, KeyError) as error:
        return Outcome(name, seconds, {}, f"did not print figures: {error!r}")
    return outcome


def _ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Have a benchmark end as Ctrl-C would, so that it cleans up; return what it had printed."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def _last_words(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][-_ERROR_CHARACTERS:] if lines else ""


def _record(outcome: Outcome) -> dict[str, Any]:
    failed = {"error": outcome.error} if outcome.error else {}
    return {"benchmark": outcome.name, "seconds": round(outcome.seconds, 1), **failed, **outcome.found}


def _place(row: tuple[str, ...]) -> float:
    """Sort by the number of the goal; what failed comes last."""
    return float(row[0]) if row[0] else float("inf")


def _table(rows: list[tuple[str, ...]]) -> Table:
    table = Table(*_COLUMNS)
    styles = {"yes": "green", "no": "red", "failed": "bold red", "left out": "yellow"}
    for row in rows:
        # whatever a benchmark says is text, no markup
        table.add_row(*(cell.replace("[", "\\[") for cell in row), style=styles[row[-1]])
    return table


def _markdown(rows: list[tuple[str, ...]]) -> str:
    lines = [_COLUMNS, ("---:", "---", "---:", "---:", "---"), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
