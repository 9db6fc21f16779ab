"""Write settings as they stand in a TOML file: those that hold, the defaults, and a file of all of them."""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Mapping

from jigdofs.cli import configured, options
from jigdofs.cli.parser import Parser
from jigdofs.fetch.url import without_credentials
from jigdofs.settings.keys import KEYS, Key, Kind
from jigdofs.settings.layers import Setting

Value = bool | int | str | list[str] | None
_LISTS = (Kind.MIRRORS, Kind.PATHS, Kind.SOURCES, Kind.WORDS)
_WIDTH = 100
_HEAD = """\
# Settings of jigdofs, see jigdofs.toml(5). All of them are here, with their defaults where they have any;
# take the mark off a line to change it. `jigdofs config check' tells what is wrong, and `jigdofs config
# show --origin' what holds.
"""
_EXAMPLES: dict[str, Value] = {
    "images": ["/srv/jigdo/debian-12-amd64-BD-1.jigdo"],
    "mountpoint": "/srv/iso",
    "scan": ["/srv/old-dvd.iso"],
    "cache-min-free": "1G",
    "prefetch-list": "/srv/jigdo/installer.list",
    "record": "/srv/jigdo/installer.list",
    "uid": "root",
    "gid": "root",
    "read-ahead-kb": 256,
    "fuse-options": ["auto_unmount"],
    "log-file": "syslog",
    "metrics": "127.0.0.1:9469",
}
_HELP = {
    "images": "what to mount, where the command line does not say: paths or URLs of .jigdo files, or paths"
    " of plain .iso files. Only in a file that --config names",
    "mountpoint": "and where: a directory or a regular file. Only in a file that --config names",
    "fuse-options": "options of FUSE, as behind `mount -o': allow_root, default_permissions, auto_unmount",
    "verbose": "log more; 2 for everything",
}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def of_setting(key: Key, setting: Setting) -> Value:
    """Return a setting as TOML would have it; passwords in URLs are left out."""
    texts = [without_credentials(text) for text in setting.texts]
    if key.kind is Kind.MIRRORS:
        texts = [without_credentials(text.partition("=")[2]) for text in setting.texts]
    if key.kind in _LISTS:
        return texts
    if key.kind is Kind.FLAG:
        return texts[-1] == "true"
    number = key.kind is not Kind.OCTAL and texts[-1].isascii() and texts[-1].isdigit()
    return int(texts[-1]) if number else texts[-1]


def defaults(parsers: Mapping[str, Parser]) -> dict[str, Value]:
    """Return the default of each setting; None where nothing is done."""
    return {name: _default(KEYS[name], action) for name, action in _actions(parsers).items()}


def _actions(parsers: Mapping[str, Parser]) -> dict[str, argparse.Action]:
    """Return the option of each setting, of the first verb that has it."""
    found: dict[str, argparse.Action] = {}
    for parser in parsers.values():
        for action in configured.options_of(parser):
            key = configured.key_of(action)
            if key is not None:
                found.setdefault(key.name, action)
    return found


def _default(key: Key, action: argparse.Action) -> Value:
    value = action.default
    match key.kind:
        case _ if key.name == "cache-dir":
            value = str(options.default_cache_dir())
        case _ if key.name in ("cache-max-size", "bwlimit") and value is None:
            value = "off"
        case Kind.SIZE if value is not None:
            value = _size(value)
        case Kind.TIME:
            value = f"{value / 60:g}m" if value >= 60 and value % 60 == 0 else f"{value:g}s"
        case Kind.OCTAL:
            value = f"{value:03o}"
    assert value is None or isinstance(value, bool | int | str | list)
    return value


def _size(value: int) -> Value:
    for unit in "PTGMK":
        factor = 1024 ** (" KMGTP".index(unit))
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return value


def toml(value: Value) -> str:
    """Write a value."""
    if isinstance(value, list):
        return f"[{', '.join(toml(one) for one in value)}]"
    # a JSON text without escaped surrogates is a TOML text, as long as DEL is escaped
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def toml_key(name: str) -> str:
    """Write a name, and behind a point that of a label."""
    first, point, label = name.partition(".")
    return name if not point or _BARE_KEY.fullmatch(label) else f"{first}.{toml(label)}"


def example(parsers: Mapping[str, Parser]) -> str:
    """Return a file that has all settings, each behind a mark that makes it a comment."""
    actions = _actions(parsers)
    known = defaults(parsers)
    verbs = {
        name: [verb for verb, parser in parsers.items() if name in _actions({verb: parser})] for name in KEYS
    }
    pieces = [_HEAD]
    for key in KEYS.values():
        action = actions.get(key.name)
        text = _HELP.get(key.name) or _help(action)
        where = f" ({', '.join(verbs[key.name])})" if verbs[key.name] else ""
        comment = textwrap.fill(
            f"{text}{where}", _WIDTH, initial_indent="## ", subsequent_indent="## ", break_on_hyphens=False
        )
        name, value = key.name, _EXAMPLES.get(key.name, known.get(key.name))
        if key.kind is Kind.MIRRORS:
            name, value = "mirror.Debian", ["http://deb.debian.org/debian/"]
        pieces.append(f"{comment}\n#{name} = {toml(value)}\n")
    return "\n".join(pieces)


def _help(action: argparse.Action | None) -> str:
    """Return what an option's help says."""
    if action is None or not action.help:
        return ""
    return action.help % {"default": action.default, "prog": "jigdofs"}
