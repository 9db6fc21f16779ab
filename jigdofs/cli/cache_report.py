"""Say what a cache holds, for people and for scripts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from jigdofs.config import CacheOptions
from jigdofs.errors import printable
from jigdofs.parts.holdings import Holding, Holdings
from jigdofs.parts.manifests import KnownImage
from jigdofs.parts.shelf import Shelf
from jigdofs.parts.tidying import Freed
from jigdofs.size_text import size_text

_KINDS = {"md5": "parts", "sha256": "parts", "raw": "chunks", "doc": "documents", "tree": "trees"}


def image_values(holding: Holding, holdings: Holdings) -> dict[str, Any]:
    """Return what is to be said of an image; sizes in bytes, times in seconds."""
    image = holding.image
    assert image.manifest is not None
    contents = image.manifest.contents
    return {
        "name": contents.name,
        "id": image.id,
        "source": contents.source,
        "size": contents.size,
        "here_bytes": holding.here_bytes,
        "share": round(holding.here_bytes / contents.size, 4) if contents.size else 1.0,
        "parts": holding.parts,
        "parts_here": holding.parts_here,
        "stored_bytes": holding.stored_bytes,
        "alone_bytes": holdings.alone[image.id],
        "last_used": round(image.used_s, 3),
        "pinned": image.pinned,
        "in_use": image.in_use,
    }


def lost_values(image: KnownImage) -> dict[str, Any]:
    """Return what is to be said of a pinned image whose manifest is lost."""
    return {"name": None, "id": image.id, "pinned": True, "in_use": image.in_use}


def listing(holdings: Holdings, now_s: float) -> str:
    """Return a table of all images for people."""
    rows: list[tuple[str, ...]] = [("IMAGE", "SIZE", "HERE", "SHARE", "PARTS", "LAST USED", "ID", "")]
    for holding in sorted(holdings.images, key=lambda one: -one.image.used_s):
        values = image_values(holding, holdings)
        marks = ", ".join(word for word, is_so in _marks(holding.image) if is_so)
        rows.append(
            (
                printable(values["name"]),
                size_text(values["size"]),
                size_text(values["here_bytes"]),
                f"{100 * values['share']:.1f} %",
                f"{values['parts_here']}/{values['parts']}",
                _ago(now_s - values["last_used"]),
                values["id"][:12],
                marks,
            )
        )
    rows += [
        ("?", "", "", "", "", "", image.id[:12], "pinned; what is in it is known when it is mounted again")
        for image in holdings.lost
    ]
    return "\n".join(_table(rows)) if len(rows) > 1 else "no image is known"


def details(holding: Holding, holdings: Holdings) -> str:
    """Return what is known of one image, then a line for each of its parts."""
    values = image_values(holding, holdings)
    here, alone = size_text(values["here_bytes"]), size_text(values["alone_bytes"])
    parts = f"{values['parts_here']} of {values['parts']} parts"
    lines = [
        f"{printable(values['name'])}",
        f"  from      {printable(values['source'])}",
        f"  id        {values['id']}",
        f"  size      {size_text(values['size'])} ({values['size']:,} bytes)",
        f"  here      {here} ({100 * values['share']:.1f} %), {parts}",
        f"  stored    {size_text(values['stored_bytes'])}, of it for this image alone {alone}",
        f"  last used {_time(values['last_used'])}",
        f"  pinned    {'yes' if values['pinned'] else 'no'}",
        f"  in use    {'yes' if values['in_use'] else 'no'}",
    ]
    lines += [
        f"{'here   ' if part['here'] else 'missing'} {part['size']:>12} {part['key']}"
        for part in part_values(holding, holdings)
    ]
    return "\n".join(lines)


def part_values(holding: Holding, holdings: Holdings) -> Iterable[dict[str, Any]]:
    """Yield what is to be said of each part, once, in the order of the image."""
    assert holding.image.manifest is not None
    for key, length in dict(holding.image.manifest.parts()).items():
        yield {"key": key, "size": length, "here": key in holdings.sizes}


def usage_values(shelf: Shelf, holdings: Holdings, options: CacheOptions) -> dict[str, Any]:
    """Return what takes how much; sizes in bytes."""
    kinds = dict.fromkeys((*_KINDS.values(), "other"), 0)
    for key, size in holdings.sizes.items():
        kinds[_KINDS.get(key.partition("-")[0], "other")] += size
    return {
        "directory": str(shelf.directory),
        "total_bytes": sum(holdings.sizes.values()),
        "files": len(holdings.sizes),
        "images": [
            {
                "name": values["name"],
                "id": values["id"],
                "stored_bytes": values["stored_bytes"],
                "alone_bytes": values["alone_bytes"],
                "pinned": values["pinned"],
            }
            for values in (image_values(holding, holdings) for holding in holdings.images)
        ],
        "of_no_known_image_bytes": holdings.of_none,
        **{f"{kind}_bytes": size for kind, size in kinds.items()},
        "in_flight_bytes": shelf.in_flight_bytes(),
        "leftover_bytes": sum(left.size for left in shelf.leftovers()),
        "own_bytes": shelf.own_bytes(),
        "limit_bytes": options.max_bytes,
        "disk_free_bytes": shelf.free_bytes(),
    }


def usage(values: dict[str, Any]) -> str:
    """Return the same for people."""
    images = sorted(values["images"], key=lambda one: -one["stored_bytes"])
    rows: list[tuple[str, ...]] = [("STORED", "ALONE", "IMAGE")]
    rows += [
        (size_text(one["stored_bytes"]), size_text(one["alone_bytes"]), printable(one["name"]))
        for one in images
    ]
    rows.append((size_text(values["of_no_known_image_bytes"]), "", "(of no known image)"))
    rows.append((size_text(values["total_bytes"]), "", f"in total, {values['files']} files"))
    limit = "none" if values["limit_bytes"] is None else size_text(values["limit_bytes"])
    kinds = ("parts", "chunks", "documents", "trees", "other")
    told = ", ".join(
        f"{kind} {size_text(values[f'{kind}_bytes'])}" for kind in kinds if values[f"{kind}_bytes"]
    )
    besides = ", ".join(
        f"{what} {size_text(values[name])}"
        for what, name in (
            ("being written", "in_flight_bytes"),
            ("left behind", "leftover_bytes"),
            ("databases", "own_bytes"),
        )
    )
    lines = [
        f"of these: {told or 'nothing'}",
        f"besides: {besides}",
        f"limit {limit}; free on the disk {size_text(values['disk_free_bytes'])}",
    ]
    return "\n".join([*_table(rows), *lines])


def freed_values(freed: Freed, **more: Any) -> dict[str, Any]:
    """Return what went and what stayed."""
    return {
        "freed_files": freed.files,
        "freed_bytes": freed.bytes,
        "in_use_files": freed.in_use_files,
        "in_use_bytes": freed.in_use_bytes,
        "pinned_files": freed.pinned_files,
        "pinned_bytes": freed.pinned_bytes,
        "excess_bytes": freed.excess_bytes,
        **more,
    }


def freed_text(values: dict[str, Any]) -> str:
    """Return the same for people."""
    would = "would free" if values.get("dry_run") else "freed"
    lines = [f"{would} {size_text(values['freed_bytes'])} ({values['freed_files']} files)"]
    if values["leftovers"]:
        lines.append(
            f"  left behind by daemons that were killed: {values['leftovers']},"
            f" {size_text(values['leftover_bytes'])}"
        )
    if values["forgotten"]:
        lines.append(f"  images forgotten, as nothing of them is left: {values['forgotten']}")
    for what, why in (("in_use", "in use"), ("pinned", "pinned")):
        if values[f"{what}_files"]:
            size = size_text(values[f"{what}_bytes"])
            lines.append(f"  stayed, as it is {why}: {size} ({values[f'{what}_files']} files)")
    if values["excess_bytes"]:
        lines.append(f"  still more than there may be: {size_text(values['excess_bytes'])}")
    return "\n".join(lines)


def _marks(image: KnownImage) -> tuple[tuple[str, bool], ...]:
    return (("pinned", image.pinned), ("in use", image.in_use))


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"


def _time(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "?"
