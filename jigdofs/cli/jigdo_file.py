"""The options of jigdo-file, for every verb that has its name: read as getopt_long reads them.

Rules of this file:
* Every verb takes every option of jigdo-file and passes over those that mean nothing to it, as
  jigdo-file does: scripts hand one set of options to all commands.
* Options and files may be mixed in any order; an option's value is whatever follows, even `--x`.
* Names are the bytes the user gave (surrogate-escaped strings, never `Path`: `a//b` is not `a/b`).

A verb on top of it::

    def add_arguments(parser):
        jigdo_file.add_arguments(parser, shown=("image", "jigdo", "template", "files_from"))

    def run(arguments):
        options = jigdo_file.options(arguments)
        image = options.names.image                  # deduced where it was not given, else None
        for name in jigdo_file.files(options): ...   # operands, then what --files-from lists
"""

from __future__ import annotations

import argparse
import enum
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, cast

from jigdofs.cli.called_as import program
from jigdofs.cli.parser import Parser
from jigdofs.errors import InputError, UsageError, printable
from jigdofs.format.checksum import Algorithm

STDIN = "-"
_COPY_BYTES = 1 << 20
_MIN_LENGTH = 256  # jigdo-file silently takes no less
_SIZE = re.compile(r"([0-9]*)([kKmMgG]?)", re.ASCII)
_EXPIRY = re.compile(r"([0-9]*)([hHdDwWmMyY]?)", re.ASCII)
_HOUR_S = 3600
_EXPIRY_UNIT_S = {"": 1, "h": _HOUR_S, "d": 24 * _HOUR_S, "w": 168 * _HOUR_S}
_EXPIRY_UNIT_S |= {"m": 30 * 24 * _HOUR_S, "y": 365 * 24 * _HOUR_S}


class Report(enum.Enum):
    """What `--report` asks for."""

    DEFAULT = "default"
    NO_PROGRESS = "noprogress"
    QUIET = "quiet"
    GREP = "grep"


class Names(NamedTuple):
    """The three files of an image, as given or deduced; `-` is stdin, None is unknown."""

    image: str | None
    jigdo: str | None
    template: str | None


@dataclass(frozen=True, slots=True)
class JigdoFileOptions:
    """All options of jigdo-file, read.

    Attributes:
        names: image, .jigdo and template, deduced where not given.
        given: the same without deducing.
        operands: the FILES of the command line; see `files` for those of --files-from too.
        files_from: lists of further names; `-` is stdin.
        report: how much to tell on stderr.
        force: overwrite what exists.
        hex: print checksums in hexadecimal.
        labels: `--label`, in the order given: label, directory.
        uris: `--uri`, in the order given: label, what it stands for (to be split into words).
        cache_file: what `--cache` named, unless `--no-cache` came after it.
        cache_expiry_s: age at which cache entries go; None for never.
        check_files: read files rather than believe the cache.
        scan_whole_file: scan: read more than the first block.
        greedy_matching: make-template: take the first match.
        image_section: make-template: write [Image].
        servers_section: make-template: write [Servers].
        merge: make-template: the .jigdo to add to; `-` is stdin.
        match_exec: make-template: command to run for each match.
        algorithm: make-template: of checksums.
        bzip2: make-template: compress with bzip2, not zlib.
        level: make-template: 0-9.
        min_length: make-template: shortest part, bytes.
        checksum_block_bytes: an internal of jigdo-file.
        read_buffer_bytes: how much jigdo-file would read at a time.
    """

    names: Names
    given: Names
    operands: tuple[str, ...]
    files_from: tuple[str, ...]
    report: Report
    force: bool
    hex: bool
    labels: tuple[tuple[str, str], ...]
    uris: tuple[tuple[str, str], ...]
    cache_file: str | None
    cache_expiry_s: int | None
    check_files: bool
    scan_whole_file: bool
    greedy_matching: bool
    image_section: bool
    servers_section: bool
    merge: str | None
    match_exec: str | None
    algorithm: Algorithm
    bzip2: bool
    level: int
    min_length: int
    checksum_block_bytes: int
    read_buffer_bytes: int


# -- options -----------------------------------------------------------------------------------------


def add_arguments(parser: Parser, *, shown: Collection[str] = (), files_help: str = "") -> None:
    """Add every option of jigdo-file and the files.

    Args:
        parser: of the verb.
        shown: the options that mean something to the verb, by their attribute: the help names only those.
        files_help: what the files are, if the verb uses any.
    """
    add = _Adder(parser, shown)
    add.value("image", "-i", "--image", metavar="FILE", help="the image")
    add.value("jigdo", "-j", "--jigdo", metavar="FILE", help="the .jigdo")
    add.value("template", "-t", "--template", metavar="FILE", help="the .template")
    add.values(
        "files_from",
        "-T",
        "--files-from",
        metavar="FILE",
        help="read more names from FILE (`-': stdin), one a line",
    )
    add.value(
        "report",
        *("-r", "--report"),
        choices=[report.value for report in Report],
        default=Report.DEFAULT.value,
        help="how much to tell on stderr",
    )
    add.switch("force", "-f", "--force", "--no-force", help="overwrite what exists")
    add.switch("hex", "--hex", "--no-hex", help="write checksums in hexadecimal, not base64")
    add.values("label", "--label", metavar="LABEL=DIR", help="name parts below DIR by this label")
    add.values("uri", "--uri", metavar="LABEL=URL", help="let the label stand for this URL; repeatable")
    _add_cache(add)
    _add_make_template(add)
    add.flag("debug", "--debug", nargs="?")
    add.flag("debug", "--no-debug", action="store_const", const=None)
    parser.add_argument("files", nargs="*", metavar="FILE", help=files_help or argparse.SUPPRESS)


def _add_cache(add: _Adder) -> None:
    add.value("cache", "-c", "--cache", metavar="FILE", help="where to remember checksums of local files")
    add.flag("cache", "--no-cache", action="store_const", const=None, help="forget a --cache before it")
    add.value("cache_expiry", "--cache-expiry", type=_expiry, default=_expiry("30d"), metavar="AGE")
    add.switch("check_files", "--check-files", "--no-check-files", default=True)
    add.switch("scan_whole_file", "--scan-whole-file", "--no-scan-whole-file")
    add.value("readbuffer", "--readbuffer", type=_size, default=128 << 10, metavar="BYTES")


def _add_make_template(add: _Adder) -> None:
    add.value("merge", "--merge", metavar="FILE", help="a .jigdo to add to")
    add.value("match_exec", "--match-exec", metavar="COMMAND", help="run this shell command for every match")
    add.value(
        "checksum_algorithm",
        *("-C", "--checksum-algorithm"),
        choices=[algorithm.short_name for algorithm in Algorithm],
        default=Algorithm.MD5.short_name,
        help="checksum of the parts (md5)",
    )
    shortest = "shortest part (1024; not below 256)"
    add.value("min_length", "--min-length", type=_size, default=1024, metavar="BYTES", help=shortest)
    add.value("block_size", "--checksum-block-size", "--md5-block-size", type=_size, default=131017)
    add.switch("greedy_matching", "--greedy-matching", "--no-greedy-matching", default=True)
    for name in ("image", "servers"):
        section = f"{name}-section"
        add.switch(
            f"{name}_section",
            f"--{section}",
            f"--no-{section}",
            default=True,
            off_help=f"write no [{name.capitalize()}]",
        )
    add.switch("bzip2", "--bzip2", "--gzip", help="compress with bzip2, not zlib")
    level_help = {1: "compress fast; -0 not at all", 9: "compress well (this is what is done)"}
    for level in range(10):
        text = level_help.get(level, "")
        add.flag("level", f"-{level}", action="store_const", const=level, default=9, help=text)


class _Adder:
    """Add options to a parser, hiding in its help those that mean nothing to the verb."""

    def __init__(self, parser: Parser, shown: Collection[str]) -> None:
        self._parser = parser
        self._shown = shown

    def flag(self, name: str, *options: str, help: str = "", **rest: Any) -> None:  # noqa: A002  argparse's name
        """Add an option; without `help` no verb's help names it."""
        visible = help if help and name in self._shown else argparse.SUPPRESS
        self._parser.add_argument(*options, dest=name, help=visible, **rest)

    def value(self, name: str, *options: str, help: str = "", **rest: Any) -> None:  # noqa: A002
        """Add an option that takes a value, the last of which counts."""
        self.flag(name, *options, help=help, **rest)

    def values(self, name: str, *options: str, metavar: str, help: str = "") -> None:  # noqa: A002
        """Add an option that may be given several times."""
        self.flag(name, *options, help=help, action="append", default=[], metavar=metavar)

    def switch(
        self,
        name: str,
        on: str,
        *options: str,
        default: bool = False,
        help: str = "",  # noqa: A002
        off_help: str = "",
    ) -> None:
        """Add an option, perhaps with a short name, and last the one that takes it back."""
        *others, off = options
        self.flag(name, on, *others, help=help, action="store_true", default=default)
        self.flag(name, off, help=off_help, action="store_false", default=default)


def _size(text: str) -> int:
    """Read a number of bytes with `k`, `M` or `G` behind it; nothing at all is 0."""
    match = _SIZE.fullmatch(text)
    if match is None or len(match[1]) > 18:
        raise argparse.ArgumentTypeError(f"`{text}' is no size; write for instance 4096 or 128k")
    return int(match[1] or "0") << (10 * " kmg".index(match[2].lower() or " "))


def _expiry(text: str) -> int | None:
    """Read an age in seconds, or with `h`, `d`, `w`, `m` or `y` behind it; `off` is never."""
    if text == "off":
        return None
    match = _EXPIRY.fullmatch(text)
    if match is None or len(match[1]) > 12:
        raise argparse.ArgumentTypeError(f"`{text}' is no age; write for instance 12h or 30d, or off")
    return int(match[1] or "0") * _EXPIRY_UNIT_S[match[2].lower()]


def options(arguments: argparse.Namespace) -> JigdoFileOptions:
    """Return what the command line says, names deduced."""
    return JigdoFileOptions(
        names=names(arguments),
        given=_given(arguments),
        operands=tuple(arguments.files),
        files_from=tuple(arguments.files_from),
        report=Report(arguments.report),
        force=arguments.force,
        hex=arguments.hex,
        labels=_pairs(arguments.label),
        uris=_pairs(arguments.uri),
        cache_file=arguments.cache,
        cache_expiry_s=arguments.cache_expiry,
        check_files=arguments.check_files,
        scan_whole_file=arguments.scan_whole_file,
        greedy_matching=arguments.greedy_matching,
        image_section=arguments.image_section,
        servers_section=arguments.servers_section,
        merge=arguments.merge,
        match_exec=arguments.match_exec,
        algorithm=Algorithm[arguments.checksum_algorithm.upper()],
        bzip2=arguments.bzip2,
        level=arguments.level,
        min_length=max(arguments.min_length, _MIN_LENGTH),
        checksum_block_bytes=arguments.block_size,
        read_buffer_bytes=arguments.readbuffer,
    )


def _pairs(values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Split `LABEL=VALUE`; what has no `=` is passed over, as jigdo-file does."""
    split = [value.partition("=") for value in values]
    return tuple((label.strip(" \t"), rest) for label, equals, rest in split if equals)


# -- names -------------------------------------------------------------------------------------------


def names(arguments: argparse.Namespace) -> Names:
    """Return the names of image, .jigdo and template, deduced where not given."""
    return deduce(_given(arguments))


def _given(arguments: argparse.Namespace) -> Names:
    # jigdo-file takes an empty name for none
    return Names(arguments.image or None, arguments.jigdo or None, arguments.template or None)


def deduce(given: Names) -> Names:
    """Fill in missing names: the first of the three that was given, with another extension. Pure."""
    first = next((name for name in given if name is not None and name != STDIN), None)
    if first is None:
        return given
    stem = _stem(first)
    # a .jigdo or template without an extension cannot be the image as well
    image = stem if stem not in ("", first) else None
    return Names(
        given.image if given.image is not None else image,
        given.jigdo if given.jigdo is not None else f"{stem}.jigdo",
        given.template if given.template is not None else f"{stem}.template",
    )


def _stem(name: str) -> str:
    """Drop the extension; jigdo-file sees one in `.hidden`, too."""
    slash, dot = name.rfind("/"), name.rfind(".")
    return name[:dot] if dot > slash else name


def require_names(found: Names, *wanted: str) -> tuple[str, ...]:
    """Return these names (`image`, `jigdo`, `template`), or say which one is to be given."""
    missing = [name for name in wanted if getattr(found, name) is None]
    if missing:
        which = " and ".join(f"--{name}" for name in missing)
        one = "; the others are deduced from one of them" if len(missing) > 1 else ""
        raise UsageError(f"give {which}: there is nothing to deduce it from{one}")
    return tuple(getattr(found, name) for name in wanted)


def files(found: JigdoFileOptions) -> Iterator[str]:
    """Yield the files named on the command line, then those that --files-from lists.

    A list ends at its first empty line; one that cannot be read is reported and passed over.
    """
    yield from found.operands
    for source in found.files_from:
        try:
            if source == STDIN:
                yield from _listed(sys.stdin.buffer)
            else:
                with open(source, "rb") as file:
                    yield from _listed(file)
        except OSError as error:
            warn(f"cannot read the list of names {source}: {error.strerror}")


def _listed(file: BinaryIO) -> Iterator[str]:
    for line in file:
        name = line.removesuffix(b"\n")
        if not name:
            return
        yield os.fsdecode(name)


def warn_unused_files(found: JigdoFileOptions, instead: str) -> None:
    """Tell that files on the command line mean nothing to this verb."""
    if found.operands:
        warn(f"`{found.operands[0]}' is not used: {instead}")


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """Open a file that can be sought in; stdin (`-`) is copied to a temporary file.

    Raises:
        InputError: it cannot be opened or is a directory.
    """
    try:
        file = stdin_copy() if name == STDIN else open(name, "rb")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    with file:
        try:
            yield file
        except OSError as error:
            raise InputError(f"{name}: {error.strerror}") from error


def stdin_copy() -> BinaryIO:
    """Return a temporary file with what is left of stdin; raise `OSError`."""
    import tempfile

    copy = tempfile.TemporaryFile(buffering=_COPY_BYTES)  # noqa: SIM115  the caller closes it
    while data := sys.stdin.buffer.read(_COPY_BYTES):
        copy.write(data)
    copy.seek(0)
    return cast(BinaryIO, copy)


# -- what is printed ---------------------------------------------------------------------------------


def warn(message: str) -> None:
    """Print a warning of one line to stderr."""
    print(f"{program()}: warning: {printable(message)}", file=sys.stderr)


def write_line(line: bytes) -> None:
    """Print a line to stdout, whatever its bytes are."""
    sys.stdout.buffer.write(line + b"\n")
