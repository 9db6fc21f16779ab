"""Under which name the program runs, and what jigdo-file's commands are: all that any start needs of them."""

from __future__ import annotations

import os
import sys

JIGDO_FILE = "jigdo-file"
MOUNT_HELPERS = ("mount.jigdofs", "mount.fuse.jigdofs")
COMMANDS = {
    "make-template": ("mt",),
    "make-image": ("mi",),
    "print-missing": ("pm",),
    "print-missing-all": ("pma",),
    "verify": ("ver",),
    "scan": ("sc",),
    "list-template": ("ls",),
    "md5sum": ("md5",),
    "sha256sum": ("sha256",),
}
"""The commands of jigdo-file and their short names; those that are verbs here can be run."""


def called_as_jigdo_file() -> bool:
    """Tell whether the program runs under jigdo-file's name."""
    return os.path.basename(sys.argv[0]).startswith(JIGDO_FILE)


def called_by_mount() -> bool:
    """Tell whether the program runs under the name that mount(8) looks for."""
    return os.path.basename(sys.argv[0]) in MOUNT_HELPERS


def program() -> str:
    """Return the name that messages begin with."""
    if called_by_mount():
        return os.path.basename(sys.argv[0])
    return JIGDO_FILE if called_as_jigdo_file() else "jigdofs"
