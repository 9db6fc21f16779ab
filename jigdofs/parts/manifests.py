"""What is known of the images whose parts lie in the cache, and which of them are pinned.

Invariants of this file:
* A manifest is written whole, then gets its name; one whose form or checksum is wrong counts as none.
* Who uses an image holds a lock on a byte of `images/lock`: it ends with its process, however that ends.
* A manifest goes only while nobody uses its image, and never while it is pinned.
* Trouble with all this costs knowledge of images, never a read: parts are had by checksum alone.

    images/ID       what is said of an image, and its parts; ID is the hex checksum of its template
    images/ID.pin   its parts are not evicted
    images/lock     a byte for each image
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import struct
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jigdofs.parts import manifest_files as files
from jigdofs.parts.directories import OPEN_FILE, open_own, opened
from jigdofs.parts.manifest import Manifest, dump

_log = logging.getLogger(__name__)

MOST_IMAGES = 512
"""Beyond that, those go that were not used for the longest."""
_DIRECTORY = "images"
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, 0
_BUSY = {errno.EAGAIN, errno.EACCES}
_HEX_DIGITS = 15  # of an id: an offset has 63 bits
_TRIES = 50  # for a lock that somebody has who is about to remove the manifest
_TRY_AGAIN_S = 0.01


class KnownImage(NamedTuple):
    """An image that the cache knows.

    Attributes:
        manifest: what is said of it; None where it was pinned and its manifest is lost or damaged.
        id: the hex checksum of its template.
        used_s: when it was last used, in s since 1970; 0 if nobody knows.
        pinned: its parts are not evicted.
        in_use: a process has it.
        stored_bytes: of the manifest.
    """

    manifest: Manifest | None
    id: str
    used_s: float
    pinned: bool
    in_use: bool
    stored_bytes: int


class Pinned:
    """The files that are not evicted, as they were at one moment."""

    def __init__(self, manifests: Iterable[Manifest] = ()) -> None:
        self._digests: set[bytes] = set()
        self._templates: set[str] = set()
        self._keys: set[str] = set()
        for manifest in manifests:
            self._digests.update(manifest.digests())
            self._templates.add(manifest.contents.template)
            self._keys.update(manifest.contents.others)

    def __bool__(self) -> bool:
        return bool(self._templates)

    def has(self, kind: str, name: str) -> bool:
        """Tell whether a file is pinned, given what its key is made of."""
        if kind == "raw":
            return name.rpartition("-")[0] in self._templates
        if f"{kind}-{name}" in self._keys:
            return True
        try:
            return kind in ("md5", "sha256") and bytes.fromhex(name) in self._digests
        except ValueError:
            return False


class Manifests:
    """The manifests and pins of a cache. All methods block: call them from worker threads.

    Args:
        cache: its directory, open; it stays the caller's.
        may_write: make what is missing; else all is left as it is.
    """

    def __init__(self, cache: int, *, may_write: bool) -> None:
        self._cache = cache
        self._lock = -1
        self._held: set[str] = set()
        with contextlib.suppress(OSError), opened(cache, _DIRECTORY, make=may_write) as directory:
            if may_write:
                self._lock = open_own(directory, "lock")
            else:
                self._lock = os.open("lock", OPEN_FILE, dir_fd=directory)

    def close(self) -> None:
        """Use no image any more."""
        for held in self._held:
            self._touch(held)
        lock, self._lock = self._lock, -1
        with contextlib.suppress(OSError):
            os.close(lock)

    # -- noting ----------------------------------------------------------------------------------

    def note(self, manifest: Manifest, aside: int, temporary: str) -> None:
        """Note an image that is used from now on, until `close`; trouble is logged.

        Args:
            manifest: of the image.
            aside: a directory of the cache, open, where the manifest is written.
            temporary: its name there.
        """
        image = manifest.contents.template
        try:
            self._hold(image)
            with opened(self._cache, _DIRECTORY, make=True) as directory:
                data = dump(manifest)
                if not files.holds(directory, image, data):
                    files.write(data, aside, temporary, directory, image)
            self._touch(image)
            self._tidy()
        except OSError as error:
            _log.info("what is in %r is not noted: %s", manifest.contents.name, error)

    def _hold(self, image: str) -> None:
        self._held.add(image)
        for _ in range(_TRIES):
            if self._take(fcntl.F_RDLCK, image):
                return
            time.sleep(_TRY_AGAIN_S)

    def _take(self, kind: int, image: str) -> bool:
        """Lock an image's byte; tell whether it is ours, or cannot be told to be anybody's."""
        if self._lock < 0:
            return True
        place = struct.pack(_FLOCK, kind, os.SEEK_SET, int(image[:_HEX_DIGITS], 16), 1, 0)
        try:
            fcntl.fcntl(self._lock, fcntl.F_OFD_SETLK, place)
        except OSError as error:
            return error.errno not in _BUSY
        return True

    def _let_go(self, image: str) -> None:
        self._take(fcntl.F_RDLCK if image in self._held else fcntl.F_UNLCK, image)

    def _in_use(self, image: str) -> bool:
        """Tell whether a process holds an image, this one included."""
        if self._lock < 0:
            return image in self._held
        place = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, int(image[:_HEX_DIGITS], 16), 1, 0)
        try:
            found = fcntl.fcntl(self._lock, fcntl.F_OFD_GETLK, place)
        except OSError:
            return False
        return image in self._held or struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK

    def _touch(self, image: str) -> None:
        """Note that an image is used now."""
        with contextlib.suppress(OSError), opened(self._cache, _DIRECTORY) as directory:
            os.utime(image, dir_fd=directory, follow_symlinks=False)

    def _tidy(self) -> None:
        """Remove what was not used for the longest, beyond what may be."""
        with opened(self._cache, _DIRECTORY) as directory:
            statuses = {name: files.status_of(directory, name) for name in files.ids(directory)}
        count, size = len(statuses), sum(status.st_size for status in statuses.values() if status is not None)
        for image in sorted(statuses, key=lambda name: getattr(statuses[name], "st_mtime_ns", 0)):
            if count <= MOST_IMAGES and size <= files.MOST_BYTES:
                break
            if self.forget(image):
                count -= 1
                size -= getattr(statuses[image], "st_size", 0)

    # -- knowing ---------------------------------------------------------------------------------

    def all(self) -> Iterator[KnownImage]:
        """Yield every image that is known, one at a time: each may have megabytes."""
        try:
            with opened(self._cache, _DIRECTORY) as directory:
                names = set(os.listdir(directory))
                pins = {name.removesuffix(files.PIN) for name in names if name.endswith(files.PIN)}
                for image in sorted(filter(files.ID.fullmatch, names | pins)):
                    status = files.status_of(directory, image)
                    manifest = files.read(directory, image)
                    pinned = image in pins and files.is_pin(directory, image)
                    if manifest is not None or pinned:
                        yield KnownImage(
                            manifest,
                            image,
                            max(0.0, status.st_mtime) if status is not None else 0.0,
                            pinned,
                            self._in_use(image),
                            status.st_size if status is not None else 0,
                        )
        except OSError as error:
            _log.debug("no image is known: %s", error)

    def damaged(self) -> list[str]:
        """Return the ids of those manifests that are of no use."""
        with contextlib.suppress(OSError), opened(self._cache, _DIRECTORY) as directory:
            return [image for image in sorted(files.ids(directory)) if files.read(directory, image) is None]
        return []

    def changed_ns(self) -> int:
        """Return when manifests or pins last came or went, in ns since 1970."""
        with contextlib.suppress(OSError), opened(self._cache, _DIRECTORY) as directory:
            return os.fstat(directory).st_mtime_ns
        return 0

    def pinned(self) -> Pinned:
        """Return what is pinned now; without pins that is one listing of a directory."""
        manifests = []
        with contextlib.suppress(OSError), opened(self._cache, _DIRECTORY) as directory:
            for name in os.listdir(directory):
                image = name.removesuffix(files.PIN)
                if name.endswith(files.PIN) and files.ID.fullmatch(image) and files.is_pin(directory, image):
                    manifest = files.read(directory, image)
                    if manifest is not None:
                        manifests.append(manifest)
        return Pinned(manifests)

    # -- changing --------------------------------------------------------------------------------

    def pin(self, image: str) -> bool:
        """Pin an image whose manifest is here, on disk in the end; tell whether it is; raise `OSError`."""
        for _ in range(_TRIES):
            if self._take(fcntl.F_RDLCK, image):
                break
            time.sleep(_TRY_AGAIN_S)
        try:
            with opened(self._cache, _DIRECTORY) as directory:
                if files.read(directory, image) is None:
                    return False
                for name in (image, image + files.PIN):
                    files.bring_to_disk(directory, name, make=name.endswith(files.PIN))
                os.fsync(directory)
        finally:
            self._let_go(image)
        return True

    def unpin(self, image: str) -> None:
        """Undo that; raise `OSError`."""
        with opened(self._cache, _DIRECTORY) as directory, contextlib.suppress(FileNotFoundError):
            os.unlink(image + files.PIN, dir_fd=directory)

    def forget(self, image: str) -> bool:
        """Remove a manifest, unless somebody uses its image or it is pinned; tell whether it is gone."""
        if image in self._held or not self._take(fcntl.F_WRLCK, image):
            return False
        try:
            with opened(self._cache, _DIRECTORY) as directory:
                if files.is_pin(directory, image):
                    return False
                os.unlink(image, dir_fd=directory)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        finally:
            self._let_go(image)
        return True
