"""`jigdofs config`: tell which settings hold and where each comes from, and what is wrong with them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from jigdofs.cli import configured, setting_texts
from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_INPUT, EXIT_OK, InputError, UsageError, printable
from jigdofs.settings import places
from jigdofs.settings.keys import KEYS
from jigdofs.settings.layers import Layer, Problem, Setting, merged

_EPILOG = """\
show prints every setting as it would stand in a file; --origin adds the file and line, or the variable, that
it comes from. check reads these files, or all that are read anyway, says what is wrong with them in one line
each, and ends with 3 then. example prints a file with all settings there are, their defaults, and what
they do.

Settings are the long options of mount, serve, download, info and cache, and hold where these are not given.
They are read from /etc/jigdofs/jigdofs.toml, /etc/jigdofs/jigdofs.d/*.toml in the order of their names,
$XDG_CONFIG_HOME/jigdofs/config.toml (~/.config), the file that --config names, and the environment
(JIGDOFS_CACHE_DIR is cache-dir); what is later in this list wins, and the command line above all.

examples:
  jigdofs config show --origin
  jigdofs config check /etc/jigdofs/images.d/dvd.toml
  jigdofs config example > ~/.config/jigdofs/config.toml
"""


class Shown(NamedTuple):
    """A setting as it is shown: its name, its value as in TOML, where that comes from."""

    name: str
    value: setting_texts.Value
    origin: str


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.usage = (
        "jigdofs config show [--origin] [--json] [--config FILE]\n"
        "       jigdofs config check [FILE...]\n"
        "       jigdofs config example"
    )
    parser.add_argument("action", choices=("show", "check", "example"), help="what to do")
    parser.add_argument("files", nargs="*", metavar="FILE", help="what to check (default: all that is read)")
    parser.add_argument("--origin", action="store_true", help="tell where each setting comes from")
    parser.add_argument("--json", action="store_true", help="print one JSON object, a member per setting")
    parser.add_argument("--config", metavar="FILE", help="read this file, too")


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked for; 3 where a setting is wrong."""
    if arguments.files and arguments.action != "check":
        raise UsageError(f"`{arguments.files[0]}': only check takes files; show takes --config FILE")
    if arguments.action == "example":
        print(setting_texts.example(configured.parsers()), end="")
        return EXIT_OK
    if arguments.action == "check":
        where = [places.Place(os.path.abspath(name), named=True) for name in arguments.files]
        found, problems = _read(where or places.places(arguments.config), environment=not where)
    else:
        found, problems = _read(places.places(arguments.config), environment=True)
    for problem in problems:
        print(f"jigdofs: {InputError(str(problem))}", file=sys.stderr)  # which leaves passwords out
    if problems:
        return EXIT_INPUT
    if arguments.action == "show":
        _show(list(_shown(found)), origin=arguments.origin, as_json=arguments.json)
    return EXIT_OK


def _read(where: list[places.Place], *, environment: bool) -> tuple[Layer, list[Problem]]:
    """Return what holds and what is wrong; tell what is left out."""
    read = places.read(where)
    problems = list(read.problems)
    layers = list(read.layers)
    for path in read.unreadable:
        print(f"jigdofs: note: {printable(path)} is not for you to read, and left out", file=sys.stderr)
    if environment:
        layer, wrong, ignored = places.read_environment(os.environ)
        layers.append(layer)
        problems += wrong
        for name in ignored:
            print(f"jigdofs: note: {printable(name)} means nothing: no such setting", file=sys.stderr)
    for layer in layers:  # each by itself: what another one hides may be wrong all the same
        problems += configured.wrong_values(layer)
    return merged(layers), problems


def _shown(found: Layer) -> Iterator[Shown]:
    """Yield every setting, those that nobody set with their defaults."""
    defaults = setting_texts.defaults(configured.parsers())
    for key in KEYS.values():
        said: dict[str, Setting] = {
            name: setting for name, setting in found.items() if name.partition(".")[0] == key.name
        }
        for name, setting in said.items():
            yield Shown(name, setting_texts.of_setting(key, setting), str(setting.origin))
        if not said and not key.image_set:
            yield Shown(key.name, defaults.get(key.name), "default")


def _show(settings: list[Shown], *, origin: bool, as_json: bool) -> None:
    if as_json:
        members = {
            name: {"value": value, "origin": where} if origin else value for name, value, where in settings
        }
        print(json.dumps(members, indent=2))
        return
    lines = [
        (
            f"{setting_texts.toml_key(name)} = {setting_texts.toml(value)}"
            if value is not None
            else f"# {name}",
            where,
        )
        for name, value, where in settings
    ]
    width = max(len(line) for line, _ in lines)
    for line, where in lines:
        print(printable(f"{line:<{width}}  # {where}" if origin else line))
