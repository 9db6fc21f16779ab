"""Read the settings of one TOML file, and find the lines they stand on. Pure."""

from __future__ import annotations

import os
import re
import tomllib

from jigdofs.settings import keys
from jigdofs.settings.layers import Origin, Problem, Setting
from jigdofs.settings.values import WrongValue, from_toml

_PLACE = re.compile(r" \(at line (\d+), column \d+\)\Z")


def parse(data: bytes, path: str, *, image_set: bool) -> tuple[dict[str, Setting], list[Problem]]:
    """Return the settings of a file and what is wrong with it.

    Args:
        data: its content.
        path: its name, for messages, and what relative paths in it are beside.
        image_set: it may say what to mount.
    """
    try:
        text = data.decode("utf-8")
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return {}, [Problem(Origin(path, line), "is no UTF-8, as TOML has to be")]
    except RecursionError:
        return {}, [Problem(Origin(path), "is nested too deeply")]
    except ValueError as error:
        return {}, [_syntax_problem(path, text, str(error))]
    layer: dict[str, Setting] = {}
    problems: list[Problem] = []
    for name, value in table.items():
        origin = Origin(path, _line_of(text, name))
        key = keys.find(name)
        if key is None:
            problems.append(Problem(origin, keys.unknown(name)))
        elif key.image_set and not image_set:
            problems.append(Problem(origin, f"{key.name} may stand only in a file given with --config"))
        else:
            try:
                said = from_toml(key, value, os.path.dirname(path))
            except WrongValue as error:
                problems.append(Problem(origin, f"{key.name} {error}"))
                continue
            for full_name, texts in said.items():
                _, _, label = full_name.partition(".")
                own_line = _line_of(text, label, rf"(?:{re.escape(name)}[ \t]*\.[ \t]*)?") if label else None
                layer[full_name] = Setting(texts, Origin(path, own_line or origin.line))
    return layer, problems


def _syntax_problem(path: str, text: str, message: str) -> Problem:
    """Give tomllib's complaint the form of ours; at the end of the file it names no line."""
    place = _PLACE.search(message)
    if place is not None:
        return Problem(Origin(path, int(place[1])), message[: place.start()])
    ended = message.removesuffix(" (at end of document)")
    return Problem(Origin(path, text.count("\n") + 1) if ended != message else Origin(path), ended)


def _line_of(text: str, name: str, before: str = "") -> int | None:
    """Return the line on which a name is probably given its value; tomllib tells of none.

    Args:
        text: of the file.
        name: as it is, without quotes.
        before: a pattern of what may stand before it on its line.
    """
    word = re.escape(name)
    name_there = rf"(?:{word}|\"{word}\"|'{word}')"
    found = re.search(
        rf"^[ \t]*{before}(?:{name_there}[ \t]*[=.]|\[+[ \t]*{name_there}[ \t]*[\].])", text, re.MULTILINE
    )
    return None if found is None else text.count("\n", 0, found.start()) + 1
