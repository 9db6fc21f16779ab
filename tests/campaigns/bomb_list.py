"""All bombs that are files: what each is, which verbs take it, and how it may end."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, repeat
from pathlib import Path

from tests.campaigns.bomb_makers import (
    ANY,
    BATCH,
    BLOCK,
    Bomb,
    Files,
    Pieces,
    chunk,
    chunk_of_zeros,
    compressed,
    digest,
    gzip_of,
    info,
    jigdo_head,
    key,
    lines,
    part,
    raw,
    small_template,
    template,
    u48,
    with_template,
    with_text,
    write,
    zeros,
)

JIGDO = ("info", "mount", "download", "print-missing")
TEMPLATE = ("info", "mount", "download", "list-template", "print-missing", "verify", "make-image")


def _gz_of_gz(directory: Path) -> Files:
    inner = gzip.compress(b"".join(gzip_of(64 << 20)), 9)
    return compressed(directory, [inner])


def _members(directory: Path, count: int) -> Files:
    head = gzip.compress(b"[Jigdo]\nVersion=1.2\n")
    return compressed(directory, chain([head], repeat(gzip.compress(b"#\n"), count)))


def _part_lines(count: int) -> Iterator[str]:
    return chain(
        ["[Parts]"],
        (f"{key(number)}=Debian:pool/{number}" for number in range(count)),
        ["[Servers]", "Debian=http://127.0.0.1:9/"],
    )


def _doubling(labels: int) -> Iterator[str]:
    yield from ("[Parts]", f"{key(0)}=L0:x", "[Servers]")
    for number in range(labels):
        yield f"L{number}=L{number + 1}:a"
        yield f"L{number}=L{number + 1}:b"


def _many_entries(count: int, length: int) -> Iterator[bytes]:
    entry = raw(length) * BATCH
    return chain(repeat(entry, count // BATCH), [info(count // BATCH * BATCH * length)])


def _many_parts(count: int) -> Iterator[bytes]:
    numbers = iter(range(count))
    while some := list(islice(numbers, BATCH)):
        yield b"".join(part(1, digest(number)) for number in some)
    yield info(count)


def tiny_parts(directory: Path, count: int) -> Files:
    """Write an image of so many parts of one byte that a mirror has none of; each has a line."""
    of = template(directory / "bomb.template", _many_parts(count))
    return Files(
        write(directory / "bomb.jigdo", chain([jigdo_head(of).encode()], lines(_part_lines(count)))), of
    )


def _chunks(count: int) -> Iterator[bytes]:
    return repeat(chunk(zlib.compress(b"x")), count)


def _zeros_chunk(length: int, claimed: int) -> Callable[[Path], Files]:
    def make(directory: Path) -> Files:
        return with_template(directory, [raw(claimed), info(claimed)], [chunk_of_zeros(length, claimed)])

    return make


def _bzip2(directory: Path) -> Files:
    packer = bz2.BZ2Compressor(9)
    data = b"".join([*(packer.compress(piece) for piece in zeros(1 << 28)), packer.flush()])
    piece = b"BZIP" + u48(16 + len(data)) + u48(1 << 28) + data
    return with_template(directory, [raw(1 << 28), info(1 << 28)], [piece])


HOSTILE_NAMES = {
    "climbs": "../../../../tmp/bomb-escaped.iso",
    "absolute": "/tmp/bomb-escaped.iso",
    "nul": "a\0b.iso",
    "carriage-return": "a\rb.iso",
    "long": "x" * 4000 + ".iso",
    "wide": "\u96ea" * 300 + ".iso",
    "dot": ".",
    "dots": "..",
    "hidden": ".bashrc",
    "empty-leaf": "dir/",
    "escapes": "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b1m.iso",
    "right-to-left": "\u202egpj.iso",
    "no-utf-8": "\udcff\udcfe.iso",
    "option": "-rf",
}


def _named(filename: str, reference: str = "bomb.template") -> Callable[[Path], Files]:
    def make(directory: Path) -> Files:
        return with_text(
            directory,
            ["[Parts]", f"{key(0)}=Debian:pool/{filename}", "[Servers]", "Debian=http://127.0.0.1:9/"],
            filename=filename,
            reference=reference,
        )

    return make


def _text(texts: Callable[[], Iterable[str]]) -> Callable[[Path], Files]:
    return lambda directory: with_text(directory, texts())


def _entries(
    entries: Callable[[], Pieces], chunks: Callable[[], Pieces] = tuple, claimed: int | None = None
) -> Callable[[Path], Files]:
    return lambda directory: with_template(directory, entries(), chunks(), claimed)


def bombs(seed: int) -> Iterator[Bomb]:
    """Yield all bombs that are files; the seed varies their sizes a little, and nothing else."""
    some = random.Random(seed)
    vary = some.randrange(1000)
    million, big = 1_000_000 + vary, 10_000_000 + vary * 100
    # .jigdo
    yield Bomb(
        "gz-10-gb", lambda to: compressed(to, gzip_of(10 << 30)), JIGDO, hint="larger than", short=True
    )
    yield Bomb("gz-of-gz", _gz_of_gz, JIGDO)
    yield Bomb("gz-members", lambda to: _members(to, million), JIGDO, hint="pieces")
    yield Bomb("bz2-named-gz", lambda to: compressed(to, [bz2.compress(bytes(1 << 20))]), JIGDO, ANY)
    yield Bomb("xz-named-gz", lambda to: compressed(to, [lzma.compress(bytes(1 << 20))]), JIGDO, ANY)
    yield Bomb("gz-cut", lambda to: compressed(to, islice(gzip_of(1 << 30), 20)), JIGDO, hint="cut short")
    yield Bomb(
        "line-of-1-gb",
        lambda to: _one_line(to, 1 << 30),
        JIGDO,
        hint="larger than",
        short=True,
    )
    yield Bomb(
        "line-of-50-mb", lambda to: _one_line(to, 25 << 20), JIGDO, hint="line of more than", short=True
    )
    yield Bomb("part-lines", _text(lambda: _part_lines(550_000 + vary)), JIGDO, hint="more than", short=True)
    yield Bomb(
        "part-lines-same", _text(lambda: ["[Parts]", *repeat(f"{key(0)}=Debian:x", 400_000)]), JIGDO, ANY
    )
    yield Bomb(
        "server-lines",
        _text(lambda: chain(["[Servers]"], (f"L{n}=http://127.0.0.1:9/" for n in range(million)))),
        JIGDO,
        hint="lines",
    )
    yield Bomb("image-sections", _text(lambda: repeat("[Image]", million)), JIGDO, hint="images")
    yield Bomb("headers", _text(lambda: repeat("[X]", million)), JIGDO, hint="lines")
    yield Bomb(
        "comments",
        _text(lambda: chain(["[Image]"], repeat("# Image Hex MD5Sum " + "0" * 32, 300_000 + vary))),
        JIGDO,
        hint="lines",
    )
    yield Bomb(
        "labels-double", _text(lambda: _doubling(40_000)), (*JIGDO, "print-missing-all"), ANY, short=True
    )
    yield Bomb(
        "labels-cycle",
        _text(lambda: ["[Parts]", f"{key(0)}=A:x", "[Servers]", "A=B:", "B=C:", "C=A:", "C=C:"]),
        (*JIGDO, "print-missing-all"),
        ANY,
    )
    yield Bomb("labels-million", _text(lambda: _doubling(300_000 + vary)), JIGDO, hint="lines")
    yield Bomb(
        "include-self",
        _text(lambda: ["[Include bomb.jigdo]"]),
        ("info", "mount", "download"),
        hint="itself",
        short=True,
    )
    yield Bomb("include-dev", _text(lambda: ["[Include /dev/zero]"]), ("info", "mount", "download"))
    # names
    for what, name in HOSTILE_NAMES.items():
        yield Bomb(
            f"name-{what}",
            _named(name),
            ("info", "download", "mount"),
            ANY,
            short=what in ("climbs", "escapes"),
        )
    for what in ("climbs", "absolute", "nul", "long", "escapes"):
        yield Bomb(f"template-{what}", _named("x.iso", HOSTILE_NAMES[what]), ("info", "download"), ANY)
    # .template
    yield Bomb(
        "entries-10-million", _entries(lambda: _many_entries(big, 1)), TEMPLATE, hint="entries", short=True
    )
    yield Bomb(
        "entries-million-1", _entries(lambda: _many_entries(million, 1)), TEMPLATE, hint="entries", short=True
    )
    yield Bomb("entries-million-0", _entries(lambda: _many_entries(million, 0)), TEMPLATE, hint="entries")
    yield Bomb("entries-just-enough", _entries(lambda: _many_entries(500_000, 1)), TEMPLATE, ANY)
    yield Bomb(
        "parts-million-1", lambda to: with_template(to, _many_parts(million)), TEMPLATE, hint="more than"
    )
    yield Bomb("parts-just-enough", lambda to: tiny_parts(to, 250_000), TEMPLATE, ANY)
    yield Bomb(
        "chunks-million",
        _entries(lambda: [raw(million), info(million)], lambda: _chunks(million)),
        ("info", "mount", "download", "make-image"),
        hint="chunks",
        short=True,
    )
    yield Bomb(
        "chunks-100000",
        _entries(lambda: [raw(100_000), info(100_000)], lambda: _chunks(100_000)),
        ("info", "mount", "download"),
        ANY,
    )
    yield Bomb("chunk-1-gb", _zeros_chunk(1 << 30, 1 << 30), ("info", "mount", "download", "make-image"), ANY)
    yield Bomb(
        "chunk-more", _zeros_chunk(1 << 28, 1000), ("mount", "download", "make-image"), ANY, short=True
    )
    yield Bomb(
        "chunk-less", _zeros_chunk(1000, 1 << 30), ("mount", "download", "make-image"), ANY, short=True
    )
    yield Bomb(
        "chunk-claims-2-47",
        _zeros_chunk(1000, 1 << 47),
        ("info", "mount", "download", "make-image"),
        ANY,
        short=True,
    )
    yield Bomb("bzip2", _bzip2, ("mount", "download", "make-image"), ANY)
    yield Bomb(
        "desc-lies-long", _entries(lambda: [info(0)], claimed=1 << 47), TEMPLATE, hint="invalid", short=True
    )
    yield Bomb("desc-lies-short", _entries(lambda: [raw(5), info(5)], claimed=20), TEMPLATE)
    yield Bomb(
        "lengths-2-63",
        _entries(lambda: [*repeat(part((1 << 48) - 1, digest(1)), 70_000), info(1 << 47)]),
        TEMPLATE,
        ANY,
        short=True,
    )
    yield Bomb(
        "length-2-47", _entries(lambda: [part(1 << 47, digest(0)), info(1 << 47)]), TEMPLATE, ANY, short=True
    )
    yield Bomb("infos", _entries(lambda: repeat(info(0), 300_000)), TEMPLATE, ANY)


def _one_line(directory: Path, length: int) -> Files:
    of = small_template(directory)
    pieces = chain([jigdo_head(of).encode(), b"[Parts]\n"], repeat(b"x" * BLOCK, length // BLOCK), [b"\n"])
    return Files(write(directory / "bomb.jigdo", pieces), of)


def beside() -> Iterator[tuple[str, Callable[[Path], Files]]]:
    """Yield hostile images that can be mounted, each with its name."""
    yield "tiny parts", lambda to: tiny_parts(to, 250_000)
    yield "a chunk of 1 GB", _zeros_chunk(1 << 30, 1 << 30)
    yield "tiny chunks", _entries(lambda: [raw(130_000), info(130_000)], lambda: _chunks(130_000))
    yield "one key", _text(lambda: ["[Parts]", *repeat(f"{key(0)}=Debian:x", 400_000)])
