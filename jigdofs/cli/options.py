"""Options that several verbs share, and their way into the values of `config`."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from jigdofs import __version__
from jigdofs.cli import parser as types
from jigdofs.cli.parser import Parser
from jigdofs.config import BackgroundOptions, CacheOptions, FetchOptions, InputOptions, ReadOptions
from jigdofs.errors import UsageError

_FETCH = FetchOptions()
_READ = ReadOptions()
_BACKGROUND = BackgroundOptions()


def add_config(parser: Parser) -> None:
    """Have files and the environment say what the command line does not, and one more file be named."""
    parser.configurable = True
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="read settings from this TOML file, too; /etc/jigdofs/jigdofs.toml, jigdofs.d/*.toml beside it,"
        " $XDG_CONFIG_HOME/jigdofs/config.toml and JIGDOFS_* variables are read anyway",
    )


def add_input(parser: Parser) -> None:
    """Add what says where images and parts come from."""
    group = parser.add_argument_group("where parts come from")
    group.add_argument(
        "--mirror",
        "--uri",
        metavar="LABEL=URL",
        type=types.mirror,
        action="append",
        default=[],
        help="ask this URL or local directory first for parts of that label, such as"
        " Debian=http://deb.debian.org/debian/; repeatable, the first is the best",
    )
    group.add_argument(
        "--image",
        default="first",
        metavar="N|NAME|all",
        help="which image of a .jigdo that describes several (default: the first)",
    )


def add_scan(parser: Parser) -> None:
    """Add what names local files that may hold parts."""
    group = parser.add_argument_group("what is on this machine")
    group.add_argument(
        "--scan",
        metavar="PATH",
        action="append",
        default=[],
        help="look for parts in this directory, file or old image first (an ISO is read without mounting"
        " it, any image that has its old .template beside it); repeatable",
    )


def add_cache(parser: Parser) -> None:
    """Add what says where verified parts are kept."""
    group = parser.add_argument_group("the cache of verified parts, shared by all images")
    group.add_argument(
        "--cache-dir", metavar="DIR", type=Path, help=f"keep parts here (default: {default_cache_dir()})"
    )
    group.add_argument(
        "--cache-max-size",
        metavar="SIZE|off",
        type=types.size_or_off,
        default=CacheOptions.__dataclass_fields__["max_bytes"].default,
        help="keep at most this much, least recently used parts go first (default: 20G)",
    )
    group.add_argument(
        "--cache-min-free",
        metavar="SIZE",
        type=types.size,
        help="leave this much free on the disk (default: 1G, or 5%% of it where that is less)",
    )
    group.add_argument("--no-cache", action="store_true", help="keep nothing after the end")


def add_fetch(parser: Parser) -> None:
    """Add what says how transfers behave."""
    group = parser.add_argument_group("transfers")
    group.add_argument(
        "--connections",
        metavar="N",
        type=types.positive,
        default=_FETCH.connections,
        help="to one host at a time (default: %(default)s)",
    )
    group.add_argument(
        "--connect-timeout",
        metavar="TIME",
        type=types.duration_s,
        default=_FETCH.connect_timeout_s,
        help="give up a connection after this long (default: 10s)",
    )
    group.add_argument(
        "--stall-timeout",
        metavar="TIME",
        type=types.duration_s,
        default=_FETCH.stall_timeout_s,
        help="give up a transfer that brought nothing for this long (default: 15s)",
    )
    group.add_argument(
        "--min-speed",
        metavar="SIZE",
        type=types.size,
        default=_FETCH.min_speed_bytes_per_s,
        help="give up a transfer slower than this per second (default: 1k; 0 never)",
    )


def add_read(parser: Parser) -> None:
    """Add what says how reads behave."""
    group = parser.add_argument_group("reads")
    group.add_argument(
        "--read-timeout",
        metavar="TIME",
        type=types.duration_s,
        default=_READ.timeout_s,
        help="let a read fail after this long (default: 2m)",
    )
    group.add_argument(
        "--readahead",
        metavar="SIZE",
        type=types.size,
        default=_READ.readahead_bytes,
        help="fetch this far ahead of sequential readers (default: 64M; 0 never)",
    )


def add_background(parser: Parser) -> None:
    """Add what says what is fetched before it is read, and what is learnt from reading."""
    group = parser.add_argument_group("fetching before anybody reads")
    group.add_argument(
        "--prefetch",
        choices=("none", "metadata", "all"),
        default=_BACKGROUND.prefetch,
        help="metadata: what an installer reads first (dists/, .disk/, boot files); all: everything, as far"
        " as the cache has room (default: none)",
    )
    group.add_argument(
        "--prefetch-list",
        metavar="FILE",
        type=Path,
        help="fetch the parts of this list first, in its order and alongside of readers; --record writes such"
        " lists",
    )
    group.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="write down which parts readers touch, in the order of the first touch; a list that is there"
        " goes on",
    )
    group.add_argument(
        "--bwlimit",
        metavar="SIZE|off",
        type=types.bandwidth_or_off,
        help="bytes a second that all background fetching may take together; what a reader waits for is not"
        " limited (default: no limit)",
    )


def default_cache_dir() -> Path:
    """Return systemd's choice, else /var/cache for root, else the user's cache directory."""
    given = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/cache/jigdofs")
    import platformdirs

    return platformdirs.user_cache_path("jigdofs")


def input_options(arguments: argparse.Namespace, sources: list[str]) -> InputOptions:
    """Build the value."""
    mirrors: dict[str, tuple[str, ...]] = {}
    for label, target in arguments.mirror:
        if target.startswith("/") and not os.path.isdir(target):
            raise UsageError(
                f"{_who(arguments, 'mirror', (label, target))} {label}={target}: is no directory"
            )
        mirrors[label] = (*mirrors.get(label, ()), target)
    meant = frozenset(label for label, _ in arguments.configured.typed("mirror")) | _of_the_named_file(
        arguments
    )
    return InputOptions(tuple(sources), mirrors, arguments.image, meant)


def _of_the_named_file(arguments: argparse.Namespace) -> frozenset[str]:
    """Return the labels that the file of --config names: what is said for these images, not for all."""
    if arguments.config is None:
        return frozenset()
    path, prefix = os.path.abspath(arguments.config), "mirror."
    said = arguments.settings.items()
    return frozenset(
        name.removeprefix(prefix)
        for name, setting in said
        if name.startswith(prefix) and setting.origin.source == path
    )


def _who(arguments: argparse.Namespace, name: str, value: object) -> str:
    """Tell who gave a value to an option: the command line, or which file or variable."""
    if value in arguments.configured.typed(name):
        return f"--{name}"
    text = "=".join(value) if isinstance(value, tuple) else value
    origins = (str(setting.origin) for setting in arguments.settings.values() if text in setting.texts)
    return f"{next(origins, 'settings')}: {name}"


def scan_paths(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the local sources; raise `UsageError` for one that does not exist."""
    for path in arguments.scan:
        if not os.path.lexists(path):
            raise UsageError(f"{_who(arguments, 'scan', path)} {path}: there is no such file or directory")
    return tuple(os.path.abspath(path) for path in arguments.scan)


def cache_options(arguments: argparse.Namespace) -> CacheOptions | None:
    """Build the value; None for no cache."""
    if arguments.no_cache:
        return None
    directory = arguments.cache_dir or default_cache_dir()
    return CacheOptions(Path(directory).absolute(), arguments.cache_max_size, arguments.cache_min_free)


def fetch_options(arguments: argparse.Namespace) -> FetchOptions:
    """Build the value."""
    return FetchOptions(
        connections=arguments.connections,
        connect_timeout_s=arguments.connect_timeout,
        stall_timeout_s=arguments.stall_timeout,
        min_speed_bytes_per_s=arguments.min_speed,
        user_agent=f"jigdofs/{__version__}",
    )


def background_options(arguments: argparse.Namespace) -> BackgroundOptions:
    """Build the value; raise `UsageError` where nothing could be kept."""
    if arguments.no_cache and (arguments.prefetch != "none" or arguments.prefetch_list is not None):
        raise UsageError("fetching ahead needs a cache to keep parts in: leave --no-cache out")

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    return BackgroundOptions(
        arguments.prefetch,
        absolute(arguments.prefetch_list),
        arguments.bwlimit or None,
        absolute(arguments.record),
    )


def log_level(arguments: argparse.Namespace) -> int:
    """Return what -v asks for, as `logging` counts it."""
    return (logging.WARNING, logging.INFO, logging.DEBUG)[min(arguments.verbose, 2)]


def read_options(arguments: argparse.Namespace) -> ReadOptions:
    """Build the value."""
    return ReadOptions(arguments.read_timeout, arguments.readahead)
