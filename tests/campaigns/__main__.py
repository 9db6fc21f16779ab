"""Run all campaigns in full, and print what they found as one table.

    .venv/bin/python -m tests.campaigns [NAME...] [--json FILE] [--markdown]

Each is a process of its own, one after the other; all of them take some two hours, most of it the load and
the fuzzing. The exit code is 1 if one failed or found something.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from tests.kit.programs import Outcome, first_line, markdown, outcome_of, record, rows_of, table

CAMPAIGNS = {
    "servers": (),
    "crashes": (),
    "cache": (),
    "fuzz": ("--all", "--seconds", "3600", "--jobs", "2"),
    "bombs": (),
    "load": (),
    "rights": (),
}
"""All campaigns, and how each is run in full."""
_TIMEOUT_S = 7200.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns",
        description="Run campaigns in full, in some two hours all of them; as root. They need what"
        " `.ci/setup dev` installs; fuzz needs atheris, too.",
        epilog=_descriptions(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write there all that was found")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    if unknown := set(arguments.names).difference(CAMPAIGNS):
        parser.error(f"no campaign {', '.join(sorted(unknown))}; there are {', '.join(CAMPAIGNS)}")
    outcomes: list[Outcome] = []
    interrupted = False
    try:
        for name in arguments.names or CAMPAIGNS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            outcomes.append(outcome_of("tests.campaigns", name, CAMPAIGNS[name], _TIMEOUT_S))
            print(f"{name}: {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
            if arguments.json:
                records = [record("campaign", outcome) for outcome in outcomes]
                arguments.json.write_text(json.dumps(records, indent=2) + "\n")
    except KeyboardInterrupt:  # what was found so far is shown
        interrupted = True
    rows = rows_of(outcomes)
    if arguments.markdown:
        print(markdown(rows), end="")
    else:
        Console().print(table(rows))
    return 130 if interrupted else int(any(row[-1] != "yes" for row in rows))


def _descriptions() -> str:
    lines = ["campaigns, each with sizes of its own: `python -m tests.campaigns.NAME --help`", ""]
    lines += [f"  {name:8} {first_line(Path(__file__).parent, name)}" for name in CAMPAIGNS]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
