"""`jigdofs status`: what a daemon tells of itself, also while mirrors and readers hang."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jigdofs import __version__
from tests.kit.faults import Stall, WrongBytes
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.scenes import Program, lonely, pool_files, read_direct, reading, wait_until


@pytest.fixture
def mounted(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> Iterator[Mounted]:
    faulty_server.files = pool_files(iso_md5)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    options = ("--cache-dir", str(tmp_path / "cache"))
    with Mounted(built.jigdo, tmp_path / "mnt", options, allow_log=["wrong content"]) as held:
        program = Program(tmp_path)
        # the mount answers a moment before the socket is there
        wait_until(lambda: program("status", held.mountpoint).returncode == 0, "the daemon answers")
        yield held


def told(program: Program, mountpoint: Path) -> dict[str, Any]:
    done = program("status", "--json", mountpoint)
    assert done.returncode == 0, done
    (report,) = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def test_told_while_readers_hang(
    mounted: Mounted, iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """It is told how many parts are on their way and how many wait for them, as long as they hang."""
    program, image = Program(tmp_path), mounted.mountpoint / "kit.iso"
    part, other = lonely(iso_md5)[:2]
    before = told(program, mounted.mountpoint)
    assert before["pid"] == mounted.process.pid
    assert before["version"] == __version__
    assert (before["parts_in_flight"], before["readers_waiting"], before["mirrors"]) == (0, 0, [])
    (shown,) = before["images"]
    assert (shown["name"], shown["size"]) == ("kit.iso", iso_md5.image.stat().st_size)

    faulty_server.always(f"/pool/{part.path}", Stall())
    with reading(lambda: read_direct(image, part.offset, 1)) as (waiting,):
        faulty_server.wait_stalled()
        meanwhile = told(program, mounted.mountpoint)
        assert (meanwhile["parts_in_flight"], meanwhile["readers_waiting"]) == (1, 1)
        text = program("status", mounted.mountpoint).stdout
        assert "parts on their way: 1, readers that wait: 1" in text
        faulty_server.release()
        waiting.result()

    faulty_server.script(f"/pool/{other.path}", WrongBytes())
    read_direct(image, other.offset, other.length)
    after = told(program, mounted.mountpoint)
    assert after["images"][0]["present_bytes"] == shown["present_bytes"] + part.length + other.length
    (mirror,) = after["mirrors"]
    assert mirror["mirror"] == faulty_server.url("/pool/")
    assert (mirror["parts"], mirror["wrong"], mirror["failures"]) == (2, 1, 0)
    assert mirror["bytes"] >= part.length + other.length
    assert "wrong answers: 1" in program("status", mounted.mountpoint).stdout


def test_daemon_that_is_stopped(mounted: Mounted, tmp_path: Path) -> None:
    """A daemon that does not answer is given up, and the exit code tells."""
    program = Program(tmp_path)
    os.kill(mounted.process.pid, signal.SIGSTOP)
    try:
        done = program("status", mounted.mountpoint)
        of_all = program("status", "--json")
    finally:
        os.kill(mounted.process.pid, signal.SIGCONT)
    assert (done.returncode, of_all.returncode) == (1, 1)
    assert "does not answer" in done.stdout
    (ours,) = [one for one in json.loads(of_all.stdout) if one["mountpoint"] == str(mounted.mountpoint)]
    assert "does not answer" in ours["error"]


def test_no_mount(tmp_path: Path) -> None:
    """A place where nothing of ours is mounted is an error."""
    assert "no mount point of jigdofs" in Program(tmp_path).fails("status", tmp_path, code=4)
