"""Who may still write how much into the cache: pure arithmetic, shared by processes through the index.

Invariant of this file: used + granted never exceeds the limit, unless the limit was lowered.
A process asks for a grant before it writes, and turns granted bytes into used ones when it is done.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ledger:
    """The cache's accounts.

    Attributes:
        used: bytes of finished files, as far as known.
        grants: session -> bytes it may still write.
    """

    used: int = 0
    grants: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Ledger:
        """Read what `dump` wrote; raise `ValueError` or `RecursionError`."""
        match json.loads(text):
            case {"used": int(used), "grants": dict(grants)} if used >= 0:
                if all(isinstance(size, int) for size in grants.values()):
                    return cls(used, {name: size for name, size in grants.items() if size > 0})
        raise ValueError("not a ledger")

    def dump(self) -> str:
        """Write the accounts as text."""
        return json.dumps({"used": self.used, "grants": self.grants})

    @property
    def granted(self) -> int:
        """Bytes that may still be written by anybody."""
        return sum(self.grants.values())

    def keep(self, sessions: Collection[str]) -> Ledger:
        """Drop the grants of sessions that ended."""
        return Ledger(self.used, {name: size for name, size in self.grants.items() if name in sessions})

    def grant(self, session: str, size: int, limit: int) -> Ledger | None:
        """Let a session write `size` more bytes, or return None if the limit forbids."""
        if self.used + self.granted + size > limit:
            return None
        return Ledger(self.used, self.grants | {session: self.grants.get(session, 0) + size})

    def settle(self, session: str, *, written: int) -> Ledger:
        """Turn granted bytes into used ones."""
        left = max(0, self.grants.get(session, 0) - written)
        return Ledger(self.used + written, self.grants | {session: left})

    def recount(self, used: int) -> Ledger:
        """Correct `used` by what is really on disk."""
        return Ledger(used, self.grants)
