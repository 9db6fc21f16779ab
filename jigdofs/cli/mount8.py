"""Be what mount(8) calls for `mount -t jigdofs` and for lines of fstab: `mount.jigdofs SRC DIR -o OPTIONS`.

mount(8) runs /sbin/mount.jigdofs, and for the type fuse.jigdofs /sbin/mount.fuse.jigdofs; without that one,
mount.fuse3 runs `jigdofs SRC DIR -o OPTIONS`. Exit codes are those of mount(8), not ours.
"""

from __future__ import annotations

import ctypes
import getopt
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jigdofs.cli.called_as import program
from jigdofs.errors import EXIT_INTERRUPTED, EXIT_OK, JigdofsError, MountError, UsageError, leaf_of

EXIT_USAGE = 1
EXIT_SYSTEM = 2
EXIT_BUG = 4
EXIT_USER = 8
EXIT_FAILED = 32

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""For fusermount3, umount and unshare: a mount unit of systemd gives us none."""
_CLONE_NEWNS = 0x20000
_TYPES = ("jigdofs", "fuse.jigdofs")
_USAGE = """\
usage: mount.jigdofs SRC DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTION[,OPTION...]]

mount(8) runs this for `mount -t jigdofs SRC DIR' and for lines of /etc/fstab; see mount.jigdofs(8).
SRC is the path or URL of a .jigdo, the path of a plain .iso, or of an image set: a .toml file.
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What mount(8) asks for.

    Attributes:
        source: path or URL of a .jigdo, path of an image or of an image set.
        directory: where to show it.
        options: texts of `-o`, in order.
        sloppy: ignore options that we do not know.
        fake: do all but mount.
        verbose: tell what was mounted.
        namespace: a process, or the path of a mount namespace, to mount in; "" for our own.
    """

    source: str
    directory: str
    options: tuple[str, ...] = ()
    sloppy: bool = False
    fake: bool = False
    verbose: bool = False
    namespace: str = ""


def parse(argv: Sequence[str]) -> Wish:
    """Read the command line of a mount helper; raise `UsageError`."""
    try:
        found, names = getopt.gnu_getopt(list(argv), "sfnvrwN:o:t:")
    except getopt.GetoptError as error:
        raise UsageError(f"{error.msg}; see mount.jigdofs(8)") from None
    flags = {flag for flag, _ in found}
    values = [(flag, value) for flag, value in found if value]
    for kind in (value for flag, value in values if flag == "-t"):
        if kind not in _TYPES:
            raise UsageError(f"-t {kind}: only jigdofs can be mounted here")
    if len(names) != 2:
        raise UsageError("give a source and a directory; see mount.jigdofs(8)")
    source, directory = names
    return Wish(
        source,
        directory,
        options=tuple(value for flag, value in values if flag == "-o"),
        sloppy="-s" in flags,
        fake="-f" in flags,
        verbose="-v" in flags,
        namespace=next((value for flag, value in values if flag == "-N"), ""),
    )


def main(argv: Sequence[str]) -> int:
    """Mount, and return mount(8)'s exit code when the mount can be used."""
    if any(word in ("-h", "--help") for word in argv):
        print(_USAGE, end="")
        return EXIT_OK
    if any(word in ("-V", "--version") for word in argv):
        from jigdofs import __version__

        print(f"mount.jigdofs {__version__}")
        return EXIT_OK
    os.environ.setdefault("PATH", _PATH)
    try:
        return _mount(parse(argv))
    except KeyboardInterrupt:
        return EXIT_USER
    except Exception as error:  # noqa: BLE001  told in one line, whatever it is
        code, message = _verdict(leaf_of(error))
        print(f"{program()}: {message}", file=sys.stderr)
        return code


def _verdict(error: BaseException) -> tuple[int, str]:
    """Return mount(8)'s exit code of an error, and what to say."""
    if isinstance(error, UsageError):
        return EXIT_USAGE, str(error)
    if isinstance(error, JigdofsError):
        return EXIT_FAILED, str(error)
    if isinstance(error, OSError):
        return EXIT_SYSTEM, str(error)
    return EXIT_BUG, f"internal error: {error!r}"


def _mount(wish: Wish) -> int:
    from jigdofs.cli import mount, mount_daemon
    from jigdofs.cli.fuse_options import translate
    from jigdofs.daemon import run_detached

    translated = translate(wish.options, by_mount=True, sloppy=wish.sloppy)
    named = ["--config", wish.source] if wish.source.endswith(".toml") else [wish.source]
    if named[0] != "--config" and wish.source.startswith("-"):
        raise UsageError(f"{wish.source}: is no source")
    fuse = [f"-o{_escaped(option)}" for option in translated.fuse]
    options = mount.daemon_options([*named, wish.directory, *translated.arguments, *fuse])
    if wish.fake:
        return EXIT_OK
    if wish.namespace:
        _enter(wish.namespace)
    ended = run_detached(lambda ready: mount_daemon.report(options, ready))
    code = _EXIT_CODES.get(ended, EXIT_FAILED)
    if code == EXIT_OK and wish.verbose:
        print(f"mount.jigdofs: {wish.source} mounted on {wish.directory}.")
    return code


def _escaped(option: str) -> str:
    return option.replace("\\", "\\\\").replace(",", "\\,")


_EXIT_CODES = {EXIT_OK: EXIT_OK, EXIT_INTERRUPTED: EXIT_USER}
"""Of what the daemon ends with before the mount can be used; anything else is a failure to mount."""


def _enter(namespace: str) -> None:
    """Enter the mount namespace of a process, or one that lies at a path (setns(2)); raise `MountError`."""
    path = f"/proc/{namespace}/ns/mnt" if namespace.isdigit() else namespace
    try:
        with open(path, "rb") as opened:
            libc = ctypes.CDLL(None, use_errno=True)  # os.setns comes with Python 3.12
            if libc.setns(opened.fileno(), _CLONE_NEWNS):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
    except OSError as error:
        raise MountError(f"-N {namespace}: cannot enter that mount namespace: {error.strerror}") from error
