"""`jigdofs completion`: print what makes a shell complete our verbs, options and values."""

from __future__ import annotations

import argparse
import importlib

from jigdofs.cli.parser import Parser
from jigdofs.completion import grammar
from jigdofs.errors import EXIT_OK

SHELLS = ("bash", "zsh", "fish")
_EPILOG = """\
The script stands alone: completing starts no program. Packages install it where the shell looks; else put it
there yourself:

  jigdofs completion bash > ~/.local/share/bash-completion/completions/jigdofs
  jigdofs completion zsh > ~/.zsh/completions/_jigdofs      # any directory of $fpath
  jigdofs completion fish > ~/.config/fish/completions/jigdofs.fish
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    print(script(arguments.shell), end="")
    return EXIT_OK


def script(shell: str) -> str:
    """Return the script for a shell, the same on every machine."""
    written = importlib.import_module(f"jigdofs.completion.{shell}")
    return str(written.script(verbs()))


def verbs() -> tuple[grammar.Verb, ...]:
    """Return all verbs with what they take, as their parsers have it."""
    from jigdofs.cli import ALIASES, VERBS

    found = []
    for name, about in VERBS.items():
        module = importlib.import_module(f"jigdofs.cli.{name.replace('-', '_')}")
        parser = Parser(prog=f"jigdofs {name}", description=about)
        module.add_arguments(parser)
        shorts = tuple(alias for alias, verb in ALIASES.items() if verb == name)
        found.append(grammar.verb((name, *shorts), about, parser))
    return tuple(found)
