"""Rights: who may what at a mount, how a refusal is said, and how little the daemon needs itself."""

import json
import os
import pwd
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jigdofs import logs
from jigdofs.errors import CacheError, UnsafeCache
from jigdofs.fuse.kernel import is_unseen_outside
from jigdofs.parts.cache import Cache
from jigdofs.parts.directories import make_private
from tests.campaigns.rights_matrix import MOUNTERS, OTHER, PLAIN, USER, Case, draw, foretell
from tests.kit.control_sockets import run_as_user
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, REPOSITORY, Mounted, clean_environ
from tests.kit.namespaces import in_namespace
from tests.kit.requirements import as_user, require_fuse, require_root, tool
from tests.kit.scenes import wait_until

UID = pwd.getpwnam(USER).pw_uid
LEAST_RIGHTS = ("--no-new-privs", "--inh-caps", "-all", "--bounding-set", "-all,+sys_admin")
"""What setpriv(1) leaves root of its rights: CAP_SYS_ADMIN, to mount; not to read the files of others."""


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


# -- the matrix ----------------------------------------------------------------------------------


def test_some_of_the_matrix() -> None:
    """Of some combinations of users, directories and options, each comes to what was foretold."""
    require_fuse(USER)
    command = [sys.executable, "-m", "tests.campaigns.rights", "--seed", "3214", "--count", "6"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["cases"], found["faults"]) == (6, [])
    assert 0 < found["refused"] < 6


def test_what_the_matrix_foretells() -> None:
    """The oracle knows the plain cases, and what is drawn is of all kinds."""
    assert foretell(PLAIN).readers == {"root"}
    source = random.Random(0)
    drawn: list[Case] = [draw(source) for _ in range(400)]
    assert {case.mounter for case in drawn} == set(MOUNTERS)
    assert {foretell(case).code for case in drawn} == {0, 3, 4}
    assert {reader for case in drawn for reader in foretell(case).readers} == {"root", USER, OTHER}


# -- how little it needs -------------------------------------------------------------------------


def test_the_right_to_mount_suffices(jigdo: Path, iso_md5: BuiltImage, public_dir: Path) -> None:
    """With CAP_SYS_ADMIN alone, unable to gain rights, root mounts for all, asks, and unmounts."""
    require_root()
    program = [tool("setpriv"), *LEAST_RIGHTS, "--", *PROGRAM]
    options = [
        "--mirror",
        f"Debian={iso_md5.pool}",
        "-o",
        "allow_other",
        "--cache-dir",
        f"{public_dir}/cache",
    ]
    with Mounted(jigdo, public_dir / "mnt", options, program=program) as mounted:
        image = mounted.mountpoint / iso_md5.image.name
        compared = subprocess.run(as_user(USER, ["sha256sum", str(image)]), capture_output=True, check=True)
        assert image.read_bytes() == iso_md5.image.read_bytes()
        right = subprocess.run(["sha256sum", str(iso_md5.image)], capture_output=True, check=True)
        assert compared.stdout.split()[0] == right.stdout.split()[0]
        asked = subprocess.run(
            [*program, "status", str(mounted.mountpoint)], capture_output=True, text=True, check=False
        )
        assert asked.returncode == 0, asked


HOLDER = 'mount --bind "$1" "$1"; mount --make-shared "$1"; echo ready; read -r _'
# all of the root file system is read-only but the cache; what is mounted inside does not come out
SERVICE = """
mount --bind "$1/cache" "$1/cache"
mount -o remount,bind,ro "$1"; mount -o remount,bind,ro /
! touch "$1/probe" 2>/dev/null
"""


@contextmanager
def namespace(directory: Path) -> Iterator[int]:
    """Have a process in a mount namespace of its own, in which mounts below a directory are passed on."""
    command = in_namespace(HOLDER, ["true"], directory)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield holder.pid
        holder.stdin.close()


def test_a_service_with_a_view_of_its_own(jigdo: Path, iso_md5: BuiltImage, public_dir: Path) -> None:
    """Where only the cache can be written to, it mounts, reads and ends well, and says who sees the mount."""
    require_root()
    require_fuse()
    cache, point, environ = public_dir / "cache", public_dir / "mnt", clean_environ(public_dir)
    for path in (cache, point):
        path.mkdir(0o700)
    mount = [*PROGRAM, "mount", str(jigdo), str(point), "--foreground", "--cache-dir", str(cache)]
    mount += ["--mirror", f"Debian={iso_md5.pool}"]
    service = in_namespace(
        SERVICE, [tool("setpriv"), *LEAST_RIGHTS, "--", *mount], public_dir, propagation="slave"
    )
    with namespace(public_dir) as outside:
        command = [tool("nsenter"), "--mount", "--target", str(outside), *service]
        daemon = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        inside = [tool("nsenter"), "--mount", "--target", str(daemon.pid)]
        try:
            image = point / iso_md5.image.name
            wait_until(lambda: daemon.poll() is not None or _mounted(daemon.pid, point), "the mount", 30)
            read = subprocess.run([*inside, "cat", str(image)], capture_output=True, check=False)
            assert read.stdout == iso_md5.image.read_bytes(), read.stderr
            assert not _mounted(outside, point)
        finally:
            daemon.send_signal(signal.SIGTERM)
            _, said = daemon.communicate(timeout=30)
    assert daemon.returncode == 0, said
    assert len([path for path in (cache / "objects").rglob("*") if path.is_file()]) > len(iso_md5.parts)
    warned = [line for line in said.splitlines() if "no control socket" not in line]  # /run may be read-only
    assert len(warned) == 1, said
    assert "is seen by this process and its kin only" in warned[0]


def _mounted(pid: int, point: Path) -> bool:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return any(f" {point} " in line and " fuse.jigdofs " in line for line in lines)


@pytest.mark.parametrize(
    ("above", "of_process_1", "unseen"),
    [
        ("shared:1", None, False),
        ("", "", False),
        ("shared:7 master:1", "", True),
        ("master:1", None, True),
        ("shared:7 master:1", "9 1 0:50 / /elsewhere rw - fuse.jigdofs x rw\n", False),
    ],
)
def test_who_sees_a_mount(tmp_path: Path, above: str, of_process_1: str | None, unseen: bool) -> None:
    """A mount in a slave of another namespace is unseen outside, unless process 1 sees it: in a container."""
    for name in ("self", "1"):
        (tmp_path / name).mkdir()
    lines = [
        f"5 1 8:1 / / rw {above} - ext4 /dev/x rw",
        "7 5 0:51 / /of\rothers rw - fuse.sshfs x\ry rw",  # the kernel does not escape carriage returns
        "6 5 0:50 / /a\\040b rw shared:9 - fuse.jigdofs x rw",
    ]
    (tmp_path / "self/mountinfo").write_bytes("\n".join([*lines, ""]).replace("  ", " ").encode())
    if of_process_1 is not None:
        (tmp_path / "1/mountinfo").write_text(of_process_1)
    assert is_unseen_outside("/a b", tmp_path) is unseen


# -- what is left for others ---------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o777])
def test_the_umask_of_the_user(umask: int, jigdo: Path, point: Path) -> None:
    """Whatever it is, nothing is left for others to write, and all is there for the user."""
    require_fuse(USER)
    home = point.parent / "home"
    home.mkdir()
    os.chown(home, UID, -1)
    environ = clean_environ(home) | {"TMPDIR": str(home)}
    mount = as_user(USER, [*PROGRAM, "mount", str(jigdo), str(point)])
    done = subprocess.run(mount, env=environ, umask=umask, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    subprocess.run(as_user(USER, [*PROGRAM, "umount", str(point)]), env=environ, check=True)
    made = {path: path.lstat().st_mode for path in home.rglob("*")}
    assert (home / ".cache" / "jigdofs" / "objects") in made
    assert {path: oct(mode) for path, mode in made.items() if mode & 0o022} == {}
    assert all(mode & stat.S_IRWXU == stat.S_IRWXU for mode in made.values() if stat.S_ISDIR(mode))


def test_what_the_cache_lies_in(tmp_path: Path) -> None:
    """Directories that are made for a cache directory to lie in are not for others to write to."""
    before = os.umask(0)
    try:
        make_private(tmp_path / "a" / "b" / "cache")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("a", "a/b", "a/b/cache")]
    assert modes == [0o755, 0o755, 0o700]


def test_a_link_to_nowhere_on_the_way_to_the_cache(tmp_path: Path) -> None:
    """What cannot be made is said, once."""
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "at all")
    with pytest.raises(CacheError, match="cannot be used: No such file or directory"):
        make_private(tmp_path / "link" / "cache")


@pytest.mark.parametrize("name", ["objects", "incoming", "sessions"])
def test_another_s_directory_in_the_cache(tmp_path: Path, name: str) -> None:
    """Who could put a directory of theirs into our cache could put anything there: it is refused."""
    require_root()
    make_private(tmp_path / "cache")
    (tmp_path / "cache" / name).mkdir(0o755)
    os.chown(tmp_path / "cache" / name, UID, -1)
    with pytest.raises(UnsafeCache, match=f"cache/{name} belongs to another user"):
        Cache(tmp_path / "cache", max_bytes=None, min_free_bytes=0)


def test_root_with_the_home_of_a_user(public_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root whom sudo left with the HOME of a user does not log into it."""
    require_root()
    monkeypatch.setattr(logs, "_SYSLOG_SOCKET", str(public_dir / "no-syslog"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(public_dir / "home"))
    (public_dir / "home").mkdir()
    assert logs.default_target().startswith(str(public_dir / "home"))
    os.chown(public_dir / "home", UID, -1)
    assert logs.default_target() == "/var/log/jigdofs/mount.log"


def test_no_place_for_a_control_socket() -> None:
    """Where nothing can be written, that is said of the best place, and nothing else goes wrong."""
    said = run_as_user(
        """
        import resource
        from jigdofs.control import place
        from jigdofs.errors import MountError
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # so no temporary directory is of use
        try:
            place.own_directory()
        except MountError as error:
            print(error)
        print(place.find("/mnt", 4711))
        """,
        XDG_RUNTIME_DIR="/nowhere",
    )
    assert said.splitlines() == [
        "there is no place for a control socket: /nowhere/jigdofs: No such file or directory",
        "[]",
    ]
