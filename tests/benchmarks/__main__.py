"""Run benchmarks and print what they found as one table.

    .venv/bin/python -m tests.benchmarks [NAME...] [--json FILE] [--markdown]

Each benchmark is a process of its own, one after the other; without a name, all that report figures run.
With --json, everything they printed is written to a file, too; with --markdown, the table is for a README.
The exit code is 1 if a benchmark failed; a goal that is not met is no failure.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from tests.kit.programs import Outcome, first_line, markdown, outcome_of, record, rows_of, table

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
_TIMEOUT_S = 600.0


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
            outcomes.append(outcome_of("tests.benchmarks", name, (), arguments.timeout))
            print(f"{name}: {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
            if arguments.json:
                records = [record("benchmark", outcome) for outcome in outcomes]
                arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    except KeyboardInterrupt:  # what was found so far is shown
        interrupted = True
    rows = rows_of(outcomes)
    if arguments.markdown:
        print(markdown(rows), end="")
    else:
        Console().print(table(rows))
    return 130 if interrupted else int(any(outcome.error for outcome in outcomes))


def _descriptions() -> str:
    """Return what each benchmark measures."""
    lines = ["benchmarks, each with sizes of its own: `python -m tests.benchmarks.NAME --help`", ""]
    for names in (NAMES, OTHERS):
        lines += [f"  {name:17} {first_line(Path(__file__).parent, name)}" for name in names]
        lines += ["", "only as modules of their own, printing JSON:", ""] if names is NAMES else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
