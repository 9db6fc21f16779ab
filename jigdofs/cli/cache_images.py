"""Find the images that somebody names: by name, id, .jigdo or mount point."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jigdofs.control import client
from jigdofs.errors import JigdofsError, UsageError, printable
from jigdofs.fetch import url as urls
from jigdofs.fuse.mountpoint import mount_at, resolve
from jigdofs.parts.manifests import KnownImage
from jigdofs.sources.own_mounts import FSTYPE, MountLine

_LEAST_ID = 6
_ANSWER_S = 5.0


class Unknown(UsageError):
    """Say that the cache knows no image of that name."""


def find(name: str, known: Sequence[KnownImage], directory: Path) -> list[KnownImage]:
    """Return the images that a name means: one, or all of a mount.

    Args:
        name: as typed: a name, the beginning of an id, a path or URL of a .jigdo, a mount point, or the
            path of an image in one.
        known: what the cache knows.
        directory: of the cache, for messages.

    Raises:
        Unknown: it means none of them.
        UsageError: it may mean several.
        JigdofsError: the daemon of a mount does not answer.
    """
    found = [image for image in known if name in _names(image)]
    if not found and len(name) >= _LEAST_ID:
        found = [image for image in known if image.id.startswith(name.lower())]
    if not found:
        found = [image for image in known if image.manifest is not None and _is_source(name, image)]
    if not found:
        mount = _mount_of(name)
        if mount is not None:
            return _of_mount(name, *mount, known)
        raise Unknown(f"cache {directory} knows no image `{name}'; `jigdofs cache ls' lists them")
    return [_only(name, found)]


def _only(name: str, found: Sequence[KnownImage]) -> KnownImage:
    if len(found) > 1:
        ids = ", ".join(image.id[:12] for image in found)
        raise UsageError(f"`{printable(name)}' may mean several images; name one by its id: {ids}")
    return found[0]


def _names(image: KnownImage) -> tuple[str, ...]:
    if image.manifest is None:
        return (image.id,)
    name = image.manifest.contents.name
    return (image.id, name, printable(name))


def _is_source(name: str, image: KnownImage) -> bool:
    """Tell whether what was typed is the .jigdo of an image."""
    assert image.manifest is not None
    source = urls.without_credentials(name) if urls.is_http(name) else os.path.abspath(name)
    return source == image.manifest.contents.source


def _mount_of(path: str) -> tuple[MountLine, str] | None:
    """Return the mount that a path is or lies right below, and the name of the image there."""
    whole = resolve(path)
    above, leaf = os.path.split(whole)
    for mountpoint, image in ((whole, ""), (above, leaf)):
        mount = mount_at(mountpoint)
        if mount is not None and mount.fstype == FSTYPE:
            return mount, image
    return None


def _of_mount(name: str, mount: MountLine, image: str, known: Sequence[KnownImage]) -> list[KnownImage]:
    """Return those images of the cache that a mount shows, told by name, size and use."""
    shown: list[dict[str, object]] = []
    for event in client.ask(mount.mountpoint, mount.owner or 0, {"do": "status"}, _ANSWER_S):
        shown = event.get("images", [])
    found = []
    for one in shown:
        if image and one.get("name") != printable(image) and len(shown) > 1:
            continue
        same = [
            other
            for other in known
            if other.manifest is not None
            and other.in_use
            and printable(other.manifest.contents.name) == one.get("name")
            and other.manifest.contents.size == one.get("size")
        ]
        if same:
            found.append(_only(f"{name}: {one.get('name')}", same))
    if not found:
        raise JigdofsError(f"{name}: no image of this mount is known here; is it another --cache-dir?")
    return found


def shown_name(image: KnownImage) -> str:
    """Return what an image is called in messages."""
    return image.id if image.manifest is None else printable(image.manifest.contents.name)
