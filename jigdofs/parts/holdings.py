"""Which files of a cache are of which image: counted from manifests and files. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jigdofs.parts.manifests import KnownImage
from jigdofs.parts.object_files import StoredFile


@dataclass(frozen=True, slots=True)
class Holding:
    """What of one image is here.

    Attributes:
        image: as the cache knows it.
        parts: how many different ones it has.
        parts_here: how many of them are in the cache.
        parts_bytes: of all different ones.
        here_bytes: of the image that are here, those of the template included.
        keys: of its files in the cache.
        stored_bytes: of these files.
    """

    image: KnownImage
    parts: int
    parts_here: int
    parts_bytes: int
    here_bytes: int
    keys: frozenset[str]
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Holdings:
    """What of all images is here.

    Attributes:
        images: those with manifests that can be read.
        lost: pinned ones whose manifest is lost.
        sizes: of all files, by key.
        alone: image id -> bytes of the files that are of no other known image.
        of_none: bytes of the files that are of no known image.
    """

    images: tuple[Holding, ...]
    lost: tuple[KnownImage, ...]
    sizes: Mapping[str, int]
    alone: Mapping[str, int]
    of_none: int

    def only(self, ids: Iterable[str]) -> set[str]:
        """Return the keys of those files that are of these images and of no other known one."""
        wanted = set(ids)
        ours: set[str] = set()
        others: set[str] = set()
        for holding in self.images:
            if holding.image.id in wanted:
                ours |= holding.keys
            else:
                others |= holding.keys
        return ours - others


def count(files: Iterable[StoredFile], known: Iterable[KnownImage]) -> Holdings:
    """Count what is here of each image.

    Args:
        files: of the cache.
        known: what it knows of images.
    """
    sizes: dict[str, int] = {}
    chunks: dict[str, list[str]] = {}
    for file in files:
        sizes[file.key] = file.size
        if file.kind == "raw":
            chunks.setdefault(file.name.rpartition("-")[0], []).append(file.key)
    images: list[Holding] = []
    lost: list[KnownImage] = []
    for image in known:
        if image.manifest is None:
            lost.append(image)
        else:
            images.append(_holding(image, sizes, chunks.get(image.id, ())))
    owners: dict[str, int] = {}
    for holding in images:
        for key in holding.keys:
            owners[key] = owners.get(key, 0) + 1
    alone = {
        holding.image.id: sum(sizes[key] for key in holding.keys if owners[key] == 1) for holding in images
    }
    of_none = sum(size for key, size in sizes.items() if key not in owners)
    return Holdings(tuple(images), tuple(lost), sizes, alone, of_none)


def _holding(image: KnownImage, sizes: Mapping[str, int], chunks: Sequence[str]) -> Holding:
    assert image.manifest is not None
    contents = image.manifest.contents
    here_bytes = contents.raw_bytes
    lengths: dict[str, int] = {}
    for key, length in image.manifest.parts():
        lengths[key] = length
        if key in sizes:
            here_bytes += length
    parts_here = lengths.keys() & sizes.keys()
    keys = frozenset(parts_here).union(chunks, (key for key in contents.others if key in sizes))
    return Holding(
        image,
        len(lengths),
        len(parts_here),
        sum(lengths.values()),
        min(here_bytes, contents.size),
        keys,
        sum(sizes[key] for key in keys),
    )


def pinned_bytes(images: Iterable[KnownImage], sizes: Mapping[str, int]) -> int:
    """Return how much these images take when all of each is here, what they share once.

    Chunks of templates count with what they are of the image; templates as far as they are here.
    """
    lengths: dict[str, int] = {}
    raw: dict[str, int] = {}
    for image in images:
        if image.manifest is not None:
            lengths.update(image.manifest.parts())
            lengths.update({key: sizes[key] for key in image.manifest.contents.others if key in sizes})
            raw[image.id] = image.manifest.contents.raw_bytes
    return sum(lengths.values()) + sum(raw.values())
