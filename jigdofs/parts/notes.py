"""What is noted of each file in the cache, in the index and in memory, and what of it is believed.

Invariants of this file:
* What a session noted of a file is believed while the session runs and after it ended cleanly.
* What is believed once stays so while this process runs: what only a power cut could belie, that ends us too.
* Trouble with the index costs a second verification, never a read.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jigdofs.format.checksum import Checksum
from jigdofs.parts.index import Index, IndexTrouble, Texts
from jigdofs.parts.open_file import Fingerprint
from jigdofs.parts.quota import row_key
from jigdofs.parts.sessions import FEW, Sessions

_log = logging.getLogger(__name__)

_FLUSH_NOTES = 128
MAX_BELIEVED = 1 << 18
"""Files whose fingerprints are in memory, 75 bytes each; beyond that, all are looked up anew."""


class Note(NamedTuple):
    """What the index knows of one file."""

    fingerprint: Fingerprint
    session: str
    checksum: Checksum

    def dump(self) -> str:
        """Write it as text."""
        return json.dumps([*self.fingerprint, self.session, self.checksum.hex])

    @classmethod
    def parse(cls, text: str) -> Note | None:
        """Read what `dump` wrote; None for anything else."""
        with contextlib.suppress(ValueError, RecursionError):
            match json.loads(text):
                # as written before ctime was noted: only the checksum is of use
                case [int(size), int(mtime), int(inode), *times, str(session), str(digest)] if len(times) < 2:
                    raw = bytes.fromhex(digest)
                    changed = times[0] if times and isinstance(times[0], int) else 0
                    if len(raw) in (16, 32):
                        return cls(Fingerprint(size, mtime, inode, changed), session, Checksum(raw))
        return None


class Notes:
    """The notes as one process sees them. All methods but `believed` block: call them from worker threads.

    Args:
        index: where they are kept.
        sessions: whose notes hold.
    """

    def __init__(self, index: Index, sessions: Sessions) -> None:
        self._index = index
        self._sessions = sessions
        self._lock = threading.Lock()
        self._unwritten: dict[str, str] = {}  # key -> text
        self._believed: set[int] = set()  # of key and fingerprint
        self.own: set[str] = set()  # some of the keys noted in this session: more than a few are many

    def believed(self, key: str, fingerprint: Fingerprint) -> bool:
        """Tell whether a file of that fingerprint is known to be right, as far as is in memory."""
        return hash((key, fingerprint)) in self._believed

    def believe(self, key: str, fingerprint: Fingerprint) -> None:
        """Have a file in memory that is right."""
        if len(self._believed) >= MAX_BELIEVED:
            self._believed.clear()
        self._believed.add(hash((key, fingerprint)))

    def get(self, key: str) -> Note | None:
        """Return what is noted of a file."""
        with self._lock:
            text = self._unwritten.get(key)
        if text is None:
            try:
                text = self._index.get(row_key(key))
            except IndexTrouble as error:
                _log.info("%s", error)
        return Note.parse(text) if text else None

    def holds(self, note: Note | None, fingerprint: Fingerprint) -> bool:
        """Tell whether a note is of this very file and may be believed."""
        return note is not None and note.fingerprint == fingerprint and self._sessions.trusted(note.session)

    def learn(self, keys: Sequence[str]) -> None:
        """Have in memory what is noted of these files, some hundred of them."""
        try:
            texts = self._index.get_all([row_key(key) for key in keys])
        except IndexTrouble as error:
            _log.info("%s", error)
            return
        trusted: dict[str, bool] = {}
        for key in keys:
            note = Note.parse(texts.get(row_key(key), ""))
            if note is None or len(self._believed) >= MAX_BELIEVED:
                continue
            if note.session not in trusted:
                trusted[note.session] = self._sessions.trusted(note.session)
            if trusted[note.session]:
                self.believe(key, note.fingerprint)

    def add(self, key: str, fingerprint: Fingerprint, checksum: Checksum) -> bool:
        """Note a file that is right; tell whether it is time for a `flush`."""
        with self._lock:
            if len(self.own) <= FEW:
                self.own.add(key)
            self._unwritten[key] = Note(fingerprint, self._sessions.own, checksum).dump()
            self.believe(key, fingerprint)
            return len(self._unwritten) >= _FLUSH_NOTES

    def flush(self, exists: Callable[[str], bool], settle: Callable[[Texts], None]) -> None:
        """Write what was noted to the index, in one transaction.

        Args:
            exists: tells whether a key has a file.
            settle: called within the transaction.
        """
        with self._lock:
            unwritten, self._unwritten = self._unwritten, {}

        def write(texts: Texts) -> None:
            for key, text in unwritten.items():
                if exists(key):  # else evicted meanwhile
                    texts.set(row_key(key), text)
            settle(texts)

        try:
            self._index.atomically(write)
        except IndexTrouble as error:
            _log.info("%s", error)
