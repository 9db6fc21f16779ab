"""Settings of one place, and several places on top of each other: the later one wins. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Origin(NamedTuple):
    """Where a setting stands: a file and its line, or a name alone, such as that of a variable."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


class Problem(NamedTuple):
    """What is wrong with a setting."""

    origin: Origin
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}"


class Setting(NamedTuple):
    """A setting as somebody wrote it.

    Attributes:
        texts: its values as they would be typed behind the option; of a flag `true` or `false`.
        origin: where it stands.
    """

    texts: tuple[str, ...]
    origin: Origin


Layer = Mapping[str, Setting]
"""Setting by key; the mirrors of each label have a key of their own, `mirror.LABEL`."""


def merged(layers: Iterable[Layer]) -> dict[str, Setting]:
    """Return what holds in the end: each setting as the last layer has it, with where that was."""
    result: dict[str, Setting] = {}
    for layer in layers:
        result.update(layer)
    return result


def of_key(layer: Layer, name: str) -> list[Setting]:
    """Return all that a layer says of a key: one setting, or those of all labels, in their order."""
    return [setting for key, setting in layer.items() if key == name or key.startswith(f"{name}.")]
