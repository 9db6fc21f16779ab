"""rsync64 of the first bytes of a part, as a template states it (format.md 1.5). Pure."""

from __future__ import annotations

import numpy as np

from jigdofs.format.rsync64 import TABLE

_TABLE = np.array(TABLE, np.uint32)


def rsync64(block: bytes) -> bytes:
    """Return the eight bytes that `format.rsync64` would give, 6 times as fast: a template has thousands."""
    numbers = _TABLE[np.frombuffer(block, np.uint8)]
    low = numbers.sum(dtype=np.uint32)
    # a byte counts once for itself and once for every one behind it
    high = (numbers * np.arange(len(block), 0, -1, dtype=np.uint32)).sum(dtype=np.uint32)
    return np.array([low, high], "<u4").tobytes()
