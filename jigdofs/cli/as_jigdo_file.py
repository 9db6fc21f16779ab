"""Run under the name of jigdo-file: the command may stand anywhere, long options may be shortened."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jigdofs.cli import getopt_long
from jigdofs.cli.called_as import COMMANDS, JIGDO_FILE
from jigdofs.cli.getopt_long import Option, Takes, Word
from jigdofs.cli.jigdo_file import add_arguments
from jigdofs.cli.parser import Parser
from jigdofs.errors import UsageError

VERSION = "0.8.0"
"""The version of jigdo-file whose ways these are; jigdo-lite and scripts ask for it."""
VERBS = {short: verb for verb, shorts in COMMANDS.items() for short in (verb, *shorts)}
"""Every name of a command -> the verb."""


def version() -> str:
    """Return what `jigdo-file --version` prints; jigdo-lite uses its third word."""
    from jigdofs import __version__

    return f"{JIGDO_FILE} version {VERSION} (jigdofs {__version__})"


def usage(verbs: Mapping[str, str]) -> str:
    """Return what `jigdo-file --help` prints, given verb -> description."""
    lines = [
        f"  {verb} {' '.join(shorts)}".ljust(24) + f"{verbs[verb]}\n"
        for verb, shorts in COMMANDS.items()
        if verb in verbs
    ]
    return (
        f"usage: {JIGDO_FILE} COMMAND [OPTION...] [FILE...]\n\n"
        f"This is jigdofs under the name of jigdo-file {VERSION}, with its commands and options.\n\n"
        f"commands:\n{''.join(lines)}\n"
        f"`{JIGDO_FILE} COMMAND --help' tells more.\n\n"
        "exit codes: 0 done, 1 parts are missing, 2 a checksum differs, 3 wrong usage or input.\n"
    )


class CommandLine(NamedTuple):
    """A command line of jigdo-file, taken apart only as far as needed to find the command.

    Attributes:
        command: as typed; None if there is none.
        rest: everything else.
        wants_help: -h or -H is among the options.
        wants_version: -v is.
    """

    command: str | None
    rest: list[str]
    wants_help: bool
    wants_version: bool


def command_line(argv: Sequence[str]) -> CommandLine:
    """Find the command anywhere among the options; raise `UsageError` for an option there is not."""
    parser = Parser(prog=JIGDO_FILE, description="")
    add_arguments(parser)
    parser.add_argument("-H", "--help-all", action="store_true")
    parser.add_argument("-v", "--version", action="store_true")
    words = _read(parser, argv, abbreviate=True)
    seen = {word.name for word in words}
    command = next((word for word in words if not word.name), None)
    rest = [word for word in words if word.name not in ("--help", "--help-all", "--version")]
    if command is not None:
        rest.remove(command)
    return CommandLine(
        command.value if command else None,
        getopt_long.joined(rest),
        wants_help=bool(seen & {"--help", "--help-all"}),
        wants_version="--version" in seen,
    )


def permuted(parser: Parser, argv: Sequence[str], *, abbreviate: bool) -> list[str]:
    """Put a command line into the order argparse wants; raise `UsageError` for a wrong one.

    Args:
        parser: of a verb that has the options of this module.
        argv: without the verb.
        abbreviate: take `--templ` for `--template`, as jigdo-file does.
    """
    return getopt_long.joined(_read(parser, argv, abbreviate=abbreviate))


def _read(parser: Parser, argv: Sequence[str], *, abbreviate: bool) -> list[Word]:
    known = {
        text: Option(_full_name(action), _TAKES.get(action.nargs, Takes.A_VALUE))
        for text, action in parser._option_string_actions.items()  # noqa: SLF001  argparse tells it nowhere else
    }
    try:
        return getopt_long.read(argv, known, abbreviate=abbreviate)
    except UsageError as error:
        parser.error(str(error))


def _full_name(action: argparse.Action) -> str:
    return next((text for text in action.option_strings if text.startswith("--")), action.option_strings[0])


_TAKES: dict[object, Takes] = {0: Takes.NOTHING, "?": Takes.PERHAPS_A_VALUE}
