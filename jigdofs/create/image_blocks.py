"""Read the image once: for the search, and for its checksums, which threads compute meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from jigdofs.create.image_file import ImageFile
from jigdofs.format.checksum import Algorithm, Checksum

_BLOCK_BYTES = 2 << 20
_BLOCKS = 4  # one is searched, the others wait for the slower checksum


class ImageBlocks:
    """The blocks of an image, each with some bytes of the next one.

    Args:
        image: what to read.
        overlap: bytes beyond each block that come with it, as far as the image has them.
    """

    def __init__(self, image: ImageFile, overlap: int) -> None:
        self._image = image
        self._buffers = [bytearray(_BLOCK_BYTES + overlap) for _ in range(_BLOCKS)]
        self._hashers = {algorithm: algorithm.hasher() for algorithm in Algorithm}
        # a thread for each checksum: what it is given it takes in order
        self._threads = {algorithm: ThreadPoolExecutor(1, "image") for algorithm in self._hashers}
        self._busy: deque[list[Future[None]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads.values():
            thread.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[int, memoryview]]:
        """Yield each block with its offset; it stays as it is until the next one is taken."""
        for number, offset in enumerate(range(0, self._image.length, _BLOCK_BYTES)):
            if len(self._busy) == _BLOCKS:
                self._wait()
            block = memoryview(self._buffers[number % _BLOCKS])[: self._image.length - offset]
            self._image.read_into(block, offset)
            own = block[:_BLOCK_BYTES]
            self._busy.append(
                [self._threads[name].submit(hasher.update, own) for name, hasher in self._hashers.items()]
            )
            yield offset, block

    def checksums(self) -> dict[Algorithm, Checksum]:
        """Return the checksums of all blocks that were taken, when they are computed."""
        while self._busy:
            self._wait()
        return {algorithm: Checksum(hasher.digest()) for algorithm, hasher in self._hashers.items()}

    def _wait(self) -> None:
        for future in self._busy.popleft():
            future.result()
