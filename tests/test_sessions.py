"""What starts that were killed at once leave in the cache does not pile up."""

import os
from pathlib import Path

from jigdofs.parts.cache import Cache


def test_starts_that_were_killed_at_once(tmp_path: Path) -> None:
    """A session that was never seen by others is removed, unless it may just be being made."""
    directory = tmp_path / "cache"
    Cache(directory, max_bytes=None, min_free_bytes=0).close()
    old, young = directory / "sessions" / f"{'a' * 16}.new", directory / "sessions" / f"{'b' * 16}.new"
    old.touch()
    os.utime(old, (0, 0))
    young.touch()
    Cache(directory, max_bytes=None, min_free_bytes=0).close()
    assert list((directory / "sessions").iterdir()) == [young]
