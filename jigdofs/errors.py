"""Every exception of jigdofs, with the exit code and the errno it ends in.

Only these leave a layer; whatever a library raises is wrapped where it is called.

    JigdofsError              exit  errno   who can mend it
    ├── UsageError             3    EINVAL  the user: options or arguments
    ├── FormatError            3    EIO     whoever made the .jigdo or .template
    ├── InputError             3    EIO     the user: a named file cannot be read
    │   ├── ForeignFile        3    EIO     … or something else lies in the way of an image
    │   ├── SourceChanged      3    EIO     … or a local file is not what was found there
    │   ├── Unreachable        1    EIO     … or cannot be fetched, perhaps only now
    │   └── WrongTemplate      2    EIO     … or a template belongs to another .jigdo
    ├── FetchError             1    EIO     one location failed; the next one is tried
    │   ├── NotThere           1    EIO     … for this file only (404, 410, ENOENT)
    │   ├── MirrorTrouble      1    EIO     … perhaps for all files (refused, 5xx, stalled)
    │   └── WrongContent       1    EIO     … it answered with something else
    ├── PartUnavailable        1    EIO     every location of a part failed
    ├── Incomplete             1    EIO     an image lacks parts; what is there is kept
    ├── WrongImage             2    EIO     an image has another checksum than it should
    ├── Stopped                1    EIO     work was given up because something else ended it
    ├── ReadTimeout            1    EIO     a read took longer than it may
    ├── NoSuchFile             1    ENOENT  an image has no file of that name
    ├── WrongKind              1    (own)   what has that name is no directory, file or link
    ├── CacheError             1    EIO     the cache directory cannot be used
    │   ├── UnsafeCache        3    EIO     … because others could have written to it
    │   └── NoRoom             1    ENOSPC  no disk takes a file that must be read
    ├── Refused              (own)  EIO     a running daemon says no, for a reason of its own
    └── MountError             4    EIO     FUSE, the mount point or its rights

Exit codes: 0 done, 1 something could not be had, 2 a checksum differs, 3 wrong usage or input,
4 the mount failed, 130 interrupted. 0 to 3 mean what they mean to jigdo-file (format.md 3.1).
"""

from __future__ import annotations

import errno
import re

EXIT_OK = 0
EXIT_UNAVAILABLE = 1
EXIT_MISMATCH = 2
EXIT_INPUT = 3
EXIT_MOUNT = 4
EXIT_INTERRUPTED = 130

_CREDENTIALS = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s]*@")
"""User name and password of a URL: a message names the .jigdo as it was typed, and ends up in logs."""


def printable(text: str) -> str:
    r"""Make a name from a file fit for a terminal or a log: no control characters, no lone surrogates.

    Bytes that are no UTF-8 (surrogate-escaped, as in all our names) and controls appear as `\xNN`.
    """
    if text.isprintable():
        return text
    return "".join(_printable_char(char) for char in text)


def _printable_char(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


class JigdofsError(Exception):
    """Be the root of all errors that a user may see; `str()` is one line fit to print."""

    exit_code = EXIT_UNAVAILABLE
    errno = errno.EIO

    def __str__(self) -> str:
        return printable(_CREDENTIALS.sub(r"\1", super().__str__()))


class UsageError(JigdofsError):
    """Say that the user asked for something that makes no sense."""

    exit_code = EXIT_INPUT
    errno = errno.EINVAL


class FormatError(JigdofsError):
    """Say that a .jigdo or .template is malformed, and where.

    Args:
        message: what is wrong.
        source: path or URL of the file.
        line: 1-based line of a .jigdo, if known.
        offset: byte offset in a .template, if known.
    """

    exit_code = EXIT_INPUT

    def __init__(
        self, message: str, *, source: str, line: int | None = None, offset: int | None = None
    ) -> None:
        self.message = message
        self.source = source
        self.line = line
        self.offset = offset
        where = source
        if line is not None:
            where = f"{source}:{line}"
        elif offset is not None:
            where = f"{source}, byte {offset}"
        super().__init__(f"{where}: {message}")


class InputError(JigdofsError):
    """Say that a file or URL that the user named, or that a .jigdo needs, cannot be had."""

    exit_code = EXIT_INPUT


class ForeignFile(InputError):
    """Say that the `.tmp` in the way of an image belongs to something else."""


class SourceChanged(InputError):
    """Say that a local file that may hold a part is no longer what was found there, or cannot be read."""


class Unreachable(InputError):
    """Say that a .jigdo or a template cannot be fetched."""

    exit_code = EXIT_UNAVAILABLE


class WrongTemplate(InputError):
    """Say that the only templates to be had have another checksum than the .jigdo says."""

    exit_code = EXIT_MISMATCH


class FetchError(JigdofsError):
    """Say that one attempt to get bytes from one URL failed.

    Args:
        url: what was asked for.
        reason: why it failed, without the URL.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"{url}: {reason}")


class NotThere(FetchError):
    """Say that the location exists but lacks this file: no reason to think ill of the mirror."""


class MirrorTrouble(FetchError):
    """Say that the mirror could not be reached or did not do its work.

    Args:
        url: what was asked for.
        reason: why it failed, without the URL.
        retry_after_s: how long the server asked us to stay away, if it did (RFC 9110 10.2.3).
    """

    def __init__(self, url: str, reason: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(url, reason)


class WrongContent(FetchError):
    """Say that an answer cannot be the file: wrong length, wrong checksum, an encoding, a web page."""


class PartUnavailable(JigdofsError):
    """Say that no location gave the part; the line has the last reason of each, equal ones once.

    Args:
        name: the part, as a person would name it.
        attempts: every failed attempt, in order.
    """

    _MAX_REASONS = 4
    _MAX_HOSTS = 3

    def __init__(self, name: str, attempts: tuple[FetchError, ...]) -> None:
        self.name = name
        self.attempts = attempts
        tried = self._tried() or "no usable location is known for it; name a --mirror for its label"
        super().__init__(f"part {name} cannot be had: {tried}")

    def _tried(self) -> str:
        reasons: dict[str, list[str]] = {}
        for url, reason in {attempt.url: attempt.reason for attempt in self.attempts}.items():
            reasons.setdefault(reason, []).append(url)
        said = [
            f"{self._places(urls)}: {reason}" for reason, urls in list(reasons.items())[: self._MAX_REASONS]
        ]
        if len(reasons) > self._MAX_REASONS:
            said.append(f"and {len(reasons) - self._MAX_REASONS} more")
        return "; ".join(said)

    def _places(self, urls: list[str]) -> str:
        """Name the first location as it is, of the others only who has them."""
        first, *others = urls
        hosts = list(dict.fromkeys(url.split("/")[2] if "://" in url else url for url in others))
        named = ", ".join(hosts[: self._MAX_HOSTS])
        if len(hosts) > self._MAX_HOSTS:
            named += f" and {len(hosts) - self._MAX_HOSTS} more"
        return f"{first} (and {named})" if named else first


class Incomplete(JigdofsError):
    """Say that an image could not be completed, and what to do.

    Args:
        message: the line.
        missing: how many parts it lacks.
    """

    def __init__(self, message: str, missing: int) -> None:
        self.missing = missing
        super().__init__(message)


class Stopped(JigdofsError):
    """Say that work was given up because something else failed, or the user wants to leave."""


class WrongImage(JigdofsError):
    """Say that an image, put together from right parts, has another checksum than it should."""

    exit_code = EXIT_MISMATCH


class ReadTimeout(JigdofsError):
    """Say that a read was given up because it took too long."""


class NoSuchFile(JigdofsError):
    """Say that there is no file or directory of that name in an image, or no such image."""

    errno = errno.ENOENT


class WrongKind(JigdofsError):
    """Say that something was to be used as what it is not.

    Args:
        message: the line.
        number: ENOTDIR, EISDIR, EINVAL or ELOOP.
    """

    def __init__(self, message: str, number: int) -> None:
        self.errno = number
        super().__init__(message)


class CacheError(JigdofsError):
    """Say that the cache directory cannot be used as it is, and what to do."""


class UnsafeCache(CacheError):
    """Say that others could have put files into the cache directory: it is refused."""

    exit_code = EXIT_INPUT


class NoRoom(CacheError):
    """Say that neither the cache nor any other place takes a file."""

    errno = errno.ENOSPC


class MountError(JigdofsError):
    """Say that the mount could not be made, used or undone, and what to do."""

    exit_code = EXIT_MOUNT


class Refused(JigdofsError):
    """Say what a running daemon answered instead of doing what it was asked for.

    Args:
        message: its line.
        exit_code: what it would have ended with.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def leaf_of(error: BaseException) -> BaseException:
    """Return the one error that a user should hear of, out of a nursery's group."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [leaf_of(inner) for inner in error.exceptions]
    interrupts = [leaf for leaf in leaves if isinstance(leaf, KeyboardInterrupt)]
    ours = [leaf for leaf in leaves if isinstance(leaf, JigdofsError)]
    return (interrupts or ours or leaves)[0]
