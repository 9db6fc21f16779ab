"""Options, URLs, sizes, lists of parts, and what HTTP and control clients say."""

import argparse
import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import suppress

import trio
import trio.testing

from jigdofs.cli import getopt_long, mount
from jigdofs.cli import parser as types
from jigdofs.cli.fuse_options import translate
from jigdofs.cli.getopt_long import Option, Takes, Word
from jigdofs.cli.parser import Parser
from jigdofs.control import prefetching, server
from jigdofs.errors import FetchError, FormatError, JigdofsError, UsageError
from jigdofs.fetch import http_header
from jigdofs.fetch import url as urls
from jigdofs.fetch.fetcher import Request
from jigdofs.format import part_list
from tests.campaigns.fuzzing.choices import Choices
from tests.campaigns.fuzzing.promises import one_line


def argument(data: bytes) -> str:
    """Return bytes as the text a command line would hold."""
    return data.replace(b"\0", b"").decode("utf-8", "surrogateescape")


_MOUNT: list[Parser] = []


def _mount_parser() -> Parser:
    if not _MOUNT:
        parser = Parser("jigdofs mount", "")
        mount.add_arguments(parser)
        _MOUNT.append(parser)
    return _MOUNT[0]


def fuse_options(data: bytes) -> None:
    """`-o` becomes long options of ours that mean the same when they are read; FUSE's go on as they are."""
    text = argument(data)
    try:
        found = translate([text])
    except UsageError as error:
        one_line(error)
        return
    assert all(option.startswith("--") and "_" not in option.partition("=")[0] for option in found.arguments)
    assert all(option.partition("=")[0].replace("_", "").isalpha() for option in found.fuse)
    back = [option.removeprefix("--").replace("\\", "\\\\").replace(",", "\\,") for option in found.arguments]
    assert translate([",".join(back)]).arguments == found.arguments
    with suppress(UsageError):
        _mount_parser().parse_args([*found.arguments, "--", "a", "b"])


_TYPES: tuple[Callable[[str], object], ...] = (
    types.size,
    types.size_or_off,
    types.bandwidth,
    types.bandwidth_or_off,
    types.duration_s,
    types.positive,
    types.up_to_65535,
    types.octal,
    types.mirror,
    types.user,
    types.group,
)


def option_values(data: bytes) -> None:
    """Every type of an option reads a text, or says in a line what it is to be."""
    text = argument(data[1:])
    read = _TYPES[(data[0] if data else 0) % len(_TYPES)]
    try:
        value = read(text)
    except argparse.ArgumentTypeError:
        return
    if isinstance(value, int):
        assert 0 <= value < 1 << 63
        with suppress(argparse.ArgumentTypeError):
            assert types.size(str(value)) == value
    elif isinstance(value, float):
        assert 0 < value < 1e16
    elif isinstance(value, tuple):
        label, target = value
        assert label
        assert target
        assert "://" not in target or urls.is_http(target) or target.startswith("/")


_KNOWN: Mapping[str, Option] = {
    "-i": Option("--image", Takes.A_VALUE),
    "--image": Option("--image", Takes.A_VALUE),
    "--image-section": Option("--image-section", Takes.NOTHING),
    "--no-image-section": Option("--no-image-section", Takes.NOTHING),
    "-r": Option("--report", Takes.A_VALUE),
    "--report": Option("--report", Takes.A_VALUE),
    "-f": Option("--force", Takes.NOTHING),
    "--force": Option("--force", Takes.NOTHING),
    "--debug": Option("--debug", Takes.PERHAPS_A_VALUE),
}


def getopt(data: bytes) -> None:
    """A command line is read as words, and read again once it was put in order."""
    argv = argument(data[1:]).split("\n")
    try:
        words = getopt_long.read(argv, _KNOWN, abbreviate=bool(data[:1] > b"\x7f"))
    except UsageError as error:
        one_line(error)
        return
    in_order = [word for word in words if word.name] + [word for word in words if not word.name]
    exact = {option.name: option for option in _KNOWN.values()}
    assert getopt_long.read(getopt_long.joined(words), exact, abbreviate=False) == in_order
    assert all(isinstance(word, Word) for word in words)


def url(data: bytes) -> None:
    """A URL is escaped so that it can be sent, stays on its host, and names the same bytes."""
    choices = Choices(data)
    base = choices.of(("http://u:p@h:80/a/b?c#d", "https://h", "/srv/a b/x.jigdo", "x.jigdo", ""))
    if choices.flag():
        base = "http://h/" + choices.text(60)
    reference = choices.rest().decode("utf-8", "surrogateescape")
    joined = urls.join(base, reference)
    if urls.is_absolute(reference):
        assert joined == reference
    else:
        assert urls.origin(joined) == urls.origin(base) or not urls.origin(base)
        assert ".." not in urllib.parse.urlsplit("")[2].split("/")
        if urls.origin(base):
            path = joined[len(urls.origin(base)) :]
            assert path.startswith("/")
            assert not path.startswith("//")
            assert not {"..", "."} & set(path.split("/"))
            assert urls.join(base, path) == joined
    assert urls.without_credentials(urls.without_credentials(joined)) == urls.without_credentials(joined)
    if not urls.is_absolute(joined):
        return
    origin = urls.origin(joined)
    assert joined.startswith(origin)
    forms = urls.escape(joined)
    assert 1 <= len(forms) <= 2
    for form in forms:
        path = form[len(origin) :]
        assert form.startswith(origin + "/")
        assert re.fullmatch("[!-~]+", path)
        assert "#" not in path
        assert urls.escape(form)[0] == form
    wanted = joined[len(origin) :].encode("utf-8", "surrogateescape")
    assert urllib.parse.unquote_to_bytes(forms[-1][len(origin) :]).removeprefix(b"/") == (
        wanted.removeprefix(b"/")
        if len(forms) == 2
        else urllib.parse.unquote_to_bytes(wanted).removeprefix(b"/")
    )


_FIELDS = ("Content-Length", "Content-Range", "Content-Encoding", "Content-Type", "ETag", "Last-Modified")
_VALUES = (
    "bytes 5-9/10",
    "bytes */10",
    "10",
    "gzip",
    "text/html; charset=x",
    '"tag"',
    "Tue, 15 Nov 1994 08:12:31 GMT",
)
_STATUS = (200, 206, 301, 304, 404, 416, 429, 500, 503)


def http_answer(data: bytes) -> None:
    """Whatever a server says before the body is an answer to what was asked, or a fetch error."""
    choices = Choices(data)
    request = Request(
        "http://h/x",
        offset=choices.of((0, 5)),
        length=choices.of((None, 10)),
        max_length=choices.of((1 << 40, 9)),
        etag=choices.of(("", '"tag"')),
    )
    status, asking = choices.of(_STATUS), choices.flag()
    fields = {}
    while choices:
        field = choices.of((*_FIELDS, "Retry-After"))
        value = choices.of(_VALUES) if choices.flag() else choices.block(80).decode("latin-1")
        fields[field] = value
    header = http_header.Header(status, "phrase", fields, "http://h/x")
    try:
        answer = http_header.judge(request, header, asking=asking)
    except FetchError as error:
        one_line(error)
        retry_s = getattr(error, "retry_after_s", None)
        assert retry_s is None or 0 <= retry_s <= 3600
        return
    if answer.not_modified:
        assert request.etag
        return
    assert answer.offset in ((0,) if asking else (0, request.offset))
    assert answer.length is None or 0 <= answer.length <= request.max_length
    assert request.length is None or answer.length in (None, request.length)
    assert answer.etag.isascii()
    assert answer.last_modified.isprintable()


def parts(data: bytes) -> None:
    """A list of parts is read line by line, and a list that we write of them is the same."""
    text = data.decode("utf-8", "replace")
    for whole in (text, part_list.FIRST_LINE + text):
        try:
            found = list(part_list.parse(whole, "x"))
        except FormatError as error:
            one_line(error)
            continue
        assert len(set(found)) == len(found)
        lines = [part_list.line(part, text[:100]) for part in found]
        assert list(part_list.parse(part_list.FIRST_LINE + "".join(lines), "x")) == found
        bare = "".join(part_list.line(part, "") for part in found)
        cut = part_list.FIRST_LINE + bare[: -1 - len(data) % 30]  # perhaps within the last length
        assert list(part_list.parse(cut, "x")) in (found, found[:-1])


def control_request(data: bytes) -> None:
    """What a client sends is a request that can be answered, or a word why not."""

    async def converse() -> Mapping[str, object]:
        theirs, ours = trio.testing.memory_stream_pair()
        await theirs.send_all(data[: server.MAX_REQUEST_BYTES])
        await theirs.send_eof()
        return await server._request(ours)  # type: ignore[arg-type]  # it only receives

    try:
        request = trio.run(converse)
    except UsageError as error:
        one_line(error)
        return
    assert isinstance(request["do"], str)
    json.dumps(request).encode()
    try:
        wish, rate = prefetching.parse(request)
    except JigdofsError as error:
        one_line(error)
        return
    assert rate is None or 0 <= rate <= 1 << 62
    assert all(isinstance(glob, str) for glob in wish.globs)
    assert wish.range is None or len(wish.range) == 2
