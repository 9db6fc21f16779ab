"""Write again what documents have from the program: completion scripts, and lists of options in man pages.

python -m tests.documents.refresh
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from jigdofs.cli import completion, fuse_options
from jigdofs.completion.grammar import Option, Verb
from jigdofs.settings.keys import KEYS, Key
from tests.documents import roff
from tests.kit.mounts import REPOSITORY

MAN = REPOSITORY / "docs" / "man"
COMPLETION = REPOSITORY / "docs" / "completion"
SCRIPTS = {"bash": "jigdofs.bash", "zsh": "_jigdofs", "fish": "jigdofs.fish"}
PAGES = ("jigdofs.1", "mount.jigdofs.8", "jigdofs.toml.5")
# what no option of ours tells
_OF_FUSE = {
    "allow_root": "let root in, but no other user",
    "default_permissions": "have the kernel check modes and owners",
    "fsname": "what findmnt and df show as the source (default: SRC)",
    "subtype": "what follows fuse. in the type (default: jigdofs)",
    "noexec": "let nothing be run in it; `user' in fstab asks for that, too",
    "auto_unmount": "have fusermount3 unmount when the daemon dies; only together with allow_other",
}
_FOLLOWERS = ("mount", "serve", "download", "info", "cache")
_OF_IMAGE_SETS = {
    "images": "what to mount: paths or URLs of .jigdo files, paths of plain .iso files",
    "mountpoint": "where to mount it: an existing directory, or a regular file",
    "fuse-options": "options as behind -o of jigdofs mount, such as auto_unmount",
}


def made() -> dict[str, str]:
    """Return every list that a page may have, by its name."""
    verbs = completion.verbs()
    shared = roff.shared_groups(verbs)
    found = {f"options of {verb.names[0]}": roff.options_of(verb, shared) for verb in verbs}
    text = ""
    for title, options in shared.items():
        text += f'.SS "{title[:1].upper()}{title[1:]}"\n' + "".join(map(roff.option, options))
    found["options of several verbs"] = text
    mount = next(verb for verb in verbs if verb.names[0] == "mount")
    found["options of mount.jigdofs"] = _mount_options(mount)
    found["options of FUSE"] = "".join(
        roff.entry(name, "", _OF_FUSE[name]) for name in sorted(fuse_options._PASSED)
    )
    listed = ", ".join(f"\\fB{roff.escaped(name)}\\fR" for name in sorted(fuse_options._IGNORED))
    values = ", ".join(f"\\fB{roff.escaped(name)}=\\fR" for name in fuse_options._IGNORED_VALUES)
    found["options of no effect"] = (
        f"{listed},\n{values}, and what begins with \\fBx\\-\\fR or \\fBX\\-\\fR.\n"
    )
    found["keys of settings"] = "".join(_key(key, verbs) for key in KEYS.values())
    return found


def _mount_options(mount: Verb) -> str:
    names = sorted(fuse_options._FLAGS | fuse_options._VALUES)
    options = {name: _option(name, (mount,)) for name in names}
    return "".join(
        roff.entry(name.replace("-", "_"), one.metavar, roff.about(one)) for name, one in options.items()
    )


def _option(name: str, verbs: tuple[Verb, ...]) -> Option:
    for verb in verbs:
        for one in verb.options:
            if f"--{name}" in one.names:
                return one
    raise LookupError(f"no verb has an option --{name}")


def _key(key: Key, verbs: tuple[Verb, ...]) -> str:
    """Return the entry of a setting: what it holds, what its option does, how it can change."""
    about = _OF_IMAGE_SETS.get(key.name) or roff.about(_option(key.name, verbs))
    remarks = ["Live."] if key.live else []
    remarks += ["In image sets and files of \\-\\-config only."] if key.image_set else []
    kind = key.kind.value
    users = [verb.names[0] for verb in verbs if any(f"--{key.name}" in one.names for one in verb.options)]
    # only these follow settings; the options of jigdo-file are called alike
    used = ", ".join(name for name in users if name in _FOLLOWERS) or "mount"
    head = f".TP\n\\fB{roff.escaped(key.name)}\\fR\n"
    return (
        head
        + roff.filled(f"{roff.sentence(about)} Takes {kind}. For {used}.")
        + "".join(f"\n.I {remark}" for remark in remarks)
        + "\n"
    )


def scripts() -> Iterator[tuple[Path, str]]:
    """Yield where each completion script lies, and what it should be."""
    for shell, name in SCRIPTS.items():
        yield COMPLETION / name, completion.script(shell)


def pages() -> Iterator[tuple[Path, str]]:
    """Yield where each man page lies, and what it should be."""
    lists = made()
    for name in PAGES:
        yield MAN / name, roff.refreshed((MAN / name).read_text("utf-8"), lists)


def main() -> None:
    """Write what has changed, and say so."""
    for path, text in (*scripts(), *pages()):
        if not path.exists() or path.read_text("utf-8") != text:
            new = path.with_name(path.name + ".new")
            new.write_text(text, "utf-8")
            shutil.move(new, path)
            print(f"wrote {path.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
