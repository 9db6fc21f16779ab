"""The state as extended attributes `user.jigdofs.*` of the mount's root and of each image: plain text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jigdofs.control.state import ImageState, State
from jigdofs.image.read_account import ReadAccount


def xattrs(state: State) -> Callable[[str, str | None], str | None]:
    """Return what tells them."""
    return partial(_told, state)


def _told(state: State, key: str, image: str | None) -> str | None:
    """Return the value of an attribute, or None for one that there is not.

    Args:
        state: of the mount.
        key: the attribute's name without `user.jigdofs.`.
        image: whose it is; None for the root, which tells of all images together.
    """
    of_mount = _OF_MOUNT.get(key)
    if of_mount is not None:
        return of_mount(state)
    one = None if image is None else state.image(image)
    if image is not None and one is None:
        return None
    images = state.images() if one is None else [one]
    if key == "state":
        return state.verdict(one)
    if key.startswith("checksum."):
        return None if one is None else one.checksums.get(key.removeprefix("checksum."))
    if key in _OF_READS:
        return _OF_READS[key](state.reads if one is None else one.reads)
    return _OF_IMAGES[key](images) if key in _OF_IMAGES else None


def _mirrors(state: State) -> str:
    return "\n".join(f"{mirror.mirror} {mirror.health}" for mirror in state.mirrors())


_OF_MOUNT: dict[str, Callable[[State], str]] = {
    "version": lambda state: state.version,
    "pid": lambda state: str(state.pid),
    "rx": lambda state: str(state.received),
    "mirrors": _mirrors,
}


def _hit_rate(account: ReadAccount) -> str | None:
    reads = account.reads
    return f"{100 * (reads - account.waited_reads) / reads:.2f}" if reads else None


_OF_READS: dict[str, Callable[[ReadAccount], str | None]] = {
    "nioerr": lambda reads: str(reads.errors),
    "last_ioerr": lambda reads: str(int(reads.last_error_s)),
    "hitrate": _hit_rate,
}


def _present(images: list[ImageState]) -> str:
    return str(sum(image.present for image in images))


def _percent(images: list[ImageState]) -> str:
    size, present = sum(image.size for image in images), sum(image.present for image in images)
    # 100.00 only when nothing is missing, however little
    return f"{int(10000 * present / size) / 100 if size else 100:.2f}"


def _parts(images: list[ImageState]) -> str | None:
    counts = [image.parts for image in images]
    return None if None in counts else str(sum(filter(None, counts)))


def _missing(images: list[ImageState]) -> str | None:
    missing = 0
    for image in images:
        if image.parts is None or image.parts_present is None:
            return None
        missing += image.parts - image.parts_present
    return str(missing)


_OF_IMAGES: dict[str, Callable[[list[ImageState]], str | None]] = {
    "size": lambda images: str(sum(image.size for image in images)),
    "present": _present,
    "fetched": _present,  # another name of it
    "percent": _percent,
    "jigdo": lambda images: "\n".join(dict.fromkeys(image.source for image in images)),
    "parts": _parts,
    "parts_missing": _missing,
}
