"""Acquirer: the exact bytes of a part from whichever mirror has them, or an error; never other bytes."""

import itertools
import os
import random
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from jigdofs.config import FetchOptions
from jigdofs.errors import FetchError, MirrorTrouble, NotThere, PartUnavailable, WrongContent
from jigdofs.fetch.fetcher import Answer, Fetcher, Receiver, Request, SchemeFetcher
from jigdofs.fetch.file import FileFetcher
from jigdofs.fetch.http import HttpFetcher
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.parts.acquire import BATCH_BYTES, Acquirer
from jigdofs.parts.locations import Location
from jigdofs.parts.mirrors import WRONG_BEFORE_AVOIDED, Mirrors
from jigdofs.parts.slots import Ticket, Urgency
from jigdofs.parts.spool import MemoryPlace, Spool
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

PATH = "/a.deb"
DATA = random.Random(1).randbytes(200_000)
OTHER = random.Random(2).randbytes(200_000)
PART = Part(Checksum.of(Algorithm.SHA256, DATA), len(DATA))
FAST = FetchOptions(
    connect_timeout_s=2, stall_timeout_s=0.3, min_speed_bytes_per_s=1024, backoff_s=0.001, max_redirects=2
)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def servers() -> Iterator[list[FaultyServer]]:
    """Three mirrors that have the part."""
    with ExitStack() as stack:
        yield [stack.enter_context(FaultyServer({PATH: DATA})) for _ in range(3)]


@asynccontextmanager
async def fetching(options: FetchOptions = FAST) -> AsyncIterator[SchemeFetcher]:
    http = HttpFetcher(options)
    try:
        with trio.fail_after(30):
            yield SchemeFetcher(http, FileFetcher())
    finally:
        await http.close()


def location(server: FaultyServer, path: str = PATH) -> Location:
    return Location(server.url(path), server.url("/"))


async def acquired(
    fetcher: Fetcher,
    mirrors: Mirrors,
    locations: list[Location],
    part: Part = PART,
    options: FetchOptions = FAST,
) -> bytes:
    spool = Spool(part.length, (MemoryPlace(1 << 30),), part.checksum.algorithm.hasher)
    try:
        ticket = Ticket(Urgency.FOREGROUND)
        file = await Acquirer(fetcher, mirrors, options).acquire(part, locations, spool, ticket)
    finally:
        spool.abandon()
    try:
        assert file.size == part.length
        return os.pread(file.fd, file.size + 1, 0)
    finally:
        file.discard()


async def acquired_from(servers: list[FaultyServer], mirrors: Mirrors | None = None) -> bytes:
    async with fetching() as fetcher:
        mirrors = mirrors or Mirrors(8, trio.current_time)
        return await acquired(fetcher, mirrors, [location(server) for server in servers])


async def test_first_mirror_serves(servers: list[FaultyServer]) -> None:
    """The first location serves, the others are not asked."""
    assert await acquired_from(servers) == DATA
    assert [server.count(PATH) for server in servers] == [1, 0, 0]


async def test_missing_here(servers: list[FaultyServer]) -> None:
    """After a 404 the next mirror serves, and nobody thinks ill of the first."""
    servers[0].files = {}
    mirrors = Mirrors(8, trio.current_time)
    assert await acquired_from(servers, mirrors) == DATA
    assert [server.count(PATH) for server in servers] == [1, 1, 0]
    assert not mirrors.avoided(servers[0].url("/"))
    assert mirrors.health(servers[0].url("/")).failures == 0
    assert mirrors.health(servers[1].url("/")).files == 1


@pytest.mark.logs("wrong content from mirror")
@pytest.mark.parametrize("fault", [WrongBytes(), Changed(), Html(), Empty(), TooLong(), Gzip()], ids=str)
async def test_wrong_content(
    servers: list[FaultyServer], fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """After wrong content the next mirror serves, and the log names the culprit and nobody else."""
    servers[0].always(PATH, fault)
    assert await acquired_from(servers) == DATA
    assert [server.count(PATH) for server in servers] == [1, 1, 0]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert servers[0].url("/") in warnings[0]
    assert servers[1].url("/") not in warnings[0]


@pytest.mark.parametrize("at", [1, BATCH_BYTES, 2 * BATCH_BYTES + 7], ids=str)
async def test_resumed_elsewhere(servers: list[FaultyServer], at: int) -> None:
    """A broken transfer goes on at the next mirror where it stopped."""
    data = random.Random(at).randbytes(3 * BATCH_BYTES)
    part = Part(Checksum.of(Algorithm.MD5, data), len(data))
    for server in servers:
        server.files = {PATH: data}
    servers[0].script(PATH, Truncate(at))
    async with fetching() as fetcher:
        mirrors = Mirrors(8, trio.current_time)
        assert await acquired(fetcher, mirrors, [location(server) for server in servers], part) == data
    assert servers[1].requests[0].range == f"bytes={at}-"
    assert servers[1].requests[0].body_bytes == len(data) - at
    assert mirrors.avoided(servers[0].url("/"))


async def test_resumed_at_the_same_mirror(servers: list[FaultyServer]) -> None:
    """Where there is only one mirror, it is asked for the rest."""
    servers[0].script(PATH, Truncate(70_000), Truncate(50_000))
    assert await acquired_from(servers[:1]) == DATA
    assert [request.range for request in servers[0].requests] == [None, "bytes=70000-", "bytes=120000-"]


async def test_range_ignored(servers: list[FaultyServer]) -> None:
    """A server that sends everything instead of the rest is taken at its word."""
    servers[0].script(PATH, Truncate(70_000))
    servers[1].always(PATH, IgnoreRange())
    assert await acquired_from(servers) == DATA


@pytest.mark.parametrize("both_avoided", [False, True])
async def test_pieces_that_do_not_fit(servers: list[FaultyServer], both_avoided: bool) -> None:
    """Wrong pieces of one mirror under good ones of another are refetched cleanly; nobody is blamed."""
    servers[0].files = {PATH: OTHER}
    servers[0].always(PATH, Truncate(70_000))
    mirrors = Mirrors(8, trio.current_time)
    if both_avoided:  # because of other parts, so that their order is as ever
        for server in servers[:2]:
            mirrors.failed(server.url("/"), MirrorTrouble("u", "r"))
    assert await acquired_from(servers[:2], mirrors) == DATA
    assert mirrors.health(servers[1].url("/")).wrong == 0


async def test_avoided_mirror_is_last(servers: list[FaultyServer]) -> None:
    """A mirror with trouble is asked after the others, but it is asked."""
    mirrors = Mirrors(8, trio.current_time)
    mirrors.failed(servers[0].url("/"), MirrorTrouble("u", "r"))
    assert await acquired_from(servers[:2], mirrors) == DATA
    assert [server.count(PATH) for server in servers] == [0, 1, 0]
    servers[1].files = {}
    assert await acquired_from(servers[:2], mirrors) == DATA
    assert [server.count(PATH) for server in servers] == [1, 2, 0]
    assert not mirrors.avoided(servers[0].url("/")), "it works again"


async def test_avoided_while_waiting(servers: list[FaultyServer]) -> None:
    """Parts that wait for their turn at a mirror that hangs go to another; the last one is asked anyhow."""
    hanging, well, _ = servers
    hanging.always(PATH, Stall())
    mirrors = Mirrors(1, trio.current_time)
    found: list[bytes] = []
    async with fetching() as fetcher, trio.open_nursery() as nursery:

        async def fetch(*asked: FaultyServer) -> None:
            found.append(await acquired(fetcher, mirrors, [location(server) for server in asked]))

        for _ in range(4):
            nursery.start_soon(fetch, hanging, well)
    assert found == [DATA] * 4
    assert (hanging.count(PATH), well.count(PATH)) == (1, 4)
    hanging.behave()
    well.files = {}
    assert await acquired_from([hanging, well], mirrors) == DATA


async def test_passed_over_is_no_try(servers: list[FaultyServer]) -> None:
    """A location that was passed over while it waited for its turn has as many tries as any other."""
    well, bad, _ = servers
    well.script("/hangs", Stall())
    well.script(PATH, Status(503))
    bad.always(PATH, Status(503))
    hanging = replace(location(well), url=well.url("/hangs"))
    mirrors = Mirrors(1, trio.current_time)
    twice = replace(FAST, rounds=2)
    found: list[bytes] = []
    async with fetching() as fetcher, trio.open_nursery() as nursery:

        async def hang() -> None:
            with suppress(PartUnavailable):
                await acquired(fetcher, mirrors, [hanging], options=replace(FAST, rounds=1))

        async def fetch() -> None:
            found.append(await acquired(fetcher, mirrors, [location(well), location(bad)], options=twice))

        nursery.start_soon(hang)
        await trio.to_thread.run_sync(well.wait_stalled)
        nursery.start_soon(fetch)
    assert found == [DATA]
    assert well.count(PATH) == 2


async def test_all_avoided(servers: list[FaultyServer]) -> None:
    """Mirrors that are all avoided are all asked."""
    mirrors = Mirrors(8, trio.current_time)
    for server in servers:
        mirrors.failed(server.url("/"), MirrorTrouble("u", "r", retry_after_s=100))
    for server in servers[:2]:
        server.stop()
    assert await acquired_from(servers, mirrors) == DATA


@pytest.mark.logs("wrong content from mirror")
async def test_all_fail(servers: list[FaultyServer]) -> None:
    """When nobody has it the error lists what was tried, URL by URL."""
    servers[0].files = {}
    servers[1].always(PATH, WrongBytes())
    servers[2].always(PATH, Status(500))
    with pytest.raises(PartUnavailable) as caught:
        await acquired_from(servers)
    attempts = caught.value.attempts
    assert Counter(type(attempt) for attempt in attempts) == {
        NotThere: 1,
        WrongContent: 2,  # it gets a second chance
        MirrorTrouble: FAST.rounds,
    }
    for server in servers:
        assert server.url(PATH) in str(caught.value)
    assert [server.count(PATH) for server in servers] == [1, 2, FAST.rounds]


def test_one_line_for_many_mirrors() -> None:
    """What failed everywhere for the same reason is said once, and names who was asked."""
    hosts = [
        f"http://mirror-{number}.example.org/debian/pool/main/a/apt/apt_2.6.1.deb" for number in range(9)
    ]
    refused = [MirrorTrouble(url, "cannot connect: refused") for url in hosts[:7]]
    error = PartUnavailable("p", (*refused * 3, NotThere(hosts[7], "404"), NotThere(hosts[8], "404")))
    assert str(error) == (
        f"part p cannot be had: {hosts[0]} (and mirror-1.example.org, mirror-2.example.org,"
        f" mirror-3.example.org and 3 more): cannot connect: refused;"
        f" {hosts[7]} (and mirror-8.example.org): 404"
    )
    reasons = tuple(MirrorTrouble(url, f"reason {number}") for number, url in enumerate(hosts))
    assert str(PartUnavailable("p", reasons)).endswith("reason 3; and 5 more")


async def test_nowhere() -> None:
    """A part without any location is unavailable."""
    with pytest.raises(PartUnavailable, match="no usable location"):
        await acquired_from([])


@pytest.mark.logs("wrong content from mirror")
async def test_credentials_stay_out_of_messages(
    servers: list[FaultyServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the log nor the error shows the password of a mirror."""
    caplog.set_level("DEBUG", "jigdofs")
    servers[0].always(PATH, WrongBytes())
    servers[1].always(PATH, Status(503))
    hidden = [
        Location(
            there.url.replace("http://", "http://joe:secret@"),
            there.mirror.replace("http://", "http://joe:secret@"),
        )
        for there in map(location, servers[:2])
    ]
    async with fetching() as fetcher:
        with pytest.raises(PartUnavailable) as caught:
            await acquired(fetcher, Mirrors(8, trio.current_time), hidden)
    assert "secret" not in str(caught.value)
    assert "secret" not in "".join(r.getMessage() for r in caplog.records if r.name.startswith("jigdofs"))


@pytest.mark.parametrize("content", [None, DATA[:-1], DATA], ids=["missing", "shorter", "right"])
async def test_local_copy(
    servers: list[FaultyServer], tmp_path: Path, content: bytes | None, expected_log: Callable[[str], None]
) -> None:
    """A local file is a location like any other: where it is missing or wrong, a mirror serves."""
    if content is not None:
        (tmp_path / "a").write_bytes(content)
        if content != DATA:
            expected_log("wrong content from mirror")
    there = [Location(str(tmp_path / "a"), "/"), location(servers[0])]
    async with fetching() as fetcher:
        assert await acquired(fetcher, Mirrors(8, trio.current_time), there) == DATA
    assert servers[0].count(PATH) == (content != DATA)


async def test_empty_part() -> None:
    """A part without a byte can be had too."""
    part = Part(Checksum.of(Algorithm.MD5, b""), 0)
    with FaultyServer({PATH: b""}) as server:
        async with fetching() as fetcher:
            assert await acquired(fetcher, Mirrors(8, trio.current_time), [location(server)], part) == b""


# -- time, without a socket --------------------------------------------------------------------------


class Scripted:
    """A fetcher that does as told, URL by URL, and notes when it was asked; at last it serves well."""

    def __init__(self, script: dict[str, list[FetchError]], data: bytes = DATA) -> None:
        self.script = script
        self.data = data
        self.asked: list[tuple[float, str]] = []

    async def fetch(self, request: Request, receiver: Receiver) -> None:
        """Do the next thing for this URL."""
        self.asked.append((trio.current_time(), request.url))
        if errors := self.script.get(request.url):
            raise errors.pop(0)
        await receiver.begin(Answer(length=len(self.data), url=request.url))
        await receiver.receive(self.data)

    async def ask(self, request: Request) -> Answer:
        """Never happens: a part is fetched without asking."""
        raise AssertionError(request)


A, B = (Location(f"http://{host}/a", f"http://{host}/") for host in "ab")


def busy(location: Location, retry_after_s: float | None = None) -> MirrorTrouble:
    return MirrorTrouble(location.url, "503 Busy", retry_after_s=retry_after_s)


async def test_retry_after_is_respected(autojump_clock: trio.testing.MockClock) -> None:
    """A lone mirror that asked for three seconds is left alone for three seconds."""
    fetcher = Scripted({A.url: [busy(A, 3.0)]})
    mirrors = Mirrors(8, trio.current_time)
    assert await acquired(fetcher, mirrors, [A]) == DATA
    (first, _), (second, _) = fetcher.asked
    assert 3.0 <= second - first < 4.0


async def test_retry_after_with_another_mirror(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody waits for a busy mirror while another one can be asked."""
    fetcher = Scripted({A.url: [busy(A, 60.0)]})
    assert await acquired(fetcher, Mirrors(8, trio.current_time), [A, B]) == DATA
    assert [url for _, url in fetcher.asked] == [A.url, B.url]
    assert fetcher.asked[1][0] - fetcher.asked[0][0] < 0.1


class Silent(Scripted):
    """A fetcher whose mirrors say nothing for so many seconds each, and then serve well."""

    def __init__(self, silence_s: dict[str, float]) -> None:
        super().__init__({})
        self.silence_s = silence_s

    async def fetch(self, request: Request, receiver: Receiver) -> None:
        """Wait as long as a server is silent and its client patient."""
        limit_s = FetchOptions().stall_timeout_s if request.silence_s is None else request.silence_s
        silence_s = self.silence_s.get(request.url, 0.0)
        await trio.sleep(min(limit_s, silence_s))
        if silence_s > limit_s:
            self.asked.append((trio.current_time(), request.url))
            raise MirrorTrouble(request.url, "timed out waiting for bytes")
        await super().fetch(request, receiver)


def many(count: int) -> list[Location]:
    return [Location(f"http://h{number}/a", f"http://h{number}/") for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 8, 40])
async def test_hanging_mirrors_first(autojump_clock: trio.testing.MockClock, count: int) -> None:
    """However many mirrors hang before the one that works, it is asked long before a read gives up."""
    locations = many(count + 1)
    fetcher = Silent({there.url: 1e9 for there in locations[:-1]})
    start = trio.current_time()
    mirrors = Mirrors(8, trio.current_time)
    assert await acquired(fetcher, mirrors, locations, PART, FetchOptions()) == DATA
    assert trio.current_time() - start <= min(4.1 * count, 70)
    start = trio.current_time()
    assert await acquired(fetcher, mirrors, locations, PART, FetchOptions()) == DATA
    assert count > 8 or trio.current_time() - start < 0.1, "the next part does not ask them first"


@pytest.mark.parametrize("hanging", [1, 7])
async def test_late_mirror(autojump_clock: trio.testing.MockClock, hanging: int) -> None:
    """A mirror that needs its time is passed over for others, and then has it, before a read gives up."""
    locations = many(hanging + 2)
    fetcher = Silent({there.url: 1e9 for there in locations} | {locations[0].url: 6.0})
    start = trio.current_time()
    mirrors = Mirrors(8, trio.current_time)
    assert await acquired(fetcher, mirrors, locations, PART, FetchOptions()) == DATA
    assert trio.current_time() - start < 110


async def test_passing_trouble_among_hanging_mirrors(autojump_clock: trio.testing.MockClock) -> None:
    """Mirrors that refuse are asked again before those that hang: that costs a reader little."""
    hanging, flaky = many(9)[:8], B
    fetcher = Silent({there.url: 1e9 for there in hanging})
    fetcher.script = {flaky.url: [busy(flaky), busy(flaky)]}
    start = trio.current_time()
    mirrors = Mirrors(8, trio.current_time)
    assert await acquired(fetcher, mirrors, [*hanging, flaky], PART, FetchOptions()) == DATA
    assert trio.current_time() - start < 110
    assert fetcher.asked[8:10] == [(fetcher.asked[8][0], flaky.url), (fetcher.asked[9][0], flaky.url)]


@pytest.mark.logs("is avoided for")
async def test_the_users_mirror_is_told(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The user hears once that a mirror of his own is given up; of others he asked for nothing."""
    mirrors = Mirrors(8, trio.current_time)
    own = Location(A.url, "http://joe:secret@a/", by_user=True)
    fetcher = Scripted({A.url: [busy(A), busy(A)], B.url: [busy(B)]})
    assert await acquired(fetcher, mirrors, [own, B]) == DATA
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == "mirror http://a/ is avoided for 5 s: 503 Busy"


@pytest.mark.logs("wrong content from mirror")
async def test_asked_past_caches(servers: list[FaultyServer]) -> None:
    """After wrong content the same location is asked past the caches on the way, which may have kept it."""
    servers[0].script(PATH, WrongBytes())
    assert await acquired_from(servers[:1]) == DATA
    first, second = (request.headers.get("cache-control") for request in servers[0].requests)
    assert (first, second) == (None, "no-cache")


async def test_backoff_grows(autojump_clock: trio.testing.MockClock) -> None:
    """The pauses between the rounds double."""
    fetcher = Scripted({A.url: [busy(A)] * 3})
    options = FetchOptions(rounds=4, backoff_s=1.0)
    assert await acquired(fetcher, Mirrors(8, trio.current_time), [A], PART, options) == DATA
    times = [time for time, _ in fetcher.asked]
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert pauses == [1, 2, 4]


@pytest.mark.parametrize("retry_after_s", [None, 3600.0])
async def test_failure_in_bounded_time(
    autojump_clock: trio.testing.MockClock, retry_after_s: float | None
) -> None:
    """However long servers ask to be left alone, the error comes within a minute."""
    fetcher = Scripted({there.url: [busy(there, retry_after_s) for _ in range(99)] for there in (A, B)})
    start = trio.current_time()
    with pytest.raises(PartUnavailable) as caught:
        await acquired(fetcher, Mirrors(8, trio.current_time), [A, B], PART, FetchOptions())
    assert trio.current_time() - start < 60
    assert len(caught.value.attempts) == len(fetcher.asked) == 2 * FetchOptions().rounds


async def test_avoided_mirror_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    """A mirror that is avoided because of other parts gets as many chances as any, if there is no other."""
    fetcher = Scripted({A.url: [busy(A), busy(A)]})
    mirrors = Mirrors(8, trio.current_time)
    mirrors.failed(A.mirror, MirrorTrouble("u", "r"))
    assert await acquired(fetcher, mirrors, [A]) == DATA
    assert len(fetcher.asked) == 3


@pytest.mark.logs("wrong content from mirror")
async def test_liar_is_avoided(autojump_clock: trio.testing.MockClock) -> None:
    """A mirror that sends wrong content again and again is asked after the others."""
    mirrors = Mirrors(8, trio.current_time)
    for _ in range(WRONG_BEFORE_AVOIDED):
        fetcher = Scripted({A.url: [WrongContent(A.url, "is a web page")]})
        assert await acquired(fetcher, mirrors, [A, B]) == DATA
        assert [url for _, url in fetcher.asked] == [A.url, B.url]
    fetcher = Scripted({})
    assert await acquired(fetcher, mirrors, [A, B]) == DATA
    assert [url for _, url in fetcher.asked] == [B.url]


async def test_long_outage(autojump_clock: trio.testing.MockClock) -> None:
    """However often a mirror has failed, the error stays the same and it is used when it is back."""
    mirrors = Mirrors(8, trio.current_time)
    options = FetchOptions(rounds=1)
    fetcher = Scripted({A.url: [busy(A) for _ in range(1100)]})
    for _ in range(1100):
        with pytest.raises(PartUnavailable):
            await acquired(fetcher, mirrors, [A], PART, options)
    assert await acquired(fetcher, mirrors, [A], PART, options) == DATA


async def test_cancelled_while_waiting(autojump_clock: trio.testing.MockClock) -> None:
    """A cancelled acquisition gives its slot back."""
    mirrors = Mirrors(1, trio.current_time)

    class Hanging:
        async def fetch(self, request: Request, receiver: Receiver) -> None:
            await trio.sleep_forever()

        async def ask(self, request: Request) -> Answer:
            raise AssertionError(request)

    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(acquired, Hanging(), mirrors, [A])
    assert scope.cancelled_caught
    with trio.fail_after(1):
        assert await acquired(Scripted({}), mirrors, [A]) == DATA


# -- campaign ----------------------------------------------------------------------------------------

_QUICK_FAULTS: tuple[Callable[[random.Random], Fault], ...] = (
    lambda _dice: WELL,
    lambda dice: Status(dice.choice([403, 404, 410, 429, 500, 503])),
    lambda _dice: Close(),
    lambda dice: Reset(dice.choice([None, 0, 1, 999, 5000])),
    lambda dice: Truncate(dice.randrange(9000)),
    lambda _dice: Html(),
    lambda _dice: WrongBytes(),
    lambda _dice: Empty(),
    lambda dice: TooLong(dice.choice([1, 5000])),
    lambda _dice: IgnoreRange(),
    lambda dice: WrongContentRange(dice.choice([-1, 1, 512])),
    lambda _dice: Gzip(),
    lambda _dice: Chunked(),
    lambda dice: Redirect(dice.choice(["/none", "/loop", "file:///etc/passwd"])),
    lambda _dice: Changed(),
)


def bend(server: FaultyServer, path: str, data: bytes, dice: random.Random, *, healthy: bool) -> None:
    """Put a part on a mirror that may do to it what it likes, or that serves it well."""
    assert isinstance(server.files, dict)
    server.files[path] = data
    if healthy:
        return
    if dice.random() < 0.3 and data:
        server.files[path] = bytes([data[0] ^ 1]) + data[1:]
    server.script(path, *(dice.choice(_QUICK_FAULTS)(dice) for _ in range(dice.randrange(3))))
    server.always(path, dice.choice(_QUICK_FAULTS)(dice))


@pytest.mark.parametrize("seed", range(5))
async def test_campaign(servers: list[FaultyServer], seed: int, expected_log: Callable[[str], None]) -> None:
    """Hundreds of parts over random faults: the exact bytes or an error; no error with a healthy mirror."""
    expected_log("wrong content from mirror")
    dice = random.Random(seed)
    for server in servers:
        server.files = {}
        server.always("/loop", Redirect("/loop"))
    mirrors = Mirrors(8, trio.current_time)  # what went before has its effects on what follows
    options = FetchOptions(stall_timeout_s=2, rounds=2, backoff_s=0.001, max_redirects=2)
    outcomes = {"right": 0, "refused": 0}
    async with fetching(options) as fetcher:
        for number in range(60):
            data = dice.randbytes(dice.choice([0, 1, 1000, 8000, 9000]))
            part = Part(Checksum.of(dice.choice(list(Algorithm)), data), len(data))
            path = f"/{number}"
            chosen = dice.sample(servers, dice.choice([2, 3]))
            well = dice.choice([*chosen, None])
            for server in chosen:
                bend(server, path, data, dice, healthy=server is well)
            locations = [location(server, path) for server in chosen]
            got: bytes | None = None
            if well is None:
                with suppress(PartUnavailable):
                    got = await acquired(fetcher, mirrors, locations, part, options)
            else:
                got = await acquired(fetcher, mirrors, locations, part, options)
            assert got in (None, data), f"seed {seed}, part {number}"
            outcomes["refused" if got is None else "right"] += 1
    assert all(outcomes.values()), "the campaign went both ways"


async def test_slow_mirrors(servers: list[FaultyServer]) -> None:
    """Mirrors that stall or crawl cost some stall timeouts, and their bytes are used."""
    servers[0].always(PATH, Stall(50_000))
    servers[1].always(PATH, Drip(200))
    assert await acquired_from(servers) == DATA
    assert servers[1].requests[0].range == "bytes=50000-"
    assert servers[2].requests[0].range is not None


class Bitwise(Scripted):
    """A fetcher whose server sends a byte at a time."""

    async def fetch(self, request: Request, receiver: Receiver) -> None:
        """Hand every byte over alone."""
        await receiver.begin(Answer(length=len(self.data), url=request.url))
        for at in range(len(self.data)):
            await receiver.receive(self.data[at : at + 1])


async def test_a_byte_at_a_time() -> None:
    """What is gathered takes no more memory than came in: an object for each byte took fifty times that."""
    data = random.Random(3).randbytes(BATCH_BYTES - 1)
    part = Part(Checksum.of(Algorithm.MD5, data), len(data))
    tracemalloc.start()
    try:
        fetcher = Bitwise({}, data)
        assert await acquired(fetcher, Mirrors(8, trio.current_time), [A], part) == data
        assert tracemalloc.get_traced_memory()[1] < 8 * BATCH_BYTES
    finally:
        tracemalloc.stop()


def test_every_fault_has_its_turn() -> None:
    """The campaign and the tests beside it use all faults that the kit knows."""
    dice = random.Random(0)
    used = {type(make(dice)).__name__ for make in _QUICK_FAULTS} | {"Stall", "Drip"}
    kinds: list[type[Fault]] = [Fault, *Fault.__subclasses__()]
    assert used == {kind.__name__ for kind in kinds}


async def test_held_back_before_it_begins() -> None:
    """A transfer that waited for its slot while a reader came is held back before it asks for anything."""
    fetcher = Scripted({})
    go = trio.Event()
    counts: list[int] = []

    async def brake(_ticket: Ticket, count: int) -> None:
        counts.append(count)
        await go.wait()

    spool = Spool(PART.length, (MemoryPlace(1 << 30),), PART.checksum.algorithm.hasher)
    acquirer = Acquirer(fetcher, Mirrors(8, trio.current_time), FAST, brake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acquirer.acquire, PART, [A], spool, Ticket(Urgency.BACKGROUND))
        await trio.testing.wait_all_tasks_blocked()
        assert fetcher.asked == []
        go.set()
    assert counts == [0, len(DATA)]
    spool.abandon()
