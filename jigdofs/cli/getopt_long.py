"""Read a command line as GNU getopt_long does, which argparse cannot. Pure.

Rules of this file:
* Options and operands may be mixed; `--` ends the options.
* The value of an option is whatever follows it, even `--x` or nothing (`--image=`).
* Where allowed, a long option may be shortened as long as it is clear which one is meant.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jigdofs.errors import UsageError


class Takes(enum.Enum):
    """What may follow an option."""

    NOTHING = enum.auto()
    PERHAPS_A_VALUE = enum.auto()
    """A value only in the same word: `--debug` or `--debug=all`."""
    A_VALUE = enum.auto()


class Option(NamedTuple):
    """What an option string stands for: its full name, and what may follow it."""

    name: str
    takes: Takes


class Word(NamedTuple):
    """An option by its full name with its value, or an operand, whose name is ""."""

    name: str
    value: str | None


def read(argv: Sequence[str], known: Mapping[str, Option], *, abbreviate: bool) -> list[Word]:
    """Take a command line apart.

    Args:
        argv: without the program's name.
        known: by option string, such as `-i` and `--image`.
        abbreviate: long options may be shortened.

    Raises:
        UsageError: an unknown or ambiguous option, a value that is missing or too many.
    """
    return list(_Reader(argv, known, abbreviate=abbreviate).words())


def joined(words: Iterable[Word]) -> list[str]:
    """Write words as a command line in the order argparse wants: options with values, then operands."""
    words = list(words)
    options = [
        word.name if word.value is None else f"{word.name}={word.value}" for word in words if word.name
    ]
    operands = [word.value for word in words if not word.name and word.value is not None]
    return [*options, "--", *operands] if operands else options


class _Reader:
    """Go through a command line once."""

    def __init__(self, argv: Sequence[str], known: Mapping[str, Option], *, abbreviate: bool) -> None:
        self._left = iter(argv)
        self._known = known
        self._abbreviate = abbreviate

    def words(self) -> Iterator[Word]:
        for text in self._left:
            if text == "--":
                yield from (Word("", operand) for operand in self._left)
            elif text.startswith("--"):
                yield self._long(text)
            elif text.startswith("-") and text != "-":
                yield from self._short(text)
            else:
                yield Word("", text)

    def _long(self, text: str) -> Word:
        typed, equals, value = text.partition("=")
        option = self._known[self._completed(typed)]
        if equals:
            if option.takes is Takes.NOTHING:
                raise UsageError(f"option {option.name} takes no value")
            return Word(option.name, value)
        return Word(option.name, self._following(typed) if option.takes is Takes.A_VALUE else None)

    def _completed(self, typed: str) -> str:
        if typed in self._known:
            return typed
        likely = [text for text in self._known if self._abbreviate and text.startswith(typed)]
        if not likely:
            raise UsageError(f"there is no option {typed}")
        if len({self._known[text] for text in likely}) > 1:
            raise UsageError(f"option {typed} is ambiguous: {', '.join(sorted(likely))}")
        return likely[0]

    def _short(self, text: str) -> Iterator[Word]:
        """Read `-f`, `-fr quiet` and `-rquiet`."""
        for at, letter in enumerate(text[1:], start=1):
            option = self._known.get(f"-{letter}")
            if option is None:
                raise UsageError(f"there is no option -{letter}")
            if option.takes is Takes.A_VALUE:
                yield Word(option.name, text[at + 1 :] or self._following(f"-{letter}"))
                return
            yield Word(option.name, None)

    def _following(self, typed: str) -> str:
        for text in self._left:
            return text
        raise UsageError(f"option {typed} needs a value")
