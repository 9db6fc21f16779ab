"""The matrix of rights: who mounts what where, and what must come of it. Pure but for the ids of the users.

What is foretold comes from what jigdofs promises and from what fuse(4), fusermount3(1) and chmod(2) say,
not from looking at jigdofs.
"""

import pwd
import random
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
_PLAIN_SHARE = 0.6

USER, OTHER = "nobody", "daemon"
READERS = ("root", USER, OTHER)

MOUNTERS = ("root", USER)
UMASKS = (0o022, 0, 0o077, 0o777)
HOMES = ("own", "missing", "not writable", "of another")
CACHES = (
    "default",
    "own",
    "a link to our own",
    "below a directory with the sticky bit",
    "on a read-only file system",
    "none",
    "of another",
    "a link to another's",
    "writable by the group",
    "writable by all",
    "with another's directory inside",
)
POINTS = (
    "own",
    "a link to our own",
    "not empty",
    "a file",
    "of another, writable by all",
    "of another",
    "of another, with the sticky bit",
    "own, not writable",
    "missing",
)
CONSENTS = ("", "user_allow_other", "#user_allow_other", "  user_allow_other # so be it")
ADMITTED = ("", "allow_other", "allow_root")
SHOWN = ("", "umask=077", "umask=0777", f"uid={OTHER},umask=077", f"gid={OTHER},umask=007", f"uid={USER}")


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the matrix.

    Attributes:
        mounter: the user who mounts.
        umask: of the process that mounts.
        home: what HOME is.
        cache: what the cache directory is.
        point: what the mount point is.
        consent: what stands in /etc/fuse.conf.
        admitted: who is let in, as an option of FUSE.
        shown: options that say what owner and modes are shown.
    """

    mounter: str
    umask: int
    home: str
    cache: str
    point: str
    consent: str
    admitted: str
    shown: str


@dataclass(frozen=True, slots=True)
class Foretold:
    """What must come of a case.

    Attributes:
        code: the exit code of `jigdofs mount`.
        line: what its one line must have in it, where it fails.
        readers: who must be able to read the image, where it does not.
    """

    code: int
    line: str = ""
    readers: frozenset[str] = frozenset()


PLAIN = Case("root", 0o022, "own", "own", "own", "", "", "")


def draw(source: random.Random) -> Case:
    """Draw a case: of its properties many are the plain ones, so that not all cases are refused at once."""

    def some(plain: T, others: tuple[T, ...]) -> T:
        return plain if source.random() < _PLAIN_SHARE else source.choice(others)

    return Case(
        mounter=source.choice(MOUNTERS),
        umask=some(0o022, UMASKS),
        home=some("own", HOMES),
        cache=some("own", CACHES),
        point=some("own", POINTS),
        consent=source.choice(CONSENTS),
        admitted=source.choice(ADMITTED),
        shown=source.choice(SHOWN),
    )


def foretell(case: Case) -> Foretold:
    """Say what must come of a case."""
    if case.point == "missing":
        return Foretold(4, "make the directory first")
    refused = {
        "of another": "belongs to another user",
        "a link to another's": "belongs to another user",
        "with another's directory inside": "belongs to another user",
        "writable by the group": "can be written by others",
        "writable by all": "can be written by others",
    }
    if case.cache in refused:
        return Foretold(3, refused[case.cache])
    if case.mounter != "root":
        if case.point in ("of another", "own, not writable"):
            return Foretold(4, "must be able to write to the mount point")
        if case.point == "of another, with the sticky bit":
            return Foretold(4, "sticky bit")
        if case.admitted and not case.consent.strip().startswith("user_allow_other"):
            return Foretold(4, "the line `user_allow_other' in /etc/fuse.conf")
    return Foretold(0, readers=frozenset(reader for reader in READERS if may_read(case, reader)))


def may_read(case: Case, reader: str) -> bool:
    """Tell whether a user must be able to read the image: FUSE lets them in, and the modes do."""
    let_in = {"": {case.mounter}, "allow_other": set(READERS), "allow_root": {case.mounter, "root"}}
    if reader not in let_in[case.admitted]:
        return False
    if reader == "root":
        return True
    who = pwd.getpwnam(reader)
    uid, gid, umask = shown_as(case)
    shift = 6 if who.pw_uid == uid else 3 if who.pw_gid == gid else 0
    readable, enterable = (0o444 & ~umask) >> shift & 4, (0o111 & ~umask) >> shift & 1
    return bool(readable and (enterable or case.point == "a file"))  # which lies in no directory of ours


def shown_as(case: Case) -> tuple[int, int, int]:
    """Return the owner and the group that the image must be shown with, and the rights it must lack."""
    mounter = pwd.getpwnam(case.mounter)
    uid, gid, umask = mounter.pw_uid, mounter.pw_gid, 0
    for option in filter(None, case.shown.split(",")):
        name, _, value = option.partition("=")
        if name == "uid":
            uid = pwd.getpwnam(value).pw_uid
        elif name == "gid":
            gid = pwd.getpwnam(value).pw_gid
        else:
            umask = int(value, 8)
    return uid, gid, umask
