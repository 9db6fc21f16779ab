"""The command line: find the verb, load it alone, turn errors into one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import TYPE_CHECKING, Protocol, cast

from jigdofs import __version__
from jigdofs.cli.called_as import COMMANDS, called_as_jigdo_file, called_by_mount, program
from jigdofs.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    JigdofsError,
    UsageError,
    leaf_of,
)

if TYPE_CHECKING:
    from jigdofs.cli.parser import Parser

_WORDS_OF_FUSE = 4  # SRC DIR -o OPTIONS
_OUTPUT_ERRORS = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EBADF}

VERBS = {
    "mount": "show the image of a .jigdo as a file, at once",
    "umount": "end a mount",
    "loop": "attach an image to a loop device as it should be, and mount what is inside",
    "status": "tell what a running mount holds, fetches and waits for",
    "prefetch": "have parts in the cache of a running mount before they are read",
    "config": "tell which settings hold and where each comes from, and check files of them",
    "service": "mount for the daemon of a systemd service, and unmount (its unit calls this)",
    "serve": "serve images and the files in them over HTTP, without FUSE",
    "download": "build whole images, without questions, from what is here and from mirrors",
    "cache": "tell what the cache holds of which image; tidy it up, check it, pin images",
    "info": "tell what is in a .jigdo and what of it is here already",
    "make-template": "write the .jigdo and .template of an image, given the files that are in it",
    "make-image": "build an image from local files and old images alone (as jigdo-file does)",
    "scan": "compute checksums of local files now, so that later runs need not",
    "list-template": "list where every byte of an image comes from (as jigdo-file does)",
    "print-missing": "print where the parts are that an image lacks, one location each",
    "print-missing-all": "print all locations of the parts that an image lacks",
    "verify": "compare an image with every checksum that its template and .jigdo give",
    "md5sum": "print MD5 checksums of files (as jigdo-file does)",
    "sha256sum": "print SHA-256 checksums of files (as jigdo-file does)",
    "completion": "print what makes bash, zsh or fish complete all this",
    "demo": "build a small image, mount it lazily, prove its checksum, leave nothing behind",
}
ALIASES = {
    "ls": "list-template",
    "md5": "md5sum",
    "mi": "make-image",
    "mt": "make-template",
    "pm": "print-missing",
    "pma": "print-missing-all",
    "sc": "scan",
    "sha256": "sha256sum",
    "unmount": "umount",
    "ver": "verify",
}

_USAGE = """\
usage: jigdofs VERB [ARGUMENT...]

Mount a .jigdo at once: its image appears as a read-only file of full size, and every part
of it is fetched from a mirror, verified and cached the first time somebody reads it.

  jigdofs mount debian-12-amd64-BD-1.jigdo /mnt/iso      # a path or a URL
  ls -l /mnt/iso                                         # the image, full size
  xorriso -osirrox on -indev /mnt/iso/*.iso -extract /README.txt /tmp/README.txt
  jigdofs umount /mnt/iso
  jigdofs download debian-12-amd64-DVD-1.jigdo           # or the whole image, without questions

verbs:
"""
_EPILOG = """
`jigdofs VERB --help' tells more.

exit codes: 0 done, 1 something could not be had, 2 a checksum differs, 3 wrong usage or
input, 4 the mount failed, 130 interrupted.
"""


class Verb(Protocol):
    """What a module in this package offers."""

    def add_arguments(self, parser: Parser) -> None:
        """Describe the verb's options."""

    def run(self, arguments: object) -> int:
        """Do it; return the exit code."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code; never a traceback for what a user can cause."""
    argv = sys.argv[1:] if argv is None else argv
    _open_standard_streams()
    try:
        code = _for_mount(argv) if _is_for_mount(argv) else _dispatch(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget_output()  # whoever read it has enough
        return EXIT_OK
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        _forget_output()
        print(f"{program()}: cannot write the output: {error.strerror}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except (JigdofsError, RuntimeError, BaseExceptionGroup) as error:
        leaf = leaf_of(error)
        if _is_interrupt(leaf):
            return EXIT_INTERRUPTED
        if not isinstance(leaf, JigdofsError):
            raise
        print(f"{program()}: {leaf}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _forget_output()  # what could not be written was the error
        return leaf.exit_code
    return code


def _is_interrupt(error: BaseException) -> bool:
    """Tell Ctrl-C, also where it came while `threading` let a lock go, which complains then."""
    complaint = isinstance(error, RuntimeError) and isinstance(error.__context__, KeyboardInterrupt)
    return complaint or isinstance(error, KeyboardInterrupt)


def _forget_output() -> None:
    """Keep the interpreter from complaining at its end of what stdout did not take."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_standard_streams() -> None:
    """Open /dev/null in the place of closed streams, or other files would get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115


def _dispatch(argv: list[str]) -> int:
    try:
        os.getcwd()  # relative names are relative to a directory that exists
    except OSError as error:
        raise UsageError(f"the current directory cannot be used: {error.strerror}") from error
    if called_as_jigdo_file():
        return _as_jigdo_file(argv)
    if not argv:
        print(_help(), end="", file=sys.stderr)
        return UsageError.exit_code
    verb, *rest = argv
    if verb in ("-h", "--help", "help"):
        print(_help(), end="")
        return EXIT_OK
    if verb in ("-v", "--version", "version"):
        print(f"jigdofs {__version__}")
        return EXIT_OK
    verb = ALIASES.get(verb, verb)
    if verb not in VERBS:
        raise UsageError(f"there is no verb `{verb}'; `jigdofs --help' lists them{_nearest(verb)}")
    return _run(verb, rest, prog=f"jigdofs {verb}", abbreviate=False)


def _is_for_mount(argv: list[str]) -> bool:
    """Tell whether mount(8) calls us, or mount.fuse3, which says `jigdofs SRC DIR -o OPTIONS`."""
    by_fuse = len(argv) == _WORDS_OF_FUSE and argv[2] == "-o" and argv[0] not in {*VERBS, *ALIASES}
    return called_by_mount() or (by_fuse and not argv[0].startswith("-"))


def _for_mount(argv: list[str]) -> int:
    from jigdofs.cli import mount8

    return mount8.main(argv)


def _as_jigdo_file(argv: list[str]) -> int:
    """Do as jigdo-file does: the command may stand anywhere among the options."""
    from jigdofs.cli import as_jigdo_file

    line = as_jigdo_file.command_line(argv)
    verb = as_jigdo_file.VERBS.get(line.command or "", "")
    if line.wants_version:
        print(as_jigdo_file.version())
    if line.wants_help and verb not in VERBS:
        print(as_jigdo_file.usage(VERBS), end="")
    if line.wants_version or (line.wants_help and verb not in VERBS):
        return EXIT_OK
    if line.command is None:
        raise UsageError("give a command; `jigdo-file --help' lists them")
    if verb not in VERBS:
        raise UsageError(f"there is no command `{line.command}'; `jigdo-file --help' lists them")
    rest = ["--help", *line.rest] if line.wants_help else line.rest
    return _run(verb, rest, prog=f"jigdo-file {verb}", abbreviate=True)


def _run(verb: str, rest: list[str], *, prog: str, abbreviate: bool) -> int:
    """Load a verb, and it alone; read its options; do it."""
    from jigdofs.cli.parser import Parser

    module = cast(Verb, importlib.import_module(f"jigdofs.cli.{verb.replace('-', '_')}"))
    parser = Parser(prog=prog, description=VERBS[verb].capitalize() + ".")
    module.add_arguments(parser)
    if verb in COMMANDS:
        from jigdofs.cli import as_jigdo_file

        return module.run(parser.parse_args(as_jigdo_file.permuted(parser, rest, abbreviate=abbreviate)))
    if parser.configurable:
        from jigdofs.cli import configured

        return module.run(configured.parse(parser, rest))
    return module.run(parser.parse_intermixed_args(rest))


def _help() -> str:
    import textwrap

    lines = [f"  {verb:<19}{text}\n" for verb, text in VERBS.items()]
    shorts = ", ".join(f"{alias} ({verb})" for alias, verb in ALIASES.items() if alias != "unmount")
    return _USAGE + "".join(lines) + textwrap.fill(f"short names: {shorts}", 95) + "\n" + _EPILOG


def _nearest(verb: str) -> str:
    import difflib

    near = difflib.get_close_matches(verb, [*VERBS, *ALIASES], n=1)
    return f" (did you mean `{near[0]}'?)" if near else ""
