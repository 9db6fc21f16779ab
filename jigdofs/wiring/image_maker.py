"""Make images that can be read, of what was loaded or lies here as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jigdofs.config import CacheOptions, FetchOptions, InputOptions, ReadOptions
from jigdofs.contents.contents import ImageContents
from jigdofs.image.raw_data import RawData
from jigdofs.image.reader import ImageReader
from jigdofs.load import LoadedImage
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.locations import Locator
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.presence import Presence
from jigdofs.parts.recorder import RecordedParts, Recorder
from jigdofs.parts.small_files import keep_small, read_small
from jigdofs.parts.store import Local, PartStore
from jigdofs.plain_image import NoParts, PlainImage
from jigdofs.wiring.adjusting import readahead_bytes
from jigdofs.wiring.foundation import Foundation, load_template_again
from jigdofs.wiring.image import Image
from jigdofs.wiring.noted_images import tree_key


@dataclass(frozen=True, slots=True)
class ImageMaker:
    """What all images of a mount or server are made with.

    Attributes:
        house: cache and fetcher.
        start_soon: runs a task until the end.
        objects: has files, by key.
        acquirer: has parts from their locations.
        recorder: writes down which parts are touched, or None.
        find: finds a part among local files; None where none were named.
        inputs: which images, and which mirrors are preferred.
        cache_options: bound readahead.
        fetch_options: how a template is had again.
        read_options: bound reads.
        renewed: open descriptors of templates that had to be had again; the caller closes them.
    """

    house: Foundation
    start_soon: Callable[..., None]
    objects: ObjectStore
    acquirer: Acquirer
    recorder: Recorder | None
    find: Local | None
    inputs: InputOptions
    cache_options: CacheOptions | None
    fetch_options: FetchOptions
    read_options: ReadOptions
    renewed: list[int]

    def from_parts(self, name: str, image: LoadedImage) -> Image:
        """Make an image that is put together from its template and parts."""
        presence = Presence(image.layout, self.objects.kept)
        locator = Locator(image.description, self.inputs.mirrors, image.directory)
        store = PartStore(self.objects, self.acquirer, locator, presence.add, self.find)
        renew = partial(
            load_template_again, self.house, image, self.inputs.image, self.fetch_options, self.renewed
        )
        raw_data = RawData(image.template_file, image.chunks, self.objects, renew)
        reader = ImageReader(
            image.layout,
            raw_data,
            store if self.recorder is None else RecordedParts(store, self.recorder, locator.names),
            timeout_s=self.read_options.timeout_s,
            readahead_bytes=readahead_bytes(self.read_options, self.cache_options),
        )
        return Image(
            name,
            _identity(image),
            reader,
            presence,
            int(image.mtime_s * 1e9),
            self._contents(name, image.template_file.digest, reader),
            store,
            image.source,
            _checksums(image),
            tuple(raw_data.keys),
        )

    def from_file(self, name: str, image: PlainImage) -> Image:
        """Make an image of a file that is one."""
        timeout_s = self.read_options.timeout_s
        reader = ImageReader(image.layout, image, NoParts(), timeout_s=timeout_s, readahead_bytes=0)
        inside = self._contents(name, image.identity, reader)
        return Image(name, image.identity, reader, image, image.mtime_ns, inside, source=image.path)

    def _contents(self, name: str, key: str, reader: ImageReader) -> ImageContents:
        return ImageContents(
            name,
            reader,
            start_soon=self.start_soon,
            kept=partial(read_small, self.house.cache, tree_key(key)),
            keep=partial(keep_small, self.house.cache, tree_key(key)),
            timeout_s=self.read_options.timeout_s,
        )


def _identity(image: LoadedImage) -> str:
    """Return the strongest checksum that the template gives of the whole, else its own."""
    return max((info.checksum.hex for info in image.infos), key=len, default=image.template_file.digest)


def _checksums(image: LoadedImage) -> dict[str, str]:
    return {info.checksum.algorithm.short_name: info.checksum.hex for info in image.infos}
