"""Words and quotes of .jigdo values (format.md 2.3): reading and writing mirror each other here."""

from __future__ import annotations

import re

_SPECIAL = frozenset("\"'\\#")
_BARE_WORDS = re.compile(r"[^ \t]+")


def split(value: str) -> list[str]:  # noqa: C901  one state machine, one branch a rule
    r"""Split a value into words as jigdo-file does.

    Outside quotes a blank ends a word, `#` ends the value, `\c` stands for c. Inside "…" only
    `\` and `"` are special, inside '…' nothing is. A quote left open runs to the end.
    """
    if _SPECIAL.isdisjoint(value):
        return _BARE_WORDS.findall(value)
    words: list[str] = []
    word: list[str] = []
    in_word = False  # '' is a word, a blank is none
    quote = ""
    chars = iter(value)
    for char in chars:
        if char == quote:
            quote = ""
        elif quote == "'" or (quote and char != "\\"):
            word.append(char)
        elif char == "\\":
            word.append(next(chars, ""))
            in_word = True
        elif char in "\"'":
            quote = char
            in_word = True
        elif char == "#":
            break
        elif char not in " \t":
            word.append(char)
            in_word = True
        elif in_word:
            words.append("".join(word))
            word.clear()
            in_word = False
    if in_word:
        words.append("".join(word))
    return words


def quote(word: str) -> str:
    r"""Write a word so that `split` and jigdo-file read it back; bare where that is enough.

    jigit reads no quotes at all, so they stand only where jigdo-file needs them. Raise `ValueError`
    for a line feed, which no dialect can express.
    """
    if "\n" in word:
        raise ValueError("a line feed cannot be written into a .jigdo")
    if word and not any(char in word for char in " \t\r#'\"\\"):
        return word
    if "'" not in word:
        return f"'{word}'"
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
