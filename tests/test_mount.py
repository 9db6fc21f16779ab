"""Real mounts: the image is the image, however one looks at it; and how a mount begins and ends."""

import contextlib
import errno
import hashlib
import mmap
import os
import random
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ALL_IMAGES
from tests.kit.faults import Stall
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, Mounted, detach_everything, mounted_at
from tests.kit.nginx import Nginx
from tests.kit.requirements import as_user, require_fuse, require_root, tool
from tests.kit.scenes import (
    Program,
    bytes_read_by,
    daemon_pid,
    detached,
    drop_pages,
    ended,
    fusectl,
    lonely,
    of_connection,
    publish,
    read_direct,
    wait_until,
)


@pytest.fixture(autouse=True)
def fuse() -> None:
    require_fuse()


@pytest.fixture
def cache(tmp_path: Path) -> tuple[str, str]:
    """The options for a cache of the test's own."""
    return ("--cache-dir", str(tmp_path / "cache"))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    home = tmp_path / "home"
    home.mkdir()
    return Program(home)


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """An empty directory to mount on."""
    directory = tmp_path / "mnt"
    directory.mkdir()
    return directory


@pytest.fixture(scope="module", params=ALL_IMAGES)
def mounted_image(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BuiltImage, Path]]:
    """Each image mounted over nginx, once for all tests that only read it."""
    require_fuse()
    image: BuiltImage = request.getfixturevalue(request.param)
    directory = tmp_path_factory.mktemp("mounted")
    site = directory / "site"
    site.mkdir()
    with Nginx(site) as server:
        built = publish(image, site, [server.url("/pool/")])
        cache = ["--cache-dir", str(directory / "cache")]
        with Mounted(server.url(f"/kit/{built.jigdo.name}"), directory / "mnt", cache) as mounted:
            yield built, mounted.mountpoint / built.image.name


@pytest.fixture
def served(mounted_image: tuple[BuiltImage, Path]) -> tuple[BuiltImage, Path]:
    """The reference and the file that claims to be the same, of which the kernel has no page yet."""
    drop_pages(mounted_image[1])
    return mounted_image


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- content -----------------------------------------------------------------------------------------


def test_every_image_reads_back_identical(served: tuple[BuiltImage, Path]) -> None:
    """Whatever tool made the image: its checksum through the mount is that of the reference."""
    built, image = served
    assert sha256(image) == sha256(built.image)


def test_random_reads_are_right_and_end_where_the_image_ends(served: tuple[BuiltImage, Path]) -> None:
    """`pread` anywhere gives what the reference gives, at its end and beyond too."""
    built, image = served
    reference = built.image.read_bytes()
    end = len(reference)
    source = random.Random(11)
    stretches = [(source.randrange(end), source.choice((1, 511, 4096, 70_000, 400_000))) for _ in range(60)]
    stretches += [(end - 1, 1), (end - 1, 2), (end - 4097, 9000), (end, 1), (end + 1, 4096), (end * 2, 1)]
    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_DIRECT):
        fd = os.open(image, flags)
        try:
            for offset, size in stretches:
                assert os.pread(fd, size, offset) == reference[offset : offset + size], (offset, size, flags)
        finally:
            os.close(fd)


def test_mapped_reads_are_right(served: tuple[BuiltImage, Path]) -> None:
    """A shared read-only mapping shows the reference, page by page in any order."""
    built, image = served
    reference = built.image.read_bytes()
    with image.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        offsets = list(range(0, len(reference), 50_021))
        random.Random(12).shuffle(offsets)
        assert all(mapped[offset : offset + 3] == reference[offset : offset + 3] for offset in offsets)
        assert mapped[:] == reference


def test_parallel_readers_are_right(served: tuple[BuiltImage, Path]) -> None:
    """Twelve readers, each with an order of its own, do not disturb each other."""
    built, image = served
    reference = built.image.read_bytes()

    def read(seed: int) -> bool:
        offsets = list(range(0, len(reference), 65_521))
        random.Random(seed).shuffle(offsets)
        fd = os.open(image, os.O_RDONLY)
        try:
            return all(
                os.pread(fd, 65_521, offset) == reference[offset : offset + 65_521] for offset in offsets
            )
        finally:
            os.close(fd)

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(read, range(12))) == [True] * 12


# -- names and attributes ----------------------------------------------------------------------------


def test_several_images_lie_side_by_side(
    iso_md5: BuiltImage, squashfs_md5: BuiltImage, tar_md5: BuiltImage, point: Path, cache: tuple[str, str]
) -> None:
    """Several .jigdo give several files, each under its leaf name, and nothing else is there."""
    built = (iso_md5, squashfs_md5, tar_md5)
    with Mounted([one.jigdo for one in built], point, cache):
        assert sorted(os.listdir(point)) == ["kit.iso", "kit.squashfs", "kit.tar"]
        entries = {entry.name: entry.inode() for entry in os.scandir(point)}
        for one in built:
            shown = point / one.image.name
            assert sha256(shown) == sha256(one.image)
            assert shown.stat().st_ino == entries[one.image.name]
        assert not (point / "kit.dmg").exists()


def test_two_images_of_one_name_are_both_there(
    iso_md5: BuiltImage, iso_sha256: BuiltImage, point: Path, cache: tuple[str, str]
) -> None:
    """The second of a name gets a number before its suffix."""
    with Mounted([iso_md5.jigdo, iso_sha256.jigdo], point, cache):
        assert sorted(os.listdir(point)) == ["kit.iso", "kit~2.iso"]
        assert sha256(point / "kit.iso") == sha256(iso_md5.image)
        assert sha256(point / "kit~2.iso") == sha256(iso_sha256.image)


def test_a_name_with_folders_is_reduced_to_its_leaf(
    iso_md5: BuiltImage, tmp_path: Path, point: Path, cache: tuple[str, str]
) -> None:
    """`Filename=../../etc/x.iso` shows `x.iso` in the mount and nothing anywhere else."""
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": f"file:{iso_md5.pool}/"})
    text = built.jigdo.read_bytes()
    built.jigdo.write_bytes(text.replace(b"Filename=kit.iso", b"Filename=../../etc/\xfcx y.iso"))
    with Mounted(built.jigdo, point, cache):
        assert os.listdir(os.fsencode(point)) == [b"\xfcx y.iso"]
        assert sha256(point / os.fsdecode(b"\xfcx y.iso")) == sha256(built.image)


def test_a_regular_file_becomes_the_image(
    iso_md5: BuiltImage, tmp_path: Path, cache: tuple[str, str]
) -> None:
    """With a regular file as the mount point, the image is that very file; afterwards it is itself again."""
    file = tmp_path / "my dvd.iso"
    file.write_bytes(b"what was here")
    with Mounted(iso_md5.jigdo, file, cache):
        assert stat.S_ISREG(file.stat().st_mode)
        assert file.stat().st_size == iso_md5.image.stat().st_size
        assert sha256(file) == sha256(iso_md5.image)
        assert os.listdir(tmp_path).count(file.name) == 1
    assert file.read_bytes() == b"what was here"


def test_a_regular_file_cannot_be_two_images(
    iso_md5: BuiltImage, tar_md5: BuiltImage, tmp_path: Path, program: Program, cache: tuple[str, str]
) -> None:
    """Two images and one regular file: the command says what does not fit."""
    file = tmp_path / "x.iso"
    file.touch()
    line = program.fails("mount", iso_md5.jigdo, tar_md5.jigdo, file, *cache, code=4)
    assert "regular file" in line
    assert not mounted_at(file)


def test_size_and_blocks_are_honest(iso_md5: BuiltImage, point: Path, cache: tuple[str, str]) -> None:
    """`st_size` is the whole image at once, `st_blocks` what is here: more and more."""
    part = lonely(iso_md5)[0]
    with Mounted(iso_md5.jigdo, point, cache):
        image = point / "kit.iso"
        size = iso_md5.image.stat().st_size
        first = image.stat()
        assert first.st_size == size
        assert 0 < first.st_blocks * 512 < size
        read_direct(image, part.offset, part.length)
        wait_until(lambda: image.stat().st_blocks > first.st_blocks, "st_blocks grows")
        grown = (image.stat().st_blocks - first.st_blocks) * 512
        assert abs(grown - part.length) <= 512
        image.read_bytes()
        wait_until(lambda: image.stat().st_blocks == -(-size // 512), "st_blocks is all of the image")
    with Mounted(iso_md5.jigdo, point, cache):
        wait_until(lambda: image.stat().st_blocks == -(-size // 512), "the cache is counted at the start")


def test_owner_and_mode(iso_md5: BuiltImage, point: Path, cache: tuple[str, str]) -> None:
    """Without options everything is readable and belongs to who mounts; --uid, --gid, --umask change that."""
    with Mounted(iso_md5.jigdo, point, cache):
        for path, mode in ((point, stat.S_IFDIR | 0o555), (point / "kit.iso", stat.S_IFREG | 0o444)):
            found = path.stat()
            assert (found.st_mode, found.st_uid, found.st_gid) == (mode, os.getuid(), os.getgid())
    with Mounted(iso_md5.jigdo, point, [*cache, "--uid", "123", "--gid", "456", "--umask", "027"]):
        for path, mode in ((point, stat.S_IFDIR | 0o550), (point / "kit.iso", stat.S_IFREG | 0o440)):
            found = path.stat()
            assert (found.st_mode, found.st_uid, found.st_gid) == (mode, 123, 456)


def test_time_is_that_of_the_jigdo(
    iso_md5: BuiltImage, tmp_path: Path, point: Path, cache: tuple[str, str]
) -> None:
    """The image was last changed when its .jigdo was."""
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": f"file:{iso_md5.pool}/"})
    os.utime(built.jigdo, (1_600_000_000, 1_600_000_000))
    with Mounted(built.jigdo, point, cache):
        assert (point / "kit.iso").stat().st_mtime == 1_600_000_000


def test_statfs_tells_the_size_and_that_nothing_is_free(
    iso_md5: BuiltImage, point: Path, cache: tuple[str, str]
) -> None:
    """`df` shows a full file system as large as its images."""
    with Mounted(iso_md5.jigdo, point, cache):
        found = os.statvfs(point)
        size = iso_md5.image.stat().st_size
        assert found.f_blocks * found.f_frsize >= size > (found.f_blocks - 1) * found.f_frsize
        assert (found.f_bfree, found.f_bavail, found.f_files, found.f_ffree) == (0, 0, 1, 0)
        assert found.f_namemax == 255
        assert found.f_flag & os.ST_RDONLY


def test_nothing_can_be_written(iso_md5: BuiltImage, point: Path, cache: tuple[str, str]) -> None:
    """Every attempt to change something ends with EROFS."""
    with Mounted(iso_md5.jigdo, point, cache):
        image = point / "kit.iso"
        attempts: dict[str, Callable[[], object]] = {
            "write": lambda: os.open(image, os.O_WRONLY),
            "read and write": lambda: os.open(image, os.O_RDWR),
            "append": lambda: os.open(image, os.O_WRONLY | os.O_APPEND),
            "truncate": lambda: os.truncate(image, 0),
            "create": lambda: os.open(point / "new", os.O_WRONLY | os.O_CREAT, 0o600),
            "make a directory": lambda: os.mkdir(point / "new"),
            "unlink": lambda: os.unlink(image),
            "rename": lambda: os.rename(image, point / "new"),
            "chmod": lambda: os.chmod(image, 0o600),
            "utime": lambda: os.utime(image),
            "set an attribute": lambda: os.setxattr(image, "user.x", b"y"),
        }
        for what, attempt in attempts.items():
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == errno.EROFS, what
        assert sha256(image) == sha256(iso_md5.image)


def test_names_that_are_not_there(iso_md5: BuiltImage, point: Path, cache: tuple[str, str]) -> None:
    """A missing file is ENOENT, an image is no directory, and has no attribute."""
    with Mounted(iso_md5.jigdo, point, cache):
        image = point / "kit.iso"
        wrong: list[tuple[int, Callable[[], object]]] = [
            (errno.ENOENT, lambda: os.stat(point / "other.iso")),
            (errno.ENOTDIR, lambda: os.stat(image / "x")),
            (errno.ENOTDIR, lambda: os.listdir(image)),
            (errno.ENODATA, lambda: os.getxattr(image, "user.none")),
        ]
        for number, (expected, attempt) in enumerate(wrong):
            with pytest.raises(OSError) as caught:
                attempt()
            assert caught.value.errno == expected, number
        assert os.listxattr(image) == []
        assert (point / "." / ".." / point.name / "kit.iso").exists()


def test_mount_table_tells_type_and_source(
    iso_md5: BuiltImage, tmp_path: Path, point: Path, cache: tuple[str, str]
) -> None:
    """Findmnt shows `fuse.jigdofs`, read-only, and the .jigdo as it was named, commas and all."""
    built = iso_md5.with_servers(tmp_path / "a, b\\c d", {"Debian": f"file:{iso_md5.pool}/"})
    with Mounted(built.jigdo, point, cache):
        command = [tool("findmnt"), "--raw", "--noheadings", "--output", "FSTYPE,OPTIONS", str(point)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert shown[0] == "fuse.jigdofs"
        assert {"ro", "nosuid", "nodev"} <= set(shown[1].split(","))
        command = [tool("findmnt"), "--json", "--output", "SOURCE", str(point)]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert f'"{str(built.jigdo).replace(chr(92), chr(92) * 2)}"' in listing


def test_kernel_limits_are_raised(iso_md5: BuiltImage, point: Path, cache: tuple[str, str]) -> None:
    """As root, more reads may be on their way than the kernel's twelve (M1), and readahead is as asked."""
    require_root()
    with fusectl() as connections, Mounted(iso_md5.jigdo, point, [*cache, "--read-ahead-kb", "512"]):
        device = point.stat().st_dev
        readahead = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        wait_until(lambda: readahead.read_text() == "512\n", "read_ahead_kb is set")
        assert int((connections / str(os.minor(device)) / "max_background").read_text()) == 1024


def test_more_readahead_once_all_is_here(iso_md5: BuiltImage, point: Path, cache: tuple[str, str]) -> None:
    """The kernel reads further ahead when no part can be fetched in vain any more."""
    require_root()

    def read_ahead_kb() -> str:
        device = point.stat().st_dev
        return Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").read_text()

    with Mounted(iso_md5.jigdo, point, cache):
        wait_until(lambda: read_ahead_kb() == "256\n", "it is as it is while parts are missing")
        assert sha256(point / "kit.iso") == sha256(iso_md5.image)
        wait_until(lambda: read_ahead_kb() == "1024\n", "it grows")


def test_kernel_limits_without_fusectl(iso_md5: BuiltImage, point: Path, cache: tuple[str, str]) -> None:
    """They are raised, too, where nobody has mounted what they are set by, as in a container."""
    require_root()
    with Mounted(iso_md5.jigdo, point, [*cache, "--max-background", "77"]):
        device = point.stat().st_dev
        wait_until(lambda: of_connection(device, "max_background") == 77, "max_background is set")


def test_many_waiting_reads_hold_nobody_up(iso_md5: BuiltImage, point: Path, cache: tuple[str, str]) -> None:
    """While two hundred reads wait for a server that says nothing, what is here is read all the same."""
    require_root()
    waiting = 200
    large = (iso_md5.pool / "main" / "a" / "large.deb").read_bytes()
    begin = iso_md5.image.read_bytes().index(large)
    with FaultyServer() as server:
        server.always("/*", Stall())
        built = iso_md5.with_servers(point.parent / "stalling", {"Debian": server.url()})
        with Mounted(built.jigdo, point, [*cache, "--readahead", "0"], allow_log=["cannot be had"]):
            device = point.stat().st_dev
            fd = os.open(point / "kit.iso", os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # a request for each page, and for no other

            def read(number: int) -> int:
                with contextlib.suppress(OSError):  # once the server is gone
                    return len(os.pread(fd, 4096, begin + number * len(large) // waiting))
                return 0

            with ThreadPoolExecutor(waiting) as readers:
                waits = [readers.submit(read, number) for number in range(waiting)]
                server.wait_stalled()
                wait_until(lambda: of_connection(device, "waiting") >= waiting, "all reads wait")
                assert os.pread(fd, 2048, 16 * 2048)[1:6] == b"CD001"
                assert not any(wait.done() for wait in waits)
                server.stop()
            os.close(fd)


def test_pages_stay_in_the_kernel(iso_md5: BuiltImage, point: Path, cache: tuple[str, str]) -> None:
    """A second reader finds all in the page cache (keep_cache): the daemon reads nothing for it."""
    size = iso_md5.image.stat().st_size
    with Mounted(iso_md5.jigdo, point, cache) as mounted:
        image = point / "kit.iso"
        assert sha256(image) == sha256(iso_md5.image)
        before = bytes_read_by(mounted.process.pid)
        assert sha256(image) == sha256(iso_md5.image)
        again = bytes_read_by(mounted.process.pid)
        assert again - before < size // 10
        drop_pages(image)
        assert sha256(image) == sha256(iso_md5.image)
        assert bytes_read_by(mounted.process.pid) - again >= size, "dropped pages are asked for"


# -- options of mount(8) -----------------------------------------------------------------------------


def test_options_of_mount(iso_md5: BuiltImage, point: Path, tmp_path: Path) -> None:
    """`-o` takes our options, FUSE's and those that mean nothing to us, as mount(8) passes them."""
    given = f"ro,noauto,nofail,x-systemd.automount,_netdev,uid=7,umask=077,cache_dir={tmp_path / 'there'}"
    with Mounted(iso_md5.jigdo, point, ["-o", given, "-o", "fsname=mine"]):
        assert (point / "kit.iso").stat().st_uid == 7
        assert stat.S_IMODE((point / "kit.iso").stat().st_mode) == 0o400
        assert (tmp_path / "there" / "CACHEDIR.TAG").exists()
        assert sha256(point / "kit.iso") == sha256(iso_md5.image)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("nonsense", "-o nonsense: no such option"),
        ("cache-dri=/x", "did you mean cache-dir?"),
        ("uid", "-o uid: needs a value"),
        ("rw", "overlayfs"),
        ("umask=999", "octal"),
        ("read_timeout=soon", "soon"),
    ],
)
def test_wrong_options_of_mount(
    iso_md5: BuiltImage, point: Path, program: Program, option: str, said: str
) -> None:
    """A wrong `-o` is wrong usage, said in one line, and nothing is mounted."""
    assert said in program.fails("mount", iso_md5.jigdo, point, "-o", option, code=3)
    assert not mounted_at(point)


@pytest.mark.parametrize("option", [("--allow-other",), ("-o", "allow_other"), ()])
def test_other_users_may_look_only_if_allowed(
    iso_md5: BuiltImage, public_dir: Path, cache: tuple[str, str], option: tuple[str, ...]
) -> None:
    """FUSE keeps everybody else out, unless allow_other lets them in."""
    require_root()
    point = public_dir / "mnt"
    with Mounted(iso_md5.jigdo, point, [*cache, *option]):
        command = as_user("nobody", ["sha256sum", str(point / "kit.iso")])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == bool(option), done
        assert (sha256(iso_md5.image) in done.stdout) == bool(option)


# -- in the background -------------------------------------------------------------------------------


def test_the_command_returns_when_the_image_can_be_read(
    iso_md5: BuiltImage, point: Path, program: Program, cache: tuple[str, str]
) -> None:
    """`jigdofs mount` prints nothing, returns 0, and the very next command can use the image."""
    with detached(program, iso_md5.jigdo, *cache, mountpoint=point) as done:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert mounted_at(point)
        assert sha256(point / "kit.iso") == sha256(iso_md5.image)
        pid = daemon_pid(point)
        assert os.getsid(pid) == pid, "it has a session of its own"
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
        unmounted = program("umount", point)
        assert (unmounted.returncode, unmounted.stdout, unmounted.stderr) == (0, "", "")
        assert ended(pid), "umount has waited for the daemon"
        assert not mounted_at(point)


def test_closed_standard_streams(
    iso_md5: BuiltImage, point: Path, program: Program, cache: tuple[str, str]
) -> None:
    """Started with no stdin, stdout and stderr at all, the command still mounts and returns."""
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *PROGRAM, "mount", str(iso_md5.jigdo), str(point)]
    try:
        done = subprocess.run([*command, *cache], env=program.environ, timeout=20, check=False)
        assert done.returncode == 0
        assert sha256(point / "kit.iso") == sha256(iso_md5.image)
        assert program("umount", point).returncode == 0
    finally:
        detach_everything(point)


def test_relative_names_mean_what_they_meant_where_they_were_typed(
    iso_md5: BuiltImage, tmp_path: Path, point: Path, program: Program
) -> None:
    """.jigdo, `file:` parts, mount point, cache and log may be relative, though the daemon lives in `/`."""
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": "file:pool/"})
    (tmp_path / "pool").symlink_to(built.pool)
    arguments = ("in/kit.jigdo", "--cache-dir=c", "--log-file=l/mount.log")
    with detached(program, *arguments, mountpoint=point, typed="mnt", cwd=tmp_path) as done:
        assert done.returncode == 0, done
        assert sha256(point / "kit.iso") == sha256(built.image)
        assert (tmp_path / "c" / "objects").is_dir()
        assert (tmp_path / "l" / "mount.log").exists()


def test_the_log_of_the_background(
    iso_md5: BuiltImage, tmp_path: Path, point: Path, program: Program, faulty_server: FaultyServer
) -> None:
    """--log-file gets what goes wrong later, one line each, with a time; -v tells of the end too."""
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/none/")})
    part = lonely(built)[0]
    log = tmp_path / "log" / "mount.log"
    arguments = (built.jigdo, f"--cache-dir={tmp_path}/cache", f"--log-file={log}", "-v")
    with detached(program, *arguments, mountpoint=point) as done:
        assert done.returncode == 0, done
        with pytest.raises(OSError) as caught:
            read_direct(point / "kit.iso", part.offset, 1)
        assert caught.value.errno == errno.EIO
    lines = log.read_text().splitlines()
    errors = [line for line in lines if " ERROR " in line]
    assert len(errors) == 1, lines
    assert f"offset {part.offset} " in errors[0]
    assert part.checksum in errors[0] or Path(part.path).name in errors[0]
    assert "404" in errors[0]
    assert any("is unmounted" in line for line in lines)
    assert all(line.startswith(time.strftime("%Y-")) for line in lines), lines
    (pid,) = {found[1] for line in lines if (found := re.search(r" jigdofs\[(\d+)\]: ", line))}
    assert all(f" jigdofs[{pid}]: {point}: " in line for line in lines), "several daemons may share a file"


def test_without_a_log_file_the_log_is_in_the_home(
    iso_md5: BuiltImage, point: Path, program: Program, cache: tuple[str, str]
) -> None:
    """Where there is no syslog, warnings of the background go to a file in the user's log directory."""
    with detached(program, iso_md5.jigdo, *cache, mountpoint=point) as done:
        assert done.returncode == 0, done
        logs = [path.name for path in program.home.rglob("*.log")]
        assert logs == ([] if Path("/dev/log").exists() else ["mount.log"])


def test_each_failure_has_its_code_and_one_line(
    *,
    iso_md5: BuiltImage,
    iso_sha256: BuiltImage,
    tmp_path: Path,
    point: Path,
    program: Program,
    faulty_server: FaultyServer,
    cache: tuple[str, str],
) -> None:
    """What is wrong before the mount is printed, is the exit code, and leaves nothing mounted."""
    good = iso_md5.jigdo
    mixed = iso_md5.with_servers(tmp_path / "mixed", {"Debian": f"file:{iso_md5.pool}/"})
    mixed.template.write_bytes(iso_sha256.template.read_bytes())
    lost = iso_md5.with_servers(tmp_path / "lost", {"Debian": f"file:{iso_md5.pool}/"})
    lost.template.unlink()
    (tmp_path / "malformed.jigdo").write_bytes(b"[Jigdo]\nVersion=1.1\n[Image\nFilename=x\n")
    (tmp_path / "empty.jigdo").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "socket").mkdir()
    url = faulty_server.url("/no.jigdo")
    quick = ("--connect-timeout=1s", "--stall-timeout=1s")
    cases: list[tuple[int, str, tuple[str | Path, ...]]] = [
        (3, "none.jigdo: No such file or directory", (tmp_path / "none.jigdo", point)),
        (1, f"{url}: 404", (url, point)),
        (3, "malformed.jigdo:3", (tmp_path / "malformed.jigdo", point)),
        (3, "empty.jigdo", (tmp_path / "empty.jigdo", point)),
        (2, "kit.template: is not the template that belongs to the .jigdo", (mixed.jigdo, point)),
        (3, "kit.template: No such file or directory", (lost.jigdo, point)),
        (3, "is a directory", (tmp_path / "full", point)),
        (3, "only http:, https: and local files", ("gopher://127.0.0.1/x.jigdo", point)),
        (3, "has no image `7'; it has kit.iso", (good, point, "--image=7")),
        (3, "the mount point is missing", (good, tmp_path / "other.jigdo")),
        (4, "make the directory first", (good, tmp_path / "nowhere")),
        (4, "neither a directory nor a regular file", (good, Path("/dev/null"))),
        (3, "required: MOUNTPOINT", (good,)),
        (3, "`many' is no size", (good, point, "--cache-max-size=many")),
        (3, "LABEL=URL", (good, point, "--mirror=http://x/")),
    ]
    for code, said, arguments in cases:
        line = program.fails("mount", *arguments, *cache, *quick, code=code)
        assert said in line, (said, line)
        assert not mounted_at(point), line


def test_a_point_in_use_is_refused(
    iso_md5: BuiltImage, tar_md5: BuiltImage, point: Path, program: Program, cache: tuple[str, str]
) -> None:
    """Where an image is mounted already, a second one is refused before anything is fetched for it."""
    with Mounted(iso_md5.jigdo, point, cache):
        line = program.fails("mount", tar_md5.jigdo, point, *cache, code=4)
        assert "is mounted there already" in line
        assert f"jigdofs umount {point}" in line
        assert os.listdir(point) == ["kit.iso"]


def test_a_log_that_cannot_be_written_is_said_at_once(
    iso_md5: BuiltImage, point: Path, program: Program, cache: tuple[str, str]
) -> None:
    """A wrong --log-file fails the command, and leaves neither mount nor daemon."""
    line = program.fails("mount", iso_md5.jigdo, point, *cache, "--log-file=/dev/null/x.log", code=4)
    assert "cannot log to /dev/null/x.log" in line
    assert not mounted_at(point)


# -- the end -----------------------------------------------------------------------------------------


def test_umount_names_who_is_in_the_way(
    iso_md5: BuiltImage, point: Path, program: Program, cache: tuple[str, str]
) -> None:
    """A busy mount stays, and the message names the process; it ends when the process has closed."""
    with Mounted(iso_md5.jigdo, point, cache) as mounted:
        with (point / "kit.iso").open("rb") as file:
            line = program.fails("umount", point, code=4)
            assert f"process {os.getpid()} (" in line
            assert mounted_at(point)
            assert len(file.read(100)) == 100
        mounted.unmount()


def test_umount_lazy_lets_a_reader_finish(
    iso_md5: BuiltImage, point: Path, program: Program, cache: tuple[str, str]
) -> None:
    """--lazy takes the mount away at once; who has the image open reads on, and then the daemon ends."""
    with detached(program, iso_md5.jigdo, *cache, mountpoint=point) as done:
        assert done.returncode == 0, done
        pid = daemon_pid(point)
        with (point / "kit.iso").open("rb") as file:
            assert program("umount", "--lazy", point).returncode == 0
            assert not mounted_at(point)
            assert not ended(pid)
            assert hashlib.file_digest(file, "sha256").hexdigest() == sha256(iso_md5.image)
        wait_until(lambda: ended(pid), "the daemon ends with its last reader")


def test_umount_of_what_is_not_ours(tmp_path: Path, program: Program) -> None:
    """Umount leaves alone what it did not mount, and says so."""
    assert "nothing is mounted there" in program.fails("umount", tmp_path, code=4)
    assert "nothing is mounted there" in program.fails("umount", tmp_path / "nowhere", code=4)
    line = program.fails("umount", "/proc", code=4)
    assert "type proc" in line
    assert mounted_at(Path("/proc"))


def test_umount_of_several(
    iso_md5: BuiltImage, tar_md5: BuiltImage, tmp_path: Path, program: Program, cache: tuple[str, str]
) -> None:
    """One umount ends several mounts and returns when all their daemons have ended."""
    points = [tmp_path / "one", tmp_path / "two"]
    with Mounted(iso_md5.jigdo, points[0], cache) as one, Mounted(tar_md5.jigdo, points[1], cache) as two:
        done = program("umount", *points)
        assert (done.returncode, done.stderr) == (0, "")
        assert [one.process.wait(5), two.process.wait(5)] == [0, 0]


def test_a_symlink_to_the_mount_point(
    iso_md5: BuiltImage, tmp_path: Path, point: Path, program: Program, cache: tuple[str, str]
) -> None:
    """Mounting and unmounting through a symbolic link means the directory it leads to."""
    link = tmp_path / "link"
    link.symlink_to(point)
    with detached(program, iso_md5.jigdo, *cache, mountpoint=point, typed=link) as done:
        assert done.returncode == 0, done
        assert sha256(point / "kit.iso") == sha256(iso_md5.image)
        assert "already" in program.fails("mount", iso_md5.jigdo, link, *cache, code=4)
        assert program("umount", link).returncode == 0
        assert not mounted_at(point)
