"""What the mirrors of the servers campaign do wrong, part by part, drawn from a seed."""

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tests.campaigns.tls_server import TlsServer, make_certificate
from tests.kit.faults import (
    WELL,
    Changed,
    Chunked,
    Close,
    Drip,
    Empty,
    Fault,
    Gzip,
    Html,
    IgnoreRange,
    Redirect,
    Reset,
    Stall,
    Status,
    TooLong,
    Truncate,
    WrongBytes,
    WrongContentRange,
)
from tests.kit.faulty_server import FaultyServer
from tests.kit.ports import LOOPBACK, port_of, reserve_port

PASSWORD = "mellon"
MANY = 100
"""Times that a fault of two requests is repeated: more than anybody asks for a part."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A prefix that parts may be had from.

    Attributes:
        server: behind it.
        prefix: of the paths there.
        url: of the prefix, as it stands in the .jigdo.
        steady: the server never goes away as a whole.
    """

    server: FaultyServer
    prefix: str
    url: str
    steady: bool = True


@dataclass(frozen=True, slots=True)
class House:
    """All servers of a campaign.

    Attributes:
        mirrors: where parts are.
        fickle: the server that comes and goes.
        elsewhere: the origin that redirects lead to; no mirror, so nobody gave it a password.
        refused: a port where nobody listens.
        right: a directory with the right bytes of every part, that no redirect may open.
        certificate: of the mirror that speaks TLS.
    """

    mirrors: tuple[Mirror, ...]
    fickle: FaultyServer
    elsewhere: FaultyServer
    refused: int
    right: Path
    certificate: Path

    def release(self) -> None:
        """Let all go on that stalls, so that its threads end."""
        for mirror in self.mirrors:
            mirror.server.release()

    def leaks(self) -> int:
        """Count the requests that brought a password to whom it was not given."""
        strangers = {self.elsewhere, *(mirror.server for mirror in self.mirrors)} - {
            mirror.server for mirror in self.mirrors if "@" in mirror.url
        }
        return sum("authorization" in request.headers for each in strangers for request in each.requests)

    def downgrades(self) -> int:
        """Count the requests that came over http by way of https."""
        return sum(request.path.startswith("/from-tls/") for request in self.elsewhere.requests)


@contextmanager
def serving_house(pool: Path, paths: Sequence[str], directory: Path) -> Iterator[House]:
    """Run the servers, each of which has every part."""
    data = {path: (pool / path).read_bytes() for path in paths}
    certificate = make_certificate(directory)
    with ExitStack() as stack:
        plain = [stack.enter_context(FaultyServer()) for _ in range(5)]
        tls = stack.enter_context(TlsServer(certificate))
        elsewhere, fickle = plain.pop(), plain[-1]
        keeper = stack.enter_context(reserve_port())
        mirrors = [Mirror(plain[0], "/b/", plain[0].url("/b/").replace("//", f"//joe:{PASSWORD}@", 1))]
        for server in (*plain, tls, plain[1]):
            prefix = "/b/" if any(known.server is server for known in mirrors[1:]) else "/a/"
            mirrors.append(Mirror(server, prefix, server.url(prefix), steady=server is not fickle))
        for server in (*plain, tls):
            server.files = {prefix + path: data[path] for path in paths for prefix in ("/a/", "/b/")}
        elsewhere.files = {
            prefix + path: data[path] for path in paths for prefix in ("/right/", "/wrong/", "/from-tls/")
        }
        elsewhere.always("/wrong/*", WrongBytes())
        yield House(tuple(mirrors), fickle, elsewhere, port_of(keeper), pool, certificate)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one mirror does when it is asked for one part: a script, and what it does ever after."""

    kind: str
    script: tuple[Fault, ...]
    always: Fault


@dataclass(frozen=True, slots=True)
class Plan:
    """What all mirrors of one part do.

    Attributes:
        healthy: one at least gives it, after one passing fault at most. After two, the third attempt is the
            last one, and a hitch of a busy machine spoils it: seen in one of ten runs beside others.
        forbidden: it could only be had by way of redirects that must not be followed.
        behaviours: one for each mirror.
    """

    healthy: bool
    forbidden: bool
    behaviours: tuple[Behaviour, ...]


Draw = Callable[[random.Random, House, Mirror, str, int], Behaviour]


def _always(kind: str, make: Callable[[random.Random, int], Fault]) -> Draw:
    def draw(dice: random.Random, _house: House, _mirror: Mirror, _path: str, length: int) -> Behaviour:
        return Behaviour(kind, (), make(dice, length))

    return draw


def _in_turn(kind: str, make: Callable[[random.Random], Fault]) -> Draw:
    """Break off, then do it to whoever asks for the rest, again and again."""

    def draw(dice: random.Random, _house: House, _mirror: Mirror, _path: str, length: int) -> Behaviour:
        pair = (Truncate(_inside(dice, length)), make(dice))
        return Behaviour(kind, pair * MANY, Status(503))

    return draw


def _to(kind: str, target: Callable[[House, Mirror, str], str]) -> Draw:
    def draw(dice: random.Random, house: House, mirror: Mirror, path: str, _length: int) -> Behaviour:
        return Behaviour(
            kind, (), Redirect(target(house, mirror, path), dice.choice([301, 302, 303, 307, 308]))
        )

    return draw


def _inside(dice: random.Random, length: int) -> int:
    return dice.randrange(1, length)


def _file(house: House, _mirror: Mirror, path: str) -> str:
    return (house.right / path).as_uri()


def _insecure(house: House, _mirror: Mirror, path: str) -> str:
    return house.elsewhere.url(f"/from-tls/{path}")


QUICK_FAULTS: tuple[Draw, ...] = (
    _always("404", lambda _dice, _length: Status(404)),
    _always("403", lambda _dice, _length: Status(403)),
    _always("429 with Retry-After", lambda dice, _length: Status(429, dice.choice([0, 1]))),
    _always("500", lambda _dice, _length: Status(500)),
    _always("503", lambda _dice, _length: Status(503)),
    _always("closed", lambda _dice, _length: Close()),
    _always("reset before the body", lambda _dice, _length: Reset()),
    _always("reset in the body", lambda dice, length: Reset(_inside(dice, length))),
    _always("truncated", lambda dice, length: Truncate(_inside(dice, length))),
    _always("too long", lambda dice, _length: TooLong(dice.choice([1, 100_000]))),
    _always("a web page", lambda _dice, _length: Html()),
    _always("zero bytes", lambda _dice, _length: Empty()),
    _always("wrong bytes", lambda _dice, _length: WrongBytes()),
    _always("another content", lambda _dice, _length: Changed()),
    _always("gzip", lambda _dice, _length: Gzip()),
    _in_turn("the range ignored", lambda _dice: IgnoreRange()),
    _in_turn("a wrong Content-Range", lambda dice: WrongContentRange(dice.choice([-1, 1, 512]))),
    _in_turn("changes between ranges", lambda _dice: Changed()),
    _to(
        "refused",
        lambda house, _mirror, path: f"http://{LOOPBACK}:{house.refused}/{quote(os.fsencode(path))}",
    ),
    _to("redirect loop", lambda _house, mirror, path: mirror.server.url(mirror.prefix + path)),
    _to("redirect to file:", _file),
    _to("redirect elsewhere, wrong", lambda house, _m, path: house.elsewhere.url(f"/wrong/{path}")),
)
SLOW_FAULTS: tuple[Draw, ...] = (
    _always("stall before the body", lambda _dice, _length: Stall()),
    _always("stall in the body", lambda dice, length: Stall(_inside(dice, length))),
    _always("1 byte/s", lambda _dice, _length: Drip(1)),
)
_SLOW_SHARE = 0.06
"""Of the bad ones; each costs its reader a second or two, and 10,000 reads are to end today."""


def _bad(dice: random.Random, house: House, mirror: Mirror, path: str, length: int) -> Behaviour:
    faults = SLOW_FAULTS if dice.random() < _SLOW_SHARE else QUICK_FAULTS
    return dice.choice(faults)(dice, house, mirror, path, length)


def _good(dice: random.Random, house: House, mirror: Mirror, path: str, length: int) -> Behaviour:
    match dice.randrange(6):
        case 0:
            return Behaviour("in chunks", (), Chunked())
        case 1 if not isinstance(mirror.server, TlsServer):
            return Behaviour("redirect elsewhere, right", (), Redirect(house.elsewhere.url(f"/right/{path}")))
        case 2 | 3:
            passing: list[Fault] = [dice.choice([Status(500), Status(503), Reset(), Close()])]
            passing.append(dice.choice([WrongBytes(), Truncate(_inside(dice, length)), Status(429, 0)]))
            dice.shuffle(passing)
            return Behaviour("well in the end", tuple(passing[: dice.choice([1, 2])]), WELL)
    return Behaviour("well", (), WELL)


def draw_plan(dice: random.Random, house: House, mirrors: Sequence[Mirror], path: str, length: int) -> Plan:
    """Draw what the mirrors of a part do to it."""
    fate = dice.random()
    if fate < 0.04:
        behaviours = [
            _to("a forbidden redirect", _insecure if isinstance(mirror.server, TlsServer) else _file)(
                dice, house, mirror, path, length
            )
            for mirror in mirrors
        ]
        return Plan(healthy=False, forbidden=True, behaviours=tuple(behaviours))
    steady = [mirror for mirror in mirrors if mirror.steady]
    sound = dice.choice(steady) if fate > 0.12 else None
    behaviours = [
        (_good if mirror is sound else _bad)(dice, house, mirror, path, length) for mirror in mirrors
    ]
    healthy = any(
        mirror is sound and len(behaviour.script) <= 1
        for mirror, behaviour in zip(mirrors, behaviours, strict=True)
    )
    return Plan(healthy=healthy, forbidden=False, behaviours=tuple(behaviours))


def apply(house: House, plans: Mapping[str, tuple[Sequence[Mirror], Plan]]) -> None:
    """Have the servers behave as planned, by path of the part, and no more as before."""
    for server in {mirror.server for mirror in house.mirrors}:
        server.behave()
    for path, (mirrors, plan) in plans.items():
        for mirror, behaviour in zip(mirrors, plan.behaviours, strict=True):
            mirror.server.script(mirror.prefix + path, *behaviour.script)
            if behaviour.always != WELL:
                mirror.server.always(mirror.prefix + path, behaviour.always)
