"""Why FUSE refused a mount, in one line that says what to do about it.

libfuse tells its reason on stderr, as does fusermount3, which it starts; Python is told none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

_NAMES = ("fuse: ", "fusermount3: ", "fusermount: ")
_SPEAKERS = (*_NAMES, "On calling fusermount ", "posix_spawn(p)() for fusermount")
_MOST_BYTES = 64 << 10
_NO_RIGHT = "mount failed: Operation not permitted"
_CONSENT = "allow_other needs the line `user_allow_other' in /etc/fuse.conf for users other than root"
_WRITABLE = "an ordinary user must be able to write to the mount point"
_ADVICE = (
    (("user_allow_other",), _CONSENT),
    (("/dev/fuse", "Permission denied"), "/dev/fuse may not be opened by this user"),
    (("/dev/fuse", "Operation not permitted"), "/dev/fuse may not be opened by this process (DeviceAllow=?)"),
    (("/dev/fuse", "No such"), "there is no /dev/fuse; load the kernel module fuse"),
    (("device not found",), "there is no /dev/fuse; load the kernel module fuse"),
    (("fusermount", "No such file"), "fusermount3 is not installed (package fuse3)"),
    (("fusermount", "Permission denied"), "fusermount3 may not be run by this user"),
    (("no write access to mountpoint",), _WRITABLE),
    (("failed to open", "Permission denied"), _WRITABLE),  # what it says of a file
    (("failed to access mountpoint", "Permission denied"), _WRITABLE),  # and of what is read-only or hidden
    (("not owned by user",), "an ordinary user must own a mount point that has the sticky bit, as /tmp has"),
    (
        (_NO_RIGHT,),
        "fusermount3 has no right to mount: is it setuid root, and may we gain rights (no_new_privs)?",
    ),
)
"""What is in one of FUSE's lines, and what it means; the first that fits counts."""


@contextlib.contextmanager
def overheard() -> Iterator[list[str]]:
    """Keep what is written to stderr meanwhile; yield a list that has FUSE's lines if this ends in an error.

    Everything else goes to stderr in the end, and all of it if there was no error.
    """
    lines: list[str] = []
    try:
        stderr = os.dup(2)
    except OSError:  # closed: nobody listens anyway
        yield lines
        return
    with open(os.memfd_create("stderr"), "rb") as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield lines
        except BaseException:
            said = _written(kept.fileno()).splitlines(keepends=True)
            told = [line for line in said if line.startswith(_SPEAKERS)]
            lines += ((line.partition(": ")[2] if line.startswith(_NAMES) else line).strip() for line in told)
            said = [line for line in said if line not in told]
            raise
        else:
            said = [_written(kept.fileno())]
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            with contextlib.suppress(OSError):
                os.write(2, "".join(said).encode("utf-8", "surrogateescape"))


def _written(fd: int) -> str:
    return os.pread(fd, _MOST_BYTES, 0).decode("utf-8", "surrogateescape")


def advice(lines: Sequence[str], *, root: bool) -> str:
    """Return what stands in the way, and what to do about it.

    Args:
        lines: what libfuse and fusermount3 said, without their names; the last one decides.
        root: whether it is root who mounts.
    """
    if not lines:
        return "FUSE refused it and gave no reason"
    line = lines[-1]
    if root and _NO_RIGHT in line:
        return "this process has no right to mount (CAP_SYS_ADMIN)"
    found = next((text for words, text in _ADVICE if all(word in line for word in words)), None)
    if found is None:
        return f"FUSE refused it: {line}"
    if found == _CONSENT and any("failed to open /etc/fuse.conf: Permission" in said for said in lines):
        return f"{found}, and this user may not read that file"
    return found
