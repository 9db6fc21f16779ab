"""Parse options: argparse with our exit code, and the types that options have."""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import re
from typing import NoReturn

from jigdofs.errors import UsageError
from jigdofs.fetch import url as urls

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|)", re.IGNORECASE | re.ASCII)
_DURATION_UNIT_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


class Parser(argparse.ArgumentParser):
    """Raise `UsageError` where argparse would exit with 2, which means a wrong checksum to us.

    Attributes:
        configurable: files and the environment say what the command line does not.
    """

    def __init__(self, prog: str, description: str) -> None:
        self.configurable = False
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Report wrong usage, and the option that was probably meant."""
        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0].partition("=")[0]
        import difflib

        near = difflib.get_close_matches(unknown[:40], self._option_string_actions, n=1)
        meant = f"; did you mean {near[0]}?" if near and unknown != message.split(" ", maxsplit=1)[0] else ""
        raise UsageError(f"{message}{meant}; see `{self.prog} --help'")


def size(text: str) -> int:
    """Read a number of bytes: `64k`, `1.5G`, `20GiB`; units are powers of 1024, as in rclone."""
    from fractions import Fraction

    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"`{text[:40]}' is no size; write for instance 512M or 20G")
    exponent = " kmgtp".index(match[2].lower() or " ")
    number = int(Fraction(match[1]) * 1024**exponent)
    if number >= 1 << 62:
        raise argparse.ArgumentTypeError(f"`{text[:40]}' is more than any disk has")
    return number


def size_or_off(text: str) -> int | None:
    """Read a size, or `off` for none."""
    return None if text.strip().lower() in ("off", "none") else size(text)


def bandwidth_or_off(text: str) -> int:
    """Read a number of bytes a second, or `off` for no limit, which is 0."""
    return 0 if text.strip().lower() in ("off", "none", "0") else bandwidth(text)


def bandwidth(text: str) -> int:
    """Read a number of bytes a second; with less, servers would drop connections that wait for their turn.

    Four transfers at a time that take 512 KiB in turn leave each alone for 32 s; nginx and Apache wait 60 s.
    """
    number = size(text)
    if number < 64 << 10:
        raise argparse.ArgumentTypeError(f"`{text}' is too little: 64k a second at least")
    return number


def duration_s(text: str) -> float:
    """Read a time in seconds: `30`, `30s`, `500ms`, `2m`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or len(match[1]) > 12 or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"`{text}' is no time; write for instance 30s or 2m")
    return float(match[1]) * _DURATION_UNIT_S[match[2].lower()]


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    # int() of thousands of digits raises, and nobody means a billion connections
    if re.fullmatch("[0-9]{1,9}", text) is None or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text[:40]}' is no number of at least 1 and below 10^9")
    return int(text)


def up_to_65535(text: str) -> int:
    """Read a whole number as the kernel takes it: from 1 to 65535."""
    if positive(text) > 0xFFFF:
        raise argparse.ArgumentTypeError(f"`{text}' is more than the 65535 that the kernel takes")
    return int(text)


def octal(text: str) -> int:
    """Read a umask."""
    if not re.fullmatch("0?[0-7]{1,3}", text):
        raise argparse.ArgumentTypeError(f"`{text}' is no octal mode such as 022")
    return int(text, 8)


def _identity(text: str) -> int:
    if re.fullmatch("[0-9]{1,10}", text) is None or int(text) > 0xFFFFFFFE:
        raise argparse.ArgumentTypeError(f"`{text[:40]}' is no user or group number")
    return int(text)


def user(text: str) -> int:
    """Read a user's number or name."""
    try:
        return _identity(text) if text[:1] in "-0123456789" else pwd.getpwnam(text).pw_uid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no user `{text}'") from None


def group(text: str) -> int:
    """Read a group's number or name."""
    try:
        return _identity(text) if text[:1] in "-0123456789" else grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no group `{text}'") from None


def mirror(text: str) -> tuple[str, str]:
    """Read `LABEL=URL` or `LABEL=DIRECTORY`."""
    label, equals, target = text.partition("=")
    if not equals or not label or not target:
        raise argparse.ArgumentTypeError(
            f"`{text}' is not LABEL=URL or LABEL=DIRECTORY, for instance Debian=http://deb.debian.org/debian/"
        )
    if target.startswith("file:"):
        target = target.removeprefix("file:")
        target = "/" + target.lstrip("/") if target.startswith("/") else target
    if "://" in target and not urls.is_http(target):
        raise argparse.ArgumentTypeError(f"`{target}': a mirror is an http: or https: URL, or a directory")
    if "://" not in target and not re.match(r"[A-Za-z][A-Za-z0-9]*:(?!/)", target):
        target = os.path.abspath(os.path.expanduser(target)) + ("/" if target.endswith("/") else "")
    return label, target
