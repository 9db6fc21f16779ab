"""A mount when servers, processes and the cache fail: errors in bounded time, never wrong bytes."""

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kit.faults import Drip, Reset, Stall, Status, Truncate, WrongBytes
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, Mounted, detach_everything, mounted_at
from tests.kit.requirements import require_fuse, require_root, tool
from tests.kit.scenes import (
    QUICK,
    Occurrence,
    Program,
    detached,
    drop_pages,
    ended,
    fusectl,
    lonely,
    loop_device,
    occurrences,
    pool_files,
    read_again,
    read_buffered,
    read_direct,
    reading,
    tiny_tmpfs,
    wait_until,
)

BOUND_S = 20.0
"""With the QUICK options every read has long ended by then."""
GONE = {errno.EIO, errno.ENOTCONN, errno.ECONNABORTED}
"""What a reader gets whose daemon was killed: the kernel says it, not we."""
FAILED = ("cannot be had", "is being stopped")


@dataclass
class Scene:
    """An ISO whose parts come from a server that misbehaves on demand, and where to mount it."""

    built: BuiltImage
    server: FaultyServer
    directory: Path
    options: tuple[str, ...]
    data: bytes = field(repr=False)

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    @property
    def image(self) -> Path:
        return self.directory / "mnt" / "kit.iso"

    @property
    def parts(self) -> list[Occurrence]:
        """Parts that can be read without touching another one, the longest first."""
        return lonely(self.built)

    def mounted(self, *options: str, allow_log: tuple[str, ...] = ()) -> Mounted:
        point = self.directory / "mnt"
        return Mounted(self.built.jigdo, point, [*self.options, *options], allow_log=allow_log)

    def expect(self, part: Occurrence) -> bytes:
        return self.data[part.offset : part.end]

    def read(self, part: Occurrence) -> bytes:
        return read_direct(self.image, part.offset, part.length)

    def objects(self, kind: str) -> list[Path]:
        return sorted(path for path in (self.cache / "objects" / kind).rglob("*") if path.is_file())

    def object(self, part: Occurrence) -> Path:
        """Return the file of a part in the cache."""
        (found,) = [path for path in self.objects(self.built.algorithm) if path.name == part.checksum]
        return found


def url_path(part: Occurrence) -> str:
    return f"/pool/{part.path}"


@pytest.fixture
def scene(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> Scene:
    require_fuse()
    faulty_server.files = pool_files(iso_md5)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    options = ("--cache-dir", str(tmp_path / "cache"), *QUICK)
    return Scene(built, faulty_server, tmp_path, options, built.image.read_bytes())


@contextmanager
def fails_with(*codes: int) -> Iterator[None]:
    """Expect a read to fail, in bounded time."""
    begin = time.monotonic()
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno in codes, caught.value
    assert time.monotonic() - begin < BOUND_S


# -- servers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_direct, read_buffered])
def test_server_gone_and_back(scene: Scene, read: Callable[[Path, int, int], bytes]) -> None:
    """Missing parts are EIO while the server is away, cached ones stay; once it is back the read works."""
    cached, missing = scene.parts[:2]
    with scene.mounted(allow_log=FAILED) as mounted, scene.image.open("rb") as held:
        assert read(scene.image, cached.offset, cached.length) == scene.expect(cached)
        scene.server.stop()
        with fails_with(errno.EIO):
            read(scene.image, missing.offset, missing.length)
        with fails_with(errno.EIO):
            os.pread(held.fileno(), 1, missing.offset + 4096)
        drop_pages(scene.image)
        assert read(scene.image, cached.offset, cached.length) == scene.expect(cached)
        scene.server.start()
        assert read_again(lambda: read(scene.image, missing.offset, missing.length)) == scene.expect(missing)
        assert os.pread(held.fileno(), 1, missing.offset + 4096) == scene.data[missing.offset + 4096 :][:1]
        lines = [line for line in mounted.stderr() if line.startswith("ERROR")]
        assert 1 <= len(lines) <= 2, "once for all that failed for the same reason"
        for line in lines:
            assert missing.checksum in line or Path(missing.path).name in line
            assert scene.server.url(url_path(missing)) in line


def test_a_failed_read_says_what_was_tried(scene: Scene) -> None:
    """The log names offset, part, location and reason of a failed read, once for all its retries."""
    part = scene.parts[0]
    scene.server.always("/pool/*", Status(404))
    with scene.mounted(allow_log=FAILED) as mounted:
        for _ in range(3):
            with fails_with(errno.EIO):
                read_buffered(scene.image, part.offset, part.length)
        mounted.wait_for_log("404")
        (line,) = [line for line in mounted.stderr() if line.startswith("ERROR")]
        assert f"offset {part.offset} " in line
        assert "kit.iso" in line
        assert "404" in line
        assert scene.server.url(url_path(part)) in line
        scene.server.behave()
        assert read_again(lambda: scene.read(part)) == scene.expect(part)


@pytest.mark.parametrize("fault", [Reset(1000), Truncate(1000), Status(503), Reset(), Stall(1000)], ids=str)
def test_a_passing_fault_is_no_error(scene: Scene, fault: Reset | Truncate | Status | Stall) -> None:
    """A connection that breaks once costs its reader time, not an error, and the log stays quiet."""
    part = scene.parts[0]
    scene.server.script(url_path(part), fault)
    with scene.mounted():
        assert scene.read(part) == scene.expect(part)
        assert scene.server.count(url_path(part)) == 2


def test_wrong_bytes_from_the_first_mirror(scene: Scene) -> None:
    """The second mirror serves the part; a warning names the mirror that sent the wrong one."""
    part = scene.parts[0]
    with FaultyServer(pool_files(scene.built, "/liar/")) as liar:
        liar.always("/liar/*", WrongBytes())
        said = f"wrong content from mirror {liar.url('/')[:-1]}"
        mirror = f"Debian={liar.url('/liar/')}"
        with scene.mounted(f"--mirror={mirror}", allow_log=(said,)) as mounted:
            assert scene.read(part) == scene.expect(part)
            mounted.wait_for_log(said)
            assert liar.paths() == [f"/liar/{part.path}"]
            assert scene.server.paths() == [url_path(part)]


def test_wrong_bytes_from_every_mirror(scene: Scene) -> None:
    """Where nobody has the right bytes the read fails, and nothing of them is left in the cache."""
    part = scene.parts[0]
    scene.server.always("/pool/*", WrongBytes())
    allowed = ("wrong content from mirror", *FAILED)
    with scene.mounted(allow_log=allowed):
        for read in (read_direct, read_buffered):
            with fails_with(errno.EIO):
                read(scene.image, part.offset, part.length)
        assert scene.objects("md5") == []
    assert [path for path in (scene.cache / "incoming").iterdir() if path.is_file()] == []


@pytest.mark.parametrize("read", [read_direct, read_buffered])
def test_stalled_parts_do_not_hold_up_a_cached_one(
    scene: Scene, read: Callable[[Path, int, int], bytes]
) -> None:
    """More readers wait for silent servers than the kernel allows in the background (M1), others read on."""
    require_root()
    cached = scene.parts[0]
    stuck = {part.checksum: part for part in occurrences(scene.built) if part.checksum != cached.checksum}
    assert len(stuck) > 2 * 12
    with fusectl(), scene.mounted("--stall-timeout=20s", "--read-timeout=20s"):
        assert read(scene.image, cached.offset, cached.length) == scene.expect(cached)
        scene.server.always("/pool/*", Stall())
        parts = iter(stuck.values())

        def read_next() -> bytes:
            part = next(parts)
            data = read(scene.image, part.offset, part.length)
            assert data == scene.expect(part)
            return data

        with reading(read_next, len(stuck)) as futures:
            try:
                scene.server.wait_stalled(6)
                drop_pages(scene.image)
                with reading(lambda: read(scene.image, cached.offset, cached.length)) as (quick,):
                    assert quick.result(5) == scene.expect(cached)
                assert not any(future.done() for future in futures)
            finally:
                scene.server.behave()
                scene.server.release()
        assert sum(len(future.result()) for future in futures) == sum(part.length for part in stuck.values())


def test_a_slow_server_is_given_up(scene: Scene) -> None:
    """A transfer that drips below the minimum speed ends, and the next mirror serves the part."""
    part = scene.parts[0]
    with FaultyServer(pool_files(scene.built, "/slow/")) as slow:
        slow.always("/slow/*", Drip(500))
        mirror = f"--mirror=Debian={slow.url('/slow/')}"
        with scene.mounted(mirror, "--min-speed=100k", allow_log=(" is avoided for ",)):
            begin = time.monotonic()
            assert scene.read(part) == scene.expect(part)
            assert time.monotonic() - begin < BOUND_S
            assert slow.paths() == [f"/slow/{part.path}"]


def test_a_given_up_mirror_of_the_user_is_told(scene: Scene) -> None:
    """The log says once, without -v, that a mirror the user asked for is of no use; others serve."""
    with FaultyServer() as down:
        down.stop()
        mirror = down.url("/down/")
        with scene.mounted(
            f"--mirror=Debian={mirror}", allow_log=(f"mirror {mirror} is avoided",)
        ) as mounted:
            for part in scene.parts[:3]:
                assert scene.read(part) == scene.expect(part)
            assert len([line for line in mounted.stderr() if line.startswith("WARNING")]) == 1


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_read_ends_at_its_time_limit(scene: Scene, *, in_memory: bool) -> None:
    """Whatever a part waits for, its reader gets EIO after --read-timeout; the part still arrives later.

    What lies in a tmpfs cannot be read without a thread: also there what has arrived is read, and not taken
    for what failed a moment ago.
    """
    part = scene.parts[0]
    scene.server.script(url_path(part), Stall())
    with ExitStack() as stack:
        cache = stack.enter_context(tiny_tmpfs(64 << 20)) / "cache" if in_memory else scene.cache
        options = ("--stall-timeout=60s", "--read-timeout=1s", f"--cache-dir={cache}")
        with scene.mounted(*options, allow_log=("not be had within",)):
            with fails_with(errno.EIO):
                scene.read(part)
            scene.server.release()
            wait_until(
                lambda: any(path.is_file() for path in cache.glob("objects/md5/*/*")), "the part arrives"
            )
            assert scene.read(part) == scene.expect(part)
            assert scene.server.count(url_path(part)) == 1


def test_the_kernel_asks_again_in_vain(scene: Scene) -> None:
    """A buffered read ends at the time limit, too: the kernel asks once more for each page that failed."""
    part = scene.parts[0]
    scene.server.script(url_path(part), Stall())
    limit_s = 4.0
    with scene.mounted("--stall-timeout=60s", f"--read-timeout={limit_s}s", allow_log=("not be had within",)):
        begin = time.monotonic()
        with fails_with(errno.EIO):
            read_buffered(scene.image, part.offset, 100)
        assert time.monotonic() - begin < 1.75 * limit_s


def test_a_short_read_timeout(scene: Scene) -> None:
    """Mirrors that hang leave the read the time to ask a good one, however short it is."""
    part = scene.parts[0]
    with FaultyServer() as hanging:
        hanging.always("*", Stall(None))
        mirrors = [f"--mirror=Debian={hanging.url(f'/{number}/')}" for number in range(2)]
        with scene.mounted(
            *mirrors, "--stall-timeout=15s", "--read-timeout=6s", allow_log=(" is avoided for ",)
        ):
            assert scene.read(part) == scene.expect(part)
            assert len(hanging.requests) == 2


def test_the_log_goes_away(scene: Scene) -> None:
    """Whoever removes the directory of the log loses lines, not the mount."""
    bad, good = scene.parts[:2]
    scene.server.always(url_path(bad), Status(404))
    logs = scene.directory / "logs"
    with scene.mounted(f"--log-file={logs}/mount.log"):
        wait_until((logs / "mount.log").exists, "it logs")
        shutil.rmtree(logs)
        with fails_with(errno.EIO):
            scene.read(bad)
        assert scene.read(good) == scene.expect(good)


# -- signals and unmounting --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_mount(scene: Scene, number: signal.Signals) -> None:
    """The process unmounts and ends by itself, even while somebody has the image open."""
    with scene.mounted() as mounted:
        held = os.open(scene.image, os.O_RDONLY)
        try:
            assert os.pread(held, 100, 0) == scene.data[:100]
            mounted.process.send_signal(number)
            assert mounted.process.wait(10) == 0
            assert not mounted_at(mounted.mountpoint)
        finally:
            with suppress(OSError):  # close(2) tells that nobody is there any more
                os.close(held)


@pytest.mark.parametrize("read", [read_direct, read_buffered])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_read_waits(
    scene: Scene, number: signal.Signals, read: Callable[[Path, int, int], bytes]
) -> None:
    """The waiting reader gets EIO at once, and the process ends within seconds."""
    cached, part = scene.parts[:2]
    with scene.mounted("--stall-timeout=60s", "--read-timeout=60s", allow_log=FAILED) as mounted:
        assert scene.read(cached) == scene.expect(cached)
        scene.server.script(url_path(part), Stall(1000))
        with reading(lambda: read(scene.image, part.offset, part.length)) as (waiting,):
            scene.server.wait_stalled()
            mounted.process.send_signal(number)
            assert mounted.process.wait(10) == 0
            error = waiting.exception(10)
        assert isinstance(error, OSError)
        assert error.errno == errno.EIO
        assert not mounted_at(mounted.mountpoint)
    with scene.mounted():
        assert scene.read(part) == scene.expect(part)


def test_a_signal_in_the_background(scene: Scene) -> None:
    """The daemon of a detached mount ends on SIGTERM as well, and takes its mount away."""
    home = scene.directory / "home"
    home.mkdir()
    point = scene.directory / "mnt"
    point.mkdir()
    with detached(Program(home), scene.built.jigdo, *scene.options, mountpoint=point) as done:
        assert done.returncode == 0, done
        pid = int(os.getxattr(point, "user.jigdofs.pid"))
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: ended(pid), "the daemon's end")
        assert not mounted_at(point)


@pytest.mark.parametrize("foreground", [True, False])
def test_an_interrupt_before_the_mount(scene: Scene, *, foreground: bool) -> None:
    """Ctrl-C while the .jigdo does not come: exit code 130 at once, no traceback, no mount, no process."""
    scene.server.always("/stalled.jigdo", Stall())
    point = scene.directory / "mnt"
    point.mkdir()
    command = [*PROGRAM, "mount", scene.server.url("/stalled.jigdo"), str(point), *scene.options]
    command += ["--stall-timeout=60s", *(["--foreground"] if foreground else [])]
    environ = Program(scene.directory).environ
    process = subprocess.Popen(
        command, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        scene.server.wait_stalled()
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (130, "")
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        assert not mounted_at(point)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        detach_everything(point)


@pytest.mark.parametrize("command", [("umount",), ("fusermount3", "-u")])
def test_unmounting_by_other_means(scene: Scene, command: tuple[str, ...]) -> None:
    """umount(8) and fusermount3(1) end the daemon as well as our own verb: with exit code 0."""
    if command[0] == "umount":
        require_root()
    with scene.mounted() as mounted:
        assert scene.read(scene.parts[0]) == scene.expect(scene.parts[0])
        subprocess.run([tool(command[0]), *command[1:], str(mounted.mountpoint)], check=True)
        assert mounted.process.wait(10) == 0


# -- kill -9 -----------------------------------------------------------------------------------------


def test_killed_and_mounted_again(scene: Scene) -> None:
    """After `kill -9` in the middle of a transfer the same command works; nothing in the cache is wrong."""
    cached, part = scene.parts[:2]
    with scene.mounted("--stall-timeout=60s", "--read-timeout=60s") as mounted:
        assert scene.read(cached) == scene.expect(cached)
        scene.server.script(url_path(part), Stall(part.length // 2))
        with reading(lambda: scene.read(part)) as (waiting,):
            scene.server.wait_stalled()
            mounted.process.kill()
            error = waiting.exception(10)
        assert isinstance(error, OSError)
        assert error.errno in GONE
        mounted.process.wait()
        assert mounted_at(mounted.mountpoint), "this is the stale mount to be cleaned"
        scene.server.release()
        scene.server.wait_until(lambda server: server._in_flight == 0)
        scene.server.forget_requests()
        with scene.mounted():
            assert scene.read(cached) == scene.expect(cached)
            assert scene.server.paths() == [], "what was whole is used again"
            assert scene.image.read_bytes() == scene.data
        assert not mounted_at(mounted.mountpoint), "the stale mount is gone too"
    for file in scene.objects("md5"):
        assert hashlib.md5(file.read_bytes()).hexdigest() == file.name
    assert len(scene.objects("md5")) == len(scene.built.parts)
    assert [path for path in (scene.cache / "incoming").iterdir() if path.is_file()] == []


def test_a_dead_mount_can_be_unmounted(scene: Scene) -> None:
    """`jigdofs umount` clears what `kill -9` left."""
    with scene.mounted() as mounted:
        mounted.process.kill()
        mounted.process.wait()
        home = scene.directory / "home"
        home.mkdir()
        done = Program(home)("umount", mounted.mountpoint)
        assert (done.returncode, done.stderr) == (0, "")
        assert not mounted_at(mounted.mountpoint)


def test_what_a_killed_daemon_noted_is_not_believed(scene: Scene) -> None:
    """After `kill -9` the cache is verified by checksum: a change that no fingerprint shows is found."""
    part = scene.parts[0]
    with scene.mounted() as mounted:
        assert scene.read(part) == scene.expect(part)
        mounted.process.kill()
        mounted.process.wait()
        spoil(scene.object(part), keep_time=True)
        with scene.mounted(allow_log=("is not what it was",)):
            assert scene.read(part) == scene.expect(part)
        assert scene.server.count(url_path(part)) == 2


def test_killed_with_a_loop_device_attached(scene: Scene) -> None:
    """A loop device pins the dead mount (M6): the next mount works or not, but names device and remedy."""
    require_root()
    with scene.mounted() as mounted, loop_device(scene.image) as device:
        mounted.process.kill()
        mounted.process.wait()
        again = scene.mounted(allow_log=(device,))
        try:
            with again:
                assert scene.read(scene.parts[0]) == scene.expect(scene.parts[0])
            said = "\n".join(again.stderr())
        except AssertionError as error:
            said = str(error)
        assert device in said, said
        assert "losetup" in said, said


# -- the cache ---------------------------------------------------------------------------------------


def spoil(file: Path, *, keep_time: bool = False) -> None:
    """Overwrite a few bytes in place."""
    before = file.stat()
    file.chmod(0o600)
    with file.open("r+b") as stream:
        old = stream.read(64)
        stream.seek(0)
        stream.write(bytes(byte ^ 0xFF for byte in old))
    if keep_time:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(file: Path) -> None:
    file.chmod(0o600)
    os.truncate(file, file.stat().st_size // 2)


def lengthen(file: Path) -> None:
    file.chmod(0o600)
    with file.open("ab") as stream:
        stream.write(b"more")


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(bytes(file.stat().st_size))
    other.replace(file)


def make_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_symlink(file: Path) -> None:
    other = file.parent.parent / "elsewhere"
    other.write_bytes(bytes(file.stat().st_size))
    file.unlink()
    file.symlink_to(other)


DAMAGES = (spoil, truncate, lengthen, replace, Path.unlink, make_directory, make_symlink)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("running", [True, False], ids=["running", "new"])
def test_damaged_cache(scene: Scene, damage: Callable[[Path], None], *, running: bool) -> None:
    """Whatever happens to files of the cache, under a running mount or a new one: never wrong bytes."""
    allowed = ("is not what it was", "cannot keep")
    with scene.mounted(allow_log=allowed):
        assert scene.image.read_bytes() == scene.data
        files = scene.objects("md5") + scene.objects("raw")
        assert len(files) > len(scene.built.parts)
        if running:
            for file in files:
                damage(file)
            drop_pages(scene.image)
            assert scene.image.read_bytes() == scene.data
            assert read_direct(scene.image, 0, len(scene.data)) == scene.data
    if not running:
        for file in files:
            damage(file)
    with scene.mounted(allow_log=allowed):
        assert scene.image.read_bytes() == scene.data


def test_damage_while_many_read(scene: Scene) -> None:
    """Files that are spoilt in the middle of parallel reads cost nobody a wrong byte."""
    with scene.mounted(allow_log=("is not what it was",)):
        assert scene.image.read_bytes() == scene.data
        files = scene.objects("md5")
        source = random.Random(13)

        def read_many() -> bytes:
            for part in scene.parts * 3:
                assert scene.read(part) == scene.expect(part)
            return b""

        with reading(read_many, 4) as futures:
            while not all(future.done() for future in futures):
                file = source.choice(files)
                if file.exists():
                    replace(file)
        assert [future.result() for future in futures] == [b""] * 4


@pytest.mark.parametrize("garbage", [b"", b"no database at all" * 1000], ids=["empty", "garbage"])
def test_damaged_index(scene: Scene, garbage: bytes) -> None:
    """An index that is no database costs verification, not reads."""
    with scene.mounted():
        assert scene.image.read_bytes() == scene.data
    for path in (scene.cache / "index").iterdir():
        if path.is_file():
            path.write_bytes(garbage)
    with scene.mounted(allow_log=("cache", "index")):
        assert scene.image.read_bytes() == scene.data


@pytest.mark.parametrize("full_from_the_start", [True, False])
def test_full_cache_disk(scene: Scene, *, full_from_the_start: bool) -> None:
    """A cache on a full disk costs speed only: every read goes on."""
    require_root()
    with tiny_tmpfs(4 << 20) as tiny:
        filler = tiny / "filler"
        options = [f"--cache-dir={tiny}/cache", "--cache-min-free=0", *QUICK]
        allowed = ("without a cache", "cannot keep")
        if full_from_the_start:
            fill(filler)
        with Mounted(scene.built.jigdo, scene.image.parent, options, allow_log=allowed):
            part = scene.parts[0]
            assert scene.read(part) == scene.expect(part)
            fill(filler)
            assert scene.image.read_bytes() == scene.data
            drop_pages(scene.image)
            assert scene.image.read_bytes() == scene.data


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("ab", buffering=0) as stream:
        while room := os.statvfs(file).f_bavail * os.statvfs(file).f_frsize:
            stream.write(bytes(min(room, 64 << 10)))


def test_small_cache_keeps_its_quota(scene: Scene) -> None:
    """With a quota far below the image all is read right, and the cache never holds more than it may."""
    with scene.mounted("--cache-max-size=2M"):
        for _ in range(2):
            drop_pages(scene.image)
            assert scene.image.read_bytes() == scene.data
            kept = sum(
                file.stat().st_size for file in scene.cache.joinpath("objects").rglob("*") if file.is_file()
            )
            assert 0 < kept <= 2 << 20


def test_without_a_cache_nothing_is_kept(scene: Scene) -> None:
    """--no-cache reads right and writes nothing into the home."""
    home = scene.directory / "home"
    home.mkdir()
    point = scene.directory / "mnt"
    environ = {"TMPDIR": str(home / "tmp")}
    (home / "tmp").mkdir()
    with Mounted(scene.built.jigdo, point, ["--no-cache", *QUICK], home=home, environ=environ):
        assert scene.image.read_bytes() == scene.data
    assert [path for path in home.rglob("*") if path.is_file()] == []
