"""Choose what goes from a cache, and see it gone: what is pinned, open or in flight never does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jigdofs.parts.cache import Cache
from jigdofs.parts.manifests import Manifests, Pinned
from jigdofs.parts.object_files import StoredFile

_AT_ONCE = 128  # files; nobody else can use the accounts meanwhile, some 10 ms

Files = Sequence[StoredFile]
Remove = Callable[[Files], Files]
"""Remove some hundred files at most; return those that are gone."""


@dataclass(slots=True)
class Freed:
    """What went, and what stayed.

    Attributes:
        files: removed.
        bytes: of these.
        in_use_files: stayed because a process has them open.
        in_use_bytes: of these.
        pinned_files: stayed because they are pinned, as far as that mattered.
        pinned_bytes: of these.
        excess_bytes: by so much there is still more than there may be.
    """

    files: int = 0
    bytes: int = 0
    in_use_files: int = 0
    in_use_bytes: int = 0
    pinned_files: int = 0
    pinned_bytes: int = 0
    excess_bytes: int = 0


class Removing:
    """Remove files from an open cache, and spare those that are pinned meanwhile.

    Args:
        cache: open.
        spares_pinned: whether what is pinned stays.
    """

    def __init__(self, cache: Cache, *, spares_pinned: bool) -> None:
        self._cache = cache
        self._spares_pinned = spares_pinned
        self._seen_ns = -1
        self._pinned = Pinned()

    def __call__(self, files: Sequence[StoredFile]) -> list[StoredFile]:
        """Remove files; return those that are gone."""
        changed_ns = self._cache.manifests.changed_ns()
        if self._spares_pinned and changed_ns != self._seen_ns:
            self._pinned, self._seen_ns = self._cache.manifests.pinned(), changed_ns
        return self._cache.remove([file for file in files if not self._pinned.has(file.kind, file.name)])


def collect(
    files: Iterable[StoredFile], pinned: Pinned, remove: Remove, *, excess_bytes: int, unused_since_ns: int
) -> Freed:
    """Remove what was not used for the longest.

    Args:
        files: all of the cache.
        pinned: what is to stay.
        remove: sees to it.
        excess_bytes: remove that much, if it can be.
        unused_since_ns: remove all that was used before that, ns since 1970; 0 for nothing.
    """
    freed = Freed()
    batch: list[StoredFile] = []
    expected = 0

    def flush() -> None:
        nonlocal expected
        _remove(batch, remove, freed)
        batch.clear()
        expected = freed.bytes

    for file in sorted(files):
        old = file.used_ns < unused_since_ns
        if not old and expected >= excess_bytes:
            flush()
            if expected >= excess_bytes:
                break
        if pinned.has(file.kind, file.name):
            freed.pinned_files += 1
            freed.pinned_bytes += file.size
            continue
        batch.append(file)
        expected += file.size
        if len(batch) == _AT_ONCE:
            flush()
    flush()
    freed.excess_bytes = max(0, excess_bytes - freed.bytes)
    return freed


def clear(files: Iterable[StoredFile], pinned: Pinned, remove: Remove) -> Freed:
    """Remove files, whenever they were used; the arguments are those of `collect`."""
    freed = Freed()
    going = []
    for file in files:
        if pinned.has(file.kind, file.name):
            freed.pinned_files += 1
            freed.pinned_bytes += file.size
        else:
            going.append(file)
    for at in range(0, len(going), _AT_ONCE):
        _remove(going[at : at + _AT_ONCE], remove, freed)
    return freed


def _remove(files: Sequence[StoredFile], remove: Remove, freed: Freed) -> None:
    if not files:
        return
    gone = set(remove(files))
    for file in files:
        if file in gone:
            freed.files += 1
            freed.bytes += file.size
        else:
            freed.in_use_files += 1
            freed.in_use_bytes += file.size


def forget(manifests: Manifests, ids: Iterable[str]) -> list[str]:
    """Remove manifests; return those that are gone: not of what is pinned or in use."""
    return [image for image in ids if manifests.forget(image)]
