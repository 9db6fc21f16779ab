"""Turns: who shares a cache does not fetch the same part at the same time, and nobody is held up for long."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jigdofs.parts.turns import Turns
from tests.kit.faults import Stall
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.requirements import require_fuse
from tests.kit.scenes import QUICK, Occurrence, Program, lonely, pool_files, read_direct, reading, wait_until

KEY, OTHER = "md5-" + "a" * 32, "md5-" + "b" * 32
OTHERS_S = 2.5
"""With QUICK's --read-timeout a reader waits so long for another daemon."""


@contextmanager
def turns(directory: Path) -> Iterator[Turns]:
    """See the turns as one more process does: the locks are those of an open file, not of a process."""
    fd = os.open(directory, os.O_RDONLY)
    found = Turns(fd)
    os.close(fd)
    try:
        yield found
    finally:
        found.close()


def test_one_at_a_time(tmp_path: Path) -> None:
    """A file is one's turn until he leaves it or ends; other files are not his."""
    with turns(tmp_path) as one, turns(tmp_path) as two:
        assert one.take(KEY, for_a_reader=True)
        assert not two.take(KEY, for_a_reader=True)
        assert two.take(OTHER, for_a_reader=True)
        one.leave(KEY)
        assert two.take(KEY, for_a_reader=True)
        two.close()
        assert one.take(KEY, for_a_reader=True)
        assert one.take(OTHER, for_a_reader=True)


def test_the_background_holds_no_reader_up(tmp_path: Path) -> None:
    """Who fetches in the background waits for everybody, and only others in the background for him."""
    with turns(tmp_path) as one, turns(tmp_path) as two:
        assert one.take(KEY, for_a_reader=False)
        assert not two.take(KEY, for_a_reader=False)
        assert two.take(KEY, for_a_reader=True)
        assert two.take(OTHER, for_a_reader=True)
        assert not one.take(OTHER, for_a_reader=False)


@pytest.mark.parametrize("how", ["directory", "link", "hard link", "no place"])
def test_what_lies_in_the_way(tmp_path: Path, how: str) -> None:
    """What is no file of ours is replaced, or done without; nothing outside is touched."""
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    cache.mkdir()
    outside.write_bytes(b"kept")
    place = cache / "turns"
    match how:
        case "directory":
            place.mkdir()
        case "link":
            place.symlink_to(outside)
        case "hard link":
            place.hardlink_to(outside)
        case _:
            (cache / "file").touch()
            cache = cache / "file"
    fd = os.open(cache, os.O_RDONLY)
    one, two = Turns(fd), Turns(fd)
    os.close(fd)
    assert one.take(KEY, for_a_reader=True)
    assert two.take(KEY, for_a_reader=True) == (how in ("directory", "no place"))
    one.leave(KEY)
    assert two.take(KEY, for_a_reader=False)
    assert outside.read_bytes() == b"kept"
    one.close()
    two.close()


@contextmanager
def two_daemons(built: BuiltImage, server: FaultyServer, tmp_path: Path) -> Iterator[tuple[Mounted, Mounted]]:
    require_fuse()
    server.files = pool_files(built)
    named = built.with_servers(tmp_path / "in", {"Debian": server.url("/pool/")})
    options = ["--cache-dir", str(tmp_path / "cache"), *QUICK, "--stall-timeout=60s", "--read-timeout=10s"]
    with (
        Mounted(named.jigdo, tmp_path / "one", options) as one,
        Mounted(named.jigdo, tmp_path / "two", options) as two,
    ):
        yield one, two


def test_a_part_is_fetched_by_one_daemon(
    iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """What one daemon fetches the other waits for, and then has from the cache."""
    part = lonely(iso_md5)[0]
    wanted = iso_md5.image.read_bytes()[part.offset : part.end]
    path = f"/pool/{part.path}"
    with two_daemons(iso_md5, faulty_server, tmp_path) as (one, two):
        faulty_server.script(path, Stall(1000))
        with reading(lambda: read_direct(one.mountpoint / "kit.iso", part.offset, part.length)) as (first,):
            faulty_server.wait_stalled()
            with reading(lambda: read_direct(two.mountpoint / "kit.iso", part.offset, part.length)) as (
                other,
            ):
                wait_until(lambda: _waiting(two), "the other one waits")
                faulty_server.release()
                assert first.result(10) == wanted
                assert other.result(10) == wanted
        assert faulty_server.count(path) == 1


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_daemon_that_stops_holds_nobody_up(
    iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, number: signal.Signals
) -> None:
    """A killed daemon's turn is free at once; for a stopped one a reader waits a moment, and once only."""
    parts = lonely(iso_md5)[:3]
    data = iso_md5.image.read_bytes()
    with two_daemons(iso_md5, faulty_server, tmp_path) as (one, two):
        for part in parts:
            faulty_server.script(f"/pool/{part.path}", Stall(100))
        wanted = iter(parts)
        with reading(lambda: b"" if _read(one, next(wanted)) else b"failed", 3) as futures:
            faulty_server.wait_stalled(3)
            one.process.send_signal(number)
            begin = time.monotonic()
            for part in parts:
                assert (
                    read_direct(two.mountpoint / "kit.iso", part.offset, part.length)
                    == (data[part.offset : part.end])
                )
            took = time.monotonic() - begin
            one.process.send_signal(signal.SIGCONT)
            faulty_server.release()
            assert [future.result(20) for future in futures] == (
                [b""] * 3 if number == signal.SIGSTOP else [b"failed"] * 3
            )
        assert took < OTHERS_S + 5
        if number == signal.SIGKILL:
            one.process.wait()


def _waiting(mounted: Mounted) -> int:
    """Return how many reads wait for something that is on its way."""
    done = Program(mounted.mountpoint.parent)("status", "--json", mounted.mountpoint)
    return int(json.loads(done.stdout)[0]["readers_waiting"])


def _read(mounted: Mounted, part: Occurrence) -> bool:
    try:
        read_direct(mounted.mountpoint / "kit.iso", part.offset, part.length)
    except OSError:
        return False
    return True
