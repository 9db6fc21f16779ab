"""What the header of an HTTP answer says of the file: whether it can be what was asked for. Pure.

Invariant of this file: an encoding, a length or a range other than asked for is wrong content, whatever
follows the header.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from jigdofs.errors import MirrorTrouble, NotThere, WrongContent
from jigdofs.fetch.fetcher import Answer, Request

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")
_OUTSIDE = re.compile(r"bytes \*/([0-9]{1,15})")
_MAX_RETRY_AFTER_S = 3600.0
_NOT_THERE = {401, 403, 404, 410, 451}  # this file is not for us here; others may be
_PAGES = (".html", ".htm", ".xhtml", ".shtml")


@dataclass(frozen=True, slots=True)
class Header:
    """What comes before the body.

    Attributes:
        status: the number.
        phrase: what the server calls it.
        fields: by name in any case.
        url: whose answer it is, without credentials.
    """

    status: int
    phrase: str
    fields: Mapping[str, str]
    url: str

    @property
    def is_page(self) -> bool:
        """Tell whether it says that the body is a web page."""
        return self.fields.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html"


def judge(request: Request, header: Header, *, asking: bool = False) -> Answer:
    """Decide whether the body can be what was asked for.

    Args:
        request: what was wanted.
        header: of the answer.
        asking: the length was all that was wanted, by HEAD or by way of the first byte.

    Raises:
        FetchError: it cannot.
    """
    status, url, fields = header.status, header.url, header.fields
    etag = _validator(fields.get("ETag", ""))
    modified = _validator(fields.get("Last-Modified", ""))
    if status == 304 and (request.etag or request.last_modified) and not asking:
        return Answer(not_modified=True, url=url, etag=etag, last_modified=modified)
    if status in _NOT_THERE:
        raise NotThere(url, f"{status} {header.phrase}")
    if status == 416 and not asking:
        raise WrongContent(url, "is shorter than what was received already (416)")
    if status not in (200, 206, 416):
        raise MirrorTrouble(url, f"{status} {header.phrase}", retry_after_s=_retry_after_s(fields))
    encoding = fields.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise WrongContent(url, f"comes encoded as {encoding}, which was not asked for")
    offset, total = _told_length(header) if asking else _body(request, header)
    _check_length(request, header, total)
    if asking and total is None and header.is_page and not _names_page(request.url):
        raise WrongContent(url, "is a web page")
    return Answer(offset=offset, length=total, url=url, etag=etag, last_modified=modified)


def _body(request: Request, header: Header) -> tuple[int, int | None]:
    """Read where the body begins, and how long the whole file is then."""
    offset, whole = 0, None
    if header.status == 206:
        offset, whole = _body_range(header, request.offset or None)
        _check_length(request, header, whole)
    length = _content_length(header.fields)
    return offset, whole if length is None else offset + length


def _told_length(header: Header) -> tuple[int, int | None]:
    """Read the length out of the answer to HEAD, or to the wish for the first byte."""
    length = _content_length(header.fields)
    if header.status == 416:
        return 0, _empty_length(header)
    if header.status == 206:
        if length not in (None, 1):
            raise WrongContent(header.url, f"sends {length} bytes where one was asked for")
        return _body_range(header, 0)
    return 0, length


def _content_length(fields: Mapping[str, str]) -> int | None:
    text = fields.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _check_length(request: Request, header: Header, total: int | None) -> None:
    if total is None:
        return
    if request.length is not None and total != request.length:
        page = ", a web page" if header.is_page else ""
        raise WrongContent(header.url, f"has {total} bytes instead of {request.length}{page}")
    if total > request.max_length:
        raise WrongContent(header.url, f"has {total} bytes, more than {request.max_length}")


def _body_range(header: Header, begin: int | None) -> tuple[int, int | None]:
    """Read where the body begins, and the whole length; anything but what was asked for is wrong content."""
    text = header.fields.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or begin is None or int(match[1]) != begin:
        raise WrongContent(header.url, f"answers with another range than asked for (`{text[:60]}')")
    return begin, None if match[3] == "*" else int(match[3])


def _empty_length(header: Header) -> int:
    """Read the length of a file that has no first byte."""
    match = _OUTSIDE.fullmatch(header.fields.get("Content-Range", "").strip())
    if match is None:
        raise WrongContent(header.url, "has no first byte (416)")
    return int(match[1])


def _names_page(url: str) -> bool:
    """Tell whether a URL is one that a web page may well be at."""
    return url.partition("?")[0].lower().endswith(_PAGES)


def _validator(text: str) -> str:
    """Return a validator that can be sent back as it is, or ""."""
    return text if text.isascii() and text.isprintable() and len(text) < 256 else ""


def _retry_after_s(fields: Mapping[str, str]) -> float | None:
    """Read Retry-After: seconds or a date (RFC 9110 10.2.3)."""
    text = fields.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), _MAX_RETRY_AFTER_S)
    try:
        date = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, date - time.time()), _MAX_RETRY_AFTER_S)
