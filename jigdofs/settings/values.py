"""Turn what a file or the environment says into what would be typed behind the option."""

from __future__ import annotations

import math
import os
import re
from typing import Any

from jigdofs.settings.keys import Key, Kind, find

_WORDS = {"syslog"}  # a --log-file that is none
_LABEL_REFERENCE = re.compile(r"[A-Za-z][A-Za-z0-9]*:(?!/)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TRUTH = dict.fromkeys(("1", "true", "yes", "on"), "true") | dict.fromkeys(
    ("0", "false", "no", "off"), "false"
)


class WrongValue(ValueError):
    """Say what is wrong with the value of a setting; the message goes on behind its name."""


def from_toml(key: Key, value: Any, directory: str) -> dict[str, tuple[str, ...]]:
    """Return texts by name (`mirror.LABEL` for mirrors); raise `WrongValue`.

    Args:
        key: which setting.
        value: as TOML has it.
        directory: what relative paths are relative to.
    """
    if key.kind is Kind.MIRRORS:
        return _mirrors(value, directory)
    return {key.name: tuple(_placed(key.kind, text, directory) for text in _texts(key.kind, value))}


def from_environment(key: Key, text: str, directory: str) -> dict[str, tuple[str, ...]]:
    """Do the same for a variable: paths stand between colons, mirrors and words between blanks."""
    if key.kind is Kind.FLAG:
        if text.lower() not in _TRUTH:
            raise WrongValue("must be true or false")
        return {key.name: (_TRUTH[text.lower()],)}
    if key.kind is Kind.MIRRORS:
        return _mirrors(text.split(), directory)
    texts = [text]
    if key.kind is Kind.PATHS:
        texts = [path for path in text.split(":") if path]
    elif key.kind is Kind.WORDS:
        texts = text.split()
    return {key.name: tuple(_placed(key.kind, one, directory) for one in texts)}


def _texts(kind: Kind, value: Any) -> list[str]:
    match kind, value:
        case Kind.FLAG, bool():
            return ["true" if value else "false"]
        case (_, bool()):
            pass
        case (Kind.COUNT | Kind.NUMBER | Kind.SIZE | Kind.TIME | Kind.IDENTITY, int()) if value >= 0:
            return [str(value)] if value.bit_length() < 64 else _wrong(kind)
        case (Kind.TIME, float()) if math.isfinite(value) and value >= 0:
            return [f"{value:.6f}"]
        case (Kind.PATHS | Kind.SOURCES | Kind.WORDS, list()):
            return [_text(kind, one) for one in value]
        case (Kind.FLAG | Kind.COUNT | Kind.NUMBER, _):
            pass
        case (_, str()):
            return [_text(kind, value)]
    return _wrong(kind)


def _wrong(kind: Kind) -> list[str]:
    raise WrongValue(f"must be {kind.value}")


def _text(kind: Kind, value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise WrongValue(f"must be {kind.value}")
    return value


def _placed(kind: Kind, text: str, directory: str) -> str:
    """Make a path absolute; leave everything else as it is."""
    if kind is Kind.LOG and text in _WORDS:
        return text
    if kind is Kind.SOURCES and _URL.match(text):
        return text
    if kind is Kind.METRICS and not text.endswith(".prom"):
        return text
    if kind in (Kind.PATH, Kind.METRICS, Kind.PATHS, Kind.SOURCES, Kind.LOG):
        return os.path.join(directory, os.path.expanduser(text))
    return text


def _mirrors(value: Any, directory: str) -> dict[str, tuple[str, ...]]:
    """Read a table of labels, or texts as behind --mirror."""
    table: dict[str, list[str]] = {}
    if isinstance(value, dict):
        for label, targets in value.items():
            table[label] = _texts(Kind.WORDS, targets) if find(label) is None else []
    else:
        for text in _texts(Kind.WORDS, value) if isinstance(value, str | list) else _wrong(Kind.MIRRORS):
            label, _, target = text.partition("=")
            table.setdefault(label, []).append(target)
    for label, targets in table.items():
        if find(label) is not None:
            raise WrongValue(f"cannot be for a label `{label}': a setting of that name goes above [mirror]")
        if not label or "=" in label or not all(targets):
            raise WrongValue(f"must be {Kind.MIRRORS.value}")
    return {
        f"mirror.{label}": tuple(f"{label}={_target(target, directory)}" for target in targets)
        for label, targets in table.items()
    }


def _target(target: str, directory: str) -> str:
    """Make a directory absolute, keeping the slash at its end; URLs and labels are no directories."""
    if _URL.match(target) or target.startswith("file:") or _LABEL_REFERENCE.match(target):
        return target
    return os.path.join(directory, os.path.expanduser(target))
