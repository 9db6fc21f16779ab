"""What the image needs from below: a way to open verified bytes, by any key.

`parts` implements these protocols; it is not imported here, nor this there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, TypeVar

Key_contra = TypeVar("Key_contra", contravariant=True)


class OpenFile(Protocol):
    """An open file whose whole content was verified."""

    @property
    def fd(self) -> int:
        """Descriptor to `pread` from; valid until the next await unless pinned."""

    @property
    def start(self) -> int:
        """Offset in it at which the verified bytes begin."""

    @property
    def fetched_s(self) -> float:
        """When it was fetched from a mirror, by trio's clock; long ago if it was here already."""

    def unchanged(self) -> bool:
        """Tell whether it is still what was verified; to be asked after reading."""

    def unpin(self) -> None:
        """Allow the descriptor to be closed again."""


class Opener(Protocol[Key_contra]):
    """A source of verified files: parts by checksum, raw data by chunk number."""

    def peek(self, key: Key_contra) -> OpenFile | None:
        """Return the file if it is open already; it may be used until the next await."""

    async def open(self, key: Key_contra) -> OpenFile:
        """Return the file, pinned, obtaining it first if need be; raise `JigdofsError`."""

    def hint(self, key: Key_contra) -> None:
        """Say that the file will probably be wanted soon; return at once."""


class ChunkSlice(NamedTuple):
    """A piece of one chunk: number, offset within the inflated chunk, length."""

    number: int
    offset: int
    length: int


class RawBytes(Opener[int], Protocol):
    """The raw data of an image: a source of chunks, by number."""

    def slices(self, offset: int, length: int) -> Iterator[ChunkSlice]:
        """Yield the pieces of chunks that hold a range of the raw data."""
