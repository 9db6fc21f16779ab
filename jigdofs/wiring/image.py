"""An image that can be read: all that is known and held of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jigdofs.contents.contents import ImageContents
from jigdofs.image.layout import Layout
from jigdofs.image.reader import ImageReader
from jigdofs.parts.presence import Presence
from jigdofs.parts.store import PartStore
from jigdofs.plain_image import PlainImage


@dataclass(frozen=True, slots=True)
class Image:
    """An image that can be read.

    Attributes:
        name: its leaf name, unlike that of any other image.
        identity: what tells its content from any other: the hex digest of it, or of what makes it.
        reader: reads it.
        presence: tells what of it is here.
        mtime_ns: when it was last changed.
        contents: the files inside, if it is an ISO.
        store: where its parts are had; None for an image that lies here as a whole.
        source: path or URL of the .jigdo, or of the image that lies here.
        checksums: of the whole, as far as the template tells: `md5` and `sha256`, in hex.
        raw_keys: of the files in the cache that its unmatched data is kept in.
    """

    name: str
    identity: str
    reader: ImageReader
    presence: Presence | PlainImage
    mtime_ns: int
    contents: ImageContents
    store: PartStore | None = None
    source: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)
    raw_keys: tuple[str, ...] = ()

    @property
    def present_bytes(self) -> int:
        """Bytes that can be read without fetching anything."""
        return self.presence.bytes

    @property
    def length(self) -> int:
        """Bytes of it."""
        return self.layout.length

    @property
    def layout(self) -> Layout:
        """Where its bytes come from."""
        return self.reader.layout
