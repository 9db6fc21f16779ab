"""`jigdofs verify`: hold an image against every checksum that its template and .jigdo give.

Rules of this file:
* The image is read once. One wrong checksum or a wrong length is a failure, however many others match.
* What the .jigdo says counts only if it belongs to this template: by the template's checksum.
"""

from __future__ import annotations

import argparse
import functools
import os
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from jigdofs.cli import jigdo_file
from jigdofs.cli.jigdo_file import Report
from jigdofs.cli.parser import Parser
from jigdofs.cli.progress import showing
from jigdofs.errors import EXIT_MISMATCH, EXIT_OK, FormatError, InputError
from jigdofs.format import jigdo, jigdo_limits, jigdo_reader
from jigdofs.format.checksum import to_base64
from jigdofs.format.template import ImageInfo, read_entries
from jigdofs.format.template_reader import has_header, read_desc
from jigdofs.hashing import FileSums, hash_file

_EPILOG = """\
Compares the image with the checksum in the template and with all others that the template and the
.jigdo beside it (or named with --jigdo) give. Exit code 0: all match, 2: one does not.
"""
_STRONG = ("sha512", "sha256")


class KnownSum(NamedTuple):
    """A checksum that the image should have.

    Attributes:
        algorithm: lower-case name.
        digest: as bytes.
        source: who says so: `template` or `.jigdo`.
    """

    algorithm: str
    digest: bytes
    source: str


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    jigdo_file.add_arguments(parser, shown=("image", "jigdo", "template"))


def run(arguments: argparse.Namespace) -> int:
    """Verify an image; everything is told on stderr, as jigdo-file does."""
    options = jigdo_file.options(arguments)
    image, template = jigdo_file.require_names(options.names, "image", "template")
    jigdo_file.warn_unused_files(options, "name the image with --image")
    # the image first: that it is not there is what a user should hear
    with _opened_image(image) as image_file, jigdo_file.opened(template) as template_file:
        infos = _image_infos(template_file, template)
        length = infos[-1].length
        size = os.fstat(image_file.fileno())
        if stat.S_ISREG(size.st_mode) and size.st_size != length:
            return _failed(f"it has {size.st_size} bytes, not {length}")
        known = _known_sums(infos, options, template_file)
        position = functools.partial(os.lseek, image_file.fileno(), 0, os.SEEK_CUR)
        quiet = options.report is not Report.DEFAULT or not stat.S_ISREG(size.st_mode)
        with showing(image, length, position, quiet=quiet):
            sums = hash_file(image_file, {known_sum.algorithm for known_sum in known})
    if sums.length != length:
        return _failed(f"it has {sums.length} bytes, not {length}")
    return _judge(known, sums, quiet=options.report is Report.QUIET)


def _opened_image(name: str) -> BinaryIO:
    try:
        if name == jigdo_file.STDIN:
            return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
        return open(name, "rb", buffering=0)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error


def _image_infos(file: BinaryIO, name: str) -> list[ImageInfo]:
    """Return all image-infos; the last one must be the template's last entry."""
    if not has_header(file):
        jigdo_file.warn(f"{name}: does not begin as a template does")
    offset, desc = read_desc(file, name)
    entries = list(read_entries(desc, source=name, offset=offset))
    infos = [entry for entry in entries if isinstance(entry, ImageInfo)]
    if not infos or infos[-1] is not entries[-1]:
        raise FormatError("the entries do not end with the image's own", source=name, offset=offset)
    return infos


def _known_sums(
    infos: list[ImageInfo], options: jigdo_file.JigdoFileOptions, template: BinaryIO
) -> list[KnownSum]:
    """Return what the image should have; the first is what jigdo-file would look at: SHA-256, if known."""
    from_template = [
        KnownSum(info.checksum.algorithm.short_name, info.checksum.digest, "template")
        for info in reversed(infos)
    ]
    from_template.sort(key=lambda known: -len(known.digest))
    return list(dict.fromkeys([*from_template, *_from_jigdo(options, template)]))


def _from_jigdo(options: jigdo_file.JigdoFileOptions, template: BinaryIO) -> Iterator[KnownSum]:
    """Yield what libjte wrote into the .jigdo; whatever is wrong with that file is no failure here."""
    name = options.names.jigdo
    if name is None or name == jigdo_file.STDIN or not (options.given.jigdo or os.path.exists(name)):
        return
    try:
        with jigdo_file.opened(name) as file:
            pieces = jigdo_reader.parse(file.read(jigdo_limits.MAX_BYTES + 1), name)
    except (InputError, FormatError) as error:
        jigdo_file.warn(f"its checksums are not used: {error}")
        return
    sections = [image for piece in pieces if isinstance(piece, jigdo.JigdoFile) for image in piece.images]
    for section in sections:
        if section.image_sums and _belongs(section, template):
            for algorithm, digest in section.image_sums.items():
                yield KnownSum(algorithm, bytes.fromhex(digest), ".jigdo")
            return


def _belongs(section: jigdo.ImageSection, template: BinaryIO) -> bool:
    """Tell whether an [Image] is about this template; one that gives no checksum might be about any."""
    wanted = section.template_checksums
    if not wanted:
        return False
    template.seek(0)
    found = hash_file(template, {checksum.algorithm.short_name for checksum in wanted}).digests
    return all(found[checksum.algorithm.short_name] == checksum.digest for checksum in wanted)


def _judge(known: list[KnownSum], sums: FileSums, *, quiet: bool) -> int:
    """Compare; tell the main checksum and all that are wrong; of a good image nothing if `quiet`."""
    if not quiet:
        main = known[0]
        name = main.algorithm.upper()
        print(f"{name} from template: {to_base64(main.digest)}", file=sys.stderr)
        print(f"{name} from image:    {to_base64(sums.digests[main.algorithm])}", file=sys.stderr)
    wrong = [one for one in known if sums.digests[one.algorithm] != one.digest]
    if wrong:
        names = ", ".join(f"{one.algorithm.upper()} from the {one.source}" for one in wrong)
        return _failed(f"{names} ({len(wrong)} of {len(known)} checksums)")
    if not quiet:
        matched = ", ".join(dict.fromkeys(one.algorithm.upper() for one in known))
        print(f"OK: the image has the checksums it should have ({matched})", file=sys.stderr)
        if not any(one.algorithm in _STRONG for one in known):
            print("WARNING: MD5 tells damage, but not forgery", file=sys.stderr)
    return EXIT_OK


def _failed(reason: str) -> int:
    print(f"ERROR: the image is not as it should be: {reason}", file=sys.stderr)
    return EXIT_MISMATCH
