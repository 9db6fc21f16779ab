"""Mounts of an ordinary user: a cache of its own, invisible to others, and ended without root."""

import errno
import hashlib
import os
import pwd
import stat
import subprocess
from pathlib import Path

import pytest

from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted, mounted_at
from tests.kit.requirements import as_user, require_fuse
from tests.kit.scenes import Program, detached, pool_files, wait_until

USER, OTHER = "nobody", "daemon"
UID = pwd.getpwnam(USER).pw_uid


@pytest.fixture(autouse=True)
def fuse() -> None:
    require_fuse(USER)


@pytest.fixture
def url(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> str:
    """The URL of a .jigdo that everybody can read."""
    built = iso_md5.with_servers(tmp_path, {"Debian": faulty_server.url("/pool/")})
    files = pool_files(iso_md5)
    files |= {f"/{path.name}": path.read_bytes() for path in (built.jigdo, built.template)}
    faulty_server.files = files
    return faulty_server.url(f"/{built.jigdo.name}")


@pytest.fixture
def home(public_dir: Path) -> Path:
    """A directory of the user's own that others can enter."""
    return owned(public_dir / "home")


def owned(directory: Path) -> Path:
    directory.mkdir()
    os.chown(directory, UID, -1)
    return directory


def outcome(user: str | None, *command: str | Path) -> tuple[int, str]:
    """Run a command as a user; return its code and output."""
    words = list(map(str, command))
    words = words if user is None else as_user(user, words)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_a_user_mounts_reads_and_unmounts(
    url: str, iso_md5: BuiltImage, home: Path, public_dir: Path
) -> None:
    """Everything works without root, and the cache is the user's own, in the usual place, for nobody else."""
    point = public_dir / "mnt"
    with Mounted(url, point, home=home, user=USER) as mounted:
        image = mounted.mountpoint / "kit.iso"
        expected = hashlib.sha256(iso_md5.image.read_bytes()).hexdigest()
        code, output = outcome(USER, "sha256sum", image)
        assert (code, output.split()[:1]) == (0, [expected])
        code, output = outcome(USER, "stat", "--format=%u %a", image)
        assert (code, output) == (0, f"{UID} 444\n")
        mounted.unmount()
    cache = home / ".cache" / "jigdofs"
    status = cache.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (UID, 0o700)
    files = [path for path in (cache / "objects").rglob("*") if path.is_file()]
    assert len(files) > len(iso_md5.parts)
    assert {path.stat().st_uid for path in files} == {UID}


def test_others_see_nothing(url: str, home: Path, public_dir: Path) -> None:
    """Without allow_other neither another user nor root gets in, or can end it as another user."""
    point = public_dir / "mnt"
    with Mounted(url, point, home=home, user=USER):
        for user in (OTHER, None):
            assert outcome(user, "ls", point)[0] != 0
            assert outcome(user, "cat", point / "kit.iso")[0] != 0
        with pytest.raises(PermissionError) as caught:
            os.listdir(point)
        assert caught.value.errno == errno.EACCES
        stranger = Program(owned(public_dir / "other"), OTHER)
        done = stranger("umount", point)
        assert done.returncode == 4, done
        assert len(done.stderr.splitlines()) == 1
        assert mounted_at(point)


def test_a_user_in_the_background(url: str, home: Path, public_dir: Path) -> None:
    """The detached mount of a user can be used at once, logs into the home, is unmounted by the user."""
    point = owned(public_dir / "mnt")
    program = Program(home, USER)
    # root may not even look at it
    done = program("mount", url, point)
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert outcome(USER, "ls", point) == (0, "kit.iso\n")
        done = program("umount", point)
        assert (done.returncode, done.stderr) == (0, "")
        assert not mounted_at(point)
    finally:
        if mounted_at(point):
            subprocess.run(["fusermount3", "-u", "-z", str(point)], check=False)
    if not Path("/dev/log").exists():
        wait_until(lambda: list(home.rglob("mount.log")), "the log in the user's home")


def test_root_ends_the_mount_of_a_user(url: str, home: Path, public_dir: Path) -> None:
    """An administrator can unmount what is not theirs to look at, and the daemon ends well."""
    point = public_dir / "mnt"
    with Mounted(url, point, home=home, user=USER) as mounted:
        done = Program(owned(public_dir / "root"))("umount", point)
        assert (done.returncode, done.stderr) == (0, "")
        assert mounted.process.wait(10) == 0


def test_killed_and_mounted_again_as_a_user(url: str, home: Path, public_dir: Path) -> None:
    """A user's own stale mount is cleaned away without root, too."""
    point = public_dir / "mnt"
    with Mounted(url, point, home=home, user=USER) as mounted:
        mounted.process.kill()
        mounted.process.wait()
        assert mounted_at(point)
        with Mounted(url, point, home=home, user=USER):
            assert outcome(USER, "ls", point) == (0, "kit.iso\n")
        assert not mounted_at(point)


def test_a_mount_point_that_is_not_the_user_s(url: str, home: Path, public_dir: Path) -> None:
    """fusermount3 refuses a directory the user cannot write to; the last line says what to do."""
    point = public_dir / "mnt"
    point.mkdir()
    done = Program(home, USER)("mount", url, point)
    assert done.returncode == 4, done
    assert "must be able to write to the mount point" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not mounted_at(point)


def test_allow_other_needs_the_administrator_s_consent(url: str, home: Path, public_dir: Path) -> None:
    """What /etc/fuse.conf does not permit is explained; what it permits lets root in."""
    conf = Path("/etc/fuse.conf")
    permitted = conf.exists() and "user_allow_other" in conf.read_text().splitlines()
    point = owned(public_dir / "mnt")
    program = Program(home, USER)
    if permitted:
        with detached(program, url, "--allow-other", mountpoint=point) as done:
            assert done.returncode == 0, done
            assert os.listdir(point) == ["kit.iso"]
    else:
        done = program("mount", url, point, "--allow-other")
        assert done.returncode == 4, done
        assert "user_allow_other" in done.stderr.splitlines()[-1]
    assert not mounted_at(point)


def test_a_cache_that_others_could_write_to_is_refused(url: str, home: Path, public_dir: Path) -> None:
    """Parts are executed as root on somebody's machine: a cache open to all is no cache."""
    point, cache = owned(public_dir / "mnt"), owned(public_dir / "cache")
    cache.chmod(0o777)
    line = Program(home, USER).fails("mount", url, point, "--cache-dir", cache, code=3)
    assert str(cache) in line
    assert not mounted_at(point)
