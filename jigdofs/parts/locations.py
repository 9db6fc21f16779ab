"""Where a part may be had, in order: labels expanded, weights averaged (format.md 2.5). Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from jigdofs.fetch import url as urls
from jigdofs.format import jigdo
from jigdofs.format.checksum import Checksum
from jigdofs.format.part import Part

MAX_LOCATIONS = 64
"""Most locations of one part that are tried."""
_MAX_STEPS = 1024
"""Most label expansions for one part: labels may double at each step."""
_MAX_DEPTH = 64
_MAX_TARGET_LENGTH = 8 << 10
"""Longest expanded name, in characters: servers take no longer URLs."""


@dataclass(frozen=True, slots=True)
class Location:
    """One place where a part may be had.

    Attributes:
        url: ready to be fetched: escaped http(s) URL, or an absolute path.
        mirror: the prefix it came from, as far as the .jigdo or the user named one.
        by_user: the prefix is one that the user asked for.
    """

    url: str
    mirror: str
    by_user: bool = field(default=False, compare=False)

    @property
    def host(self) -> str:
        """What a connection is made to; "" for a local file."""
        return urls.origin(self.url)


@dataclass(frozen=True, slots=True)
class _Route:
    """A target and how it was reached.

    Attributes:
        target: what is left to resolve: `Label:rest`, a URL or a path.
        base: the .jigdo that the last mapping stands in.
        mirror: the prefix of the last mapping.
        weights: of all mappings along the way.
        seen: labels along the way.
        by_user: one of the mappings was the user's.
        own: the last mapping was the user's, so it may name a directory whatever the .jigdo is.
    """

    target: str
    base: str
    mirror: str = ""
    weights: tuple[float, ...] = ()
    seen: frozenset[str] = frozenset()
    by_user: bool = False
    own: bool = False

    @property
    def rank(self) -> tuple[bool, float]:
        """Smaller is tried earlier: the user's mirrors, then by mean weight along the way."""
        return (not self.by_user, -sum(self.weights) / len(self.weights))


class Locator:
    """Find the locations of parts of one .jigdo.

    Args:
        description: the .jigdo.
        mirrors: label -> prefixes or directories the user prefers; tried before all others.
        directory: what relative `file:` names are relative to; None forbids `file:` altogether, as
            befits a .jigdo from the net.
    """

    def __init__(
        self,
        description: jigdo.JigdoFile,
        mirrors: Mapping[str, tuple[str, ...]],
        directory: str | None,
    ) -> None:
        self._jigdo = description
        self._mirrors = mirrors
        self._directory = directory

    def prefer(self, mirrors: Mapping[str, tuple[str, ...]]) -> None:
        """Have the user prefer these from now on."""
        self._mirrors = mirrors

    @property
    def ready(self) -> bool:
        """Tell whether `locations` finds its way at once; else `prepare` should run in a thread before."""
        return self._jigdo.is_sorted

    def prepare(self) -> None:
        """Sort the lines of the .jigdo; 500,000 take some 0.5 s."""
        self._jigdo.sort()

    def locations(self, checksum: Checksum) -> list[Location]:
        """Return where a part may be had, best first; equal ranks stay in file order."""
        mappings = self._jigdo.mappings(checksum)
        routes = sorted(self._routes(mappings), key=lambda route: route.rank)
        label = checksum.algorithm.value
        if label in self._jigdo.servers or label in self._mirrors:
            pseudo = jigdo.Mapping(f"{label}:{checksum.base64}", 0.0, self._jigdo.source)
            routes += sorted(self._routes([pseudo]), key=lambda route: route.rank)
        found: dict[str, Location] = {}
        for route in routes:
            for location in self._resolve(route):
                found.setdefault(location.url, location)
            if len(found) >= MAX_LOCATIONS:
                break
        return list(found.values())[:MAX_LOCATIONS]

    def names(self, part: Part) -> set[str]:
        """Return the leaf names that a part has in the .jigdo: what a local copy is probably called."""
        targets = (mapping.target for mapping in self._jigdo.mappings(part.checksum))
        return {target.rsplit("/", 1)[-1].rpartition(":")[2] for target in targets}

    def _routes(self, mappings: list[jigdo.Mapping]) -> Iterator[_Route]:
        """Expand labels, depth first and in file order; a label that leads to itself leads nowhere."""
        budget = iter(range(_MAX_STEPS))
        for mapping in mappings:
            yield from self._expand(_Route(mapping.target, mapping.base, weights=(mapping.weight,)), budget)

    def _expand(self, route: _Route, budget: Iterator[int]) -> Iterator[_Route]:
        label, colon, rest = route.target.partition(":")
        if next(budget, None) is None or len(route.target) > _MAX_TARGET_LENGTH:
            return
        if not colon or not (label in self._jigdo.servers or label in self._mirrors):
            yield route
        elif label not in route.seen and len(route.seen) < _MAX_DEPTH:
            for following in self._expansions(route, label, rest):
                yield from self._expand(following, budget)

    def _expansions(self, route: _Route, label: str, rest: str) -> Iterator[_Route]:
        """Replace a label by all that stands for it, one after the other, the user's own mirrors first."""
        seen = route.seen | {label}
        for prefix in self._mirrors.get(label, ()):
            target, weights = _prefixed(prefix, rest), (*route.weights, 0.0)
            yield _Route(target, self._jigdo.source, prefix, weights, seen, by_user=True, own=True)
        for mapping in self._jigdo.servers.get(label, ()):
            yield _Route(
                mapping.target + rest,
                mapping.base,
                mapping.target,
                (*route.weights, mapping.weight),
                seen,
                route.by_user,
            )

    def _resolve(self, route: _Route) -> Iterator[Location]:
        """Turn a route into what can be fetched; what cannot yields nothing."""
        target = route.target
        if urls.is_http(target):
            for url in urls.escape(target):
                mirror = route.mirror if urls.is_http(route.mirror) else urls.origin(url)
                yield Location(url, mirror, by_user=route.own)
        elif route.own and target.startswith("/"):
            if ".." not in target.split("/"):
                yield Location(os.path.normpath(target), route.mirror, by_user=True)
        elif urls.is_http(route.base):
            yield from self._beside(target, route)
        elif target.startswith("file:"):
            yield from self._local(target.removeprefix("file:"), route.mirror)
        elif not urls.is_absolute(target):
            yield from self._local(target, route.mirror)

    @staticmethod
    def _beside(target: str, route: _Route) -> Iterator[Location]:
        """Resolve a relative name against the URL of its .jigdo; nothing else is for one from the net."""
        if not urls.is_absolute(target) and not target.startswith("file:"):
            for url in urls.escape(urls.join(route.base, target)):
                yield Location(url, urls.join(route.base, "."))

    def _local(self, path: str, mirror: str) -> Iterator[Location]:
        """Name a local file; a relative one is sought below the current directory and the .jigdo's."""
        if self._directory is None or not path:
            return
        if path.startswith("/"):
            yield Location("/" + path.lstrip("/"), mirror or "/")
            return
        for directory in (self._directory, os.path.dirname(os.path.abspath(self._jigdo.source))):
            yield Location(os.path.normpath(os.path.join(directory, path)), mirror or directory)


def _prefixed(prefix: str, rest: str) -> str:
    """Put a user's mirror in front; users forget the slash at its end, authors of labels do not."""
    return prefix + rest if prefix.endswith(("/", ":", "=")) or not prefix else f"{prefix}/{rest}"
