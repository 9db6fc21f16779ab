"""What a .jigdo from the net may try: to lead on for ever, to reach local files, to take passwords along."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from jigdofs.format.checksum import to_base64
from tests.campaigns.bomb_makers import (
    REFUSED,
    Bomb,
    Files,
    chunk,
    info,
    jigdo_head,
    part,
    raw,
    template,
)
from tests.campaigns.bomb_runs import Run, run_bomb
from tests.campaigns.bomb_server import HostileServer, Page, hostile_server

SECRET = b"local secret that no .jigdo from the net may name\n" * 20
PASSWORD = "pa55word"
_UNAVAILABLE = frozenset({1})


Put = Callable[[HostileServer, HostileServer, HostileServer, Path], str]


@dataclass(frozen=True, slots=True)
class NetBomb:
    """A bomb at a URL.

    Attributes:
        name: of it.
        put: puts it onto the servers (the one asked, another, one with TLS), given the path of a local file
            that is as secret as its checksum is known; returns the URL.
        verbs: which take it.
        codes: they may end with.
        hint: in the one line they end with where that is refused.
    """

    name: str
    put: Put
    verbs: tuple[str, ...] = ("info", "download")
    codes: frozenset[int] = REFUSED
    hint: str = ""


def _image(server: HostileServer, directory: Path, target: str, servers: str = "") -> str:
    """Publish an image whose one part is the secret file, said to lie at this target."""
    digest = hashlib.md5(SECRET, usedforsecurity=False).digest()
    of = template(
        directory / "net.template",
        [
            raw(4),
            part(len(SECRET), digest),
            info(len(SECRET) + 4, hashlib.md5(b"raw." + SECRET, usedforsecurity=False).digest()),
        ],
        [chunk(zlib.compress(b"raw."))],
    )
    server.text("/net.template", of.read_bytes())
    text = (
        jigdo_head(of, reference="net.template")
        + f"[Parts]\n{to_base64(digest)}={target}\n[Servers]\n{servers}"
    )
    return server.text("/net.jigdo", text)


def _names(target: str, servers: str = "") -> Put:
    def put(server: HostileServer, other: HostileServer, _tls: HostileServer, secret: Path) -> str:
        fill = {"secret": str(secret), "other": other.url(""), "port": other.port}
        return _image(server, secret.parent, target.format(**fill), servers.format(**fill))

    return put


def _template_at(reference: str) -> Put:
    def put(server: HostileServer, _other: HostileServer, _tls: HostileServer, secret: Path) -> str:
        _image(server, secret.parent, "x")
        local = secret.parent / "net.template"
        text = jigdo_head(local, reference=reference.format(local=local))
        del server.pages["/net.template"]
        return server.text("/other.jigdo", text)

    return put


def _redirected(location: str) -> Put:
    def put(server: HostileServer, other: HostileServer, _tls: HostileServer, secret: Path) -> str:
        other.text("/there.jigdo", "[Jigdo]\n")
        where = location.format(secret=secret, other=other.url("/there.jigdo"))
        server.pages["/away.jigdo"] = Page(location=where)
        return server.url("/away.jigdo", f"me:{PASSWORD}@")

    return put


def _including(target: str) -> Put:
    return lambda server, *_others: server.text("/i.jigdo", f"[Include {target}]\n")


def _at(path: str) -> Put:
    return lambda server, _other, _tls, _secret: server.url(path)


def _endless_template(server: HostileServer, _other: HostileServer, _tls: HostileServer, secret: Path) -> str:
    url = _image(server, secret.parent, "x")
    server.pages["/net.template"] = Page(lambda: repeat(bytes(1 << 20)), length=100 << 30)
    return url


def _ring(server: HostileServer, _other: HostileServer, _tls: HostileServer, _secret: Path) -> str:
    server.text("/b.jigdo", "[Include a.jigdo]\n")
    return server.text("/a.jigdo", "[Include b.jigdo]\n")


def net_bombs() -> Iterator[NetBomb]:
    """Yield what comes from a server."""
    yield NetBomb("net-endless", _at("/endless/x.jigdo"), codes=frozenset({1, 3}), hint="sends more than")
    yield NetBomb("net-include-two", _at("/two/1.jigdo"), hint="too many includes")
    yield NetBomb("net-include-deep", _at("/deep/1.jigdo"), hint="too many includes")
    yield NetBomb("net-include-ring", _ring, hint="back to itself")
    yield NetBomb("net-redirects", _at("/round/1.jigdo"), codes=_UNAVAILABLE)
    yield NetBomb("net-template-100-gb", _endless_template, codes=frozenset({1, 2, 3}))
    for number, target in enumerate(
        ("file:{secret}", "file://{secret}", "FILE:{secret}", "{secret}", "//{secret}", "ftp://127.0.0.1{secret}",
         "data:,x", "../../../../../../../..{secret}", "L:", "M:{secret}")
    ):  # fmt: skip
        yield NetBomb(
            f"net-part-{number}",
            _names(target, "L=file:{secret}\nM=file:\nM=/\nM=//127.0.0.1/\n"),
            ("download", "mount"),
            frozenset({0, 1}),
        )
    for number, reference in enumerate(
        ("file:{local}", "{local}", "../../../../../../..{local}", "file://{local}")
    ):
        yield NetBomb(f"net-template-{number}", _template_at(reference), codes=_UNAVAILABLE)
    for target in ("/etc/passwd", "file:/etc/passwd", "file:///etc/passwd"):
        yield NetBomb(f"net-include-{target.replace('/', '-')}", _including(target), codes=frozenset({1, 3}))
    for location in ("file://{secret}", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "{other}"):
        kind = location.partition(":")[0].strip("{}")
        yield NetBomb(f"net-redirect-{kind}", _redirected(location), codes=frozenset({1, 3}))
    yield NetBomb("net-redirect-from-https", _from_tls, codes=_UNAVAILABLE, hint="")


def _from_tls(_server: HostileServer, other: HostileServer, tls: HostileServer, _secret: Path) -> str:
    other.text("/there.jigdo", "[Jigdo]\n")
    tls.pages["/away.jigdo"] = Page(location=other.url("/there.jigdo"))
    return tls.url("/away.jigdo")


def run_net(bomb: NetBomb, directory: Path) -> Iterator[Run]:
    """Run all verbs on a bomb from the net; judge what was asked of whom, too."""
    directory.mkdir()
    secret = directory / "secret"
    secret.write_bytes(SECRET)
    with hostile_server() as server, hostile_server() as other, hostile_server(directory) as tls:
        url = bomb.put(server, other, tls, secret)
        for verb in bomb.verbs:
            home = directory / verb / "home"
            home.mkdir(parents=True)
            as_file = Bomb(bomb.name, lambda _to: Files(Path(), Path()), (), bomb.codes, bomb.hint)
            environ = {"SSL_CERT_FILE": str(directory / "ca.pem")}
            run = run_bomb(as_file, verb, Files(url, Path()), home, environ)
            if any(SECRET[:40] in path.read_bytes() for path in home.rglob("*") if path.is_file()):
                run.problems.append("a local file was read for a .jigdo from the net")
            if PASSWORD in run.errors:
                run.problems.append("a password is shown")
            if any(authorization or cookie for _, authorization, cookie in other.asked):
                run.problems.append("credentials went elsewhere")
            if bomb.put is _from_tls and (other.asked or not tls.asked):
                run.problems.append("https was left for http, or never asked")
            yield run
