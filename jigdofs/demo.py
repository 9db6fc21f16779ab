"""The material of `jigdofs demo`: a small image in parts, its .jigdo and .template, and a mirror.

Everything lies in one directory that the caller removes; the mirror listens on loopback only.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jigdofs import __version__
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.jigdo_writer import Description, write_jigdo
from jigdofs.format.rsync64 import Rsync64
from jigdofs.format.template import Entry, ImageInfo, MatchedFile, UnmatchedData
from jigdofs.format.template_writer import TemplateWriter

PART_COUNT = 24
BLOCK_LENGTH = 1024
_SECTOR = 2048  # like an ISO, every part begins on a sector
_SEED = 20021111
_CREATOR = f"jigdofs/{__version__}"


@dataclass(frozen=True, slots=True)
class DemoPart:
    """A part as it lies on the mirror and in the image."""

    path: str
    offset: int
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DemoImage:
    """What was built.

    Attributes:
        name: of the image file.
        size: bytes.
        sha256: hex digest.
        parts: in image order.
        template_size: bytes.
    """

    name: str
    size: int
    sha256: str
    parts: tuple[DemoPart, ...]
    template_size: int


def build(directory: Path, part_count: int = PART_COUNT) -> DemoImage:
    """Write `demo.jigdo`, `demo.template` and `pool/` into a directory, as a publisher would."""
    noise = random.Random(_SEED)  # noqa: S311  the same image each time
    sha256 = hashlib.sha256()
    parts: list[DemoPart] = []
    entries: list[Entry] = []
    locations: list[tuple[Checksum, str]] = []
    position = 0
    template_path = directory / "demo.template"
    with template_path.open("xb") as out:
        writer = TemplateWriter(out, Algorithm.SHA256, creator=_CREATOR)

        def raw(data: bytes) -> None:
            nonlocal position
            writer.raw_data(data)
            entries.append(UnmatchedData(len(data)))
            sha256.update(data)
            position += len(data)

        raw(_table_of_contents(part_count))
        for number in range(part_count):
            data = noise.randbytes(noise.randrange(20_000, 800_000))
            checksum = Checksum.of(Algorithm.SHA256, data)
            path = f"pool/p/part{number:02}/part{number:02}_1.0_all.deb"
            (directory / path).parent.mkdir(parents=True)
            (directory / path).write_bytes(data)
            locations.append((checksum, f"Demo:{path}"))
            entries.append(MatchedFile(len(data), checksum, Rsync64(data[:BLOCK_LENGTH]).digest()))
            parts.append(DemoPart(path, position, len(data), checksum.hex))
            sha256.update(data)
            position += len(data)
            raw(bytes(-position % _SECTOR) or bytes(_SECTOR))
        entries.append(ImageInfo(position, Checksum(sha256.digest()), BLOCK_LENGTH))
        writer.finish(entries)
    template = template_path.read_bytes()
    description = Description(
        filename="demo.img",
        template="demo.template",
        template_checksums=(Checksum.of(Algorithm.SHA256, template),),
        parts=tuple(locations),
        servers=(("Demo", ""),),
        generator=_CREATOR,
    )
    (directory / "demo.jigdo").write_bytes(write_jigdo(description))
    return DemoImage("demo.img", position, sha256.hexdigest(), tuple(parts), len(template))


def _table_of_contents(part_count: int) -> bytes:
    """Return what stands in front of the parts: text, as a real image has directories there."""
    lines = [f"this is part {number:02} of the demo image\n" for number in range(part_count)]
    text = "".join(lines).encode()
    return text + bytes(-len(text) % _SECTOR + 32 * _SECTOR)


class Mirror:
    """A web server for one directory that remembers what it was asked for."""

    def __init__(self, directory: Path) -> None:
        self.requests: list[str] = []
        handler = functools.partial(_Handler, self.requests, directory=str(directory))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the block ends."""
        thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()

    def fetched_parts(self) -> int:
        """Count the distinct parts somebody asked for."""
        return len({path for path in self.requests if path.startswith("/pool/")})


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serve files over kept-alive connections and note each request."""

    protocol_version = "HTTP/1.1"

    def __init__(self, requests: list[str], *arguments: object, **keywords: object) -> None:
        self._requests = requests
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]  # passed on as they came

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name the class has
        """Say nothing; note what was asked for."""
        if "%s" in format and self.command == "GET" and format.startswith('"'):
            self._requests.append(self.path)
