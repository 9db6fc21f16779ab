"""`jigdofs loop`: an image on a loop device as it should be, and what is inside mounted by the kernel."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import pwd
import stat
import sys

from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_OK, MountError, UsageError, printable
from jigdofs.fuse import loop_device, loop_mount, mountpoint
from jigdofs.sources.own_mounts import FSTYPE, MountLine

_ANSWER_S = 5.0
_EPILOG = """\
Attaches the image read-only and with direct I/O, so that one part which is slow to come does not hold up
everybody; with DIR, mounts what is inside there (ro, nosuid, nodev). Without DIR it prints the device.
`jigdofs umount MNT' undoes all of it in the right order, `jigdofs umount DIR' only that.

Needs root, and the option allow_other of the mount if another user made it. Where the kernel knows no
iso9660, or you are not root, `jigdofs mount --contents' shows the files inside an ISO.

examples:
  jigdofs loop /mnt/iso /mnt/cd
  jigdofs loop /mnt/iso/dvd-1.iso /mnt/cd
  device=$(jigdofs loop /mnt/iso)
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.add_argument("image", metavar="MNT", help="a mount point that shows one image, or an image in one")
    parser.add_argument("directory", metavar="DIR", nargs="?", help="mount there what is inside")


def run(arguments: argparse.Namespace) -> int:
    """Attach, and mount if asked for; leave nothing behind where that fails."""
    path = _resolved(arguments.image)
    mount = mountpoint.mount_above(path)
    if mount is None or mount.fstype != FSTYPE:
        raise MountError(f"{path}: is no mount point of jigdofs, and lies in none")
    if os.geteuid() != 0:
        raise MountError("loop devices need root: `sudo jigdofs loop ...'")
    directory = None if arguments.directory is None else _resolved(arguments.directory)
    image = _image(path, mount)
    if directory is not None:
        loop_mount.check_directory(directory)
    device = loop_device.attach(image)
    if directory is None:
        _warn_of_buffering(device)
        print(device)
        return EXIT_OK
    try:
        kind = loop_mount.mount_inside(device, directory)
    except BaseException:
        with contextlib.suppress(MountError):  # why it could not be mounted matters more
            loop_device.detach(device)
        raise
    _warn_of_buffering(device)
    print(printable(f"mounted {kind} of {image} at {directory} ({device})"))
    return EXIT_OK


def _warn_of_buffering(device: str) -> None:
    if not loop_device.has_direct_io(device):
        print(
            f"jigdofs: warning: {device} has no direct I/O: reads of it wait for each other", file=sys.stderr
        )


def _resolved(path: str) -> str:
    """Return an absolute path without links; the way to it may lead through a mount that hangs."""
    resolved = mountpoint.within(_ANSWER_S, lambda: mountpoint.resolve(path))
    if resolved is None:
        raise MountError(f"{path}: does not answer")
    return resolved


def _image(path: str, mount: MountLine) -> str:
    """Return the image file that is meant; asks the mount, but not for ever."""
    try:
        status = mountpoint.within(_ANSWER_S, lambda: _look(path, mount.mountpoint))
        if status is not None and stat.S_ISREG(status.st_mode):
            return path
        if status is not None and path != mount.mountpoint:
            raise UsageError(f"{path}: is no image")
        names = None if status is None else mountpoint.within(_ANSWER_S, lambda: _files(path))
    except OSError as error:
        raise MountError(_advice(path, mount, error)) from error
    if names is None:
        raise MountError(f"{mount.mountpoint}: does not answer")
    if len(names) != 1:
        raise UsageError(f"{path} shows {len(names)} images; name one: {', '.join(names)}")
    return os.path.join(path, names[0])


def _look(path: str, mount: str) -> os.stat_result:
    """Ask the daemon whether it is there, which stat may not: the kernel remembers what that tells."""
    os.statvfs(mount)
    return os.stat(path)


def _files(directory: str) -> list[str]:
    """Return the names of the files in a directory; what is inside images are directories."""
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_file())


def _advice(path: str, mount: MountLine, error: OSError) -> str:
    if error.errno in mountpoint.DEAD:
        return f"{mount.mountpoint}: its daemon has ended; `jigdofs umount {mount.mountpoint}' first"
    if error.errno != errno.EACCES:
        return f"{path}: {error.strerror}"
    return (
        f"{mount.mountpoint}: root may not look into it, as {_user(mount.owner)} mounted it; mount it again"
        " with -o allow_other (which needs the line `user_allow_other' in /etc/fuse.conf)"
    )


def _user(owner: int | None) -> str:
    if owner is None:
        return "another user"
    try:
        return pwd.getpwuid(owner).pw_name
    except (KeyError, OverflowError):
        return f"user {owner}"
