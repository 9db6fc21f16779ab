"""URLs out of the raw names of a .jigdo (format.md 2.6): pure."""

from __future__ import annotations

import re
import urllib.parse

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# RFC 3986: unreserved, sub-delims and `:@/` may stand in a path as they are
_PATH_SAFE = "!$&'()*+,;=:@/~-._"
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")


def is_absolute(text: str) -> bool:
    """Tell whether a text has `scheme://` in front."""
    return _SCHEME.match(text) is not None


def is_http(text: str) -> bool:
    """Tell whether a text is an http: or https: URL."""
    return text.lower().startswith(("http://", "https://"))


def escape(url: str) -> tuple[str, ...]:
    """Return what to put on the wire for a raw URL: one form, or two where names are ambiguous.

    No tool says whether `%41` or `?` in a name is meant literally. The first form does what wget
    does (keeps valid escapes, begins a query at `?`), the second takes every character literally.
    `#` is always literal: parts have no fragments.
    """
    match = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", url)
    if match is None:
        raise ValueError(f"`{url}' is no absolute URL")
    origin, path = match[0], url[match.end() :]
    if not path.startswith("/"):
        path = "/" + path
    literal = origin + _quote(path, "")
    pieces = []
    at = 0
    for escaped in _ESCAPE.finditer(path):
        pieces += [_quote(path[at : escaped.start()], "?"), escaped[0]]
        at = escaped.end()
    kept = origin + "".join(pieces) + _quote(path[at:], "?")
    return (kept,) if kept == literal else (kept, literal)


def _quote(text: str, extra: str) -> str:
    return urllib.parse.quote(text.encode("utf-8", "surrogateescape"), safe=_PATH_SAFE + extra)


def join(base: str, reference: str) -> str:
    """Resolve a reference against the URL it stands in; both are raw, nothing is escaped.

    `..` never climbs above the host. The query of the base is dropped, as RFC 3986 has it.
    """
    if is_absolute(reference):
        return reference
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*", base)
    origin = match[0] if match else ""
    if reference.startswith("/"):
        return origin + _remove_dots(reference)
    path = re.split("[?#]", base[len(origin) :], maxsplit=1)[0]
    return origin + _remove_dots(path[: path.rfind("/") + 1] + reference, absolute=bool(origin))


def _remove_dots(path: str, *, absolute: bool = True) -> str:
    kept: list[str] = []
    parts = path.split("/")
    for part in parts:
        if part == "..":
            if len(kept) > 1 or (kept and kept[0]):
                kept.pop()
        elif part != ".":
            kept.append(part)
    if parts[-1] in (".", ".."):
        kept.append("")
    joined = "/".join(kept)
    return "/" + joined.lstrip("/") if absolute else joined


def origin(url: str) -> str:
    """Return scheme, host and port: what a connection is made to."""
    match = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", url)
    return match[0] if match else ""


def without_credentials(url: str) -> str:
    """Return the URL fit for a log: no user name, no password."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@", r"\1", url)
