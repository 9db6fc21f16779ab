"""Read settings from their places: the files of system and user, one that is named, the environment.

Rules of this file:
* A file of the system or user that is not there, or not for us to read, says nothing; one that is named must
  be there. What was read once and cannot be read again is an error: rights that went must change nothing.
* Root follows no file that others can write to, and none of a user whose HOME sudo left to it.
* Reading is bounded; nothing that is no regular file is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from typing import NamedTuple

from jigdofs.settings.keys import PREFIX
from jigdofs.settings.layers import Layer, Origin, Problem

SYSTEM_DIRECTORY = "/etc/jigdofs"
MAX_BYTES = 1 << 20


class Place(NamedTuple):
    """A file that may hold settings.

    Attributes:
        path: of it, absolute.
        named: somebody named it, so it must be there, and may say what to mount.
    """

    path: str
    named: bool = False


class Read(NamedTuple):
    """What places said, the strongest last.

    Attributes:
        layers: one for each place that says something.
        problems: what is wrong; no setting that has one is in a layer.
        files: those that were read.
        unreadable: those that are there but not for us to read.
    """

    layers: tuple[Layer, ...] = ()
    problems: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def places(named: str | None = None, system: str = SYSTEM_DIRECTORY) -> list[Place]:
    """Return the files that may hold settings, the strongest last, whether they are there or not.

    Args:
        named: what --config names.
        system: where those of the system are.
    """
    dropped = os.path.join(system, "jigdofs.d")
    found = [Place(os.path.join(system, "jigdofs.toml"))]
    found += [Place(os.path.join(dropped, name)) for name in _toml_files(dropped)]
    user = _user_file()
    if user is not None:
        found.append(Place(user))
    if named is not None:
        found.append(Place(os.path.abspath(named), named=True))
    return found


def _toml_files(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted(name for name in names if name.endswith(".toml") and not name.startswith("."))


def _user_file() -> str | None:
    """Return the user's own file; None for root with the HOME of somebody else, as sudo may leave it."""
    directory = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(directory):
        directory = os.path.expanduser("~/.config")
    path = os.path.join(directory, "jigdofs", "config.toml")
    if not os.path.isabs(path) or (os.geteuid() == 0 and not _is_roots(path)):
        return None
    return path


def _is_roots(path: str) -> bool:
    """Tell whether all directories on the way to a file are root's, as far as they exist."""
    while (path := os.path.dirname(path)) != "/":
        try:
            if os.stat(path).st_uid != 0:
                return False
        except OSError:
            continue
    return True


def read(where: Collection[Place], before: Collection[str] = ()) -> Read:
    """Read files.

    Args:
        where: the strongest last.
        before: files that could be read before, and so must be readable now if they exist.
    """
    layers: list[Layer] = []
    problems: list[Problem] = []
    files: list[str] = []
    unreadable: list[str] = []
    for place in where:
        try:
            data = _content(place.path)
        except OSError as error:
            if not place.named and isinstance(error, FileNotFoundError | NotADirectoryError):
                continue
            if not place.named and isinstance(error, PermissionError) and place.path not in before:
                unreadable.append(place.path)
                continue
            problems.append(Problem(Origin(place.path), error.strerror or str(error)))
            continue
        from jigdofs.settings.toml_file import parse

        layer, wrong = parse(data, place.path, image_set=place.named)
        files.append(place.path)
        layers.append(layer)
        problems += wrong
    return Read(tuple(layers), tuple(problems), tuple(files), tuple(unreadable))


def _content(path: str) -> bytes:
    """Return the bytes of a file; raise `OSError`, whose `strerror` says what is wrong with it."""
    # without O_NONBLOCK the opening of a FIFO would wait for somebody who writes
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "is no regular file")
        if os.geteuid() == 0 and (status.st_uid != 0 or status.st_mode & 0o022):
            owner = "belongs to somebody else" if status.st_uid else "can be written to by others"
            raise OSError(0, f"{owner}: root does not follow it (chown root, chmod go-w)")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(0, f"is longer than {MAX_BYTES >> 20} MiB")
    return data


def read_environment(environ: Mapping[str, str]) -> tuple[Layer, list[Problem], list[str]]:
    """Return what variables say, what is wrong with them, and those of our prefix that mean nothing."""
    if not any(name.startswith(PREFIX) for name in environ):
        return {}, [], []
    from jigdofs.settings.variables import parse

    return parse(environ, os.getcwd())
