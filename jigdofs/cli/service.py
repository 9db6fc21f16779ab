"""`jigdofs service`: root's part of the systemd unit."""

from __future__ import annotations

import argparse
import logging
import os
from contextlib import suppress

from jigdofs import logs
from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_OK, MountError, UsageError
from jigdofs.fuse import attach, attachment

_EPILOG = """\
The unit jigdofs@.service calls this; it is of no use elsewhere. Its daemon has no rights, and a mount
namespace of its own: `jigdofs mount --hand-over' loads the images, opens /dev/fuse and waits. `attach'
takes that descriptor, mounts where all can see it, and returns when the image can be read. `detach' takes
that mount away again, whatever the image set says by then: also a dead one, lazily what is in use, and what
was mounted from it by a loop device.

environment: RUNTIME_DIRECTORY, whose owner is the user of the daemon (its control socket lies there), and
MAINPID, the daemon; the service manager sets both.

exit codes: 0 done, 3 wrong usage or input, 4 it cannot be mounted or unmounted.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.add_argument("action", choices=("attach", "detach"), help="what to do")
    parser.add_argument("--config", metavar="FILE", required=True, help="the image set of the unit")


def run(arguments: argparse.Namespace) -> int:
    """Mount for the daemon of a service, or take its mount away."""
    from jigdofs.cli.mount import daemon_options

    logs.to_user(logging.WARNING)
    os.umask(0o022)  # the unit's own is tighter, and a mount point is for all
    service = _service()
    if arguments.action == "detach" and service.note is not None:
        attach.detach(service)  # whatever the image set says by now
        return EXIT_OK
    options = daemon_options(["--config", arguments.config])
    if arguments.action == "attach":
        if os.geteuid():
            raise UsageError("only root can mount for others; a user's own unit mounts by itself")
        attach.attach(service, options.mount, options.source)
    else:
        attach.detach(service, str(options.mount.mountpoint))
    return EXIT_OK


def _service() -> attach.Service:
    """Find out whose service it is: the manager has made its directory for that user."""
    directory = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if not directory:
        if os.geteuid():
            return attach.Service(os.geteuid(), os.getegid(), _pid())
        raise UsageError("RUNTIME_DIRECTORY is not set: this is called by the unit of a service")
    try:
        status = os.stat(directory)
    except OSError as error:
        raise MountError(f"{directory}: {error.strerror}") from error
    note = None if os.geteuid() else attachment.note_of(directory)
    return attach.Service(status.st_uid, status.st_gid, _pid(), note)


def _pid() -> int | None:
    with suppress(ValueError):
        return int(os.environ.get("MAINPID", "")) or None
    return None
