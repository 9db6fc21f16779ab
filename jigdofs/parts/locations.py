"""Where a part may be had, in order: labels expanded, weights averaged (format.md 2.5). Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jigdofs.fetch import url as urls
from jigdofs.format import jigdo
from jigdofs.format.checksum import Checksum

MAX_LOCATIONS = 64
"""Most locations of one part that are tried."""
_MAX_STEPS = 1024
"""Most label expansions for one part: labels may double at each step."""


@dataclass(frozen=True, slots=True)
class Location:
    """One place where a part may be had.

    Attributes:
        url: ready to be fetched: escaped http(s) URL, or an absolute path.
        mirror: the prefix it came from, as far as the .jigdo or the user named one.
    """

    url: str
    mirror: str

    @property
    def host(self) -> str:
        """What a connection is made to; "" for a local file."""
        return urls.origin(self.url)


@dataclass(frozen=True, slots=True)
class _Route:
    """A fully expanded target and how it was reached."""

    target: str
    mirror: str
    base: str
    weights: tuple[float, ...]
    by_user: bool

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

    def locations(self, checksum: Checksum) -> list[Location]:
        """Return where a part may be had, best first; equal ranks stay in file order."""
        mappings = self._jigdo.mappings(checksum)
        routes = sorted(self._routes(mappings), key=lambda route: route.rank)
        pseudo = jigdo.Mapping(f"{checksum.algorithm.value}:{checksum.base64}", 0.0, self._jigdo.source)
        if checksum.algorithm.value in self._labels():
            routes += sorted(self._routes([pseudo]), key=lambda route: route.rank)
        found: dict[Location, None] = {}
        for route in routes:
            for location in self._resolve(route):
                found.setdefault(location)
        return list(found)[:MAX_LOCATIONS]

    def _labels(self) -> set[str]:
        return {*self._jigdo.servers, *self._mirrors}

    def _routes(self, mappings: list[jigdo.Mapping]) -> Iterator[_Route]:
        steps = 0
        # depth first, in file order; (target, mapping's base, prefix, weights, labels seen, by user)
        pending: list[tuple[str, str, str, tuple[float, ...], frozenset[str], bool]] = [
            (mapping.target, mapping.base, "", (mapping.weight,), frozenset[str](), False)
            for mapping in reversed(mappings)
        ]
        while pending and steps < _MAX_STEPS:
            steps += 1
            target, base, mirror, weights, seen, by_user = pending.pop()
            label, colon, rest = target.partition(":")
            if not colon or label not in self._labels():
                yield _Route(target, mirror, base, weights, by_user)
                continue
            if label in seen:
                continue  # a label that leads to itself
            seen |= {label}
            following = [
                (_prefixed(prefix, rest), self._jigdo.source, prefix, (*weights, 0.0), seen, True)
                for prefix in self._mirrors.get(label, ())
            ]
            following += [
                (
                    mapping.target + rest,
                    mapping.base,
                    mapping.target,
                    (*weights, mapping.weight),
                    seen,
                    by_user,
                )
                for mapping in self._jigdo.servers.get(label, ())
            ]
            pending.extend(reversed(following))

    def _resolve(self, route: _Route) -> Iterator[Location]:
        """Turn a route into what can be fetched; what cannot yields nothing."""
        target, mirror = route.target, route.mirror
        if urls.is_http(target):
            for url in urls.escape(target):
                yield Location(url, mirror if urls.is_http(mirror) else urls.origin(url))
        elif route.by_user and target.startswith("/"):
            if not _climbs(target):
                yield Location(os.path.normpath(target), mirror)
        elif target.startswith("file:"):
            yield from self._local(target.removeprefix("file:"), mirror)
        elif not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", target) or route.mirror == "":
            yield from self._relative(target, route)

    def _relative(self, target: str, route: _Route) -> Iterator[Location]:
        """Resolve against the .jigdo that the target stands in."""
        if urls.is_http(route.base):
            for url in urls.escape(urls.join(route.base, target)):
                yield Location(url, urls.join(route.base, "."))
        elif not urls.is_absolute(target):
            yield from self._local(target, route.mirror)

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


def _climbs(path: str) -> bool:
    return ".." in path.split("/")
