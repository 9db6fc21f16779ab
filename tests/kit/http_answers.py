"""Say what a good HTTP server answers and how a fault in the content bends that; no sockets, no files."""

import email.utils
import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.kit.faults import (
    Changed,
    Empty,
    Fault,
    Gzip,
    Html,
    IgnoreRange,
    Redirect,
    Status,
    TooLong,
    WrongBytes,
    WrongContentRange,
)

_BLOCK = 64 * 1024
_INVERTED = bytes(255 - byte for byte in range(256))
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_PAGE = b"<!DOCTYPE html><html><body><h1>Welcome! Please log in.</h1></body></html>\n"


@dataclass(frozen=True, slots=True)
class Request:
    """Tell what was asked and sent; status 0 stands for no answer, header names are in lower case."""

    method: str
    path: str  # decoded, without the query
    target: str  # as it stood in the request line
    range: str | None
    headers: Mapping[str, str]
    status: int = 0
    body_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """Hold what a path stands for."""

    data: bytes
    modified: float


@dataclass(slots=True)
class Answer:
    """Hold an answer to be sent; `padding` zero bytes follow the body."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    padding: int = 0

    def pieces(self, start: int = 0, size: int = _BLOCK) -> Iterator[bytes]:
        """Cut what is sent from `start` on into pieces."""
        for offset in range(start, len(self.body), size):
            yield self.body[offset : offset + size]
        for offset in range(0, self.padding, size):
            yield bytes(min(size, self.padding - offset))


def answer_to(request: Request, fault: Fault, content: Content | None) -> Answer:
    """Return the good answer, bent by those faults that lie in its content."""
    match fault:
        case Status(code, retry_after):
            return _text(
                code, b"as you wish\n", {"Retry-After": str(retry_after)} if retry_after is not None else {}
            )
        case Redirect(location, code):
            return _text(code, b"elsewhere\n", {"Location": location})
        case Html():
            return Answer(200, {"Content-Type": "text/html; charset=utf-8"}, _PAGE)
    answer = _good(request, fault, content)
    if answer.status not in (200, 206):
        return answer
    match fault:
        case WrongBytes():
            answer.body = answer.body.translate(_INVERTED)
        case Empty():
            answer.body = b""
        case TooLong(extra):
            answer.padding = extra
        case Gzip():
            answer.body = gzip.compress(answer.body, mtime=0)
            answer.headers["Content-Encoding"] = "gzip"
    return answer


def _good(request: Request, fault: Fault, content: Content | None) -> Answer:
    if content is None:
        return _text(404, b"no file here\n", {})
    data, modified = content.data, content.modified
    if isinstance(fault, Changed):
        data, modified = bytes(byte ^ 1 for byte in data), modified + 86400
    validators = {
        "ETag": f'"{hashlib.sha256(data).hexdigest()[:16]}"',
        "Last-Modified": email.utils.formatdate(modified, usegmt=True),
    }
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if "*" in known or validators["ETag"] in known:
        return Answer(304, validators)
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"} | validators
    selected = _selected(request.range, len(data))
    outdated = request.headers.get("if-range", validators["ETag"]) not in validators.values()
    if selected is None or outdated or isinstance(fault, IgnoreRange):
        return Answer(200, headers, data)
    start, end = selected
    if start >= end:
        return _text(416, b"not in the file\n", {"Content-Range": f"bytes */{len(data)}"})
    shift = fault.shift if isinstance(fault, WrongContentRange) else 0
    headers["Content-Range"] = f"bytes {start + shift}-{end + shift - 1}/{len(data)}"
    return Answer(206, headers, data[start:end])


def _text(status: int, text: bytes, headers: dict[str, str]) -> Answer:
    return Answer(status, {"Content-Type": "text/plain"} | headers, text)


def _selected(value: str | None, size: int) -> tuple[int, int] | None:
    """Return [start, end) of one byte range, empty if it cannot be met; None where Range does not count."""
    found = _RANGE.fullmatch(value or "")
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        return max(0, size - int(last)) if int(last) else size, size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size
