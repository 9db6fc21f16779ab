"""The state of a mount: in one line, as attributes, and while its parts are being counted."""

import errno
import os
from pathlib import Path

import pytest
import trio

from jigdofs.config import CacheOptions, FetchOptions, InputOptions, ReadOptions
from jigdofs.control.state import State
from jigdofs.control.status import report
from jigdofs.control.xattrs import xattrs
from jigdofs.wiring.images import open_images
from tests.kit.faults import Stall, Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.scenes import QUICK, lonely, pool_files, read_direct, reading, wait_until

KEYS = (
    "state version pid size present fetched percent parts parts_missing nioerr last_ioerr hitrate rx mirrors"
    " jigdo checksum.md5 checksum.sha256"
).split()


@pytest.fixture
def published(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    faulty_server.files = pool_files(iso_md5)
    return iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})


def attributes(path: Path) -> dict[str, str]:
    found = {}
    for key in KEYS:
        try:
            found[key] = os.getxattr(path, f"user.jigdofs.{key}").decode()
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
    return found


def counted(path: Path) -> dict[str, str]:
    """Return the attributes once the parts were counted."""
    wait_until(lambda: "parts" in attributes(path), "the first count")
    return attributes(path)


def test_attributes(
    published: BuiltImage, iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """The root and the image tell what is here, what failed and where things come from; none is listed."""
    options = ("--cache-dir", str(tmp_path / "cache"), *QUICK)
    with Mounted(published.jigdo, tmp_path / "mnt", options, allow_log=["failed"]) as mounted:
        root, image = mounted.mountpoint, mounted.mountpoint / "kit.iso"
        before = counted(image)
        size, parts = iso_md5.image.stat().st_size, len(iso_md5.parts)
        assert (before["size"], before["parts"], before["parts_missing"]) == (
            str(size),
            str(parts),
            str(parts),
        )
        assert (before["state"], before["nioerr"], before["last_ioerr"]) == ("partial", "0", "0")
        assert (before["rx"], before["mirrors"], before["jigdo"]) == ("0", "", str(published.jigdo))
        assert before["pid"] == str(mounted.process.pid)
        assert "hitrate" not in before

        part, other = lonely(iso_md5)[:2]
        read_direct(image, part.offset, part.length)
        read_direct(image, part.offset, part.length)
        after = attributes(image)
        assert int(after["present"]) == int(before["present"]) + part.length == int(after["fetched"])
        assert int(after["parts_missing"]) == parts - 1
        assert 0 < float(after["hitrate"]) < 100
        assert int(after["rx"]) >= part.length
        assert after["mirrors"] == f"{faulty_server.url('/pool/')} ok"
        assert float(before["percent"]) <= float(after["percent"]) < 100

        faulty_server.always(f"/pool/{other.path}", Status(404))
        with pytest.raises(OSError):
            read_direct(image, other.offset, 1)
        failed = attributes(root)
        assert int(failed["nioerr"]) >= 1
        assert int(failed["last_ioerr"]) > 1_500_000_000
        assert failed["state"] == "degraded"
        assert failed["size"] == str(size)
        assert not failed.keys() & {"checksum.md5", "checksum.sha256"}
        assert after.keys() & {"checksum.md5", "checksum.sha256"}
        for path in (root, image):
            assert os.listxattr(path) == []
            for unknown in ("user.jigdofs.nothing", "user.jigdofs.", "user.other", "user.jigdofs.checksum.x"):
                with pytest.raises(OSError) as refused:
                    os.getxattr(path, unknown)
                assert refused.value.errno == errno.ENODATA


def test_attributes_of_a_single_file(published: BuiltImage, tmp_path: Path) -> None:
    """Where the mount is the image itself, both are told of it."""
    file = tmp_path / "kit.iso"
    file.touch()
    with Mounted(published.jigdo, file, ("--no-cache",)):
        assert counted(file).keys() & {"checksum.md5", "checksum.sha256"}
        assert "state" in attributes(file)


def test_attributes_while_readers_hang(
    published: BuiltImage, iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """They are answered while a reader of the same file waits."""
    part = lonely(iso_md5)[0]
    with Mounted(published.jigdo, tmp_path / "mnt", ("--no-cache",)) as mounted:
        image = mounted.mountpoint / "kit.iso"
        faulty_server.always(f"/pool/{part.path}", Stall())
        with reading(lambda: read_direct(image, part.offset, 1)) as (waiting,):
            faulty_server.wait_stalled()
            assert attributes(image)["state"] == "partial"
            faulty_server.release()
            waiting.result()


async def test_from_the_first_moment(published: BuiltImage, tmp_path: Path) -> None:
    """While parts are counted for the first time, all but that is told; afterwards all of it."""
    inputs = InputOptions((str(published.jigdo),))
    async with open_images(inputs, CacheOptions(tmp_path / "cache"), FetchOptions(), ReadOptions()) as images:
        state = State(images, "/mnt")
        early = report(state, 64)
        (image,) = early["images"]
        assert (image["parts"], image["parts_present"], image["map"]) == (None, None, None)
        assert image["size"] == published.image.stat().st_size
        told = xattrs(state)
        assert told("parts", None) is told("parts_missing", "kit.iso") is None
        assert told("size", "kit.iso") == str(image["size"])
        assert told("size", "no such image") is told("state", "no such image") is None
        assert "kit.iso: " in state.line()
        with trio.fail_after(10):
            while report(state, 64)["images"][0]["parts"] is None:  # noqa: ASYNC110  a thread counts
                await trio.sleep(0.01)
        assert report(state, 64)["images"][0]["parts"] == len(published.parts)
        assert told("parts", None) == str(len(published.parts))


async def test_why_there_is_no_cache(published: BuiltImage, tmp_path: Path) -> None:
    """Without a cache it is told why: it was asked for, or the directory cannot be used."""
    inputs = InputOptions((str(published.jigdo),))
    async with open_images(inputs, None, FetchOptions(), ReadOptions()) as images:
        assert report(State(images, "/mnt"), 1)["cache"] == {"directory": None, "why": "as was asked for"}


@pytest.mark.logs("going on without a cache")
async def test_cache_that_cannot_be_used(published: BuiltImage, tmp_path: Path) -> None:
    """A directory that cannot be used is named with the reason."""
    (tmp_path / "file").touch()
    inputs = InputOptions((str(published.jigdo),))
    options = CacheOptions(tmp_path / "file", min_free_bytes=0)
    async with open_images(inputs, options, FetchOptions(), ReadOptions()) as images:
        cache = report(State(images, "/mnt"), 1)["cache"]
        assert cache["directory"] is None
        assert str(tmp_path / "file") in cache["why"]
