"""Act as the owner of a cache: root has no business with files that another user may put links among."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from jigdofs.errors import CacheError

_NOGROUP = 65534


def act_as_owner(directory: Path) -> None:
    """Give up root's rights for good if the cache belongs to another user; before anything is opened.

    Raises:
        CacheError: they cannot be given up.
    """
    if os.geteuid() != 0:
        return
    try:
        status = os.stat(directory)
    except OSError:
        return  # there is none, or whoever opens it says what is wrong
    if status.st_uid == 0:
        return
    try:
        group = pwd.getpwuid(status.st_uid).pw_gid
    except KeyError:
        group = status.st_gid or _NOGROUP
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(status.st_uid, status.st_uid, status.st_uid)
    except OSError as error:
        raise CacheError(
            f"cache {directory} belongs to uid {status.st_uid}, whose rights cannot be had: {error.strerror}"
        ) from error
