"""What can be typed after `jigdofs`: verbs, options, values; read from the parsers. Pure."""

from __future__ import annotations

import argparse
import enum
import re
from dataclasses import dataclass

_DEFAULT = re.compile(r"\s*\((?:default: )[^()]*(?:\([^()]*\)[^()]*)*\)$")


class Value(enum.Enum):
    """What a value is, as far as a shell can help with it."""

    NOTHING = enum.auto()
    """The option stands alone."""
    TEXT = enum.auto()
    """Nothing that can be listed, such as a time or a size."""
    WORD = enum.auto()
    """One of a few words."""
    FILE = enum.auto()
    DIRECTORY = enum.auto()
    MOUNT = enum.auto()
    """Where jigdofs has mounted something, or a file below."""
    USER = enum.auto()
    GROUP = enum.auto()


_FILES = {"FILE", "FILES", "PATH", "JIGDO", "TEMPLATE", "IMAGE", "FILE|syslog", "FILE|-", "DVD"}
_DIRECTORIES = {"DIR", "DIRECTORY"}
_MOUNTS = {"MNT", "MOUNTPOINT"}
_WORD = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a verb.

    Attributes:
        names: `-f` and `--foreground`, in the order of the help.
        value: what follows it.
        metavar: what the help calls its value; "" for none.
        words: what can stand there, where that is known.
        help: what it does, with its default, in one line.
        group: the heading it stands under in the help.
        repeatable: it may be given more than once.
    """

    names: tuple[str, ...]
    value: Value
    metavar: str
    words: tuple[str, ...]
    help: str
    group: str
    repeatable: bool

    @property
    def brief(self) -> str:
        """What it does, without the default, which may be another one on another machine."""
        return _DEFAULT.sub("", self.help)


@dataclass(frozen=True, slots=True)
class Operand:
    """A word that is no option: what it is called and is, and which words can stand there."""

    metavar: str
    value: Value
    words: tuple[str, ...]
    help: str


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb, or a verb of a verb.

    Attributes:
        names: the full name first, then the short ones.
        help: what it does, in one line.
        options: in the order of the help.
        operands: in their order.
        verbs: what may follow it as a verb of its own.
    """

    names: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    operands: tuple[Operand, ...]
    verbs: tuple[Verb, ...] = ()


def verb(names: tuple[str, ...], about: str, parser: argparse.ArgumentParser) -> Verb:
    """Read what a parser takes; what it hides is left out.

    Args:
        names: of the verb, the full name first.
        about: what it does.
        parser: with all its arguments.
    """
    options: list[Option] = []
    operands: list[Operand] = []
    verbs: list[Verb] = []
    takes_inputs = any(action.metavar == "JIGDO" for action in parser._actions)  # noqa: SLF001  nothing else lists them
    for group in parser._action_groups:  # noqa: SLF001
        for action in group._group_actions:  # noqa: SLF001
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                verbs.extend(_verbs(action))
            elif action.help != argparse.SUPPRESS and action.option_strings:
                options.append(_option(action, group.title or "", parser))
            elif action.help != argparse.SUPPRESS:
                operands.append(_operand(action, parser, mounts=not takes_inputs))
    return Verb(names, about, tuple(options), tuple(operands), tuple(verbs))


def _verbs(action: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[Verb]:
    abouts = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
    names: dict[int, list[str]] = {}
    for name, parser in action.choices.items():
        names.setdefault(id(parser), []).append(name)
    return [
        verb(tuple(names[id(parser)]), abouts.get(name, ""), parser)
        for name, parser in action.choices.items()
        if names[id(parser)][0] == name
    ]


def _option(action: argparse.Action, group: str, parser: argparse.ArgumentParser) -> Option:
    takes_value = action.nargs != 0
    metavar = _metavar(action) if takes_value else ""
    words = tuple(str(word) for word in action.choices or ())
    value = Value.NOTHING
    if takes_value:
        words = words or _words_in(metavar)
        value = _value(metavar, words, mounts=True)
    counted = isinstance(action, argparse._CountAction | argparse._AppendAction)  # noqa: SLF001
    return Option(
        tuple(action.option_strings), value, metavar, words, _help(action, parser), group, repeatable=counted
    )


def _operand(action: argparse.Action, parser: argparse.ArgumentParser, *, mounts: bool) -> Operand:
    metavar = _metavar(action)
    words = tuple(str(word) for word in action.choices or ())
    return Operand(metavar, _value(metavar, words, mounts=mounts), words, _help(action, parser))


def _metavar(action: argparse.Action) -> str:
    given = action.metavar
    if isinstance(given, tuple):
        return " ".join(given)
    if given is None and action.choices is not None:
        return "|".join(map(str, action.choices))
    return given or action.dest.upper()


def _words_in(metavar: str) -> tuple[str, ...]:
    """Return the words among the alternatives of `SIZE|off`."""
    alternatives = metavar.split("|")
    return tuple(word for word in alternatives if _WORD.fullmatch(word)) if len(alternatives) > 1 else ()


def _value(metavar: str, words: tuple[str, ...], *, mounts: bool) -> Value:
    if metavar in _MOUNTS:
        return Value.MOUNT if mounts else Value.FILE
    if metavar in _FILES:
        return Value.FILE
    if metavar in _DIRECTORIES:
        return Value.DIRECTORY
    if metavar in ("USER", "GROUP"):
        return Value[metavar]
    return Value.WORD if words else Value.TEXT


def _help(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    return " ".join((action.help or "").split()) % {**vars(action), "prog": parser.prog}
