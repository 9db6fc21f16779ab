"""Which label stands for which directory, and what [Servers] says of it. Nothing is read here but names.

Rules of this file:
* What a label stands for ends at the last `//` of a path; without one it is `/` or the current directory.
* Directories are the same if their absolute, normalised names are.
* Automatic labels are handed out on first use; none is ever one that the user, or a merged .jigdo, uses for
  something else.
"""

from __future__ import annotations

import itertools
import os
import re
import string
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from jigdofs.errors import InputError, UsageError
from jigdofs.format import words

_SCHEMES = frozenset(["http", "https", "ftp", "file"])
_UNWRITABLE = re.compile(r"[\[\]#=: \t\x00-\x1f\x7f]")
_LEADS_ON = re.compile("https?://[^/]|file:|[^/:]+:(?!//)")
"""A URL, a local file, or a label."""
_WHOLE_PREFIX_ENDS = ("/", ":", "=", "?", "&")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a file lies.

    Attributes:
        label: that the user gave to the directory, or "".
        directory: what a label stands for, as typed.
        rest: the path below it.
    """

    label: str
    directory: str
    rest: str


class Labels:
    """Hand out labels as files are found, and tell what they stand for.

    Args:
        labels: of --label, in the order given: label, directory.
        uris: of --uri, in the order given: label, URL prefix and options as in a line of [Servers].
        operands: the files and directories of the command line, as typed.
        taken: labels of a .jigdo that is merged: no automatic one may be among them.

    Raises:
        UsageError: a label or URL cannot be written, or would change what `http:` means.
    """

    def __init__(
        self,
        labels: Iterable[tuple[str, str]],
        uris: Iterable[tuple[str, str]],
        operands: Collection[str],
        taken: Iterable[str] = (),
    ) -> None:
        labels = list(labels)
        self._uris: dict[str, list[str]] = {}
        for label, value in uris:
            if "\n" in value:
                raise UsageError(f"--uri {label}={value}: a URL of several lines cannot be written")
            self._uris.setdefault(label, []).append(value.strip(" \t"))
        self._given = dict.fromkeys([*(label for label, _ in labels), *self._uris])
        for label in self._given:
            _check(label)
        self._named: dict[str, tuple[str, str]] = {}  # absolute directory -> label, directory as typed
        for label, directory in labels:
            self._named.setdefault(_absolute(directory), (label, directory))
        defined = {label for label, _ in labels}
        targets = {target for label in self._uris for target in self._targets(label)}
        homeless = [label for label in self._uris if label not in defined | targets]
        self._name_the_tree(operands, homeless)
        self._automatic: dict[str, str] = {}  # absolute directory -> label
        # whom an earlier run told of `A=file:` gives a --uri for A the next time
        meant = {label for label in homeless if re.fullmatch("[A-Z]+", label)}
        meant -= {label for label, _ in self._named.values()}
        taken = {*taken, *(self._given.keys() - meant)}
        self._free = (label for label in _automatic_labels() if label not in taken)
        self._used: dict[str, dict[str, str]] = {}  # label -> absolute directory -> as typed

    def _name_the_tree(self, operands: Collection[str], homeless: list[str]) -> None:
        """Give the one label that has a URL but no directory to the one tree that has no label."""
        if len(homeless) != 1 or len(operands) != 1:
            return
        (tree,) = operands
        if not tree or self._place(tree).label or _absolute(tree) in self._named:
            return
        if "//" in tree:
            tree, _ = _split(tree)
        self._named.setdefault(_absolute(tree), (homeless[0], tree))

    def location(self, path: str) -> str:
        """Return `Label:rest` for a file; raise `InputError` if no .jigdo can hold its name."""
        place = self._place(path)
        directory = _absolute(place.directory)
        label = place.label or self._automatic.get(directory) or next(self._free)
        if "\n" in (place.rest if label in self._uris else path):
            raise InputError(f"{path}: a name with a line feed in it cannot be written into a .jigdo")
        if not place.label:
            self._automatic[directory] = label
        self._used.setdefault(label, {}).setdefault(directory, place.directory)
        return f"{label}:{place.rest}"

    def environment(self, path: str) -> dict[str, str]:
        """Return what --match-exec is told of a file: LABEL is empty where the user gave none."""
        place = self._place(path)
        above, slash, leaf = place.rest.rpartition("/")
        prefix = _prefix(place.directory)
        return {
            "LABEL": place.label,
            "LABELPATH": prefix,
            "MATCHPATH": above + slash,
            "LEAF": leaf,
            "FILE": prefix + place.rest,
        }

    def servers(self) -> tuple[tuple[str, str], ...]:
        """Return the lines of [Servers] for the labels in use: label, and value as it is to be written."""
        return tuple(
            (label, value)
            for label in sorted(self._in_use(), key=os.fsencode)
            for value in self._values(label)
        )

    def unused(self) -> tuple[str, ...]:
        """Return the labels of --label and --uri that no file has, and no other label needs."""
        in_use = self._in_use()
        return tuple(label for label in self._given if label not in in_use)

    def warnings(self) -> tuple[str, ...]:
        """Return what is likely to be wrong with URLs, a line each."""
        return tuple(
            warning
            for label, values in self._uris.items()
            for value in values
            for warning in _doubts(label, value)
        )

    def _place(self, path: str) -> _Place:
        """Find what the label of a path stands for."""
        base, rest = _split(path)
        if "//" in path:
            label, directory = self._named.get(_absolute(base), ("", base))
            return _Place(label, directory, rest)
        if self._named:
            whole = _absolute(path)
            for above in _above(whole):
                if above in self._named:
                    return _Place(*self._named[above], whole[len(above) :].lstrip("/"))
        return _Place("", base, rest)

    def _in_use(self) -> set[str]:
        """Return the labels that files have, and those that stand in the URLs of these."""
        found: set[str] = set()
        pending = list(self._used)
        while pending:
            label = pending.pop()
            if label not in found:
                found.add(label)
                pending += self._targets(label)
        return found

    def _targets(self, label: str) -> list[str]:
        """Return the labels that the URLs of a label begin with."""
        firsts = (_first_word(value).partition(":") for value in self._uris.get(label, ()))
        return [target for target, colon, _ in firsts if colon and target in self._uris and target != label]

    def _values(self, label: str) -> list[str]:
        if label in self._uris:
            return self._uris[label]
        return [words.quote(f"file:{_prefix(directory)}") for directory in self._used[label].values()]


def _check(label: str) -> None:
    if not label or _UNWRITABLE.search(label):
        raise UsageError(f"`{label}' cannot be a label: use letters, digits, `-', `_', `.' and the like")
    if label.lower() in _SCHEMES:
        raise UsageError(f"`{label}' cannot be a label: every URL that begins with `{label}:' would change")


def _doubts(label: str, value: str) -> Iterator[str]:
    prefix = _first_word(value)
    if prefix and not _LEADS_ON.match(prefix):
        yield f"--uri {label}={value}: is no http: or https: URL; it means what lies beside the .jigdo"
    elif prefix and not prefix.endswith(_WHOLE_PREFIX_ENDS):
        yield f"--uri {label}={prefix} has no `/' at its end: {label}:x will be {prefix}x"
    typed = re.split("[ \t]", value, maxsplit=1)[0]
    if prefix != typed and value[0] not in "\"'":
        yield f"--uri {label}={value} will be read as `{prefix}': quote it as in a .jigdo"


def _first_word(value: str) -> str:
    return next(iter(words.split(value)), "")


def _automatic_labels() -> Iterator[str]:
    """Yield A, B, .. Z, AA, AB, .."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_uppercase, repeat=length))


def _split(path: str) -> tuple[str, str]:
    """Return what a label stands for, "" for the current directory, and the rest."""
    base, separator, rest = path.rpartition("//")
    if separator:
        return base or "/", rest
    return ("/", path[1:]) if path.startswith("/") else ("", path)


def _absolute(directory: str) -> str:
    # POSIX lets exactly two slashes at the front mean something else; to Linux they do not
    return re.sub("^/+", "/", os.path.abspath(directory))


def _above(path: str) -> Iterator[str]:
    """Yield the directories above an absolute path, the nearest first."""
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _prefix(directory: str) -> str:
    """Return what is put before a name to open it."""
    return re.sub("/+", "/", f"{directory}/") if directory else ""
