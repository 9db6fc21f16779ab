"""How many places a label stands for in the end: labels that double at each step are refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping as Table

from jigdofs.errors import FormatError
from jigdofs.format.jigdo import Mapping

MAX_PLACES = 256
"""Most places one label may stand for. At most 64 locations of a part are tried; of the labels that are seen
each has a few mirrors. Looking through 256 takes 0.5 ms, and that for every part below the label."""


def check_labels(servers: Table[str, tuple[Mapping, ...]]) -> None:
    """Raise `FormatError` for a label that stands for too many places, however many steps that takes.

    A label that leads back to itself leads nowhere and counts once where it does; whoever expands labels has
    bounds of his own for what that lets through.
    """
    places: dict[str, int] = {}
    for label in servers:
        path = [label]  # not recursion: a chain may have 100,000 labels
        while path:
            current = path[-1]
            inner = [mapping.target.partition(":") for mapping in servers[current]]
            below = [name for name, colon, _ in inner if colon and name in servers]
            if current not in places:
                places[current] = 1  # until it is known
                path += [name for name in below if name not in places]
                continue
            path.pop()
            places[current] = max(1, len(inner) - len(below) + sum(places[name] for name in below))
            if places[current] > MAX_PLACES:
                raise FormatError(
                    f"label `{current}' stands for more than {MAX_PLACES} places",
                    source=servers[current][0].base,
                )
