"""The HTTP application called as an ASGI server calls it: what is answered, and how bodies end."""

import email.utils
import stat
import urllib.parse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from jigdofs.config import FetchOptions, InputOptions, ReadOptions
from jigdofs.contents.namespace import Namespace, Shown
from jigdofs.errors import FormatError
from jigdofs.iso9660.tree import Entry, Extent, Tree, pack
from jigdofs.serve.application import MAX_REQUESTS, PIECE_BYTES, Application
from jigdofs.serve.directories import AT_ONCE
from jigdofs.wiring.images import Images, open_images
from tests.kit.faults import Stall, Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.scenes import Occurrence, lonely, pool_files

CHANGED_S = 1_700_000_000
_FILE, _DIRECTORY, _LINK, _DEVICE = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR
_ODD = (
    b"100%25",
    b"q?x#y",
    b"a&b<c>\"d'",
    "caf\u00e9".encode(),
    b"latin-\xfc",
    b"two words",
    b"c:d",
    b"back\\s",
)
Headers = Sequence[tuple[bytes, bytes]]
MANY = 2 * AT_ONCE + 1


def entry(name: bytes, kind: int, **more: Any) -> Entry:
    times = [CHANGED_S * 10**9] * 3
    return Entry(name, kind | 0o755, times[0], times[1], times[2], **more)


def tree() -> Entry:
    """Return files of every kind that lie in the first bytes of an image behind its first sector."""
    odd = tuple(entry(name, _FILE, extents=(Extent(40_000, 7),)) for name in _ODD)
    release = entry(b"Release", _FILE, extents=(Extent(32_768, 2048),))
    dists = (
        entry(b"bookworm", _DIRECTORY, children=(release,)),
        entry(b"stable", _LINK, target=b"bookworm"),
        entry(b"up", _LINK, target=b".."),
    )
    return entry(
        b"",
        _DIRECTORY,
        children=(
            *(entry(b"debian", _LINK, target=b"."), entry(b"dead", _LINK, target=b"nowhere")),
            *(entry(b"dists", _DIRECTORY, children=dists), entry(b"null", _DEVICE, rdev=259)),
            *(entry(b"odd", _DIRECTORY, children=odd), entry(b"empty.txt", _FILE)),
            entry(b"many", _DIRECTORY, children=tuple(entry(b"%05d" % n, _FILE) for n in range(MANY))),
            entry(b"latest", _LINK, target=b"dists/stable/Release"),
            entry(b"two.html", _FILE, extents=(Extent(40_000, 5), Extent(50_000, 6))),
            entry(b"outside", _FILE, extents=(Extent(1 << 50, 5),)),
        ),
    )


class Known:
    """Contents that are known already."""

    def __init__(self, root: Entry) -> None:
        self.known = Tree(pack(root), "known")

    async def tree(self) -> Tree:
        return self.known


class Damaged:
    """Contents that cannot be read."""

    known = None

    async def tree(self) -> Tree:
        raise FormatError("no directory", source="damaged")


@dataclass
class Answer:
    """What was answered; `whole` tells whether the application ended the body itself."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    largest: int = 0

    async def take(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert self.status == 0, "an answer begins once"
            self.status, self.headers = message["status"], dict(message["headers"])
            assert len(self.headers) == len(message["headers"])
            return
        assert self.status, "a body has a head"
        assert not self.whole, "nothing follows the end"
        self.body += message["body"]
        self.largest = max(self.largest, len(message["body"]))
        self.whole = not message["more_body"]


@dataclass
class Scene:
    """The application, and the image it shows beside `tree()`."""

    application: Application
    images: Images
    real: bytes
    name: str

    @property
    def image(self) -> bytes:
        return b"/" + self.name.encode()

    async def ask(self, path: bytes, *headers: tuple[bytes, bytes], method: str = "GET") -> Answer:
        """Ask as hypercorn does, and take all of the answer."""
        answer = Answer()
        sender, receiver = trio.open_memory_channel[dict[str, Any]](1)
        with sender, receiver:
            await self.application(scope(path, headers, method), receiver.receive, answer.take)
        if answer.whole and method == "GET" and answer.status != 304:
            assert int(answer.headers.get(b"content-length", len(answer.body))) == len(answer.body)
        return answer


def scope(path: bytes, headers: Headers = (), method: str = "GET") -> dict[str, Any]:
    decoded = urllib.parse.unquote(path.decode("ascii"))
    return {"type": "http", "method": method, "path": decoded, "raw_path": path, "headers": list(headers)}


@asynccontextmanager
async def showing(
    built: BuiltImage, *, contents: Known | Damaged | None = None, timeout_s: float = 20
) -> AsyncIterator[Scene]:
    fetch = FetchOptions(connect_timeout_s=2, stall_timeout_s=20, rounds=1, backoff_s=0.01)
    read = ReadOptions(timeout_s=timeout_s, readahead_bytes=0)
    with trio.fail_after(60):
        async with open_images(InputOptions((str(built.jigdo),)), None, fetch, read) as images:
            image = images.images[0]
            namespace = Namespace([Shown(image, contents or Known(tree()), "inside")])
            yield Scene(Application(namespace), images, built.image.read_bytes(), image.name)


@pytest.fixture
async def scene(iso_md5: BuiltImage) -> AsyncIterator[Scene]:
    async with showing(iso_md5) as found:
        yield found


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def broken(built: BuiltImage, server: FaultyServer, tmp: Path) -> tuple[BuiltImage, Occurrence]:
    """Return an image whose parts come from this server, and one of its parts that does not begin a piece."""
    server.files = pool_files(built)
    part = next(one for one in lonely(built) if one.offset > PIECE_BYTES)
    return built.with_servers(tmp / "in", {"Debian": server.url("/pool/")}), part


# -- files -------------------------------------------------------------------------------------------


async def test_an_image(scene: Scene) -> None:
    """The whole image is answered in bounded pieces, with all that describes it."""
    answer = await scene.ask(scene.image)
    image = scene.images.images[0]
    assert (answer.status, answer.whole) == (200, True)
    assert answer.body == scene.real
    assert answer.largest <= PIECE_BYTES < len(scene.real)
    assert answer.headers[b"content-type"] == b"application/octet-stream"
    assert answer.headers[b"accept-ranges"] == b"bytes"
    assert answer.headers[b"etag"] == b'"%s"' % image.identity.encode()
    changed = email.utils.formatdate(image.mtime_ns // 10**9, usegmt=True)
    assert answer.headers[b"last-modified"] == changed.encode()


@pytest.mark.parametrize(
    ("begin", "end"), [(0, 1), (5, 70_000), (PIECE_BYTES - 1, PIECE_BYTES + 1), (1, 3 * PIECE_BYTES + 1)]
)
async def test_a_range(scene: Scene, begin: int, end: int) -> None:
    """A range is answered by exactly its bytes, over the borders of pieces."""
    answer = await scene.ask(scene.image, (b"Range", b"bytes=%d-%d" % (begin, end - 1)))
    assert (answer.status, answer.whole) == (206, True)
    assert answer.body == scene.real[begin:end]
    assert answer.headers[b"content-range"] == b"bytes %d-%d/%d" % (begin, end - 1, len(scene.real))


async def test_what_has_no_body(scene: Scene) -> None:
    """416, 304 and 412 end at once, and say what a client needs."""
    known = (await scene.ask(scene.image, method="HEAD")).headers
    answer = await scene.ask(scene.image, (b"range", b"bytes=0-1, 5-6"))
    assert (answer.status, answer.body, answer.whole) == (416, b"", True)
    assert answer.headers[b"content-range"] == b"bytes */%d" % len(scene.real)
    for condition in ((b"if-none-match", known[b"etag"]), (b"if-modified-since", known[b"last-modified"])):
        answer = await scene.ask(scene.image, condition)
        assert (answer.status, answer.body, answer.whole) == (304, b"", True)
        assert answer.headers[b"etag"] == known[b"etag"]
    assert (await scene.ask(scene.image, (b"if-match", b'"other"'))).status == 412


async def test_lists_of_tags_may_be_several_lines(scene: Scene) -> None:
    """If-None-Match in two header lines is one list (RFC 9110 5.3)."""
    tag = (await scene.ask(scene.image, method="HEAD")).headers[b"etag"]
    for tags in ((tag, b'"other"'), (b'"other"', tag)):
        answer = await scene.ask(scene.image, (b"if-none-match", tags[0]), (b"If-None-Match", tags[1]))
        assert answer.status == 304


async def test_head_reads_nothing(
    iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, no_proxy: None
) -> None:
    """HEAD tells of the whole file whatever range it names, and fetches no part."""
    built, part = broken(iso_md5, faulty_server, tmp_path)
    async with showing(built) as scene:
        named = (b"range", b"bytes=%d-%d" % (part.offset, part.end))
        answer = await scene.ask(scene.image, named, method="HEAD")
        assert (answer.status, answer.body, answer.whole) == (200, b"", True)
        assert answer.headers[b"content-length"] == b"%d" % len(scene.real)
        assert faulty_server.paths() == []
        assert (await scene.ask(scene.image, named)).status == 206
        assert faulty_server.paths() == [f"/pool/{part.path}"]


async def test_files_inside(scene: Scene) -> None:
    """Files inside are their bytes of the image, also those in two places and those of no byte."""
    real = scene.real
    answer = await scene.ask(b"/inside/two.html", (b"range", b"bytes=3-8"))
    assert answer.body == (real[40_000:40_005] + real[50_000:50_006])[3:9]
    assert answer.headers[b"content-type"] == b"text/html"
    answer = await scene.ask(b"/inside/empty.txt")
    assert (answer.status, answer.body, answer.whole) == (200, b"", True)
    assert answer.headers[b"content-type"] == b"text/plain"
    assert (await scene.ask(b"/inside/empty.txt", (b"range", b"bytes=0-"))).status == 416
    answers = [await scene.ask(path) for path in (b"/inside/latest", b"/inside/debian/dists/stable/Release")]
    assert [answer.body for answer in answers] == [real[32_768 : 32_768 + 2048]] * 2
    assert answers[0].headers[b"etag"] == answers[1].headers[b"etag"] != answer.headers[b"etag"]
    assert answers[0].headers[b"last-modified"] == email.utils.formatdate(CHANGED_S, usegmt=True).encode()


# -- paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _ODD, ids=repr)
async def test_odd_names(scene: Scene, name: bytes) -> None:
    """Names are bytes: escaped in a path they are found, with `raw_path` and, in UTF-8, without."""
    path = b"/inside/odd/" + urllib.parse.quote(name, safe="").encode()
    assert (await scene.ask(path)).body == scene.real[40_000:40_007]
    if name.isascii():
        answer = Answer()
        asked = scope(path)
        del asked["raw_path"]
        await scene.application(asked, trio.sleep_forever, answer.take)
        assert answer.status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/inside/odd/%2e%2e/latest", 400),
        (b"/..", 400),
        (b"/inside/odd/..%2f..%2f", 400),
        (b"/inside/a%00b", 400),
        (b"*", 400),
        (b"", 400),
        (b"inside/", 400),
        (b"/none", 404),
        (b"/inside/none", 404),
        (b"/inside/latest/", 404),
        (b"/inside/latest/x", 404),
        (b"/inside/dead", 404),
        (b"/inside/null", 404),
        (b"/inside/...", 404),
        (b"//inside//./odd/", 200),
        (b"/inside/?C=M;O=D", 200),
        (b"http://host:1/inside/", 200),
    ],
    ids=repr,
)
async def test_paths(scene: Scene, path: bytes, status: int) -> None:
    """What cannot be a path is 400, what is not there 404, and no line of the log is spent on either."""
    answer = await scene.ask(path)
    assert (answer.status, answer.whole) == (status, True)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
async def test_other_methods(scene: Scene, method: str) -> None:
    """All but GET and HEAD is refused, and what is allowed is said."""
    answer = await scene.ask(b"/", method=method)
    assert (answer.status, answer.headers[b"allow"], answer.whole) == (405, b"GET, HEAD", True)


# -- directories -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "location"),
    [
        (b"/inside", b"/inside/"),
        (b"//inside", b"/inside/"),
        (b"/inside/dists/stable?x=y", b"/inside/dists/stable/"),
        (b"/%69nside/./odd", b"/inside/./odd/"),
    ],
)
async def test_a_directory_has_a_slash(scene: Scene, path: bytes, location: bytes) -> None:
    """Without it a client is sent to the path that has it, never to another host."""
    answer = await scene.ask(path)
    assert (answer.status, answer.headers[b"location"]) == (301, location)


async def test_a_listing(scene: Scene) -> None:
    """Every name of a directory is a link that leads to it, escaped as bytes and as HTML."""
    answer = await scene.ask(b"/inside/odd/")
    assert answer.headers[b"content-type"] == b"text/html; charset=utf-8"
    page = answer.body.decode("utf-8")
    for name in _ODD:
        link = f'href="./{urllib.parse.quote(name, safe="")}"'
        assert page.count(link) == 1
    assert "a&amp;b&lt;c&gt;&quot;d&#x27;</a>" in page
    root = (await scene.ask(b"/")).body.decode()
    assert 'href="./inside/"' in root
    assert f'href="./{scene.name}"' in root
    assert "../" not in root
    head = await scene.ask(b"/", method="HEAD")
    assert (head.status, head.body) == (200, b"")


async def test_a_long_listing_comes_in_pieces(scene: Scene) -> None:
    """Where its length is not known at once the page is sent as it is made, and is whole."""
    answer = await scene.ask(b"/inside/many/")
    assert b"content-length" not in answer.headers
    assert answer.body.count(b"<a href=") == MANY + 1
    assert answer.body.endswith(b"</html>\n")


async def test_links_are_listed_as_what_they_lead_to(scene: Scene) -> None:
    """Links have the form and size of their target; none leads round in circles or to what is not there."""
    rows = (await scene.ask(b"/inside/")).body.decode().splitlines()
    found = {name: next(row for row in rows if name in row) for name in ("debian", "dead", "null", "latest")}
    assert "href" not in found["debian"] + found["dead"] + found["null"]
    assert 'href="./latest"' in found["latest"]
    assert "2,048" in found["latest"]
    page = (await scene.ask(b"/inside/dists/")).body.decode()
    assert 'href="./stable/"' in page
    assert 'href="./up' not in page
    # the same directory by a path through a link
    assert 'href="./debian' not in (await scene.ask(b"/inside/debian/")).body.decode()


# -- trouble -----------------------------------------------------------------------------------------


@pytest.mark.logs("cannot be had")
async def test_an_error_before_the_first_byte(
    iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, no_proxy: None
) -> None:
    """A part that cannot be had is a 502 of one line, and another request has it when it is there again."""
    built, part = broken(iso_md5, faulty_server, tmp_path)
    faulty_server.always("*", Status(404))
    async with showing(built) as scene:
        named = (b"range", b"bytes=%d-%d" % (part.offset, part.end - 1))
        answer = await scene.ask(scene.image, named)
        assert (answer.status, answer.whole, answer.body.count(b"\n")) == (502, True, 1)
        assert b"etag" not in answer.headers
        faulty_server.behave()
        with trio.fail_after(20):  # for a moment it is not asked for again
            while (answer := await scene.ask(scene.image, named)).status == 502:
                await trio.lowlevel.checkpoint()
        assert answer.body == scene.real[part.offset : part.end]


@pytest.mark.logs("cannot be had")
async def test_an_error_after_the_first_byte(
    iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, no_proxy: None
) -> None:
    """Later the body is left without an end: right as far as it goes, and never as long as was promised."""
    built, part = broken(iso_md5, faulty_server, tmp_path)
    faulty_server.always(f"/pool/{part.path}", Status(404))
    async with showing(built) as scene:
        answer = await scene.ask(scene.image)
        assert (answer.status, answer.whole) == (200, False)
        assert 0 < len(answer.body) <= part.offset
        assert answer.body == scene.real[: len(answer.body)]


@pytest.mark.logs("could not be had within")
async def test_an_error_of_time(
    iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, no_proxy: None
) -> None:
    """A read that takes too long is a 504."""
    built, part = broken(iso_md5, faulty_server, tmp_path)
    faulty_server.always("*", Stall())
    async with showing(built, timeout_s=0.2) as scene:
        answer = await scene.ask(scene.image, (b"range", b"bytes=%d-" % part.offset))
        assert (answer.status, answer.whole) == (504, True)


@pytest.mark.logs("claims to lie outside", "no directory")
async def test_errors_of_the_image(scene: Scene, iso_md5: BuiltImage) -> None:
    """Damaged files and directories are a 502 for themselves; the image beside them can be had."""
    assert (await scene.ask(b"/inside/outside")).status == 502
    async with showing(iso_md5, contents=Damaged()) as damaged:
        assert (await damaged.ask(b"/inside/")).status == 502
        assert (await damaged.ask(b"/inside/x")).status == 502
        assert (await damaged.ask(b"/")).status == 200
        assert (await damaged.ask(damaged.image)).body == damaged.real


async def test_a_client_that_goes_is_not_waited_for(
    iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, no_proxy: None
) -> None:
    """Who hangs up while a part is on its way is forgotten, and had no answer."""
    built, part = broken(iso_md5, faulty_server, tmp_path)
    faulty_server.always("*", Stall())
    async with showing(built) as scene, trio.open_nursery() as nursery:
        answer = Answer()
        sender, receiver = trio.open_memory_channel[dict[str, Any]](1)
        asked = scope(scene.image, [(b"range", b"bytes=%d-" % part.offset)])
        nursery.start_soon(scene.application, asked, receiver.receive, answer.take)
        await trio.to_thread.run_sync(faulty_server.wait_stalled)
        await sender.send({"type": "http.disconnect"})
    assert answer.status == 0


async def test_the_end_of_a_connection_is_not_cut_short(scene: Scene) -> None:
    """The server tells of the end from within the last `send`; that `send` is let go on all the same."""
    sender, receiver = trio.open_memory_channel[dict[str, Any]](1)
    closed: list[str] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and not message["more_body"]:
            await sender.send({"type": "http.disconnect"})
            await trio.testing.wait_all_tasks_blocked()  # whoever is to hear of it has heard
            closed.append("closed")

    for path in (b"/inside/", b"/inside/latest", b"/none", scene.image):
        await scene.application(scope(path), receiver.receive, send)
    assert closed == ["closed"] * 4


async def test_too_many_at_once(
    iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, no_proxy: None
) -> None:
    """Beyond the limit clients are told to come again, and are answered when others are done."""
    built, part = broken(iso_md5, faulty_server, tmp_path)
    faulty_server.always("*", Stall())
    async with showing(built) as scene:
        named = (b"range", b"bytes=%d-%d" % (part.offset, part.offset + 9))
        async with trio.open_nursery() as nursery:
            for _ in range(MAX_REQUESTS):
                nursery.start_soon(scene.ask, scene.image, named)
            await trio.testing.wait_all_tasks_blocked()
            answer = await scene.ask(b"/")
            assert (answer.status, answer.headers[b"retry-after"], answer.whole) == (503, b"1", True)
            nursery.cancel_scope.cancel()
        assert (await scene.ask(b"/")).status == 200
