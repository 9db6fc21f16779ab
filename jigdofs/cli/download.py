"""`jigdofs download`: build whole images, without questions."""

from __future__ import annotations

import argparse
import glob
import logging
import os
import re
import sys
from typing import TYPE_CHECKING

from jigdofs.cli import options
from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_INPUT, EXIT_OK, InputError, UsageError, leaf_of, printable
from jigdofs.fetch import url as urls

if TYPE_CHECKING:
    from jigdofs.batch import Order
    from jigdofs.cli.report import JsonReporter, TextReporter

_EPILOG = """\
Parts come from local files and old images (--scan), then from the cache, then from mirrors. An
interrupted download goes on where it was when the same command is run again; an unfinished image
(FILE.tmp) of jigdo-file or jigdo-lite is taken over. In the end the whole image is checked against
every checksum known of it; damage is found and had once more.

  jigdofs download https://cdimage.debian.org/.../debian-12-amd64-DVD-1.jigdo -o /srv/iso/
  jigdofs download --scan /mnt/old-dvd.iso --scan /var/cache/apt/archives new.jigdo
  jigdofs download --update --into /srv/iso '/srv/jigdo/**/*.jigdo'     # from cron: what is new or changed

exit codes: 0 every image is whole, 1 something could not be had, 2 a checksum differs, 3 wrong
usage or input; of several failures the highest.
"""
_GLOB = re.compile(r"[*?\[]")


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="JIGDO",
        help="path or URL of a .jigdo; with --into also a pattern (** for any depth), or a directory"
        " whose .jigdo files are all meant",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR|FILE",
        help="put images into this directory, which must exist, or call the one image so (default: their own"
        " names, here)",
    )
    parser.add_argument(
        "--into",
        metavar="DIR",
        help="put images into this directory, made if need be; those of a pattern (quote it!) or a"
        " directory in the same subdirectories as their .jigdo files",
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="replace images that changed, taking from an old ISO (or an image whose old .template lies"
        " beside it) what is still right; leave those that were whole when last looked at",
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace whatever is in the way")
    parser.add_argument(
        "--keep-parts",
        action="store_true",
        help="fetch into the cache, for other images and mounts, and copy",
    )
    parser.add_argument("--json", action="store_true", help="report in JSON, one object a line")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but what goes wrong")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice: everything")
    options.add_config(parser)
    options.add_input(parser)
    options.add_scan(parser)
    parser.set_defaults(image="all")
    options.add_cache(parser)
    # nobody waits for a certain part: a few more hide distance (50 ms: 4.5 s with 12, 5.2 s with 8)
    options.add_fetch(parser)


def run(arguments: argparse.Namespace) -> int:
    """Download; return the exit code of what went worst."""
    import trio

    from jigdofs import logs

    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(arguments.verbose, 2)]
    logs.to_user(level)
    if arguments.into is not None and arguments.output is not None:
        raise UsageError("--into and --output cannot both be given")
    if arguments.keep_parts and arguments.no_cache:
        raise UsageError("--keep-parts needs the cache that --no-cache forbids")
    if arguments.output == "-":
        raise UsageError("--output -: an image has to be whole before it is given away; name a file")
    from jigdofs.cli.report import JsonReporter, TextReporter

    reporter = JsonReporter() if arguments.json else TextReporter(quiet=arguments.quiet)
    try:
        return trio.run(_run, arguments, reporter, strict_exception_groups=True)
    except BaseException as error:
        if isinstance(leaf_of(error), KeyboardInterrupt):
            reporter.interrupted()
        raise


async def _run(arguments: argparse.Namespace, reporter: JsonReporter | TextReporter) -> int:
    from jigdofs.batch import Batch, Manner
    from jigdofs.cli.progress import template_progress
    from jigdofs.wiring.workshop import open_workshop

    orders, code = _orders(arguments)
    inputs = options.input_options(arguments, arguments.sources)
    manner = Manner(
        image=inputs.image,
        scan=options.scan_paths(arguments),
        force=arguments.force,
        update=arguments.update,
    )
    with template_progress() as progress:
        async with open_workshop(
            inputs.mirrors,
            inputs.labels,
            options.cache_options(arguments),
            options.fetch_options(arguments),
            keep_parts=arguments.keep_parts,
            progress=progress,
        ) as workshop:
            code = max(code, await Batch(workshop, manner, reporter).run(orders))
            reporter.finish(workshop.mirrors, code)
    return code


def _orders(arguments: argparse.Namespace) -> tuple[list[Order], int]:
    """Turn what the user named into orders; a pattern that finds nothing costs the exit code."""
    from jigdofs.batch import Order

    if arguments.into is None:
        directory, file = _target(arguments.output, arguments.sources)
        return [Order(source, directory, file) for source in arguments.sources], EXIT_OK
    orders, code = [], EXIT_OK
    for source in arguments.sources:
        found = _found(source)
        if not found:
            problem = "holds no .jigdo file" if os.path.isdir(source) else "no such .jigdo file"
            print(f"jigdofs: {printable(source)}: {problem}", file=sys.stderr)
            code = EXIT_INPUT
        orders += [
            Order(path, os.path.normpath(os.path.join(arguments.into, below))) for path, below in found
        ]
    return orders, code


def _target(output: str | None, sources: list[str]) -> tuple[str, str | None]:
    """Tell whether the output is a directory or a file's name; a directory that is missing was mistyped."""
    if output is None:
        return ".", None
    is_directory = output.endswith("/") or os.path.isdir(output)
    if not is_directory and len(sources) > 1:
        raise UsageError(f"--output {output}: is no directory, and several images cannot have one name")
    directory = output if is_directory else os.path.dirname(output) or "."
    if not os.path.isdir(directory):
        problem = "is no directory" if os.path.lexists(directory) else "there is no such directory"
        raise InputError(f"--output {output}: {directory}: {problem}; make it, or name it with --into")
    return (output, None) if is_directory else (".", output)


def _found(source: str) -> list[tuple[str, str]]:
    """Return the .jigdo files that an argument means, each with its subdirectory."""
    if urls.is_http(source):
        return [(source, "")]
    if os.path.isdir(source):
        base, pattern = source, os.path.join(glob.escape(source), "**", "*.jigdo")
    elif _GLOB.search(source) and not os.path.exists(source):
        parts = source.split("/")
        fixed = next(number for number, part in enumerate(parts) if _GLOB.search(part))
        base, pattern = "/".join(parts[:fixed]) or ("/" if source.startswith("/") else "."), source
    else:
        return [(source, "")] if os.path.exists(source) else []
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    return [(path, os.path.dirname(os.path.relpath(path, base))) for path in paths]
