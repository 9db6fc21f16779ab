"""`jigdofs make-image`: build an image from local files alone, as jigdo-file does.

Rules of this file:
* A part is put in place after its checksum matched, whatever `--no-check-files` says, and the image gets
  its name after its own did: jigdo-file does not look at that.
* What could not be completed stays as `IMAGE.tmp`, for jigdo-file, for us, and for `download`.
"""

from __future__ import annotations

import argparse
import os
import sys

from jigdofs.build.account import Account
from jigdofs.build.blueprint import Blueprint, open_template, read_blueprint
from jigdofs.build.builder import Builder, Missing
from jigdofs.build.from_sources import fill_from_sources, find_damaged
from jigdofs.build.raw_writing import writing_raw
from jigdofs.build.stream import write_image
from jigdofs.build.unfinished import Replace
from jigdofs.cli import jigdo_file
from jigdofs.cli.called_as import program
from jigdofs.cli.jigdo_file import JigdoFileOptions, Report
from jigdofs.cli.parser import Parser
from jigdofs.cli.progress import showing
from jigdofs.errors import EXIT_MISMATCH, EXIT_OK, EXIT_UNAVAILABLE, InputError, printable
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.sources import Sources

_EPILOG = """\
FILES are files, directories, and old images, which are read without mounting them. Exit code 0: the
image is complete and right; 1: files are still missing, and IMAGE.tmp keeps what was found; 2: a file
begins like one that is missing but has another checksum, or the image has. With --image=- the image
goes to stdout.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    shown = ("image", "jigdo", "template", "files_from", "report", "force", "cache")
    jigdo_file.add_arguments(parser, shown=shown, files_help="files, directories and old images to use")


def run(arguments: argparse.Namespace) -> int:
    """Build an image from files."""
    options = jigdo_file.options(arguments)
    image, template = jigdo_file.require_names(options.names, "image", "template")
    if image != jigdo_file.STDIN:
        _check_free(image, force=options.force)
    template_file = open_template(template)
    remembered = None if options.cache_file is None else Remembered(options.cache_file, report=_say)
    try:
        blueprint = read_blueprint(template_file, {}, template)
        sources = Sources(list(jigdo_file.files(options)), remembered=remembered, report=_say)
        sources.scan({part.length for _, part in blueprint.layout.parts()})
        if image == jigdo_file.STDIN:
            write_image(blueprint, sources, sys.stdout.buffer)
            return EXIT_OK
        return _to_file(blueprint, sources, image, options)
    finally:
        os.close(template_file.fd)
        if remembered is not None:
            remembered.close()


def _check_free(image: str, *, force: bool) -> None:
    if os.path.lexists(image) and not force:
        raise InputError(f"{image}: exists already; delete it or use --force")
    if os.path.exists(image) and not os.path.isfile(image):
        raise InputError(f"{image}: is no regular file, so --force does not replace it")


def _to_file(blueprint: Blueprint, sources: Sources, image: str, options: JigdoFileOptions) -> int:
    builder = Builder(
        blueprint,
        image,
        Account(blueprint.layout.length),
        replace=Replace.ANY if options.force else Replace.NOTHING,
    )
    try:
        wanted = builder.missing()
        begun_in_vain = builder.unfinished.created and bool(wanted)
        if begun_in_vain and not any(sources.candidates(missing.part) for missing in wanted):
            builder.unfinished.discard()
            return _incomplete(builder, wanted, wanted, sources, options)
        account = builder.account
        quiet = options.report is not Report.DEFAULT
        with showing(image, account.length, lambda: account.done, quiet=quiet):
            missing = _fill(builder, wanted, sources)
            if not missing and builder.wrong_sums():
                # a run before may have left it damaged
                missing = _fill(builder, builder.unmark_damage(), sources)
        if not missing:
            builder.finish()
            if options.report is not Report.QUIET and sys.stderr.isatty():
                known = ", ".join(dict.fromkeys(one.algorithm for one in blueprint.sums))
                _say(f"{image} is complete: {account.length:,} bytes; checked against its {known}")
            return EXIT_OK
        if begun_in_vain and len(missing) == len(wanted):
            builder.unfinished.discard()
        return _incomplete(builder, wanted, missing, sources, options)
    finally:
        builder.close()


def _fill(builder: Builder, wanted: list[Missing], sources: Sources) -> list[Missing]:
    """Put in place what there is, raw data meanwhile; return what is still missing."""
    with writing_raw(builder):
        missing = builder.fill_from_itself(wanted)
        return fill_from_sources(builder, missing, sources, lambda _part: ())


def _incomplete(
    builder: Builder,
    wanted: list[Missing],
    missing: list[Missing],
    sources: Sources,
    options: JigdoFileOptions,
) -> int:
    """Say what is still missing; a file that was given for it but is damaged decides the exit code."""
    if options.report is not Report.QUIET:
        places = sum(len(part.indexes) for part in wanted)
        left = sum(len(part.indexes) for part in missing)
        _say(f"found {places - left} of the {places} files that the image needs")
        if os.path.exists(builder.unfinished.path):
            _say(f"{builder.unfinished.path} keeps them: repeat the command with more files to go on")
        else:
            _say("nothing is written: try other files")
    damaged = find_damaged(builder.blueprint, missing, sources)
    for piece in damaged:
        _say(f"{piece}: begins like a file that the image needs, but has not its checksum")
    return EXIT_MISMATCH if damaged else EXIT_UNAVAILABLE


def _say(text: str) -> None:
    print(f"{program()}: {printable(text)}", file=sys.stderr)
