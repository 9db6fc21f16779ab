"""Names for images: reduced to what a directory can hold, and each unlike the others. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence

_MAX_NAME_BYTES = 255 - len(".tmp")  # an image that is being built is called `NAME.tmp`
_MAX_TAIL_BYTES = 32  # of an extension
_BEGIN_CHARS, _END_CHARS = 960, 64  # more of a name is not looked at: dropping characters may take its square


def leaf_name(name: str) -> str:
    """Return the last component of a name, shortened to what a filesystem takes; "" if none is left."""
    leaf = name.rsplit("/", 1)[-1]
    if len(leaf) > _BEGIN_CHARS + _END_CHARS:
        leaf = leaf[:_BEGIN_CHARS] + leaf[-_END_CHARS:]
    # dropping a character may bring bytes together that spell another one
    while (visible := _visible(leaf)) != leaf:
        leaf = visible
    stem, dot, extension = leaf.rpartition(".")
    leaf = _fitting(stem, dot + extension) if dot and stem else _fitting(leaf, "")
    return "" if leaf in (".", "..") else leaf


def _visible(name: str) -> str:
    """Drop what is neither printable nor a byte that is no UTF-8."""
    kept = "".join(char for char in name if char.isprintable() or 0xDC80 <= ord(char) <= 0xDCFF)
    return kept.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _fitting(stem: str, tail: str) -> str:
    """Put a name together, cut so that a filesystem takes the whole."""
    end = tail.encode("utf-8", "surrogateescape")[:_MAX_TAIL_BYTES]
    begin = stem.encode("utf-8", "surrogateescape")[: _MAX_NAME_BYTES - len(end)]
    return (begin + end).decode("utf-8", "surrogateescape").strip()


def unique_name(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken: the name itself, or one with a number."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        stem, dot, extension = name.rpartition(".")
        tail = f"~{number}{dot}{extension}" if dot and stem else f"~{number}"
        unique = _fitting(stem if dot and stem else name, tail)
    return unique


def directory_names(names: Sequence[str]) -> list[str]:
    """Name the directories for the files inside images: `dvd` for `dvd.iso`.

    Where that would be the name of something else or of two, it is `dvd.iso.d`, so that no directory can be
    taken for that of another image.
    """
    stems = [name.rpartition(".")[0] or name for name in names]
    counts = Counter([*stems, *names])
    taken = set(names)
    directories = []
    for name, stem in zip(names, stems, strict=True):
        free = counts[stem] == 1 and stem not in taken  # `o.d.` comes after `o`, whose `o.d` it would be
        own = stem if free else unique_name(f"{name}.d", taken)
        taken.add(own)
        directories.append(own)
    return directories
