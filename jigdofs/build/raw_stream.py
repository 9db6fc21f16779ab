"""All raw data of an image from its beginning to its end, cut to measure."""

from __future__ import annotations

from collections.abc import Iterator

from jigdofs.build.blueprint import Blueprint
from jigdofs.image.raw_data import inflate


class RawStream:
    """Read raw data forward; the template must hold as much as is read.

    Args:
        blueprint: of the image.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self._pieces = _inflated(blueprint)
        self._rest = memoryview(b"")

    def read(self, length: int) -> Iterator[memoryview]:
        """Yield the next bytes, in pieces of at most 1 MiB; raise `FormatError` where they are damaged."""
        while length:
            while not self._rest:
                self._rest = memoryview(next(self._pieces))
            taken, self._rest = self._rest[:length], self._rest[length:]
            length -= len(taken)
            yield taken


def _inflated(blueprint: Blueprint) -> Iterator[bytes]:
    for chunk in blueprint.chunks:
        yield from inflate(blueprint.template_file, chunk)
