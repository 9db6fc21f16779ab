"""`jigdofs cache`: what the cache holds, image by image, and what goes or stays."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable

from jigdofs import logs
from jigdofs.cli import options
from jigdofs.cli import parser as types
from jigdofs.cli.parser import Parser
from jigdofs.config import CacheOptions
from jigdofs.errors import UsageError

_EPILOG = """\
actions:
  ls [IMAGE...]      which images the cache knows, and what of each is here; of named ones each part
  du                 what takes how much: by image, what images share once, and what is of no known image
  gc                 remove what was not used for the longest until the cache is no larger than it may be,
                     what killed daemons left behind, and what is known of images of which nothing is here
  verify             read every file and compare it with its checksum; wrong ones are removed
  pin IMAGE...       never evict what is or comes here of these images, whoever needs room
  unpin IMAGE...     undo that
  clear [IMAGE...]   remove everything, or what is of these images and of no other known one

An IMAGE is the name of an image, the beginning of its ID (6 characters or more), path or URL of its .jigdo,
a mount point or the path of an image in one. Names are of images that were mounted or downloaded with this
cache; `pin' loads a .jigdo that it does not know yet.

All of it may be done while daemons use the cache. What is open, or being fetched, is never removed, save by
`verify' where it is wrong: the daemon that has it open sees that and fetches it anew. (What the kernel keeps
of a mount in memory is not known to be wrong; unmount and mount again.) If root names a cache of another
user, that user's rights are all that is used.

examples:
  jigdofs cache ls
  jigdofs cache gc --max-size 10G --older-than 30d --dry-run
  jigdofs cache pin debian-12-amd64-DVD-1.iso
  jigdofs cache clear --yes debian-11-amd64-DVD-1.iso
  sudo jigdofs cache du --cache-dir /var/cache/jigdofs-images

exit codes: 0 done, 1 something could not be done, 2 a checksum differs, 3 wrong usage or input.
"""
_ACTIONS = ("ls", "du", "gc", "verify", "pin", "unpin", "clear")
_TAKE_IMAGES = {"ls", "pin", "unpin", "clear"}
_NEED_IMAGES = {"pin", "unpin"}
_ONLY_FOR = {
    "max_size": ("gc",),
    "older_than": ("gc",),
    "dry_run": ("gc",),
    "keep": ("verify",),
    "quiet": ("verify",),
    "yes": ("clear",),
    "pinned": ("clear",),
    "json": ("ls", "du", "gc", "verify", "clear"),
}
_AGE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(s|m|h|d|w)", re.IGNORECASE | re.ASCII)
_AGE_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.usage = "jigdofs cache {ls,du,gc,verify,pin,unpin,clear} [IMAGE...] [options]"
    parser.add_argument("action", choices=_ACTIONS, metavar="ACTION", help="what to do; see below")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="which images; see below")
    parser.add_argument("--json", action="store_true", help="print JSON; sizes in bytes, times in seconds")
    options.add_config(parser)
    options.add_cache(parser)
    group = parser.add_argument_group("gc")
    group.add_argument(
        "--max-size",
        metavar="SIZE",
        type=types.size,
        help="leave at most this much (default: what --cache-max-size and --cache-min-free allow)",
    )
    group.add_argument(
        "--older-than",
        metavar="TIME",
        type=age_s,
        help="remove all that nobody used for so long, however small the cache is: 12h, 30d, 8w",
    )
    group.add_argument("--dry-run", action="store_true", help="only say what would go")
    group = parser.add_argument_group("verify")
    group.add_argument(
        "--keep", action="store_true", help="report wrong files, and leave them where they are"
    )
    group.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    group = parser.add_argument_group("clear")
    group.add_argument("-y", "--yes", action="store_true", help="do not ask")
    group.add_argument("--pinned", action="store_true", help="remove what is pinned, too, and its pins")


def age_s(text: str) -> float:
    """Read a time in seconds: `90m`, `12h`, `30d`, `8w`."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"`{text[:40]}' is no time; write for instance 12h, 30d or 8w")
    return float(match[1]) * _AGE_UNIT_S[match[2].lower()]


def run(arguments: argparse.Namespace) -> int:
    """Do it, with the rights of the cache's owner."""
    _check(arguments)
    cache = options.cache_options(arguments)
    if cache is None:
        raise UsageError("--no-cache leaves nothing to look at")
    from jigdofs.cli.cache_rights import act_as_owner

    action = _action(arguments)  # what it imports its owner may not be able to read
    act_as_owner(cache.directory)
    logs.to_stderr(logging.WARNING)
    return action(arguments, cache)


def _check(arguments: argparse.Namespace) -> None:
    """Raise `UsageError` for what makes no sense together."""
    action = arguments.action
    if arguments.images and action not in _TAKE_IMAGES:
        raise UsageError(f"`cache {action}' takes no image: it is of the whole cache")
    if not arguments.images and action in _NEED_IMAGES:
        raise UsageError(f"`cache {action}' needs an image; `jigdofs cache ls' lists them")
    for name, actions in _ONLY_FOR.items():
        if getattr(arguments, name) not in (None, False) and action not in actions:
            raise UsageError(f"--{name.replace('_', '-')} is for {', '.join(actions)} only")


def _action(arguments: argparse.Namespace) -> Callable[[argparse.Namespace, CacheOptions], int]:
    """Return what does it; only what that needs is imported."""
    name = arguments.action
    if name in ("ls", "du"):
        from jigdofs.cli import cache_views

        return cache_views.list_images if name == "ls" else cache_views.show_usage
    if name in ("pin", "unpin"):
        from jigdofs.cli import cache_pins

        cache_pins.import_for(arguments.images)
        return cache_pins.pin if name == "pin" else cache_pins.unpin
    from jigdofs.cli import cache_changes

    actions = {
        "gc": cache_changes.collect_garbage,
        "verify": cache_changes.verify,
        "clear": cache_changes.clear,
    }
    return actions[name]
