"""What FUSE refuses is said in one line, with what to do about it."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from jigdofs.fuse.refusal import advice
from tests.campaigns.rights_matrix import USER
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.namespaces import in_namespace
from tests.kit.requirements import as_user, require_fuse, require_root, tool

UID = pwd.getpwnam(USER).pw_uid


@pytest.fixture
def point(public_dir: Path) -> Path:
    """A mount point of the user's."""
    require_root()
    path = public_dir / "mnt"
    path.mkdir()
    os.chown(path, UID, -1)
    return path


@pytest.fixture
def jigdo(iso_md5: BuiltImage, public_dir: Path) -> Path:
    """A .jigdo that everybody can read."""
    return iso_md5.with_servers(public_dir / "in", {"Debian": "http://127.0.0.1:1/"}).jigdo


CONF = 'umask 022; echo "$1" >"$2/conf"; mount --bind "$2/conf" /etc/fuse.conf'
HELPER = """
helper=$(command -v fusermount3); cp "$helper" "$2/helper"
mount --bind "$2/helper" "$(readlink -f "$helper")"
""".strip()
REFUSALS = {
    "no consent": (CONF, "", "allow_other", "the line `user_allow_other' in /etc/fuse.conf"),
    "no consent for root": (CONF, "", "allow_root", "the line `user_allow_other' in /etc/fuse.conf"),
    "a slip": (CONF, "user_allow_others", "allow_other", "the line `user_allow_other' in /etc/fuse.conf"),
    "a secret file": (
        f'{CONF}; chmod 600 "$2/conf"',
        "user_allow_other",
        "allow_other",
        "may not read that file",
    ),
    "too many": (CONF, "mount_max = 0", "allow_other", "mount_max=N can be set in /etc/fuse.conf"),
    "no access to the device": (
        'mknod "$2/fuse" c 10 229; chmod 600 "$2/fuse"; mount --bind "$2/fuse" /dev/fuse',
        "",
        "ro",
        "/dev/fuse may not be opened by this user",
    ),
    "a helper without rights": (
        f'{HELPER}; chmod 755 "$2/helper"',
        "",
        "ro",
        "is it setuid root",
    ),
    "a helper that may not be run": (
        f'{HELPER}; chmod 700 "$2/helper"',
        "",
        "ro",
        "fusermount3 may not be run by this user",
    ),
    "a foreign sticky directory": (
        'chown 0 "$2/mnt"; chmod 1777 "$2/mnt"',
        "",
        "ro",
        "must own a mount point that has the sticky bit",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_in_one_line(name: str, jigdo: Path, point: Path) -> None:
    """Whatever FUSE refuses to an ordinary user is said in one line, with what to do about it."""
    require_fuse(USER)
    setup, conf, option, words = REFUSALS[name]
    mount = [*PROGRAM, "mount", str(jigdo), str(point), "--no-cache", "-o", option]
    command = in_namespace(setup, as_user(USER, mount), conf, point.parent)
    environ = clean_environ(point.parent)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done
    assert len(done.stderr.splitlines()) == 1, done
    assert f"cannot mount at {point}: " in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    ("rights", "user", "words"),
    [
        (("--no-new-privs",), USER, "may we gain rights"),
        (("--bounding-set", "-sys_admin"), None, "no right to mount (CAP_SYS_ADMIN)"),
    ],
)
def test_a_process_without_the_right(
    rights: tuple[str, ...], user: str | None, words: str, jigdo: Path, point: Path
) -> None:
    """Whoever lacks the right to mount is told so in one line."""
    require_fuse(user)
    mount = [*PROGRAM, "mount", str(jigdo), str(point), "--no-cache"]
    command = [tool("setpriv"), *rights, "--", *(mount if user is None else as_user(user, mount))]
    environ = clean_environ(point.parent)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1), done
    assert words in done.stderr


def test_what_was_overheard() -> None:
    """Of an error FUSE's lines are kept and the others are passed on; without one, all are passed on."""
    code = """
        import os
        from jigdofs.fuse.refusal import overheard
        with overheard() as lines:
            os.write(2, b"fuse: a word\\nanother\\n")
        print(lines)
        try:
            with overheard() as lines:
                os.write(2, b"fuse: one\\nours\\nfusermount3: t\\xffwo\\nOn calling fusermount it fell\\n")
                raise RuntimeError
        except RuntimeError:
            print(ascii(lines))
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())],
        env=clean_environ(Path("/")),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "['one', 't\\udcffwo', 'On calling fusermount it fell']"]
    assert done.stderr.splitlines() == ["fuse: a word", "another", "ours"]


def test_a_reason_that_nobody_knows() -> None:
    """What is new to us is passed on as it is."""
    assert advice(["some", "the moon is full"], root=False) == "FUSE refused it: the moon is full"
    assert advice([], root=True) == "FUSE refused it and gave no reason"


@pytest.mark.parametrize(
    "line",
    [
        "failed to exec fusermount3: No such file or directory",  # libfuse 3.14
        "On calling fusermount posix_spawn failed: No such file or directory",  # later ones
    ],
)
def test_fusermount_is_not_there(line: str) -> None:
    """Its lack is told whatever the version of libfuse says of it."""
    assert advice([line], root=False) == "fusermount3 is not installed (package fuse3)"
