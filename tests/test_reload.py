"""SIGHUP: a mount follows its settings as they are now, without being unmounted."""

import os
import pty
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.faults import Stall
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, Mounted, clean_environ, detach_everything, mounted_at
from tests.kit.requirements import require_fuse, tool
from tests.kit.scenes import (
    QUICK,
    Program,
    daemon_pid,
    detached,
    lonely,
    pool_files,
    read_again,
    read_direct,
    reading,
    wait_until,
)


@pytest.fixture
def built(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    """An image whose .jigdo names a server that is gone; `faulty_server` has its parts."""
    faulty_server.files = pool_files(iso_md5)
    return iso_md5.with_servers(tmp_path / "published", {"Debian": [DEAD]})


LATER = "contents, umask change with the next start only"
DEAD = "http://127.0.0.1:9/pool/"


def mount_id(mountpoint: Path) -> str:
    """Return what the kernel calls a mount, which changes with every new one."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines()]
    return next(line[0] for line in lines if line[4] == str(mountpoint))


def write(path: Path, *lines: str) -> Path:
    """Put a file of settings in the place of the old one."""
    path.with_suffix(".new").write_text("".join(f"{line}\n" for line in lines))
    return path.with_suffix(".new").replace(path)


def mirror(url: str) -> str:
    return f'verbose = 1\nmirror.Debian = ["{url}"]'


@contextmanager
def in_the_foreground(
    built: BuiltImage, tmp_path: Path, *options: str, allow_log: tuple[str, ...] = ()
) -> Iterator[Mounted]:
    """Mount as a service does: in the foreground, without a terminal."""
    program = (tool("setsid"), *PROGRAM)  # it does not fork where it need not
    config = tmp_path / "jigdofs.toml"
    options = ("--config", str(config), *QUICK[:4], "--cache-dir", str(tmp_path / "cache"), *options)
    allowed = ("is avoided for", *allow_log)
    with Mounted(built.jigdo, tmp_path / "mnt", options, program=program, allow_log=allowed) as mounted:
        yield mounted


def reload(mounted: Mounted, said: str) -> None:
    mounted.process.send_signal(signal.SIGHUP)
    mounted.wait_for_log(said)


def test_a_better_mirror(built: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> None:
    """A daemon in the background whose mirrors are all dead reads from one that is named later."""
    program = Program(tmp_path / "home")
    program.home.mkdir()
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    config = write(tmp_path / "jigdofs.toml", mirror(DEAD))
    log = tmp_path / "log"
    options = ("--config", config.name, "-v", "--log-file", log.name, "--cache-dir", "cache", *QUICK)
    part = lonely(built)[0]
    with detached(program, built.jigdo, *options, mountpoint=mountpoint, cwd=tmp_path) as done:
        assert done.returncode == 0, done
        before, image = mount_id(mountpoint), mountpoint / built.image.name
        with image.open("rb", buffering=0) as opened:
            with pytest.raises(OSError, match="Input/output error"):
                read_direct(image, *part.pages[:1], 4096)
            write(config, mirror(faulty_server.url("/pool/")))
            os.kill(daemon_pid(mountpoint), signal.SIGHUP)
            wait_until(lambda: "settings read again; changed: mirror" in log.read_text(), "the reload")
            got = read_again(lambda: os.pread(opened.fileno(), part.length, part.offset))
            assert got == built.image.read_bytes()[part.offset : part.end]
        assert image.read_bytes() == built.image.read_bytes()
        assert mount_id(mountpoint) == before


def test_while_it_starts(built: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> None:
    """A signal that comes while a template is fetched ends nothing; settings are read again later."""
    write(tmp_path / "jigdofs.toml", mirror(faulty_server.url("/pool/")))
    jigdo, template = f"/{built.jigdo.name}", f"/{built.template.name}"
    described = {jigdo: built.jigdo.read_bytes(), template: built.template.read_bytes()}
    faulty_server.files = pool_files(built) | described
    faulty_server.script(template, Stall())
    options = ("--config", str(tmp_path / "jigdofs.toml"), "--cache-dir", str(tmp_path / "cache"))
    program = (tool("setsid"), *PROGRAM)
    mounted = Mounted(faulty_server.url(jigdo), tmp_path / "mnt", options, program=program)

    def hang_up() -> None:
        faulty_server.wait_stalled()
        mounted.process.send_signal(signal.SIGHUP)
        faulty_server.release()

    hanging_up = threading.Thread(target=hang_up)
    hanging_up.start()
    with mounted:
        hanging_up.join()
        mounted.wait_for_log("settings read again; nothing changed")
        assert (mounted.mountpoint / built.image.name).read_bytes() == built.image.read_bytes()


def test_errors_change_nothing(built: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> None:
    """A file with a mistake in it is told of in one line, and everything stays as it was."""
    good = mirror(faulty_server.url("/pool/"))
    config = write(tmp_path / "jigdofs.toml", good)
    wrong = {
        "jigdofs.toml:3: there is no setting `conections'; did you mean connections?": "conections = 3",
        "jigdofs.toml:3: connections must be a whole number": 'connections = "many"',
        "jigdofs.toml:3: bwlimit: `1k' is too little: 64k a second at least": 'bwlimit = "1k"',
        "jigdofs.toml:3: Invalid value": "connections = = 3",
    }
    with in_the_foreground(built, tmp_path, allow_log=("settings are left as they were",)) as mounted:
        for said, line in wrong.items():
            write(config, mirror(DEAD), line)
            reload(mounted, f"settings are left as they were: {tmp_path}/{said}")
        config.unlink()
        reload(mounted, f"settings are left as they were: {config}: No such file or directory")
        assert (mounted.mountpoint / built.image.name).read_bytes() == built.image.read_bytes()
        errors = [line for line in mounted.stderr() if line.startswith("ERROR")]
        assert len(errors) == len(wrong) + 1


def test_reads_in_flight_go_on(built: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> None:
    """What a reader waits for comes from the mirror that was asked; the next part from the new one."""
    config = write(tmp_path / "jigdofs.toml", mirror(faulty_server.url("/pool/")))
    slow, other = lonely(built)[:2]
    faulty_server.script(f"/pool/{slow.path}", Stall(after=100))
    whole = built.image.read_bytes()
    patient = ("--stall-timeout", "60s", "--readahead", "0")
    with FaultyServer(pool_files(built)) as second, in_the_foreground(built, tmp_path, *patient) as mounted:
        image = mounted.mountpoint / built.image.name

        def read(offset: int, end: int) -> bytes:
            return read_direct(image, offset, end - offset)

        with reading(lambda: read(*slow.pages)) as results:
            faulty_server.wait_until(lambda server: server.count(f"/pool/{slow.path}"))
            write(config, mirror(second.url("/pool/")))
            reload(mounted, "settings read again; changed: mirror")
            assert read(*other.pages) == whole[slice(*other.pages)]
            assert f"/pool/{other.path}" in second.paths()
            assert not results[0].done()
            faulty_server.release()
            assert results[0].result(10) == whole[slice(*slow.pages)]
        assert f"/pool/{slow.path}" not in second.paths()


def test_limits(built: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> None:
    """The cache shrinks, reads end sooner, more is logged; what cannot change is named."""
    good = mirror(faulty_server.url("/pool/"))
    config = write(tmp_path / "jigdofs.toml", good)
    with in_the_foreground(built, tmp_path, allow_log=("could not be had within 0.5 s", LATER)) as mounted:
        image = mounted.mountpoint / built.image.name
        assert image.read_bytes() == built.image.read_bytes()
        assert size_of(tmp_path / "cache" / "objects") > 3_000_000
        write(
            config,
            *(
                'read-timeout = "500ms"',
                'cache-max-size = "4M"',
                "connections = 2",
                good.replace("1", "2", 1),
            ),
            *("contents = true", 'umask = "077"'),
        )
        reload(mounted, f"WARNING jigdofs.cli.mount_reload: {LATER}")  # told also where little is logged
        mounted.wait_for_log("changed: cache-max-size, connections, read-timeout, verbose")
        assert size_of(tmp_path / "cache" / "objects") <= 4 << 20
        # those that were read last may be here still
        faulty_server.always("*", Stall())
        with pytest.raises(OSError, match="Input/output error"):
            read_direct(image, lonely(built)[0].pages[0], 4096)
        mounted.wait_for_log("could not be had within 0.5 s")


def size_of(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


@pytest.mark.parametrize("lost", [False, True])
def test_a_terminal(built: BuiltImage, tmp_path: Path, *, lost: bool) -> None:
    """Whoever mounts in the foreground of a terminal ends the mount by closing it, or with SIGHUP."""
    require_fuse(None)
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    master, slave = pty.openpty()
    command = [tool("setsid"), "--ctty", *PROGRAM, "mount", str(built.jigdo), str(mountpoint), "--foreground"]
    try:
        process = subprocess.Popen(
            [*command, "--no-cache"], stdin=slave, stdout=slave, stderr=slave, env=clean_environ(tmp_path)
        )
        os.close(slave)
        said = ""
        while "Ctrl-C ends it\r\n" not in said:
            said += os.read(master, 4096).decode()
        if not lost:
            process.send_signal(signal.SIGHUP)
        else:
            os.close(master)
        assert process.wait(20) == 0
        assert not mounted_at(mountpoint)
    finally:
        detach_everything(mountpoint)
        if not lost:
            os.close(master)
