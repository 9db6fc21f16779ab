"""--check-urls: every location is asked once, nothing is fetched, what is dead is told, in bounded time."""

import dataclasses
import json
import os
import pty
import random
import select
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from jigdofs.check_urls import DeadLocation, UnreachableHost, UrlCheck, UrlReport, places
from jigdofs.cli.url_report import ask_files, exit_code, line, told
from jigdofs.config import FetchOptions
from jigdofs.errors import InputError
from jigdofs.fetch.fetcher import SchemeFetcher
from jigdofs.fetch.file import FileFetcher
from jigdofs.fetch.http import HttpFetcher
from jigdofs.format import jigdo, jigdo_reader
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.parts.locations import Location, Locator
from tests.kit.faults import (
    WELL,
    Close,
    Fault,
    Gzip,
    Html,
    IgnoreRange,
    Redirect,
    Reset,
    Stall,
    Status,
    TooLong,
)
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM
from tests.kit.nginx import Nginx
from tests.kit.ports import LOOPBACK, port_of, reserve_port
from tests.kit.scenes import Program, pool_files

QUICK = FetchOptions(connect_timeout_s=20, stall_timeout_s=30, backoff_s=0.01, max_redirects=3)
IMPATIENT = dataclasses.replace(QUICK, stall_timeout_s=0.3)
TOO_LONG_S = 120.0
"""Far above what any check here takes, so a slow machine fails no test."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@asynccontextmanager
async def asking(options: FetchOptions) -> AsyncIterator[SchemeFetcher]:
    http = HttpFetcher(options)
    try:
        with trio.fail_after(TOO_LONG_S):
            yield SchemeFetcher(http, FileFetcher())
    finally:
        await http.close()


def part_of(data: bytes) -> Part:
    return Part(Checksum.of(Algorithm.MD5, data), len(data))


def described(
    targets: Mapping[bytes, Sequence[str]], servers: Sequence[str] = (), source: str = "/none/x.jigdo"
) -> jigdo.JigdoFile:
    """Return a .jigdo in which each part has these targets."""
    lines = ["[Jigdo]", "Version=1.1", "[Servers]", *servers, "[Parts]"]
    lines += [
        f"{part_of(data).checksum.base64}={target}" for data, all_ in targets.items() for target in all_
    ]
    pieces = jigdo_reader.parse("\n".join(lines).encode("utf-8", "surrogateescape"), source)
    return jigdo.merge(piece for piece in pieces if isinstance(piece, jigdo.JigdoFile))


async def checked(
    targets: Mapping[bytes, Sequence[str]],
    servers: Sequence[str] = (),
    *,
    options: FetchOptions = QUICK,
    directory: str | None = None,
    source: str = "/none/x.jigdo",
) -> UrlReport:
    """Check parts by their content; the count beforehand and the count in the end must agree."""
    locator = Locator(described(targets, servers, source), {}, directory)
    directories = () if directory is None else (directory, os.path.dirname(source))
    async with asking(options) as fetcher:
        check = UrlCheck([part_of(data) for data in targets], locator, fetcher, options, directories)
        total = check.count()
        report = await check.run()
    assert check.judged == total == report.locations
    lost = sum(host.locations for host in report.unreachable)
    assert report.dead_locations == len(report.dead) + lost == report.locations - report.alive
    assert sum(mirror.locations for mirror in report.mirrors) == report.locations
    assert sum(mirror.alive for mirror in report.mirrors) == report.alive
    return report


def numbered(count: int) -> dict[str, bytes]:
    """Return small files, no two alike, by URL path."""
    return {f"/pool/{number}": b"%d " % number + bytes(number % 7) for number in range(count)}


def targets_of(files: Mapping[str, bytes]) -> dict[bytes, list[str]]:
    return {data: [f"A:{path.removeprefix('/')}"] for path, data in files.items()}


# -- what is alive, and what is dead -----------------------------------------------------------------


async def test_all_alive(nginx: Callable[..., Nginx], tmp_path: Path) -> None:
    """Every location of two mirrors is asked once by HEAD, and no byte of a part crosses the wire."""
    (tmp_path / "pool").mkdir()
    files = numbered(30)
    for path, data in files.items():
        (tmp_path / path.removeprefix("/")).write_bytes(data)
    servers = [nginx(tmp_path), nginx(tmp_path)]
    report = await checked(targets_of(files), [f"A={server.url()}" for server in servers])
    assert (report.parts, report.locations, report.alive, report.dead) == (30, 60, 60, ())
    assert [(mirror.mirror, mirror.alive) for mirror in report.mirrors] == [
        (server.url(), 30) for server in servers
    ]
    for server in servers:
        log = server.access_log()
        assert sorted(access.path for access in log) == sorted(files)
        assert {(access.method, access.status, access.body_bytes) for access in log} == {("HEAD", 200, 0)}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Status(404), "404"),
        (Status(403), "403"),
        (TooLong(5), "has 15 bytes instead of 10"),
        (Html(), "a web page"),
        (Gzip(), "encoded as gzip"),
        (Redirect("/none"), "404 Not Found (at http://"),
        (Redirect("/pool/x"), "more than 3 redirects"),
        (Redirect("file:///etc/passwd"), "redirects to a file: URL"),
        (Status(500), "500"),
        (Status(503, retry_after=0), "503"),
        (Close(), "the connection broke"),
        (Reset(), "connection was reset"),
        (Stall(), "timed out waiting for bytes"),
    ],
    ids=str,
)
async def test_dead(faulty_server: FaultyServer, fault: Fault, reason: str) -> None:
    """What a download could not use is dead, with part, URL and reason; its neighbour is alive."""
    good, bad = b"good", b"ten bytes."
    faulty_server.files = {"/pool/good": good, "/pool/x": bad}
    faulty_server.always("/pool/x", fault)
    url = faulty_server.url()
    options = IMPATIENT if isinstance(fault, Stall) else QUICK
    report = await checked({good: ["A:pool/good"], bad: ["A:pool/x"]}, [f"A={url}"], options=options)
    (dead,) = report.dead
    assert (dead.part, dead.url) == (str(part_of(bad).checksum), faulty_server.url("/pool/x"))
    assert reason in dead.reason
    assert (report.alive, report.unreachable) == (1, ())
    assert report.parts_without_living_location == (dead.part,)
    assert {request.method for request in faulty_server.requests} == {"HEAD"}


async def test_redirect_to_the_part(faulty_server: FaultyServer) -> None:
    """A redirect is followed by HEAD, and what it leads to decides."""
    faulty_server.files = {"/pool/x": b"", "/there": b"part"}
    faulty_server.always("/pool/x", Redirect("/there"))
    report = await checked({b"part": ["A:pool/x"]}, [f"A={faulty_server.url()}"])
    assert report.alive == 1
    assert [(request.method, request.path) for request in faulty_server.requests] == [
        ("HEAD", "/pool/x"),
        ("HEAD", "/there"),
    ]


async def test_server_without_head(nginx: Callable[..., Nginx], tmp_path: Path) -> None:
    """Where HEAD is refused, the first byte tells the length, right or wrong."""
    (tmp_path / "right").write_bytes(b"x" * 5000)
    (tmp_path / "wrong").write_bytes(b"y" * 4999)
    server = nginx(tmp_path, "if ($request_method = HEAD) { return 405; }")
    targets = {b"x" * 5000: ["A:right"], b"y" * 5000: ["A:wrong"]}
    report = await checked(targets, [f"A={server.url()}"])
    (dead,) = report.dead
    assert (dead.url, dead.reason) == (server.url("/wrong"), "has 4999 bytes instead of 5000")
    asked = [(access.method, access.range, access.body_bytes) for access in server.access_log()]
    assert sorted(asked)[:2] == [("GET", "bytes=0-0", 1)] * 2
    assert len(asked) == 4


async def test_server_without_head_or_ranges(faulty_server: FaultyServer) -> None:
    """Where the answer is the whole file, its header is enough."""
    data = random.Random(1).randbytes(3_000_000)
    faulty_server.files = {"/pool/x": data}
    faulty_server.script("/pool/x", Status(501), IgnoreRange())
    report = await checked({data: ["A:pool/x"]}, [f"A={faulty_server.url()}"])
    assert report.alive == 1


async def test_parts_without_location(faulty_server: FaultyServer) -> None:
    """A part whose locations are all dead and a part that has none are told apart; neither hides a third."""
    faulty_server.files = {"/a": b"a"}
    targets = {b"a": ["A:none", "A:a"], b"dead": ["A:x", "A:y"], b"nowhere": ["ftp://127.0.0.1/z"]}
    report = await checked(targets, [f"A={faulty_server.url()}"])
    assert report.parts_without_living_location == (str(part_of(b"dead").checksum),)
    assert report.parts_without_location == (str(part_of(b"nowhere").checksum),)
    assert (report.parts, report.locations, report.alive) == (3, 4, 1)
    # in the order of the parts, whatever came back first
    assert [dead.url.rsplit("/", 1)[-1] for dead in report.dead[:1]] == ["none"]
    assert {dead.url.rsplit("/", 1)[-1] for dead in report.dead[1:]} == {"x", "y"}


async def test_nothing_to_ask() -> None:
    """An image without parts has no dead location."""
    report = await checked({})
    assert report == UrlReport(0, 0, 0, (), (), (), (), ())


async def test_credentials_are_not_told(faulty_server: FaultyServer) -> None:
    """A password in a URL is used and never shown."""
    faulty_server.files = {"/a": b"a"}
    server = faulty_server.url().replace("http://", "http://joe:secret@")
    report = await checked({b"a": ["A:a"], b"b": ["A:b"]}, [f"A={server}"])
    assert report.alive == len(report.dead) == 1
    assert "secret" not in repr(report)
    assert all("authorization" in request.headers for request in faulty_server.requests)


# -- trouble -----------------------------------------------------------------------------------------


async def test_busy_then_well(faulty_server: FaultyServer) -> None:
    """A server that asks for patience gets it: 429 and 503 are no verdict."""
    faulty_server.files = numbered(3)
    faulty_server.script("/pool/0", Status(429, retry_after=0), Status(503), WELL)
    faulty_server.script("/pool/1", Status(429), WELL)
    report = await checked(targets_of(numbered(3)), [f"A={faulty_server.url()}"])
    assert (report.alive, report.dead, report.unreachable) == (3, (), ())
    assert [faulty_server.count(f"/pool/{number}") for number in range(3)] == [3, 2, 1]


async def test_file_that_only_makes_trouble(faulty_server: FaultyServer) -> None:
    """A file with nothing but 500 is asked as often as allowed, and is dead by itself: its host works."""
    files = numbered(40)
    faulty_server.files = files
    faulty_server.always("/pool/7", Status(500))
    report = await checked(targets_of(files), [f"A={faulty_server.url()}"])
    assert [(dead.url, dead.reason) for dead in report.dead] == [
        (faulty_server.url("/pool/7"), "500 Internal Server Error")
    ]
    assert report.unreachable == ()
    assert faulty_server.count("/pool/7") == QUICK.rounds
    assert len(faulty_server.requests) == len(files) + QUICK.rounds - 1


async def test_refused_port(faulty_server: FaultyServer) -> None:
    """A host that refuses connections is told once with all its locations, and costs the others nothing."""
    files = numbered(2500)
    faulty_server.files = files
    with reserve_port() as keeper:
        gone = f"http://{LOOPBACK}:{port_of(keeper)}"
        report = await checked(targets_of(files), [f"A={gone}/", f"A={faulty_server.url()}"])
    (host,) = report.unreachable
    assert (host.host, host.locations) == (gone, 2500)
    assert host.reason.startswith("cannot connect")
    assert (report.alive, report.dead) == (2500, ())
    assert report.parts_without_living_location == ()
    assert len(faulty_server.requests) == 2500


async def test_host_that_stalls(faulty_server: FaultyServer) -> None:
    """A host that is silent costs a few timeouts, not one for each of a thousand locations."""
    files = numbered(1000)
    faulty_server.always("*", Stall())
    report = await checked(targets_of(files), [f"A={faulty_server.url()}"], options=IMPATIENT)
    assert report.unreachable == (
        UnreachableHost(faulty_server.url().rstrip("/"), "timed out waiting for bytes", 1000),
    )
    assert (report.alive, report.dead) == (0, ())
    assert len(report.parts_without_living_location) == 1000
    assert len(faulty_server.requests) < 100


@pytest.mark.parametrize("connections", [1, 8])
async def test_host_that_dies(faulty_server: FaultyServer, connections: int) -> None:
    """A host that worked for a while and then not any more is given up too, with what it left unanswered."""
    files = numbered(400)
    faulty_server.files = files
    faulty_server.always("/pool/*", Status(503))
    for number in range(30):
        faulty_server.script(f"/pool/{number}", WELL)
    options = dataclasses.replace(QUICK, connections=connections)
    report = await checked(targets_of(files), [f"A={faulty_server.url()}"], options=options)
    assert report.alive == 30
    (host,) = report.unreachable
    assert host.reason == "503 Service Unavailable"
    # what was asked while the last good answer was under way may be blamed itself
    assert len(report.dead) + host.locations == 370
    assert len(report.dead) < 20
    assert len(faulty_server.requests) < 200


async def test_few_locations_of_a_host_that_is_gone(tmp_path: Path) -> None:
    """A host is told once, however few locations it has."""
    with reserve_port() as keeper:
        gone = f"http://{LOOPBACK}:{port_of(keeper)}"
        report = await checked({b"a": ["A:a"], b"b": ["A:b"]}, [f"A={gone}/"])
    assert [(host.host, host.locations) for host in report.unreachable] == [(gone, 2)]
    assert report.dead == ()


# -- how many at once --------------------------------------------------------------------------------


async def test_connections_to_one_host(faulty_server: FaultyServer) -> None:
    """Of three hundred questions to one host, eight are on their way at once, over eight connections."""
    files = numbered(300)
    faulty_server.files = files

    async with trio.open_nursery() as nursery:

        async def check() -> None:
            report = await checked(targets_of(files), [f"A={faulty_server.url()}"], options=QUICK)
            assert report.alive == 300

        faulty_server.always("*", Stall())
        nursery.start_soon(check)
        await trio.to_thread.run_sync(faulty_server.wait_stalled, 8)
        faulty_server.behave()
        faulty_server.release()
    assert faulty_server.peak_in_flight == 8
    assert faulty_server.connections == 8


async def test_thousands_of_locations(nginx: Callable[..., Nginx], tmp_path: Path) -> None:
    """Four thousand locations, some of them dead, are asked once each in bounded time."""
    (tmp_path / "pool").mkdir()
    files = numbered(2000)
    for number, (path, data) in enumerate(files.items()):
        if number % 100:
            (tmp_path / path.removeprefix("/")).write_bytes(data)
    servers = [nginx(tmp_path), nginx(tmp_path)]
    report = await checked(targets_of(files), [f"A={server.url()}" for server in servers])
    assert (report.locations, report.alive) == (4000, 3960)
    assert {dead.reason for dead in report.dead} == {"404 Not Found"}
    lost = [str(part_of(data).checksum) for data in list(files.values())[::100]]
    assert list(report.parts_without_living_location) == lost
    assert [dead.part for dead in report.dead] == [checksum for checksum in lost for _ in servers]
    for server in servers:
        assert len(server.access_log()) == 2000


# -- local files, and names with two meanings --------------------------------------------------------


async def test_local_files(tmp_path: Path) -> None:
    """`file:` locations of a local .jigdo are looked at: there, of that length, a regular file."""
    (tmp_path / "right").write_bytes(b"right")
    (tmp_path / "wrong").write_bytes(b"longer")
    (tmp_path / "directory").mkdir()
    names = {b"right": "right", b"short": "wrong", b"missing": "none", b"dir": "directory"}
    targets = {data: [f"A:{name}"] for data, name in names.items()}
    report = await checked(targets, [f"A=file:{tmp_path}/"], directory="/")
    assert report.alive == 1
    assert [(dead.url, dead.reason) for dead in report.dead] == [
        (f"{tmp_path}/wrong", "has 6 bytes instead of 5"),
        (f"{tmp_path}/none", "No such file or directory"),
        (f"{tmp_path}/directory", "is no regular file"),
    ]
    assert (await checked(targets, [f"A=file:{tmp_path}/"], directory=None)).locations == 0


async def test_relative_names(tmp_path: Path) -> None:
    """A relative name is one location, though it is sought in two directories."""
    here, beside = tmp_path / "here", tmp_path / "beside"
    for directory, name in ((here, "a"), (beside, "b")):
        (directory / "pool").mkdir(parents=True)
        (directory / "pool" / name).write_bytes(name.encode())
    targets = {b"a": ["A:a"], b"b": ["A:b"], b"c": ["A:c"], b"d": ["pool/d"]}
    source = str(beside / "x.jigdo")
    report = await checked(targets, ["A=file:pool/"], directory=str(here), source=source)
    assert (report.locations, report.alive) == (4, 2)
    assert [dead.url for dead in report.dead] == [str(here / "pool" / "c"), str(here / "pool" / "d")]


@pytest.mark.parametrize("name", ["per%41cent%.bin", "a?b", "caf\u00e9%.bin", "latin-\udcfc%20"])
async def test_names_that_can_be_read_in_two_ways(faulty_server: FaultyServer, name: str) -> None:
    """Of the two spellings of an ambiguous name one will do; if neither does, that is one dead location."""
    faulty_server.files = {f"/pool/{name}": b"part"}
    servers = [f"A={faulty_server.url()}"]
    assert (await checked({b"part": [f"A:pool/{name}"]}, servers)).alive == 1
    faulty_server.files = {}
    report = await checked({b"part": [f"A:pool/{name}"]}, servers)
    assert (report.locations, report.alive, len(report.dead)) == (1, 0, 1)


def test_places_keeps_apart_what_is_not_one() -> None:
    """Only spellings of one name and directories of one relative name stand together."""
    urls = ["http://h/a", "http://h/b%25", "http://h/b%2525", "http://i/b%2525", "/x/a", "/y/a", "/y/b"]
    locations = [Location(url, "m") for url in urls]
    found = [[location.url for location in place] for place in places(locations, ("/x", "/y"))]
    assert found == [urls[0:1], urls[1:3], urls[3:4], urls[4:6], urls[6:7]]
    assert [len(place) for place in places(locations[4:], ("/x", "/x"))] == [1, 1, 1]
    assert [len(place) for place in places(locations[4:])] == [1, 1, 1]


# -- the command -------------------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Program:
    home = tmp_path / "home"
    home.mkdir()
    return Program(home, environ={"CACHE_DIRECTORY": str(home / "cache"), "TERM": "xterm"})


@pytest.fixture
def built(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    faulty_server.files = pool_files(iso_md5)
    return iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})


def urls_of(stdout: str) -> dict[str, Any]:
    (image,) = json.loads(stdout)
    found = image["urls"]
    assert isinstance(found, dict)
    return found


def test_info_with_all_alive(program: Program, built: BuiltImage, faulty_server: FaultyServer) -> None:
    """Exit code 0, a summary as the last line, and in JSON the numbers; names that hurt are asked rightly."""
    count = len(built.parts)
    done = program("info", "--check-urls", built.jigdo)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == (
        f"urls:     {count} locations of {count} parts asked, {count} alive, 0 dead"
    )
    assert {request.method for request in faulty_server.requests} == {"HEAD"}
    done = program("info", "--check-urls", "--json", built.jigdo)
    assert (done.returncode, done.stderr) == (0, "")
    found = urls_of(done.stdout)
    assert (found["parts"], found["locations"], found["alive"]) == (count, count, count)
    assert found["dead"] == found["unreachable"] == found["parts_without_living_location"] == []
    assert found["mirrors"] == [{"mirror": faulty_server.url("/pool/"), "locations": count, "alive": count}]


def test_info_with_a_dead_one(program: Program, built: BuiltImage, faulty_server: FaultyServer) -> None:
    """Exit code 1, a line with URL, reason and part; the same in JSON."""
    checksum, path = next((part, path) for part, path in built.parts.items() if "plain-05" in path)
    faulty_server.always(f"/pool/{path}", Status(404))
    done = program("info", "--check-urls", built.jigdo)
    assert (done.returncode, done.stderr) == (1, "")
    dead, summary = done.stdout.splitlines()[-2:]
    url = faulty_server.url(f"/pool/{path}")
    assert dead == f"dead:     {url}: 404 Not Found (md5:{checksum})"
    assert summary.endswith("1 dead; 1 part without a living location")
    done = program("info", "--check-urls", "--json", built.jigdo)
    assert done.returncode == 1
    found = urls_of(done.stdout)
    assert found["dead"] == [{"part": f"md5:{checksum}", "url": url, "reason": "404 Not Found"}]
    assert found["parts_without_living_location"] == [f"md5:{checksum}"]


def test_info_without_the_option_asks_nobody(
    program: Program, built: BuiltImage, faulty_server: FaultyServer
) -> None:
    """Without --check-urls no location is asked, and JSON has no word of it."""
    done = program("info", "--json", built.jigdo)
    assert done.returncode == 0
    assert "urls" not in json.loads(done.stdout)[0]
    assert faulty_server.requests == []


def test_info_goes_on_after_a_failure(program: Program, built: BuiltImage) -> None:
    """A .jigdo that cannot be loaded decides the exit code; the others are checked all the same."""
    done = program("info", "--check-urls", "nowhere.jigdo", built.jigdo)
    assert done.returncode == 3
    assert "asked" in done.stdout


def read_until(fd: int, text: bytes) -> bytes:
    """Read a terminal until a text stands there."""
    seen = b""
    while text not in seen:
        readable, _, _ = select.select([fd], [], [], 20)
        assert readable, seen
        try:
            seen += os.read(fd, 4096)
        except OSError:  # the other end is closed
            break
    return seen


def test_progress_on_a_terminal(program: Program, built: BuiltImage, faulty_server: FaultyServer) -> None:
    """On a terminal a bar counts the locations; stdout stays free of it."""
    faulty_server.always("/pool/main/a/large.deb", Stall())
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "info", "--check-urls", "--stall-timeout", "60s", built.jigdo],
        env=program.environ,
        cwd=program.home,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.close(slave)
    try:
        faulty_server.wait_stalled()
        seen = read_until(master, f"{len(built.parts) - 1}/{len(built.parts)}".encode())
        assert b"asking" in seen
        faulty_server.behave()
        faulty_server.release()
        read_until(master, b"no such text")
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "\x1b" not in output
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_files_on_disk(built: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> None:
    """A .jigdo and a template anywhere on disk are checked without being published."""
    template = tmp_path / "elsewhere"
    built.template.rename(template)
    report = ask_files(str(built.jigdo), str(template), options=QUICK, quiet=True)
    assert exit_code(report) == 0
    assert [word for word, _ in told(report)] == ["urls"]
    path = next(iter(built.parts.values()))
    faulty_server.always(f"/pool/{path}", Status(410))
    report = ask_files(str(built.jigdo), str(template), options=QUICK, quiet=True)
    assert exit_code(report) == 1
    dead, _ = map(line, told(report))
    assert "410 Gone" in dead
    with pytest.raises(InputError, match="none"):
        ask_files(str(built.jigdo), str(tmp_path / "none"))


def test_dead_names_are_printable(tmp_path: Path) -> None:
    """A name that is no text, or has controls in it, is told escaped."""
    dead = DeadLocation("md5:0", "/r\udcfcw\x1b", "No such file")
    report = UrlReport(1, 1, 0, (dead,), (), (), ("md5:0",), ())
    lines = list(map(line, told(report)))
    assert lines[0] == "dead:     /r\\xfcw\\x1b: No such file (md5:0)"
    assert lines[1].endswith("1 location of 1 part asked, 0 alive, 1 dead; 1 part without a living location")
