"""Show progress on a terminal; say nothing in a pipe."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from jigdofs.errors import printable

_INTERVAL_S = 0.2


class TransferProgress:
    """A bar per transfer, made with the first byte of one; rich is imported only then."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def __call__(self, url: str, received: int, total: int | None) -> None:
        """Note how far a transfer is."""
        if not self._shown:
            return
        if self._bars is None:
            self._bars = transfer_bars()
            self._bars.start()
        if url not in self._tasks:
            name = printable(url.rsplit("/", 1)[-1])
            self._tasks[url] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[url], completed=received, total=total)

    def end(self) -> None:
        """Leave the terminal alone from now on."""
        self._shown = False
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


@contextlib.contextmanager
def showing(name: str, total: int, done: Callable[[], int], *, quiet: bool = False) -> Iterator[None]:
    """Show how far work in threads is, if somebody watches.

    Args:
        name: of what is worked on.
        total: bytes.
        done: tells how many of them are done; called often, from another thread.
        quiet: show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield
        return
    with _following(transfer_bars(), name, total, done):
        yield


@contextlib.contextmanager
def counting(name: str, total: int, done: Callable[[], int], *, quiet: bool = False) -> Iterator[None]:
    """Show how many things are done, if somebody watches; the arguments are those of `showing`."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    with _following(count_bars(), name, total, done):
        yield


@contextlib.contextmanager
def _following(bars: Any, name: str, total: int, done: Callable[[], int]) -> Iterator[None]:
    """Move a bar from a thread of its own."""
    ended = threading.Event()
    task = bars.add_task(printable(name), total=total)

    def follow() -> None:
        while not ended.wait(_INTERVAL_S):
            bars.update(task, completed=done())

    follower = threading.Thread(target=follow, daemon=True)
    with bars:
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()


def transfer_bars() -> Any:
    """Return bars with bytes, rate and time left, on stderr; they vanish in the end."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def count_bars() -> Any:
    """Return bars with numbers, rate and time left, on stderr; they vanish in the end."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """How many a second."""

        def render(self, task: Task) -> Text:
            """Write the rate, once it is known."""
            return Text("?/s" if task.speed is None else f"{task.speed:,.0f}/s", style="progress.data.speed")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


@contextlib.contextmanager
def template_progress() -> Iterator[TransferProgress]:
    """Show how templates come in, if somebody watches."""
    progress = TransferProgress(shown=sys.stderr.isatty())
    try:
        yield progress
    finally:
        progress.end()
