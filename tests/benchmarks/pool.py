"""A pool of parts, log-normal in size as Debian's packages are, and an image of them."""

import random
from pathlib import Path

_TEMPLATE_SHARE = 8  # one byte in eight is in no part


def write_pool(root: Path, parts: int, size: int) -> tuple[Path, Path]:
    """Make parts of random bytes, so many in all, and an image that holds them and some more.

    Args:
        root: a new directory.
        parts: how many.
        size: of all parts, bytes.

    Returns:
        The pool and the image.
    """
    chance = random.Random(1)
    shares = [chance.lognormvariate(0, 1.8) for _ in range(parts)]
    pool, image = root / "pool", root / "image.img"
    pool.mkdir(parents=True)
    with image.open("wb") as file:
        for number, share in enumerate(shares):
            data = chance.randbytes(max(1024, int(share / sum(shares) * size)))
            (pool / f"part{number:05}.deb").write_bytes(data)
            file.write(data)
            file.write(chance.randbytes(len(data) // _TEMPLATE_SHARE))
    return pool, image
