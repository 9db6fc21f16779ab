"""Make a .jigdo and a .template as the options of `make-template` say.

Rules of this file:
* Nothing is written before everything is known to be writable, and nothing appears before it is complete.
* The image is never written to, whatever names the user gives.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from jigdofs.cli import jigdo_file
from jigdofs.cli.called_as import program
from jigdofs.cli.jigdo_file import JigdoFileOptions, Report
from jigdofs.cli.json_text import json_text
from jigdofs.cli.progress import showing
from jigdofs.cli.template_account import Made, Names, as_json, as_lines
from jigdofs.cli.url_report import ask_files, exit_code, line, told
from jigdofs.create.image_file import ImageFile, open_image
from jigdofs.create.labels import Labels
from jigdofs.create.local_files import GivenFiles, LocalFiles, sort_out
from jigdofs.create.make import GENERATOR, Match, Matches, Settings, find_matches, write
from jigdofs.create.output import OutputFile, check_apart, check_free, is_same, left_between, publish_both
from jigdofs.errors import EXIT_OK, InputError, UsageError, printable
from jigdofs.format.checksum import Algorithm
from jigdofs.format.jigdo_limits import MAX_BYTES
from jigdofs.format.jigdo_merge import labels_in, merge_jigdo
from jigdofs.format.jigdo_writer import Description, write_jigdo
from jigdofs.format.template import Compression
from jigdofs.named_files import named_files
from jigdofs.sources.remembered import Remembered

_STDERR = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user wants.

    Attributes:
        options: those of jigdo-file.
        json: the account on stdout, for scripts.
        check_urls: ask all locations in the end.
    """

    options: JigdoFileOptions
    json: bool
    check_urls: bool


def make_template(wanted: Wanted) -> int:
    """Make the files, tell what came of it, and return the exit code."""
    options = wanted.options
    with _ending_cleanly():
        made = _make(wanted, _names(wanted))
    account = as_json(made)
    if not wanted.json and options.report in (Report.DEFAULT, Report.NO_PROGRESS):
        for text in as_lines(made):
            print(f"{program()}: {printable(text)}", file=sys.stderr)
    code = EXIT_OK
    if wanted.check_urls:
        urls = ask_files(made.names.jigdo, made.names.template, quiet=options.report is not Report.DEFAULT)
        code = exit_code(urls)
        account["urls"] = asdict(urls)
        if not wanted.json:
            for pair in told(urls):
                print(line(pair))
    if wanted.json:
        print(json_text(account))
    return code


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Let a signal that ends the process, `timeout` sends one, clean up as Ctrl-C does."""
    received: list[int] = []

    def leave(number: int, _frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for sent in received:
            os.kill(os.getpid(), sent)  # whoever waits is to see what it was


def _names(wanted: Wanted) -> Names:
    """Return the three names; raise `UsageError` or `InputError` where they cannot be what is meant."""
    options = wanted.options
    names = Names(*jigdo_file.require_names(options.names, "image", "jigdo", "template"))
    written = (names.jigdo, names.template)
    to_stdout = written.count(jigdo_file.STDIN) + wanted.json + (options.report is Report.GREP)
    if to_stdout > 1:
        raise UsageError("only one of .jigdo, template, --json and --report=grep can go to stdout")
    if wanted.check_urls and jigdo_file.STDIN in written:
        raise UsageError("--check-urls needs a .jigdo and a template in files")
    if options.merge == jigdo_file.STDIN and jigdo_file.STDIN in (names.image, *options.files_from):
        raise UsageError("stdin can be the image or the .jigdo to --merge, not both")
    for name in written:
        if name != jigdo_file.STDIN and is_same(name, names.image):
            raise UsageError(f"{name}: is the image; give the .jigdo and the template other names")
    check_apart(names.jigdo, names.template)
    return names


def _make(wanted: Wanted, names: Names) -> Made:
    """Search, write, and say what came of it."""
    options = wanted.options
    merged = _read_merged(options.merge)
    replace_jigdo = options.force or (options.merge is not None and is_same(names.jigdo, options.merge))
    check_free(names.jigdo, replace=replace_jigdo)
    replace_template = options.force or left_between(names.jigdo, names.template)
    check_free(names.template, replace=replace_template)
    labels = Labels(
        options.labels, options.uris, options.operands, taken=labels_in(merged, options.merge or "")
    )
    for warning in labels.warnings():
        jigdo_file.warn(warning)
    listed = list(jigdo_file.files(options))  # before the image, which may be on stdin as well
    keep = [name for name in (names.image, options.merge) if name is not None]
    algorithms = tuple(Algorithm) if options.match_exec else (options.algorithm,)
    with (
        OutputFile(names.template, replace=replace_template, keep=keep) as template,
        OutputFile(names.jigdo, replace=replace_jigdo, keep=keep) as jigdo,
        _opened(names.image) as image,
    ):
        given = _given_files(listed, image, names, options)
        files = LocalFiles(given.may_be_parts, algorithms, _passed_over)
        with _progress(f"searching {names.image}", image.length, options) as progress:
            found = find_matches(image, files, options.min_length, progress)
        parts = tuple(
            (checksum, labels.location(match.path))
            for checksum, match in found.parts(options.algorithm).items()
        )
        taken = wanted.json or jigdo_file.STDIN in (names.jigdo, names.template)
        _tell_matches(found, options, labels, stdout_is_taken=taken)
        with _progress(f"writing {names.template}", found.length - found.bytes_in_parts, options) as progress:
            written = write(template, image, found, _settings(options), progress)
        made = Made(names, found, written, parts, labels.servers(), given)
        jigdo.write(_text(_describe(made, options), merged, options))
        publish_both(template, jigdo)
    directories = dict(options.labels)
    for label in labels.unused():
        where = "" if label in directories else f"; say which directory it means: --label {label}=DIR"
        jigdo_file.warn(f"no part has the label {label}{where}")
    _remember(found, options)
    return made


@contextmanager
def _opened(name: str) -> Iterator[ImageFile]:
    """Open the image; stdin is copied to a temporary file, since it is read more than once."""
    if name != jigdo_file.STDIN:
        with open_image(name) as image:
            yield image
        return
    try:
        file = jigdo_file.stdin_copy()
    except OSError as error:
        raise InputError(f"stdin: cannot be copied to a temporary file: {error.strerror}") from error
    with file:
        yield ImageFile(file.fileno(), name)


def _read_merged(name: str | None) -> bytes:
    """Return the .jigdo to add to, empty if there is none."""
    if name is None:
        return b""
    with jigdo_file.opened(name) as file:
        return file.read(MAX_BYTES + 1)


def _given_files(
    listed: Sequence[str], image: ImageFile, names: Names, options: JigdoFileOptions
) -> GivenFiles:
    """Return the files that were given; raise `InputError` if nothing that was named is there."""

    def skipped(path: str, error: OSError) -> None:
        _passed_over(path, error.strerror or str(error))

    besides = {image.identity}
    for name in (names.jigdo, names.template):
        with contextlib.suppress(OSError):
            status = os.stat(name)
            besides.add((status.st_dev, status.st_ino))
    given = sort_out(
        named_files(listed, skipped, ordered=True),
        min_length=options.min_length,
        image_length=image.length,
        besides=frozenset(besides),
    )
    for path in given.as_long:
        _passed_over(path, "is as long as the image, and so could only be a copy of it")
    meant = listed or [name for name in options.files_from if name != jigdo_file.STDIN]
    if meant and not any(map(os.path.exists, meant)):
        raise InputError("none of the files that are given is there; nothing is written")
    if not given.count:
        jigdo_file.warn("there are no files, so the template will hold the whole image")
    return given


def _passed_over(path: str, reason: str) -> None:
    jigdo_file.warn(f"{path}: passed over: {reason}")


def _settings(options: JigdoFileOptions) -> Settings:
    return Settings(
        algorithm=options.algorithm,
        compression=Compression.BZIP2 if options.bzip2 else Compression.ZLIB,
        level=options.level,
        min_length=options.min_length,
    )


@contextmanager
def _progress(name: str, total: int, options: JigdoFileOptions) -> Iterator[Callable[[int], None]]:
    """Show how far something is; yield what is to be told."""
    done = 0

    def note(number: int) -> None:
        nonlocal done
        done = number

    with showing(name, total, lambda: done, quiet=options.report is not Report.DEFAULT):
        yield note


def _tell_matches(
    found: Matches, options: JigdoFileOptions, labels: Labels, *, stdout_is_taken: bool
) -> None:
    """Do for each part, in image order, what --report=grep and --match-exec ask for."""
    for match in found.matches:
        if options.report is Report.GREP:
            name = labels.environment(match.path)["FILE"]  # as jigdo-file prints it, without `//`
            jigdo_file.write_line(b"%d %s" % (match.start, os.fsencode(name)))
        if options.match_exec:
            sys.stdout.flush()
            _run_command(options.match_exec, match, labels, to_stderr=stdout_is_taken)


def _run_command(command: str, match: Match, labels: Labels, *, to_stderr: bool) -> None:
    sums = {f"{algorithm.short_name.upper()}SUM": match.checksum(algorithm).base64 for algorithm in Algorithm}
    environment = {**os.environ, **labels.environment(match.path), **sums}
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, stdout=_STDERR if to_stderr else None, check=False
    )
    if done.returncode:
        raise InputError(
            f"--match-exec ended with exit code {done.returncode} for {match.path}; nothing is written"
        )


def _describe(made: Made, options: JigdoFileOptions) -> Description:
    names, written = made.names, made.written
    sums = sorted((written.md5, written.sha256), key=lambda one: one.algorithm is not options.algorithm)
    deduced = jigdo_file.deduce(options.given._replace(image=None))
    image = names.image if names.image != jigdo_file.STDIN else deduced.image or "image"
    template = names.template if names.template != jigdo_file.STDIN else deduced.template or "template"
    return Description(
        filename=os.path.basename(image),
        template=os.path.basename(template),
        template_checksums=tuple(sums),
        parts=made.parts,
        servers=made.servers,
        generator=GENERATOR,
        template_size=written.length,
        image_checksums=tuple(made.found.sums.values()),
        image_size=made.found.length,
    )


def _text(description: Description, merged: bytes, options: JigdoFileOptions) -> bytes:
    sections = {"image_section": options.image_section, "servers_section": options.servers_section}
    if merged:
        return merge_jigdo(description, merged, options.merge or "", **sections)
    return write_jigdo(description, **sections)


def _remember(found: Matches, options: JigdoFileOptions) -> None:
    """Write down what the parts are, for `make-image`, `download` and others."""
    if options.cache_file is None:
        return
    remembered = Remembered(options.cache_file, report=jigdo_file.warn)
    try:
        for match in found.parts(options.algorithm).values():
            for checksum in match.piece.checksums:
                remembered.note(match.piece, checksum)
    finally:
        remembered.close()
