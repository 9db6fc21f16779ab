"""What the labels of a .jigdo stand for, as plain text: what `jigdo-file print-missing` prints. Pure.

`locations` turns a part into URLs that can be fetched, in the best order. Scripts want what jigdo-file
prints instead: strings put together and not escaped, in file order, with no regard to weights.

Rules of this file:
* A label that leads back to itself is left as it is; the part's other locations still count.
* What comes out is bounded, however often labels double (format.md 2.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jigdofs.format import jigdo
from jigdofs.format.checksum import Checksum

MAX_STEPS = 4096
"""Most targets looked at for one part, and again for its pseudo-label: labels may double at each step."""
_MAX_DEPTH = 64
_MAX_LENGTH = 8 << 10
"""Longest location, in characters: servers take no longer URLs, and a chain of labels may grow one."""


def expansions(
    description: jigdo.JigdoFile, checksum: Checksum, preferred: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    """Yield where a part may be had; last of all its checksum, as a name under a pseudo-label.

    Args:
        description: the .jigdo.
        checksum: of the part.
        preferred: label -> what the user wants it to stand for, before what the .jigdo says.
    """
    listed = [mapping.target for mapping in description.mappings(checksum)]
    for targets in (listed, [f"{checksum.algorithm.value}:{checksum.base64}"]):
        labels = _Labels(description.servers, preferred)
        for target in targets:
            yield from labels.expand(target)


class _Labels:
    """Replace labels by what they stand for, until the steps are used up."""

    def __init__(
        self, servers: Mapping[str, tuple[jigdo.Mapping, ...]], preferred: Mapping[str, tuple[str, ...]]
    ) -> None:
        self._servers = servers
        self._preferred = preferred
        self._steps = MAX_STEPS

    def expand(self, target: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
        """Yield all that a target stands for, depth first; a target without a known label is itself."""
        self._steps -= 1
        if self._steps < 0 or len(target) > _MAX_LENGTH:
            return
        label, colon, rest = target.partition(":")
        prefixes = self._prefixes(label) if colon and label not in seen and len(seen) < _MAX_DEPTH else []
        for prefix in prefixes:
            yield from self.expand(prefix + rest, seen | {label})
        # a path stands alone, for whoever opens it; an empty line would end the part in a list of all
        if not prefixes and (text := target.removeprefix("file:")):
            yield text

    def _prefixes(self, label: str) -> list[str]:
        written = [mapping.target for mapping in self._servers.get(label, ())]
        return [*self._preferred.get(label, ()), *written]
