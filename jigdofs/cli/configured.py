"""Read a command line, and fill in what it leaves out: from files, the environment and the defaults.

The command line stands above all; options that may be repeated (--mirror, --scan, -o) are added to, its own
first. What it said and the environment are kept, so that the files can be read again while a mount runs.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from typing import Any, cast

from jigdofs.cli import VERBS
from jigdofs.cli.called_as import COMMANDS
from jigdofs.cli.parser import Parser
from jigdofs.errors import InputError, UsageError
from jigdofs.settings import places
from jigdofs.settings.keys import KEYS, Key, Kind
from jigdofs.settings.layers import Layer, Problem, Setting, merged, of_key

_UNSET: Any = object()


def parse(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Return all options as they hold.

    Its `configured` reads the files again, its `settings` are what they said of the image set.

    Args:
        parser: of a verb with --config.
        argv: without the verb.

    Raises:
        UsageError: the command line is wrong.
        InputError: a setting is.
    """
    unset = argparse.Namespace(**{action.dest: _unset(action) for action in options_of(parser)})
    return Configured(parser, parser.parse_intermixed_args(argv, namespace=unset)).resolve()


def options_of(parser: Parser) -> list[argparse.Action]:
    """Return the options of a verb, positional arguments and --help left out."""
    actions = parser._actions  # noqa: SLF001  argparse tells it nowhere else
    return [action for action in actions if action.option_strings and action.dest != "help"]


def key_of(action: argparse.Action) -> Key | None:
    """Return the setting that an option has, if it has one."""
    return KEYS.get(action.dest.replace("_", "-"))


class Configured:
    """The command line and the environment of this run, which files can be put under.

    Attributes:
        files: those that were read last.

    Args:
        parser: of the verb.
        given: what the command line says.
    """

    def __init__(self, parser: Parser, given: argparse.Namespace) -> None:
        self._options = options_of(parser)
        self._given = given
        self._environment, self._wrong, _ = places.read_environment(os.environ)
        named = given.config
        self._named = None if named is _UNSET else os.path.abspath(named)
        self.files: tuple[str, ...] = ()

    def typed(self, name: str) -> list[Any]:
        """Return what the command line says of an option that may be repeated."""
        return getattr(self._given, name) or []

    def resolve(self) -> argparse.Namespace:
        """Read the files and return all options as they hold now; raise `InputError`."""
        read = places.read(places.places(self._named), self.files)
        problems = [*read.problems, *self._wrong]
        settings = merged([*read.layers, self._environment])
        arguments = argparse.Namespace(**vars(self._given))
        for action in self._options:
            setattr(arguments, action.dest, self._value(action, settings, problems))
        if problems:
            more = len(problems) - 1
            also = f" (and {more} more: `jigdofs config check' tells)" if more else ""
            raise InputError(f"{problems[0]}{also}")
        self.files = read.files
        arguments.configured = self
        arguments.settings = settings
        return arguments

    def _value(
        self, action: argparse.Action, settings: dict[str, Setting], problems: list[Problem]
    ) -> object:
        """Return what an option is in the end."""
        given = getattr(self._given, action.dest)
        key = key_of(action)
        said = of_key(settings, key.name) if key is not None else []
        values = [value for setting in said for value in _converted(action, setting, problems)]
        if isinstance(action.default, list):
            return [*(given or action.default), *values]
        if given is not _unset(action):
            return given
        return values[-1] if values else _default(action)


class SettingAction(argparse.Action):
    """An option of which a setting says less than the command line may."""

    def of_setting(self, text: str) -> object:
        """Return what the text of a setting means; raise `UsageError`."""
        raise NotImplementedError


def _unset(action: argparse.Action) -> object:
    """Return what stands for an option that is not given: argparse counts and appends from None on."""
    is_count = action.nargs == 0 and type(action.default) is int
    return None if is_count or isinstance(action.default, list) else _UNSET


def _default(action: argparse.Action) -> object:
    default = action.default
    return _of_text(action, default) if isinstance(default, str) and action.nargs != 0 else default


def _of_text(action: argparse.Action, text: str) -> object:
    return cast("Any", action.type)(text) if action.type is not None else text


def _converted(action: argparse.Action, setting: Setting, problems: list[Problem]) -> list[object]:
    """Return the values of a setting; note one that the option does not take."""
    try:
        return [value_of(action, text) for text in setting.texts]
    except (argparse.ArgumentTypeError, UsageError, ValueError) as error:
        name = action.dest.replace("_", "-")
        problems.append(Problem(setting.origin, f"{name}: {error}"))
        return []


def value_of(action: argparse.Action, text: str) -> object:
    """Return what the text of a setting means; raise `ArgumentTypeError`, `UsageError` or `ValueError`."""
    key = key_of(action)
    if action.nargs == 0:
        if key is not None and key.kind is Kind.FLAG:
            return action.const if text == "true" else action.default
        if text not in ("0", "1", "2"):
            raise ValueError(f"`{text[:40]}' is not 0, 1 or 2")
        return int(text)
    if isinstance(action, SettingAction):
        return action.of_setting(text)
    value = _of_text(action, text)
    if action.choices is not None and value not in action.choices:
        raise ValueError(f"`{text[:40]}' is none of {', '.join(map(str, action.choices))}")
    return value


def text_of(name: str) -> str | None:
    """Return what files and the environment say of one setting of one value; raise `InputError`."""
    read = places.read(places.places())
    environment, wrong, _ = places.read_environment(os.environ)
    for problem in (*read.problems, *wrong):
        raise InputError(str(problem))
    setting = merged([*read.layers, environment]).get(name)
    return None if setting is None else setting.texts[-1]


def parsers() -> dict[str, Parser]:
    """Return a parser of each verb that settings are for; `mount`, which has most of them, is the first."""
    found: dict[str, Parser] = {}
    for verb in VERBS:
        if verb not in COMMANDS and verb != "config":
            parser = Parser(prog=f"jigdofs {verb}", description="")
            importlib.import_module(f"jigdofs.cli.{verb.replace('-', '_')}").add_arguments(parser)
            if parser.configurable:
                found[verb] = parser
    return found


def wrong_values(layer: Layer) -> list[Problem]:
    """Return the problems of values that no verb's option takes, each once."""
    problems: list[Problem] = []
    for parser in parsers().values():
        for action in options_of(parser):
            key = key_of(action)
            for setting in of_key(layer, key.name) if key is not None else []:
                _converted(action, setting, problems)
    return list(dict.fromkeys(problems))
