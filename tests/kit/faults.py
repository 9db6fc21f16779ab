"""Name what the faulty server can do wrong, as frozen values.

`after` counts bytes of the body. Where it may be None, None means: before a single byte of the answer.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """Serve well: the base of all faults is none, so a script can say "well first, then ..."."""


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Answer with a status and a small text; for 503 and 429 perhaps with Retry-After."""

    code: int
    retry_after: int | str | None = None


@dataclass(frozen=True, slots=True)
class Close(Fault):
    """Close the connection in an orderly way without an answer."""


@dataclass(frozen=True, slots=True)
class Reset(Fault):
    """Reset the connection (RST), before the answer or after a part of the body."""

    after: int | None = None


@dataclass(frozen=True, slots=True)
class Truncate(Fault):
    """Announce the right Content-Length, close after `after` bytes."""

    after: int


@dataclass(frozen=True, slots=True)
class Stall(Fault):
    """Fall silent until `FaultyServer.release()` or `stop()`; when released, send the rest."""

    after: int | None = None


@dataclass(frozen=True, slots=True)
class Drip(Fault):
    """Send the body slowly."""

    bytes_per_second: int


@dataclass(frozen=True, slots=True)
class Html(Fault):
    """Answer 200 with a web page, as a captive portal does."""


@dataclass(frozen=True, slots=True)
class WrongBytes(Fault):
    """Send as many bytes as asked for under the right ETag, every one of them wrong."""


@dataclass(frozen=True, slots=True)
class Empty(Fault):
    """Send no byte under Content-Length 0, with the status of a good answer."""


@dataclass(frozen=True, slots=True)
class TooLong(Fault):
    """Send `extra` zero bytes more, honestly announced; they are never held in memory."""

    extra: int = 1


@dataclass(frozen=True, slots=True)
class IgnoreRange(Fault):
    """Answer 200 with everything (which is legal)."""


@dataclass(frozen=True, slots=True)
class WrongContentRange(Fault):
    """Send the bytes asked for under a Content-Range that lies elsewhere."""

    shift: int = 512


@dataclass(frozen=True, slots=True)
class Gzip(Fault):
    """Send the body with Content-Encoding: gzip, asked for or not."""


@dataclass(frozen=True, slots=True)
class Chunked(Fault):
    """Send the body in chunks without Content-Length (which is legal)."""


@dataclass(frozen=True, slots=True)
class Redirect(Fault):
    """Point elsewhere with any Location: a loop, file:, another origin."""

    location: str
    code: int = 302


@dataclass(frozen=True, slots=True)
class Changed(Fault):
    """Serve another content of the same length, with an ETag and Last-Modified of its own."""


WELL = Fault()
