"""Files that are complete when they appear.

Invariants of this file:
* A name shows what was there before, or all of the new file: it is written beside it, as `.NAME.part`.
  It is on the disk before it gets its name, so a power cut takes nothing of it.
* What a killed run left is used again by the next; two runs do not write to one file.
* No system gives two files their names at once. Between a template and its .jigdo, which lies there as
  `.NAME.whole` meanwhile, a kill leaves a template that the next run may replace (`left_between`); until
  then the .jigdo that may be there says that it has another template, and everybody refuses the two.
* Nothing is replaced but what may be a .jigdo or a template: with two options swapped, that was the image.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import BinaryIO, Self

from jigdofs.errors import InputError, UsageError
from jigdofs.format.checksum import Checksum
from jigdofs.format.template import HEADER_PREFIX

STDOUT = "-"
_MAX_LEAF_BYTES = 248  # with what is added, 255: most that a file system takes
_HEAD_BYTES = 4096
_GZIP = b"\x1f\x8b"
_SECTION = re.compile(rb"^# JigsawDownload|^[ \t]*\[[ \t]*(Jigdo|Image|Parts|Servers)", re.MULTILINE)


class OutputFile:
    """A file being written.

    Args:
        name: where it is to appear; `-` is stdout, which with devices and pipes is written to directly.
        replace: an existing file may be replaced.
        keep: names of files that are not to be written to in any case.

    Raises:
        InputError: it exists, cannot be written, or somebody else is writing it; so do all methods.
    """

    def __init__(self, name: str, *, replace: bool, keep: Iterable[str] = ()) -> None:
        self.name = name
        self._part: str | None = None
        if name == STDOUT:
            self._file: BinaryIO = sys.stdout.buffer
            return
        check_free(name, replace=replace)
        self._target = os.path.realpath(name)
        try:
            if os.path.exists(name) and not os.path.isfile(name):
                self._file = open(name, "wb")  # noqa: SIM115  closed by __exit__
            else:
                self._file = self._open_part(keep)
        except OSError as error:
            raise self._trouble(error) from error

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """Write; a pipe whose reader has gone is `BrokenPipeError` still."""
        try:
            return self._file.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._trouble(error) from error

    def flush(self) -> None:
        """Let the system know all that was written."""
        try:
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> InputError:
        return InputError(f"{self.name}: cannot be written: {error.strerror}")

    def _open_part(self, keep: Iterable[str]) -> BinaryIO:
        part = _part_of(self._target)
        while True:
            try:
                fd = os.open(
                    part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666
                )
            except OSError as error:
                if error.errno not in (errno.EISDIR, errno.ELOOP):
                    raise
                raise InputError(f"{part}: is in the way; move it elsewhere") from error
            file = open(fd, "r+b")  # noqa: SIM115  closed by __exit__
            try:
                if any(map(partial(is_same, part), keep)) or not _is_left_over(file):
                    raise InputError(f"{part}: is in the way; move it elsewhere")
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_same(fd, part):
                    file.truncate(0)
                    self._part = part
                    return file
            except BlockingIOError:
                file.close()
                raise InputError(f"{self.name}: another process is writing it") from None
            except BaseException:
                file.close()
                raise
            file.close()  # whoever wrote it has just published or removed it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not published."""
        if self._part is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._part)
            self._part = None
        if self.name != STDOUT:
            with contextlib.suppress(OSError):  # of what was flushed in vain before, and told
                self._file.close()

    def settle(self) -> None:
        """Have all of it on the disk."""
        self.flush()
        if self._part is not None:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise self._trouble(error) from error

    def announce(self) -> None:
        """Note that this file is whole, and appears as soon as another one did."""
        if self._part is None:
            return
        whole = whole_of(self._target)
        if os.path.lexists(whole) and not _may_be_left_over(whole):
            raise InputError(f"{whole}: is in the way; move it elsewhere")
        self._rename(whole)

    def publish(self) -> None:
        """Let the file, which was settled, appear under its name."""
        self.flush()
        if self._part is not None:
            self._rename(self._target)
            self._part = None

    def _rename(self, name: str) -> None:
        if self._part is None:
            return
        try:
            os.replace(self._part, name)
        except OSError as error:
            raise self._trouble(error) from error
        self._part = name


def publish_both(template: OutputFile, jigdo: OutputFile) -> None:
    """Let a template and its .jigdo appear; one that cannot be written whole keeps both from it."""
    template.settle()
    jigdo.settle()
    jigdo.announce()
    template.publish()
    jigdo.publish()


def left_between(jigdo: str, template: str) -> bool:
    """Tell whether the template was left by a run that was killed before its .jigdo appeared.

    Raises:
        InputError: that run is still at it.
    """
    if STDOUT in (jigdo, template):
        return False
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(whole_of(os.path.realpath(jigdo)), flags)
    except OSError:
        return False
    with open(fd, "rb") as whole:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{jigdo}: another process is writing it") from None
        try:
            with open(template, "rb") as file:
                digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).digest()
        except OSError:
            return False
        line = b"Template-MD5Sum=" + Checksum(digest).base64.encode()
        return _is_left_over(whole) and line in whole.read().splitlines()


def check_free(name: str, *, replace: bool) -> None:
    """Raise `InputError` if there is such a file already, unless it may be replaced."""
    if name == STDOUT:
        return
    if os.path.isdir(name):
        raise InputError(f"{name}: is a directory")
    if not os.path.lexists(name):
        return
    if os.path.isfile(name) and not _is_like_ours(name):
        raise InputError(
            f"{name}: exists and is neither .jigdo nor template; it is not replaced, whatever the options say"
        )
    if not replace:
        raise InputError(f"{name}: exists already; use --force to replace it")


def _is_like_ours(name: str) -> bool:
    """Tell whether a file may be a .jigdo or a template, and not somebody's image: options get swapped."""
    try:
        with open(name, "rb") as file:
            return _looks_like_ours(file)
    except OSError:
        return False


def _looks_like_ours(file: BinaryIO) -> bool:
    head = os.pread(file.fileno(), _HEAD_BYTES, 0)
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
        except zlib.error:
            return False
        return _SECTION.search(head) is not None
    return head.startswith(HEADER_PREFIX) or b"\0" not in head


def check_apart(jigdo: str, template: str) -> None:
    """Raise `UsageError` if two files would be written to one place."""
    if STDOUT in (jigdo, template):
        return
    targets = [os.path.realpath(name) for name in (jigdo, template)]
    if len({*targets, *map(_part_of, targets), whole_of(targets[0])}) < 2 * len(targets) + 1:
        raise UsageError(f"{jigdo}: give the .jigdo and the template different names")


def is_same(name: str | int, other: str) -> bool:
    """Tell whether two names, or a descriptor and a name, are one file's."""
    try:
        return os.path.samestat(os.stat(name), os.stat(other))
    except OSError:
        return False


def _part_of(target: str) -> str:
    """Return the name under which a file is written."""
    return _beside(target, "part")


def whole_of(target: str) -> str:
    """Return the name under which a .jigdo that is whole waits for its template to appear."""
    return _beside(target, "whole")


def _beside(target: str, ending: str) -> str:
    """Return a hidden name beside a file's; one that would be too long is replaced."""
    directory, leaf = os.path.split(target)
    if len(os.fsencode(leaf)) > _MAX_LEAF_BYTES:
        leaf = hashlib.sha256(os.fsencode(leaf)).hexdigest()
    return os.path.join(directory, f".{leaf}.{ending}")


def _may_be_left_over(name: str) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with open(fd, "rb") as there:
        return _is_left_over(there)


def _is_left_over(file: BinaryIO) -> bool:
    """Tell whether a file is new, or what a killed run left, and nothing that somebody needs."""
    status = os.fstat(file.fileno())
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and _looks_like_ours(file)
