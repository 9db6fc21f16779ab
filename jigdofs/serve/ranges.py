"""Which bytes a request asks for, and whether it wants them at all (RFC 9110 13 and 14). Pure.

A file has one strong validator, its ETag, and a date to the second. Several ranges in one request are
refused: no client of images needs them, and answering them costs a form of its own.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from typing import NamedTuple

_RANGES = re.compile(rb"bytes[ \t]*=(.*)", re.IGNORECASE | re.DOTALL)
_RANGE = re.compile(
    rb"([0-9]*)[ \t]*-[ \t]*([0-9]*)"
)  # without blanks around it, which it would go over again
_MAX_DIGITS = 18  # no file is as long; int() of a longer text takes the square of its length
_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


class Validators(NamedTuple):
    """What tells one content of a file from another.

    Attributes:
        etag: with its quotes.
        mtime_s: when it was last changed, in whole seconds since 1970.
    """

    etag: bytes
    mtime_s: int


class Answer(NamedTuple):
    """What is to be answered: the status, and which bytes (begin, end) a body has.

    200 and 206 have a body; 304, 412 and 416 have none.
    """

    status: int
    begin: int = 0
    end: int = 0


def decide(headers: Mapping[bytes, bytes], size: int, validators: Validators) -> Answer:
    """Decide what a GET or HEAD of a file is answered.

    Args:
        headers: of the request, by name in lower case.
        size: of the file, bytes.
        validators: of the file.
    """
    if not _is_wanted_at_all(headers, validators):
        return Answer(412)
    if not _is_news(headers, validators):
        return Answer(304)
    text = headers.get(b"range")
    if text is None or not _is_range_current(headers.get(b"if-range"), validators):
        return Answer(200, 0, size)
    return _of_range(text, size)


def _is_wanted_at_all(headers: Mapping[bytes, bytes], validators: Validators) -> bool:
    """Heed If-Match and If-Unmodified-Since (RFC 9110 13.1.1, 13.1.4)."""
    match = headers.get(b"if-match")
    if match is not None:
        return match.strip() == b"*" or validators.etag in _TAG.findall(match)
    since = _date(headers.get(b"if-unmodified-since"))
    return since is None or validators.mtime_s <= since


def _is_news(headers: Mapping[bytes, bytes], validators: Validators) -> bool:
    """Heed If-None-Match and If-Modified-Since (RFC 9110 13.1.2, 13.1.3)."""
    match = headers.get(b"if-none-match")
    if match is not None:
        tags = [tag.removeprefix(b"W/") for tag in _TAG.findall(match)]
        return match.strip() != b"*" and validators.etag not in tags
    since = _date(headers.get(b"if-modified-since"))
    return since is None or validators.mtime_s > since


def _is_range_current(condition: bytes | None, validators: Validators) -> bool:
    """Heed If-Range: a strong ETag, or a date that is exactly ours (RFC 9110 13.1.5)."""
    if condition is None:
        return True
    condition = condition.strip()
    return condition == validators.etag or _date(condition) == validators.mtime_s


def _of_range(text: bytes, size: int) -> Answer:
    """Return the one range that is asked for; what is no range of bytes is passed over (RFC 9110 14.2)."""
    whole = Answer(200, 0, size)
    unit = _RANGES.fullmatch(text.strip())
    if unit is None:
        return whole
    ranges = list(filter(None, (one.strip(b" \t") for one in unit[1].split(b","))))
    matches = [_RANGE.fullmatch(one) for one in ranges]
    if not matches or not all(matches):
        return whole
    if len(matches) > 1 or matches[0] is None:
        return Answer(416)
    first, last = (_number(digits, size) for digits in matches[0].groups())
    if first is None and last is None:
        return whole
    if first is None or last is None:
        begin, end = (max(0, size - (last or 0)) if first is None else first), size
    elif first > last:
        return whole
    else:
        begin, end = first, min(last + 1, size)
    return Answer(206, begin, end) if begin < end else Answer(416)


def _number(digits: bytes, size: int) -> int | None:
    """Return a number, or one just as large as need be; None where there is none."""
    if not digits:
        return None
    return size if len(digits) > _MAX_DIGITS else int(digits)


def _date(text: bytes | None) -> int | None:
    """Read an HTTP date as seconds since 1970; None where there is none."""
    if text is None:
        return None
    try:
        return int(email.utils.parsedate_to_datetime(text.decode("ascii")).timestamp())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
