"""Ask every location of every part whether the part is there, and fetch none.

Rules of this file:
* What several spellings of one name, or several directories of one relative name, lead to is one location,
  as one of them will do. Each is asked once; only where the server is in trouble (no answer, 429, 5xx) it is
  asked again, at most `rounds` times in all, and its host is left alone in between.
* A host costs bounded time (`parts.asked_host`): when it is given up, its other locations are not asked.
* Memory grows with what is found wrong and with the number of hosts and mirrors, not with what is right.
"""

from __future__ import annotations

import collections
import os
import urllib.parse
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import trio

from jigdofs.config import FetchOptions
from jigdofs.errors import FetchError, MirrorTrouble, WrongContent
from jigdofs.fetch import url as urls
from jigdofs.fetch.fetcher import Fetcher, Request
from jigdofs.format.part import Part
from jigdofs.parts.asked_host import AskedHost
from jigdofs.parts.locations import Location, Locator

_MAX_AT_ONCE = 64  # of all hosts together, as many as connections are kept alive
_MAX_WAITING = 1024  # a host that takes its time must not keep the others waiting

Place = tuple[Location, ...]


@dataclass(frozen=True, slots=True)
class DeadLocation:
    """A location that does not have its part.

    Attributes:
        part: its checksum, such as `md5:…`.
        url: URL or path, without credentials.
        reason: what is wrong.
    """

    part: str
    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnreachableHost:
    """A host that was given up.

    Attributes:
        host: scheme, name and port; for local files, the directory they are below.
        reason: its last trouble.
        locations: that count as dead with it, whether they were asked or not.
    """

    host: str
    reason: str
    locations: int


@dataclass(frozen=True, slots=True)
class MirrorCount:
    """How many locations a mirror has, and how many of them are alive."""

    mirror: str
    locations: int
    alive: int


@dataclass(frozen=True, slots=True)
class UrlReport:
    """What came out.

    Attributes:
        parts: distinct ones.
        locations: of all of them.
        alive: locations that answered with the right length, or with none.
        dead: those that did not, parts in order.
        unreachable: hosts whose locations are dead as a whole.
        mirrors: in order of first occurrence.
        parts_without_living_location: checksums of parts all of whose locations are dead.
        parts_without_location: checksums of parts that have none.
    """

    parts: int
    locations: int
    alive: int
    dead: tuple[DeadLocation, ...]
    unreachable: tuple[UnreachableHost, ...]
    mirrors: tuple[MirrorCount, ...]
    parts_without_living_location: tuple[str, ...]
    parts_without_location: tuple[str, ...]

    @property
    def dead_locations(self) -> int:
        """How many locations are dead, those of hosts that were given up included."""
        return self.locations - self.alive


class UrlCheck:
    """The check of all locations of some parts; runs once.

    Args:
        parts: distinct ones, with the lengths they must have.
        locator: says where they may be.
        fetcher: asks.
        options: how many questions to one host at once, how long they may take, how often to try again.
        directories: below which relative names are sought, one after the other.
    """

    def __init__(
        self,
        parts: Collection[Part],
        locator: Locator,
        fetcher: Fetcher,
        options: FetchOptions,
        directories: tuple[str, ...] = (),
    ) -> None:
        self._parts = parts
        self._locator = locator
        self._fetcher = fetcher
        self._options = options
        self._directories = directories
        self._waiting = trio.Semaphore(_MAX_WAITING)
        self._at_once = trio.CapacityLimiter(_MAX_AT_ONCE)
        self._hosts: dict[str, AskedHost[_Dead]] = {}
        self._locations: collections.Counter[str] = collections.Counter()
        self._alive: collections.Counter[str] = collections.Counter()
        self._dead: list[_Dead] = []
        self._lost: list[tuple[int, str]] = []
        self._nowhere: list[str] = []
        self.judged = 0
        """Locations whose fate is known so far."""

    def count(self) -> int:
        """Count the locations; takes as long as to find them all."""
        return sum(1 for part in self._parts for _ in self._places(part))

    async def run(self) -> UrlReport:
        """Ask all of them."""
        async with trio.open_nursery() as nursery:
            for number, part in enumerate(self._parts):
                places = list(self._places(part))
                if not places:
                    self._nowhere.append(str(part.checksum))
                asked = _AskedPart(number, part, len(places))
                for place in places:
                    await self._waiting.acquire()
                    nursery.start_soon(self._judge, asked, place)
        return self._report()

    def _places(self, part: Part) -> Iterator[Place]:
        return places(self._locator.locations(part.checksum), self._directories)

    def _report(self) -> UrlReport:
        for host in self._hosts.values():
            host.finish()
        return UrlReport(
            parts=len(self._parts),
            locations=self._locations.total(),
            alive=self._alive.total(),
            dead=tuple(dead.location for dead in sorted(self._dead, key=lambda dead: dead.number)),
            unreachable=tuple(
                UnreachableHost(urls.without_credentials(name), host.gone.reason, host.lost)
                for name, host in self._hosts.items()
                if host.gone is not None
            ),
            mirrors=tuple(
                MirrorCount(urls.without_credentials(mirror), count, self._alive[mirror])
                for mirror, count in self._locations.items()
            ),
            parts_without_living_location=tuple(checksum for _, checksum in sorted(self._lost)),
            parts_without_location=tuple(self._nowhere),
        )

    async def _judge(self, asked: _AskedPart, place: Place) -> None:
        """Ask one location and note what came out."""
        host = self._host(place[0])
        mirror = place[0].mirror
        self._locations[mirror] += 1
        async with host.slots:
            dead = await self._ask_spellings(host, place, asked)
        self.judged += 1
        self._waiting.release()
        if dead is None:
            self._alive[mirror] += 1
            asked.alive = True
        elif dead.host_in_trouble:
            host.suspect(dead)
        else:
            self._dead.append(dead)
        asked.left -= 1
        if not asked.left and not asked.alive:
            self._lost.append((asked.number, str(asked.part.checksum)))

    def _host(self, location: Location) -> AskedHost[_Dead]:
        name = location.host or location.mirror
        if name not in self._hosts:
            self._hosts[name] = AskedHost(self._options, self._dead.append)
        return self._hosts[name]

    async def _ask_spellings(self, host: AskedHost[_Dead], place: Place, asked: _AskedPart) -> _Dead | None:
        """Ask until one spelling is right; return None then, else the most telling failure."""
        dead = None
        for location in place:
            failure = await self._ask(host, location, asked.part)
            if failure is None:
                return None
            if dead is None or isinstance(failure, WrongContent):
                found = DeadLocation(
                    str(asked.part.checksum), urls.without_credentials(location.url), _told(failure, location)
                )
                dead = _Dead(asked.number, found, host_in_trouble=isinstance(failure, MirrorTrouble))
        return dead

    async def _ask(self, host: AskedHost[_Dead], location: Location, part: Part) -> FetchError | None:
        """Ask one URL until it is answered, or its host is given up; return what is wrong."""
        failure: FetchError | None = None
        for number in range(self._options.rounds):
            await host.rest()
            if host.gone is not None:
                return host.gone
            async with self._at_once:
                began = trio.current_time()
                try:
                    await self._fetcher.ask(Request(location.url, length=part.length))
                except MirrorTrouble as error:
                    host.failed(began, error, again=number > 0)
                    failure = error
                except FetchError as error:
                    host.answered()
                    return error
                else:
                    host.answered()
                    return None
        return failure


def places(locations: list[Location], directories: tuple[str, ...] = ()) -> Iterator[Place]:
    """Put locations together of which one will do: spellings of one URL, directories of one name.

    Args:
        locations: of one part, as `Locator` gives them: those of one name stand side by side.
        directories: below which relative names are sought.
    """
    at = 0
    while at < len(locations):
        pair = locations[at : at + 2]
        size = 2 if len(pair) == 2 and _is_one(pair[0], pair[1], directories) else 1
        yield tuple(pair[:size])
        at += size


def _is_one(first: Location, second: Location, directories: tuple[str, ...]) -> bool:
    if first.host and first.host == second.host:
        # the second spelling is the literal one, so it tells what stands in the .jigdo
        path = second.url.removeprefix(second.host)
        raw = second.host + urllib.parse.unquote(path, errors="surrogateescape")
        return urls.escape(raw) == (first.url, second.url)
    if first.host or second.host or len(directories) != 2 or directories[0] == directories[1]:
        return False
    names = (os.path.relpath(one.url, top) for one, top in zip((first, second), directories, strict=True))
    return len(set(names)) == 1


def _told(failure: FetchError, location: Location) -> str:
    """Return what is wrong, and where, if a redirect led away."""
    asked = urls.without_credentials(location.url)
    return failure.reason if failure.url == asked else f"{failure.reason} (at {failure.url})"


@dataclass(slots=True)
class _AskedPart:
    """A part some of whose locations are not judged yet."""

    number: int
    part: Part
    left: int
    alive: bool = False


@dataclass(frozen=True, slots=True)
class _Dead:
    """A dead location, the number of its part, and whether its host is to blame rather than the file."""

    number: int
    location: DeadLocation
    host_in_trouble: bool
