"""The `-o` options of mount(8): which are ours, which are FUSE's, which mean nothing to us. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jigdofs.errors import MountError, UsageError

# said to every filesystem by mount(8), fstab(5) and systemd.mount(5); true of us anyway, or not for us
_IGNORED = frozenset(
    "ro auto noauto user nouser users owner group nofail _netdev defaults dev nodev suid nosuid exec"
    " atime noatime diratime nodiratime relatime norelatime strictatime lazytime nolazytime sync async"
    " dirsync mand nomand iversion noiversion silent loud nosymfollow".split()
)
_IGNORED_VALUES = ("comment", "uhelper", "helper", "user")
_PASSED = frozenset("allow_root default_permissions fsname subtype auto_unmount noexec".split())
_FLAGS = frozenset("allow-other contents no-cache".split())
_VALUES = frozenset(
    "uid gid umask mirror uri image scan cache-dir cache-max-size cache-min-free connections connect-timeout"
    " stall-timeout min-speed read-timeout readahead log-file max-background read-ahead-kb prefetch"
    " prefetch-list record bwlimit config metrics".split()
)
_EXEC = "exec"
_MAX_SHOWN = 40  # of what is no option, and compared with what is


@dataclass(frozen=True, slots=True)
class Translated:
    """What `-o` said.

    Attributes:
        arguments: the same as long options of our own.
        fuse: options to pass to FUSE as they are.
    """

    arguments: tuple[str, ...]
    fuse: tuple[str, ...]


def translate(texts: Iterable[str], *, by_mount: bool = False, sloppy: bool = False) -> Translated:
    r"""Translate `-o` arguments: `key=value` becomes `--key=value`, `_` and `-` are the same.

    A comma separates options; `\,` is a comma in a value.

    Args:
        texts: what stood behind each `-o`.
        by_mount: mount(8) says it, and says `rw` where the user said nothing.
        sloppy: leave out what is unknown.

    Raises:
        UsageError: an option is unknown, or lacks its value.
        MountError: it asks for something else than a mount.
    """
    arguments: list[str] = []
    fuse: list[str] = []
    options = [option for text in texts for option in _separate(text)]
    if "remount" in options:
        raise MountError("-o remount: not possible; unmount it and mount it again, or send SIGHUP to it")
    for option in options:
        key, equals, value = option.partition("=")
        name = key.replace("_", "-")
        if _means_nothing(key) or (key == "rw" and by_mount):
            continue
        if key == "rw":
            raise UsageError("-o rw: an image cannot be written to; put overlayfs on top of the mount")
        if key in _PASSED or key == _EXEC:
            fuse.append(option)
        elif name in _FLAGS and not equals:
            arguments.append(f"--{name}")
        elif name in _VALUES and equals:
            arguments.append(f"--{name}={value}")
        elif name in _VALUES:
            raise UsageError(f"-o {key}: needs a value, as in {key}=VALUE")
        elif not sloppy:
            import difflib

            shown = key[:_MAX_SHOWN]
            near = difflib.get_close_matches(name[:_MAX_SHOWN], sorted(_FLAGS | _VALUES), n=1)
            raise UsageError(f"-o {shown}: no such option" + (f"; did you mean {near[0]}?" if near else ""))
    return Translated(tuple(arguments), _last_wins(fuse))


def _last_wins(fuse: list[str]) -> tuple[str, ...]:
    """Leave `noexec` out where `exec` follows it, and that one in any case: it is what holds."""
    while _EXEC in fuse:
        at = fuse.index(_EXEC)
        fuse = [option for option in fuse[:at] if option != "noexec"] + fuse[at + 1 :]
    return tuple(fuse)


def _means_nothing(key: str) -> bool:
    return (
        not key
        or (key in _IGNORED and key != _EXEC)
        or key in _IGNORED_VALUES
        or key.startswith(("x-", "X-"))
    )


def _separate(text: str) -> list[str]:
    options = [""]
    chars = iter(text)
    for char in chars:
        if char == "\\":
            options[-1] += next(chars, "")
        elif char == ",":
            options.append("")
        else:
            options[-1] += char
    return options
