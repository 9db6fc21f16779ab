"""`jigdofs status`: what a daemon tells of itself, also while mirrors and readers hang."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jigdofs import __version__
from jigdofs.cli.status_text import lines
from jigdofs.control import client
from tests.kit.faults import Stall, Status, WrongBytes
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, Mounted, clean_environ
from tests.kit.scenes import Occurrence, Program, lonely, pool_files, read_direct, reading, wait_until


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


def test_answer_within_a_second(
    mounted: Mounted, iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """While every mirror and many readers hang, the daemon answers within a second."""
    image, parts = mounted.mountpoint / "kit.iso", lonely(iso_md5)[:8]
    faulty_server.always("/pool/*", Stall())
    left = iter(parts)
    with reading(lambda: read_direct(image, next(left).offset, 1), len(parts)) as waiting:
        faulty_server.wait_stalled()
        request = {"do": "status", "cells": 1024}
        events = list(client.ask(str(mounted.mountpoint), os.geteuid(), request, limit_s=1.0))
        assert events[-1]["readers_waiting"] >= 1
        faulty_server.release()
        faulty_server.behave()
        for one in waiting:
            one.result()


def test_picture(mounted: Mounted, iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> None:
    """The picture has all that is in the cache, what is on its way, and nothing else."""
    program, image = Program(tmp_path), mounted.mountpoint / "kit.iso"
    part, other = lonely(iso_md5)[:2]

    def picture(cells: int) -> dict[str, Any]:
        (report,) = json.loads(program("status", "--json", "--cells", str(cells), mounted.mountpoint).stdout)
        (shown,) = report["images"]
        assert isinstance(shown, dict)
        return shown

    wait_until(lambda: picture(64)["map"], "the first count")
    size = iso_md5.image.stat().st_size
    cells = len(picture(1024)["map"])
    cell_bytes = -(-size // cells)
    read_direct(image, part.offset, part.length)
    faulty_server.always(f"/pool/{other.path}", Stall())
    with reading(lambda: read_direct(image, other.offset, 1)) as (waiting,):
        faulty_server.wait_stalled()
        shown = picture(1024)
        faulty_server.release()
        waiting.result()

    def of(one: Occurrence) -> str:
        drawn: str = shown["map"][one.offset // cell_bytes : -(-one.end // cell_bytes)]
        return drawn

    assert (shown["parts_in_flight"], shown["bytes_in_flight"]) == (1, other.length)
    assert (shown["parts"], shown["parts_present"]) == (len(iso_md5.parts), 1)
    assert set(of(part)) <= {"#", "+"}
    assert set(of(other)) <= {">"} or part.pages[1] // cell_bytes >= other.pages[0] // cell_bytes
    assert shown["map"].count(".") > 0
    kept = {path.name for path in (tmp_path / "cache/objects").glob("m*/*/*")}
    assert kept == {part.checksum, other.checksum}
    assert len(picture(7)["map"]) == 7
    text = program("status", mounted.mountpoint).stdout
    assert "# here  + partly  > on its way  . missing" in text


def test_image_larger_than_its_cache(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """What the daemon itself evicts is soon no more said to be here."""
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": [f"{iso_md5.pool}/"]})
    cache = tmp_path / "cache"
    options = ("--cache-dir", str(cache), "--cache-max-size", "100k", "--readahead", "0")
    with Mounted(built.jigdo, tmp_path / "mnt", options) as mounted:
        program, image = Program(tmp_path), mounted.mountpoint / "kit.iso"
        most = max(one.offset for one in lonely(iso_md5))
        assert read_direct(image, 0, most) == iso_md5.image.read_bytes()[:most]

        def is_true() -> bool:
            (shown,) = told(program, mounted.mountpoint)["images"]
            kept = {path.name for path in (cache / "objects").glob("m*/*/*")}
            return bool(
                shown["parts_present"] == len(kept) < len(iso_md5.parts) and shown["state"] == "partial"
            )

        wait_until(is_true, "status tells what is in the cache", 20)


def test_hits_and_failures(
    mounted: Mounted, iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """What was read without waiting for a mirror is a hit; what failed is told once, with a number."""
    program, image = Program(tmp_path), mounted.mountpoint / "kit.iso"
    part, other = lonely(iso_md5)[:2]
    assert told(program, mounted.mountpoint)["reads"]["hit_share"] is None
    begin = part.offset // 4096 * 4096
    read_direct(image, begin, 4096)
    first = told(program, mounted.mountpoint)["reads"]
    assert (first["reads"], first["waited_reads"], first["hit_share"]) == (1, 1, 0)
    assert (first["bytes"], first["waited_bytes"]) == (4096, 4096)
    for _ in range(3):
        read_direct(image, begin, 4096)
    reads = told(program, mounted.mountpoint)["reads"]
    assert (reads["reads"], reads["waited_reads"], reads["hit_share"]) == (4, 1, 0.75)
    assert sum(count for _, count in reads["durations"]) == 4
    assert reads["bytes_per_s"] > 0

    mounted._allowed += ("failed",)
    faulty_server.always(f"/pool/{other.path}", Status(404))
    for _ in range(3):
        with pytest.raises(OSError):
            read_direct(image, other.offset // 4096 * 4096, 4096)
    report = told(program, mounted.mountpoint)
    (error,) = report["last_errors"]
    assert error["times"] == report["reads"]["errors"] >= 3
    assert error["level"] == "error"
    assert other.checksum in error["why"]
    assert "404" in error["why"]
    assert "of kit.iso failed" in error["what"]
    assert report["state"] == "degraded"
    text = program("status", mounted.mountpoint).stdout
    assert f"({error['times']} times)" in text


def watching(mounted: Mounted, tmp_path: Path, stdout: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PROGRAM, "status", "--watch", str(mounted.mountpoint)],
        env={**clean_environ(tmp_path), "TERM": "xterm", "COLUMNS": "200"},
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def test_watch_in_a_pipe(mounted: Mounted, tmp_path: Path) -> None:
    """One report comes after another, until the mount ends."""
    process = watching(mounted, tmp_path, subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        titles = 0
        while titles < 2:
            titles += process.stdout.readline().decode().startswith(f"{mounted.mountpoint}  ")
        mounted.unmount()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_watch_on_a_terminal(mounted: Mounted, tmp_path: Path) -> None:
    """On a terminal the report is drawn in place with its picture, until Ctrl-C."""
    far, near = os.openpty()
    process = watching(mounted, tmp_path, near)
    os.close(near)
    with process, open(far, "rb", buffering=0) as screen:
        shown = b""
        while shown.count(b"image   kit.iso") < 2 or "░".encode() not in shown:
            shown += screen.read(65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert b"\x1b[" in shown


def test_mistakes(tmp_path: Path) -> None:
    """What makes no sense is said in one line."""
    program = Program(tmp_path)
    assert "--watch is for people" in program.fails("status", "--watch", "--json", code=3)
    for wrong in ("0", "1025", "x", "-1"):
        assert "1 to 1024" in program.fails("status", f"--cells={wrong}", code=3)


def test_daemon_of_another_version(tmp_path: Path) -> None:
    """What another version tells is shown as far as it goes, or it is said that it makes no sense."""
    old = {
        "mountpoint": "/mnt",
        "source": "x.jigdo",
        "pid": 1,
        "uptime_s": 2.0,
        "images": [{"name": "x.iso", "size": 10, "present_bytes": 5}],
        "parts_in_flight": 0,
        "readers_waiting": 0,
        "mirrors": [],
        "something": {"new": [1]},
    }
    assert "  image   x.iso: 50.0 % of 10 bytes are here" in lines(dict(old))
    wrong: tuple[dict[str, Any], ...] = (
        {"images": 3},
        {"images": [{}]},
        {"cache": {}},
        {"last_errors": [{}]},
        {"reads": {}, "fetched": 1},
    )
    for broken in wrong:
        assert any("does not make sense" in line for line in lines({**old, **broken}))
