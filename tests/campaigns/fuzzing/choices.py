"""Turn the bytes of an input into choices, so that a mutation of the bytes is a mutation of a structure."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Take an input apart from its front; where it has ended, every choice is the first one.

    Args:
        data: the input.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Tell whether anything is left."""
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """Take so many bytes; fewer at the end."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(len(self._data))

    def number(self, limit: int) -> int:
        """Choose a number below a limit, out of as few bytes as can say it."""
        count = ((limit - 1).bit_length() + 7) // 8
        return int.from_bytes(self.take(count), "little") % limit

    def of(self, options: Sequence[T]) -> T:
        """Choose one of these."""
        return options[self.number(len(options))]

    def flag(self) -> bool:
        """Choose between no and yes."""
        return bool(self.number(2))

    def block(self, limit: int) -> bytes:
        """Take bytes that say how many they are."""
        return self.take(self.number(limit))

    def text(self, limit: int) -> str:
        """Take a text, of any bytes (surrogate-escaped, as in our names)."""
        return self.block(limit).decode("utf-8", "surrogateescape")
