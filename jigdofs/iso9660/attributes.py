"""What a directory record, as pycdlib parsed it, says of a file: kind, rights, times, link, device number."""

from __future__ import annotations

import calendar
import os
import stat
from typing import Any

_FILE, _DIRECTORY = stat.S_IFREG | 0o555, stat.S_IFDIR | 0o555  # as the kernel shows what has no rights
_TF_STAMPS_AT, _STAMP_BYTES, _LONG_STAMP_BYTES = 5, 7, 17
_LAST_NS = (1 << 63) - 1
_KINDS = frozenset(
    (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
)


def _ridge_record(ridge: Any, name: str) -> Any:
    """Return one of Rock Ridge's entries, from the record itself or from its continuation."""
    for entries in (ridge.dr_entries, ridge.ce_entries):
        if entries is not None and (found := getattr(entries, name, None)) is not None:
            return found
    return None


def mode(record: Any, ridge: Any) -> int:
    """Return kind and rights, as in `st_mode`."""
    plain = _DIRECTORY if record.is_dir() else _FILE
    px = _ridge_record(ridge, "px_record") if ridge is not None else None
    if px is None:
        return plain
    told: int = px.posix_file_mode & 0xFFFF
    if stat.S_IFMT(told) not in _KINDS or stat.S_ISDIR(told) != record.is_dir():
        return stat.S_IFMT(plain) | stat.S_IMODE(told)
    return told


def device(ridge: Any) -> int:
    """Return the number of a device file; 0 if none is told."""
    pn = _ridge_record(ridge, "pn_record") if ridge is not None else None
    if pn is None:
        return 0
    # 32 bits in the low word, as mkisofs writes them, or major and minor in a word each (RRIP 4.1.2)
    number = pn.dev_t_low if not pn.dev_t_high else os.makedev(pn.dev_t_high & 0xFFF, pn.dev_t_low & 0xFFFFF)
    return int(number) & 0xFFFFFFFF


def target(ridge: Any) -> bytes:
    """Return where a symbolic link leads; pycdlib's own has `/` for nothing, and `a//b` for `/b`.

    A slash follows each component, save the last, the root and one that goes on in the next (RRIP 4.1.3).
    """
    target = separator = b""
    for entries in (ridge.dr_entries, ridge.ce_entries) if ridge is not None else ():
        for link in () if entries is None else entries.sl_records:
            for component in link.symlink_components:
                name = component.name()
                target += separator + name
                separator = b"" if name == b"/" or component.is_continued() else b"/"
    return target


def times(record: Any, ridge: Any) -> tuple[int, int, int]:
    """Return when it was modified, read and changed, in nanoseconds since 1970.

    Taken from the bytes of the entry: pycdlib names the second and the third of the times the wrong way
    round (RRIP 4.1.6: creation, modification, access, attributes).
    """
    plain = _time(record.date.record())
    tf = _ridge_record(ridge, "tf_record") if ridge is not None else None
    if tf is None:
        return plain, plain, plain
    stamps = tf.record()[_TF_STAMPS_AT:]
    size = _LONG_STAMP_BYTES if tf.time_flags & 0x80 else _STAMP_BYTES
    found = {}
    for bit in range(4):
        if tf.time_flags >> bit & 1:
            found[bit], stamps = _time(stamps[:size]), stamps[size:]
    return found.get(1, plain), found.get(2, plain), found.get(3, plain)


def _time(stamp: bytes) -> int:
    """Return a date of either form in nanoseconds since 1970; 0 if it is none (ECMA-119 8.4.26.1, 9.1.5)."""
    hundredths = 0
    zone = int.from_bytes(stamp[-1:], signed=True)  # in quarters of an hour
    try:
        if len(stamp) == _LONG_STAMP_BYTES:
            year = int(stamp[:4])
            month, day, hour, minute, second, hundredths = (int(stamp[at : at + 2]) for at in range(4, 16, 2))
        else:
            year, month, day, hour, minute, second = 1900 + stamp[0], *stamp[1:6]
        if not (1 <= month <= 12 and 1 <= day <= 31):
            return 0
        seconds: int = calendar.timegm((year, month, day, hour, minute, second)) - 900 * zone
    except ValueError:  # no digits, or the year 0
        return 0
    return max(-_LAST_NS, min(seconds * 10**9 + hundredths * 10**7, _LAST_NS))
