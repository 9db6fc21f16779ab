"""Write sizes for people."""

from __future__ import annotations


def size_text(number: float) -> str:
    """Write a size for people, in powers of 1024."""
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{number:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
