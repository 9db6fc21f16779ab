"""Write raw data in a thread of its own while parts are put in place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from jigdofs.build.builder import Builder


@contextlib.contextmanager
def writing_raw(builder: Builder) -> Iterator[None]:
    """Write an image's raw data beside the block; raise what went wrong at its end."""
    with ThreadPoolExecutor(1, thread_name_prefix="jigdofs-raw") as thread:
        written = thread.submit(builder.write_raw)
        try:
            yield
        except BaseException:
            builder.stop()
            raise
        written.result()
