"""Whole small files in the cache, in memory at once. All functions block: call them from worker threads."""

from __future__ import annotations

import logging
import os

from jigdofs.errors import CacheError
from jigdofs.format.checksum import Algorithm
from jigdofs.parts.cache import Cache
from jigdofs.parts.spool import Spool

_log = logging.getLogger(__name__)

MAX_BYTES = 256 << 20
"""A longer file is none of these: what the index says of it was tampered with."""


def read_small(cache: Cache | None, key: str) -> bytes | None:
    """Return what is kept under a key, or None."""
    file = None if cache is None else cache.open(key, None)
    if file is None:
        return None
    if file.size > MAX_BYTES:
        file.discard()
        return None
    try:
        data = os.pread(file.fd, file.size, 0)
    except OSError as error:
        _log.info("cache file %s: %s", key, error)
        return None
    finally:
        file.discard()
    return data if len(data) == file.size else None


def keep_small(cache: Cache | None, key: str, data: bytes) -> bool:
    """Keep a file under a key; tell whether there was room for it."""
    if cache is None:
        return False
    spool = Spool(len(data), (cache.place(key, None),), Algorithm.SHA256.hasher)
    try:
        spool.write(data)
        spool.finish().discard()
    except (OSError, CacheError) as error:
        _log.info("cannot keep cache file %s: %s", key, error)
        return False
    finally:
        spool.abandon()
    return True
