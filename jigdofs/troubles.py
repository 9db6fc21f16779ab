"""The last warnings and errors, for who asks how things are; and no log that floods with one of them.

A record may say by its attribute `why` what makes it like others, where its message tells more than that: a
reader who fails asks again at once, piece by piece, each at another offset.

Invariants of this file:
* What differs from all that was said in the last seconds is always said, at once.
* Memory is bounded, whatever is logged.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SAME_S = 10.0
"""So long a message is not said again."""
_MOST_TROUBLES = 20
_MOST_REMEMBERED = 256
_MOST_CHARACTERS = 500


@dataclass(slots=True)
class Trouble:
    """Something that went wrong.

    Attributes:
        level: as `logging` names it.
        what: what failed, where, the last time; the whole message if it does not tell the two apart.
        why: the reason; "" if it does not tell.
        first_s: when it was first, seconds since 1970.
        last_s: when it was last.
        times: how often.
    """

    level: str
    what: str
    why: str
    first_s: float
    last_s: float
    times: int = 1


class RecentTroubles(logging.Handler):
    """Remember the last distinct warnings and errors, each with a number."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._troubles: OrderedDict[tuple[str, str], Trouble] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        """Take note."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        why = str(getattr(record, "why", ""))
        what = message.removesuffix(why).removesuffix(": ") if why else message
        what, why = what[:_MOST_CHARACTERS], why[:_MOST_CHARACTERS]
        key = (record.levelname, why or what)
        known = self._troubles.get(key)
        if known is None:
            self._troubles[key] = Trouble(record.levelname, what, why, record.created, record.created)
        else:
            known.what, known.last_s = what, record.created
            known.times += 1
        self._troubles.move_to_end(key)
        while len(self._troubles) > _MOST_TROUBLES:
            self._troubles.popitem(last=False)

    def last(self) -> list[Trouble]:
        """Return them, the latest first."""
        with _held(self):
            return list(reversed(self._troubles.values()))


@dataclass(slots=True)
class _Said:
    """A message that was said.

    Attributes:
        until_s: before which it is not said again.
        level: its level.
        name: of its logger.
        text: the last one that was kept back.
        times: how often it was kept back since it was said.
    """

    until_s: float
    level: int
    name: str
    text: str
    times: int = 0


class Repeats(logging.Filter):
    """Keep back what was said just now, and say later how often that was.

    Args:
        handler: that this belongs to; what was kept back is told to it.
        clock: seconds.
    """

    def __init__(self, handler: logging.Handler, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._handler = handler
        self._clock = clock
        self._said: OrderedDict[tuple[int, str, str], _Said] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is said now."""
        why = getattr(record, "why", None)
        if (record.levelno < logging.WARNING and why is None) or record.exc_info:
            return True
        with _held(self._handler):
            self.tell()
            text = record.getMessage()
            key = (record.levelno, record.name, str(why or text))
            said = self._said.get(key)
            if said is not None:
                said.times += 1
                said.text = text
                return False
            while len(self._said) >= _MOST_REMEMBERED:
                self._tell_of(self._said.popitem(last=False)[1])
            self._said[key] = _Said(self._clock() + SAME_S, record.levelno, record.name, text)
        return True

    def tell(self, *, all_of_it: bool = False) -> None:
        """Say how often messages were kept back whose time is over, or all of them."""
        with _held(self._handler):
            now = self._clock()
            while self._said:
                key, said = next(iter(self._said.items()))
                if now < said.until_s and not all_of_it:
                    break
                del self._said[key]
                self._tell_of(said)
                if said.times and not all_of_it:  # it goes on: the next one may wait as long
                    self._said[key] = _Said(now + SAME_S, said.level, said.name, said.text)

    def _tell_of(self, said: _Said) -> None:
        if said.times:
            times = f"{said.times} times" if said.times > 1 else "once"
            self._handler.emit(
                logging.LogRecord(said.name, said.level, "", 0, "%s (repeated %s)", (said.text, times), None)
            )


@contextlib.contextmanager
def _held(handler: logging.Handler) -> Iterator[None]:
    """Hold a handler's own lock, which its thread may take again."""
    handler.acquire()
    try:
        yield
    finally:
        handler.release()
