"""What lies in the way of a download, or is put there meanwhile: nothing is lost, or taken for ours."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.faults import Stall
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM
from tests.kit.requirements import require_root
from tests.kit.scenes import Program, pool_files, publish


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program with a home, where it also works, and a cache in it."""
    home = tmp_path / "home"
    home.mkdir()
    return Program(home, environ={"CACHE_DIRECTORY": str(home / "cache")})


@pytest.fixture
def built(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    """An ISO whose parts come from a server."""
    faulty_server.files = pool_files(iso_md5)
    return iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})


def test_an_unfinished_image_that_is_replaced(
    built: BuiltImage, program: Program, faulty_server: FaultyServer
) -> None:
    """Whatever takes the place of the .tmp while we build does not get the image's name."""
    held = f"/pool/{min(built.parts.values())}"
    faulty_server.always(held, Stall(100))
    process = subprocess.Popen(
        [*PROGRAM, "download", "-q", built.jigdo, "-o", "x.iso", "--stall-timeout", "60s"],
        cwd=program.home,
        env=program.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        faulty_server.wait_stalled()
        unfinished = program.home / "x.iso.tmp"
        unfinished.rename(program.home / "stolen")
        unfinished.write_bytes(b"EVIL" * 100)
        faulty_server.behave()
        faulty_server.release()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1
    assert "was replaced or removed" in errors.splitlines()[-1]
    assert not (program.home / "x.iso").exists()
    assert unfinished.read_bytes() == b"EVIL" * 100


def test_an_unfinished_image_of_somebody_else(built: BuiltImage, program: Program) -> None:
    """A .tmp of another user is none of ours: that user could write to it until the end and beyond."""
    require_root()
    theirs = program.home / "x.iso.tmp"
    theirs.write_bytes(b"x")
    os.chown(theirs, 65534, 65534)
    assert "another user" in program.fails("download", built.jigdo, "-o", "x.iso", code=3)
    assert theirs.read_bytes() == b"x"
    assert program("download", built.jigdo, "-o", "x.iso", "--force").returncode == 0
    assert (program.home / "x.iso").stat().st_uid == os.geteuid()
    assert (program.home / "x.iso").read_bytes() == built.image.read_bytes()


def test_an_unfinished_image_with_another_name(built: BuiltImage, program: Program) -> None:
    """A .tmp that is linked to another name is left alone; --force replaces the name, not the other file."""
    other = program.home / "notes"
    other.write_bytes(b"precious")
    os.link(other, program.home / "x.iso.tmp")
    assert "linked" in program.fails("download", built.jigdo, "-o", "x.iso", code=3)
    assert program("download", built.jigdo, "-o", "x.iso", "--force").returncode == 0
    assert other.read_bytes() == b"precious"
    assert (program.home / "x.iso").read_bytes() == built.image.read_bytes()


def test_an_update_replaces_unfinished_images_only(
    built: BuiltImage, iso_sha256: BuiltImage, program: Program
) -> None:
    """--update begins anew in the place of an old unfinished image, and of no other file of that name."""
    unfinished = program.home / "x.iso.tmp"
    for notes in (b"me", b"my notes of yesterday"):
        unfinished.write_bytes(notes)
        assert "x.iso.tmp" in program.fails("download", "--update", built.jigdo, "-o", "x.iso", code=3)
        assert unfinished.read_bytes() == notes
    unfinished.unlink()
    some = [iso_sha256.pool / path for path in sorted(iso_sha256.parts.values())[:3]]
    done = program("mi", "-r", "quiet", "-i", "x.iso", "-t", iso_sha256.template, *some)
    assert done.returncode == 1, done
    assert unfinished.exists()
    assert program("download", "--update", built.jigdo, "-o", "x.iso").returncode == 0
    assert (program.home / "x.iso").read_bytes() == built.image.read_bytes()


@pytest.mark.parametrize("leads_to", ["other", "new"])
def test_a_link_of_somebody_else(built: BuiltImage, program: Program, leads_to: str) -> None:
    """A link that another user put where the image is to be is not followed, not even with --force."""
    require_root()
    other = program.home / "other"
    other.write_bytes(b"precious")
    target = program.home / "shared"
    target.mkdir()
    link = target / "x.iso"
    link.symlink_to(program.home / leads_to)
    os.lchown(link, 65534, 65534)
    for options in ([], ["--force"]):
        assert "another user" in program.fails("download", built.jigdo, "-o", link, *options, code=3)
    assert other.read_bytes() == b"precious"
    assert {path.name for path in program.home.iterdir()} <= {"cache", "other", "shared"}


@pytest.mark.parametrize("name", ["kit.jigdo", "kit.template"])
def test_an_image_called_as_its_own_source(built: BuiltImage, program: Program, name: str) -> None:
    """No image takes the name of the .jigdo or template it is made from."""
    here = program.home / "here"
    copy = publish(built, here, [])
    target = copy.jigdo if name.endswith("jigdo") else copy.template
    before = target.read_bytes()
    program.fails("download", copy.jigdo, "-o", target, "--force", code=3)
    assert target.read_bytes() == before
    shutil.rmtree(here)


def test_make_image_replaces_no_device(built: BuiltImage, program: Program) -> None:
    """--force replaces a regular file; a FIFO or a device stays what it is."""
    fifo = program.home / "x.iso"
    os.mkfifo(fifo)
    line = program.fails("make-image", "-f", "-i", fifo, "-t", built.template, built.pool, code=3)
    assert "no regular file" in line
    assert fifo.is_fifo()
