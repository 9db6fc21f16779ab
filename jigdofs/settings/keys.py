"""Which settings there are, of what kind, and which of them may change while a mount runs. Pure.

A setting is called as the long option whose default it is; `tests/test_settings_keys.py` keeps the two equal.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

PREFIX = "JIGDOFS_"
"""What the name of each environment variable begins with: JIGDOFS_CACHE_DIR is cache-dir."""


class Kind(enum.Enum):
    """What a setting holds: the value says what it looks like, for messages."""

    FLAG = "true or false"
    COUNT = "0, 1 or 2"
    NUMBER = "a whole number"
    SIZE = 'a size such as "20G", or a number of bytes'
    TIME = 'a time such as "30s" or "2m", or a number of seconds'
    TEXT = "a text"
    IDENTITY = "a name or a number"
    OCTAL = 'a text such as "022"'
    PATH = "a path"
    LOG = 'a path, or "syslog"'
    METRICS = 'a text such as "127.0.0.1:9469", "unix:/run/m" or "/srv/m.prom"'
    PATHS = "a path, or a list of paths"
    SOURCES = "a path or URL, or a list of them"
    WORDS = "a text, or a list of texts"
    MIRRORS = 'a table such as [mirror] with lines like Debian = ["http://deb.debian.org/debian/"]'


class Key(NamedTuple):
    """One setting.

    Attributes:
        name: of it, which is that of the option.
        kind: what it holds.
        live: SIGHUP changes it in a mount that runs.
        image_set: it tells what to mount, so it stands in a file given with --config only.
    """

    name: str
    kind: Kind
    live: bool = False
    image_set: bool = False


KEYS = {
    key.name: key
    for key in (
        Key("images", Kind.SOURCES, image_set=True),
        Key("mountpoint", Kind.PATH, image_set=True),
        Key("mirror", Kind.MIRRORS, live=True),
        Key("image", Kind.TEXT),
        Key("scan", Kind.PATHS),
        Key("cache-dir", Kind.PATH),
        Key("cache-max-size", Kind.SIZE, live=True),
        Key("cache-min-free", Kind.SIZE, live=True),
        Key("no-cache", Kind.FLAG),
        Key("keep-parts", Kind.FLAG),
        Key("connections", Kind.NUMBER, live=True),
        Key("connect-timeout", Kind.TIME, live=True),
        Key("stall-timeout", Kind.TIME, live=True),
        Key("min-speed", Kind.SIZE, live=True),
        Key("bwlimit", Kind.SIZE, live=True),
        Key("read-timeout", Kind.TIME, live=True),
        Key("readahead", Kind.SIZE, live=True),
        Key("prefetch", Kind.TEXT),
        Key("prefetch-list", Kind.PATH),
        Key("record", Kind.PATH),
        Key("contents", Kind.FLAG),
        Key("allow-other", Kind.FLAG),
        Key("uid", Kind.IDENTITY),
        Key("gid", Kind.IDENTITY),
        Key("umask", Kind.OCTAL),
        Key("max-background", Kind.NUMBER),
        Key("read-ahead-kb", Kind.NUMBER),
        Key("fuse-options", Kind.WORDS),
        Key("listen", Kind.TEXT),
        Key("log-file", Kind.LOG),
        Key("metrics", Kind.METRICS),
        Key("verbose", Kind.COUNT, live=True),
    )
}
_ALIASES = {"uri": "mirror"}
_MAX_SHOWN = 40  # of what is no setting, and compared with those there are


def find(name: str) -> Key | None:
    """Return the setting of that name, in which `_` and `-` are the same, or None."""
    name = name.replace("_", "-")
    return KEYS.get(_ALIASES.get(name, name))


def unknown(name: str) -> str:
    """Say that there is no such setting, and which was probably meant."""
    import difflib

    shown = name[:_MAX_SHOWN]
    near = difflib.get_close_matches(shown.replace("_", "-").lower(), KEYS, n=1)
    return f"there is no setting `{shown}'" + (f"; did you mean {near[0]}?" if near else "")


def variable(key: Key) -> str:
    """Return the name of the environment variable of a setting."""
    return PREFIX + key.name.replace("-", "_").upper()
