"""Find every occurrence of given files in an image, at any offset.

Rules of this room:
* Hashes and runs tell where a file may stand (`index`, `image_runs`); that it does is settled by comparing
  all of it (`local_files`), so a wrong hint costs time and nothing else.
* The image is read once from front to back, and again where a file may stand: shortly afterwards, from the
  page cache. Memory does not grow with its length.
* What is found does not depend on how the threads happen to run.

The directory of an ISO image is not asked: its files begin at sectors, where they are found like all others,
at 0.6 ns a byte for the whole image; reading the directory of 20,000 files takes 1 s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from jigdofs.create import windows
from jigdofs.create.choose import Occurrence
from jigdofs.create.image_blocks import ImageBlocks
from jigdofs.create.image_file import ImageFile
from jigdofs.create.image_runs import ImageRuns
from jigdofs.create.index import Index
from jigdofs.create.local_files import LocalFiles
from jigdofs.create.places import Places
from jigdofs.create.windows import GRID
from jigdofs.format.checksum import Algorithm, Checksum

_WAITING = 256  # places to be looked at before the search waits for that


@dataclass(frozen=True, slots=True)
class Findings:
    """What the search found.

    Attributes:
        occurrences: of files; they may overlap.
        twins: number of a file -> an earlier one with the same bytes, which occurs in its place.
        image: checksums of the image.
    """

    occurrences: frozenset[Occurrence]
    twins: dict[int, int]
    image: dict[Algorithm, Checksum]


def search(image: ImageFile, files: LocalFiles, min_length: int, progress: Callable[[int], None]) -> Findings:
    """Search an image for files.

    Args:
        image: to search.
        files: what to look for; none shorter than `min_length`.
        min_length: bytes, at least 256.
        progress: told how many bytes of the image were searched.

    Raises:
        SourceChanged: the image cannot be read, or is not what it was.
        InputError: the files stand in too many places.
    """
    window = windows.window_length(min_length)
    index = Index(window)
    for numbers, heads in files.heads(windows.reach(window)):
        index.add(heads, numbers)
    index.seal()
    places = Places(image, files, index.groups)
    runs = ImageRuns(image, index, files, window)
    with ImageBlocks(image, overlap=window - GRID) as blocks, _one_thread(files) as begin:
        for offset, block in blocks:
            if index.groups and len(block) >= window:
                hits = index.find(windows.grid_hashes(np.frombuffer(block, np.uint8), window))
                at = offset + hits.windows * GRID
                of_run = hits.owners < 0
                runs.note(at[of_run], -1 - hits.owners[of_run])
                groups, offsets = np.divmod(hits.owners[~of_run], GRID)
                for group, start in zip(groups.tolist(), (at[~of_run] - offsets).tolist(), strict=True):
                    begin(places.look, group, start)
            progress(offset + len(block))
        sums = blocks.checksums()
    for place in runs.candidates():
        places.look_for(place)
    for place in runs.repeats(sorted({one.start + one.length for one in places.found})):
        places.believe(place)
    return Findings(frozenset(places.found), places.twins, sums)


@contextmanager
def _one_thread(files: LocalFiles) -> Iterator[Callable[..., None]]:
    """Let a thread compare while the image is searched: yield what takes a function and its arguments.

    At the end all of it is done; when something fails, it is given up within a piece of a file.
    """
    waiting: deque[Future[None]] = deque()
    pool = ThreadPoolExecutor(1, "compare")

    def begin(work: Callable[..., None], *arguments: int) -> None:
        waiting.append(pool.submit(work, *arguments))
        while waiting and (waiting[0].done() or len(waiting) > _WAITING):
            waiting.popleft().result()

    try:
        yield begin
        while waiting:
            waiting.popleft().result()
    except BaseException:
        files.give_up()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
