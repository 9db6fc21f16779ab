"""The HTTP server's side: ranges, pages, and whole answers from a tree of files."""

import contextlib
import email.utils
import html.parser
import os
import stat
import urllib.parse
from typing import Any

import trio

from jigdofs.contents.namespace import Namespace, Shown
from jigdofs.errors import JigdofsError
from jigdofs.image.read_account import ReadAccount
from jigdofs.iso9660.tree import Entry, Tree, is_name, pack
from jigdofs.serve import pages
from jigdofs.serve.application import Application
from jigdofs.serve.pages import Row
from jigdofs.serve.ranges import Validators, decide
from tests.campaigns.fuzzing.choices import Choices

_NAMES = (b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
_SIZES = (0, 1, 2, 100, 1 << 20, 1 << 40)
_MTIME_S = 1_700_000_000


def ranges(data: bytes) -> None:
    """Whatever a client asks for is answered with bytes that the file has, and the right status."""
    choices = Choices(data)
    size = choices.of(_SIZES)
    validators = Validators(b'"abc"', choices.of((0, _MTIME_S)))
    ours = (
        validators.etag,
        email.utils.formatdate(validators.mtime_s, usegmt=True).encode(),
        b"*",
        b"bytes=0-",
    )
    headers = {}
    while choices:
        name = choices.of(_NAMES)
        headers[name] = choices.of(ours) if choices.number(4) == 3 else choices.block(60)
    answer = decide(headers, size, validators)
    assert answer.status in (200, 206, 304, 412, 416)
    assert 0 <= answer.begin <= answer.end <= size
    if answer.status == 200:
        assert (answer.begin, answer.end) == (0, size)
    elif answer.status == 206:
        assert answer.begin < answer.end
        assert b"range" in headers
    else:
        assert (answer.begin, answer.end) == (0, 0)


class _Links(html.parser.HTMLParser):
    """Collect links and tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]
        assert not any(name.startswith("on") for name, _ in attrs)


_TAGS = {"html", "head", "meta", "title", "body", "h1", "table", "tr", "td", "a"}


def page(data: bytes) -> None:
    """Names of any bytes become links that lead to them, and nothing else becomes of them."""
    path, *names = [name for name in data.split(b"/") if is_name(name)] or [b""]
    rows = [Row(name, bool(number % 2), number, number % 5 != 4) for number, name in enumerate(names)]
    links = _Links()
    links.feed((pages.begin(b"/" + path + b"/") + pages.lines(rows) + pages.END).decode())
    links.close()
    assert links.tags <= _TAGS
    wanted = [row.name + b"/" * row.is_directory for row in rows if row.leads]
    found = links.links[1:] if path.strip(b"/") else links.links
    assert [urllib.parse.unquote_to_bytes(link.removeprefix("./")) for link in found] == wanted
    assert all(urllib.parse.urljoin("http://h/d/", link).startswith("http://h/d/") for link in found)


class _Contents:
    """Files that are known already."""

    def __init__(self, files: Tree) -> None:
        self.known = files

    async def tree(self) -> Tree:
        return self.known


class _Reader:
    """What is asked of an image's reader before anything is read."""

    class layout:  # noqa: N801  an attribute of that name
        """The length of an image."""

        length = 1 << 20

    def __init__(self) -> None:
        self.account = ReadAccount()


class _Image:
    """An image of which only the files are looked at."""

    name = "image.iso"
    identity = "0" * 32
    present_bytes = 0
    mtime_ns = _MTIME_S * 10**9
    reader: Any = _Reader()


_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR)
_PIECES = (b"a", b"b", b"..", b".", b"", b"image", b"c%2e", b"\xff")


def _tree(choices: Choices) -> Entry:
    root = Entry(b"", stat.S_IFDIR | 0o555, 0, 0, 0, children=[])
    directories = [root]
    for _ in range(choices.number(12)):
        kind = choices.of(_KINDS)
        name = choices.of(_PIECES) if choices.flag() else choices.block(9)
        target = b"/".join(choices.of(_PIECES) for _ in range(choices.number(6)))
        entry = Entry(name, kind | 0o444, 0, 0, 0, target=target, children=[])
        children = choices.of(directories).children
        assert isinstance(children, list)
        children.append(entry)
        if kind == stat.S_IFDIR:
            directories.append(entry)
    return root


def answer(data: bytes) -> None:
    """A request for any path in any tree has one answer, whole and well formed, and links end."""
    choices = Choices(data)
    files = Tree(pack(_tree(choices)), "x")
    namespace = Namespace([Shown(_Image(), _Contents(files), "image")])
    trail = b"/".join(choices.of(_PIECES) for _ in range(choices.number(8)))
    raw = b"/image/" + trail if choices.flag() else b"/" + choices.block(40)
    scope = {
        "type": "http",
        "method": choices.of(("GET", "HEAD", "POST")),
        "raw_path": raw,
        "path": os.fsdecode(raw),
        "headers": [(choices.of((b"Range", b"X")), choices.block(20)) for _ in range(choices.number(3))],
    }
    if choices.flag():
        del scope["raw_path"]
    sent: list[Any] = []

    async def ask() -> None:
        async def receive() -> Any:
            await trio.sleep_forever()

        async def send(message: Any) -> None:
            sent.append(dict(message))

        with trio.fail_after(5):
            await Application(namespace)(scope, receive, send)
        with contextlib.suppress(JigdofsError):
            await namespace.resolve(raw)

    trio.run(ask)
    start, *bodies = sent
    assert start["type"] == "http.response.start"
    assert start["status"] in (200, 206, 301, 304, 400, 404, 405, 412, 416, 502)
    for name, value in start["headers"]:
        assert not {10, 13, 0} & set(name + value)
    assert [body["more_body"] for body in bodies] == [True] * (len(bodies) - 1) + [False]
    length = dict(start["headers"]).get(b"content-length")
    if length is not None and scope["method"] != "HEAD":
        assert int(length) == sum(len(body["body"]) for body in bodies)
