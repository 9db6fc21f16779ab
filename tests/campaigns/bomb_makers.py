"""Make inputs that are small to send and large to take in: every one written to disk piece by piece.

A .jigdo here names its template with the right checksum, so that what comes out is a judgement of the bomb
and not of a template that is another one. The makers hold no more than some MiB, as the peak of a child
process counts from the size of the process that starts it.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, repeat
from pathlib import Path

from jigdofs.format.checksum import to_base64

HEADER = b"JigsawDownload template 1.2 bombs/1 \r\nno comment \r\n\r\n"
_INFO_KEY = bytes(16)
BLOCK = 1 << 20
BATCH = 4096

Pieces = Iterable[bytes]

REFUSED = frozenset({3})
"""Exit codes of what must be refused."""
ANY = frozenset({0, 1, 2, 3})
"""Exit codes of what may also be taken, as long as it costs little."""


def u48(number: int) -> bytes:
    """Pack a number as templates have them."""
    return number.to_bytes(6, "little")


def raw(length: int) -> bytes:
    """Return the entry of unmatched data."""
    return b"\x02" + u48(length)


def part(length: int, digest: bytes) -> bytes:
    """Return the entry of a part by MD5."""
    return b"\x06" + u48(length) + bytes(8) + digest


def info(length: int, digest: bytes = _INFO_KEY) -> bytes:
    """Return the entry of the whole image."""
    return b"\x05" + u48(length) + digest + struct.pack("<I", 0)


def chunk(data: bytes, claimed: int | None = None) -> bytes:
    """Return a chunk of deflated data that claims to inflate to so many bytes."""
    return (
        b"DATA" + u48(16 + len(data)) + u48(len(zlib.decompress(data)) if claimed is None else claimed) + data
    )


def digest(number: int) -> bytes:
    """Return a checksum that no data has, as far as anybody knows."""
    return hashlib.md5(number.to_bytes(8, "big"), usedforsecurity=False).digest()


def key(number: int) -> str:
    """Return the same as a .jigdo writes it."""
    return to_base64(digest(number))


def lines(texts: Iterable[str]) -> Iterator[bytes]:
    """Join lines to pieces of some hundred KiB."""
    texts = iter(texts)
    while some := list(islice(texts, BATCH)):
        yield ("\n".join(some) + "\n").encode("utf-8", "surrogateescape")


def deflated(pieces: Pieces, wbits: int = 15) -> bytes:
    """Compress what may be large to what must be small."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join([*(packer.compress(piece) for piece in pieces), packer.flush()])


def zeros(length: int) -> Iterator[bytes]:
    """Yield so many zero bytes."""
    block = bytes(BLOCK)
    yield from repeat(block, length // BLOCK)
    yield bytes(length % BLOCK)


def gzip_of(length: int) -> Iterator[bytes]:
    """Yield one gzip member that inflates to so many zero bytes: blocks that know nothing of each other."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
    yield from repeat(block, length // BLOCK)
    yield deflated([b""], -15) + bytes(8)


@dataclass(frozen=True, slots=True)
class Files:
    """A .jigdo, by path or URL, and its template on disk."""

    jigdo: Path | str
    template: Path


@dataclass(frozen=True, slots=True)
class Bomb:
    """Something hostile.

    Attributes:
        name: of the bomb, a path component.
        make: writes it into an empty directory.
        verbs: which take it.
        codes: exit codes it may end with: 3 where it must be refused.
        hint: a text of the one line it ends with, such as the name of the limit; "" for any.
        jigdo_name: what the .jigdo is called.
    """

    name: str
    make: Callable[[Path], Files]
    verbs: tuple[str, ...]
    codes: frozenset[int] = REFUSED
    hint: str = ""
    short: bool = field(default=False, kw_only=True)


def write(path: Path, pieces: Pieces) -> Path:
    """Write a file piece by piece."""
    with path.open("wb") as file:
        file.writelines(pieces)
    return path


def md5_of(path: Path) -> bytes:
    """Return the checksum of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()


def template(path: Path, entries: Pieces, chunks: Pieces = (), claimed: int | None = None) -> Path:
    """Write a template; `claimed` is a length of its table of entries that may be a lie."""
    with path.open("wb") as file:
        file.write(HEADER)
        file.writelines(chunks)
        begin = file.tell()
        file.write(b"DESC" + bytes(6))
        file.writelines(entries)
        length = file.tell() - begin + 6 if claimed is None else claimed
        file.write(u48(length))
        file.seek(begin + 4)
        file.write(u48(length))
    return path


def small_template(directory: Path) -> Path:
    """Write a template that is in order: one part and a little data."""
    data = zlib.compress(b"unmatched data")
    entries = [raw(14), part(1000, digest(0)), info(1014)]
    return template(directory / "bomb.template", entries, [chunk(data)])


def jigdo_head(of: Path, filename: str = "bomb.iso", reference: str = "bomb.template") -> str:
    """Return the beginning of a .jigdo."""
    checksum = to_base64(md5_of(of))
    return (
        "[Jigdo]\nVersion=1.2\nGenerator=bombs/1\n\n"
        f"[Image]\nFilename={filename}\nTemplate={reference}\nTemplate-MD5Sum={checksum}\n"
    )


def with_text(directory: Path, texts: Iterable[str], name: str = "bomb.jigdo", **head: str) -> Files:
    """Write a good template and a .jigdo with these lines."""
    of = small_template(directory)
    return Files(
        write(
            directory / name, chain([jigdo_head(of, **head).encode("utf-8", "surrogateescape")], lines(texts))
        ),
        of,
    )


def with_template(
    directory: Path,
    entries: Pieces,
    chunks: Pieces = (),
    claimed: int | None = None,
    servers: str = "http://127.0.0.1:9/",
) -> Files:
    """Write a template and a .jigdo that is in order."""
    of = template(directory / "bomb.template", entries, chunks, claimed)
    parts = [f"{key(0)}=Debian:pool/a.deb"]
    text = lines(["[Parts]", *parts, "[Servers]", f"Debian={servers}"])
    return Files(write(directory / "bomb.jigdo", chain([jigdo_head(of).encode()], text)), of)


def compressed(directory: Path, pieces: Pieces, name: str = "bomb.jigdo.gz") -> Files:
    """Write a good template and these bytes as .jigdo."""
    return Files(write(directory / name, pieces), small_template(directory))


def chunk_of_zeros(length: int, claimed: int) -> bytes:
    """Return a chunk that inflates to so many zeros and claims so many."""
    data = deflated(zeros(length))
    return b"DATA" + u48(16 + len(data)) + u48(claimed) + data
