"""`jigdofs mount --contents`: the files inside an ISO beside it, held against what xorriso extracts."""

import errno
import os
import pwd
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.faults import Stall
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage, _make_template
from tests.kit.isos import (
    ROOT_RECORD,
    SECTOR,
    extract,
    make_iso,
    rich_tree,
    seen_below,
    without_link_times,
)
from tests.kit.mounts import Mounted, mounted_at
from tests.kit.nginx import Nginx
from tests.kit.requirements import as_user, require_fuse, require_root, tool
from tests.kit.scenes import Program, of_connection, pool_files, publish, wait_until

USER = "nobody"
UID = pwd.getpwnam(USER).pw_uid
SHOW = ("--contents",)


@pytest.fixture(autouse=True)
def fuse() -> None:
    require_fuse()


@pytest.fixture
def options(tmp_path: Path) -> tuple[str, ...]:
    """How to mount: root's own cache is left alone."""
    return (*SHOW, "--cache-dir", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with all that xorriso can put into an image."""
    return rich_tree(tmp_path_factory.mktemp("rich") / "tree")


def children_s(pid: int) -> int:
    """Return the processor time of the children that a process has waited for, in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return int(fields[13]) + int(fields[14])


def run(user: str | None, *command: str | Path) -> subprocess.CompletedProcess[bytes]:
    words = list(map(str, command))
    words = words if user is None else as_user(user, words)
    return subprocess.run(words, capture_output=True, check=False, timeout=60)


def same_trees(extracted: Path, shown: Path, user: str | None = None) -> None:
    done = run(user, "diff", "-r", "--no-dereference", extracted, shown)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("extensions", [("-R",), ("-R", "-J", "-joliet-long")], ids=["rock-ridge", "both"])
def test_a_plain_iso_is_what_xorriso_extracts(
    rich: Path, tmp_path: Path, extensions: tuple[str, ...], options: tuple[str, ...]
) -> None:
    """Every name, byte, right, link and time is that of the extracted tree, and of the tree that went in."""
    image = make_iso(rich, "xorriso", *extensions)
    extracted = extract(image, tmp_path / "out")
    with Mounted(image, tmp_path / "mnt", options) as mounted:
        shown = mounted.mountpoint / image.stem
        assert sorted(os.listdir(mounted.mountpoint)) == sorted([image.name, image.stem])
        ours = seen_below(shown)
        assert without_link_times(ours) == seen_below(extracted, link_times=False)
        assert ours == seen_below(rich)
        assert (mounted.mountpoint / image.name).read_bytes() == image.read_bytes()
        (extracted / "fifo").unlink()  # nothing to compare there
        done = run(None, "diff", "-r", "--no-dereference", extracted, shown)
        assert done.stdout == b"Only in %s: fifo\n" % os.fsencode(shown)
        listed = run(None, "findmnt", "-n", "-o", "OPTIONS", mounted.mountpoint).stdout.strip().split(b",")
        assert {b"ro", b"nosuid", b"nodev"} <= set(listed)


def test_a_joliet_iso_is_what_xorriso_extracts(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Without Rock Ridge the names are Joliet's, and rights and times what xorriso gives them."""
    top = tmp_path / "tree"
    (top / "Some Directory").mkdir(parents=True)
    (top / "Some Directory" / "caf\u00e9 \u96ea.txt").write_bytes(b"x" * 5000)
    (top / "Mixed.Case.Name.bin").write_bytes(b"y" * 300_000)
    image = make_iso(top, "genisoimage", "-J")
    extracted = extract(image, tmp_path / "out")
    with Mounted(image, tmp_path / "mnt", options) as mounted:
        same_trees(extracted, mounted.mountpoint / image.stem)
        assert seen_below(mounted.mountpoint / image.stem) == seen_below(extracted)


@pytest.fixture
def site(iso_md5: BuiltImage, nginx: Callable[..., Nginx], tmp_path: Path) -> tuple[BuiltImage, Nginx]:
    """An image with its parts at nginx."""
    (tmp_path / "site").mkdir()
    server = nginx(tmp_path / "site")
    return publish(iso_md5, tmp_path / "site", [server.url("/pool/")]), server


def parts_asked_for(server: Nginx) -> Counter[str]:
    return Counter(
        one.path for one in server.access_log() if one.path.startswith("/pool/") and one.status in (200, 206)
    )


def test_an_ordinary_user_mounts_and_compares(site: tuple[BuiltImage, Nginx], public_dir: Path) -> None:
    """Without root, `diff -r` finds the tree of a .jigdo equal to the extracted, each part fetched once."""
    built, server = site
    require_fuse(USER)
    extracted = extract(built.image, public_dir / "out")
    run(None, "chmod", "-R", "a+rX", extracted)
    home = public_dir / "home"
    home.mkdir()
    os.chown(home, UID, -1)
    with Mounted(
        server.url(f"/kit/{built.jigdo.name}"), public_dir / "mnt", SHOW, home=home, user=USER
    ) as mounted:
        same_trees(extracted, mounted.mountpoint / "kit", USER)
        form = "%P %m %T@ %l %s\\n"
        shown, there = (
            run(user, "find", place, "!", "-type", "d", "-printf", form)
            for user, place in ((USER, mounted.mountpoint / "kit"), (None, extracted))
        )
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert sorted(shown.stdout.splitlines()) == sorted(there.stdout.splitlines())
        assert len(shown.stdout.splitlines()) > 30
    assert parts_asked_for(server) == Counter(f"/pool/{path}" for path in built.parts.values())


def test_reading_a_file_fetches_its_part_alone(
    site: tuple[BuiltImage, Nginx], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """A listing fetches nothing, a small file nothing, and a file that is a part that part and no other."""
    built, server = site
    with Mounted(server.url(f"/kit/{built.jigdo.name}"), tmp_path / "mnt", options) as mounted:
        shown = mounted.mountpoint / "kit"
        done = run(None, "find", shown, "-ls")
        assert (done.returncode, done.stderr) == (0, b"")
        assert len(done.stdout.splitlines()) > 40
        for name in ("README.txt", "empty", "noise.bin", "zeros.bin"):
            assert (shown / name).read_bytes() == (built.pool.parent / "site" / name).read_bytes()
        assert parts_asked_for(server) == Counter()
        expected: Counter[str] = Counter()
        for path in ("main/a/large.deb", "main/sub dir/plain-01.deb", "main/sub dir/size-001024.bin"):
            assert (shown / "pool" / path).read_bytes() == (built.pool / path).read_bytes()
            expected[f"/pool/{path}"] += 1
            assert parts_asked_for(server) == expected


@pytest.fixture
def no_iso(tmp_path: Path) -> BuiltImage:
    """An image that is no ISO: noise, and a part behind it."""
    directory = tmp_path / "noise"
    part = directory / "pool" / "main" / "part"
    part.parent.mkdir(parents=True)
    part.write_bytes(random.Random(1).randbytes(5000))
    image = directory / "noise.img"
    image.write_bytes(random.Random(2).randbytes(65536) + part.read_bytes())
    return _make_template(image, directory / "pool", "md5", None)


def test_two_images_of_one_name_and_one_that_is_no_iso(
    site: tuple[BuiltImage, Nginx],
    no_iso: BuiltImage,
    rich: Path,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    """Images and directories all have names of their own; what is no ISO has no directory, and a warning."""
    built, _ = site
    other = make_iso(rich, "xorriso", "-R")
    twin = tmp_path / "twin" / "kit.iso"
    twin.parent.mkdir()
    twin.write_bytes(other.read_bytes())
    sources = [built.jigdo, twin, no_iso.jigdo]
    with Mounted(sources, tmp_path / "mnt", options, allow_log=["is no ISO 9660 image"]) as mounted:
        mounted.wait_for_log("noise.img is no ISO 9660 image")
        names = sorted(os.listdir(mounted.mountpoint))
        assert len(names) == len(set(names)) == 5
        directories = [name for name in names if (mounted.mountpoint / name).is_dir()]
        images = [name for name in names if (mounted.mountpoint / name).is_file()]
        assert (len(directories), len(images)) == (2, 3)
        holds = {frozenset(os.listdir(mounted.mountpoint / name)) for name in directories}
        assert {frozenset(os.listdir(rich))} < holds
        inodes = {(mounted.mountpoint / name).stat().st_ino for name in names}
        assert len(inodes) == 5


@pytest.fixture
def two_files(tmp_path: Path) -> tuple[Path, bytes, bytes]:
    """An image of two files, and what they hold; the second lies last."""
    top = tmp_path / "two"
    top.mkdir()
    first, last = b"first" * 1000, b"last" * 20_000
    (top / "first").write_bytes(first)
    (top / "last").write_bytes(last)
    image = make_iso(top, "xorriso", "-R").rename(tmp_path / "own.iso")
    return image, first, last


def test_a_plain_iso_that_changes_is_an_error(
    two_files: tuple[Path, bytes, bytes], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """After the file was written to, nothing new is read from it: an error, and no other bytes."""
    image, first, last = two_files
    with Mounted(image, tmp_path / "mnt", options, allow_log=["changed since"]) as mounted:
        shown = mounted.mountpoint / "own"
        assert os.listdir(shown) == ["first", "last"]
        assert (shown / "first").read_bytes() == first
        with image.open("r+b") as file:
            file.seek(image.read_bytes().index(last))
            file.write(b"other")
        for path in (shown / "last", mounted.mountpoint / "own.iso"):
            with pytest.raises(OSError, match="Input/output") as caught:
                path.read_bytes()
            assert caught.value.errno == errno.EIO
        assert os.listdir(shown) == ["first", "last"]


def test_a_hostile_iso_harms_its_own_directory_only(
    rich: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Where directories go in circles the image can be read, `ls -l` works, and the directory is an error."""
    image = tmp_path / "circle.iso"
    data = bytearray(make_iso(rich, "xorriso", "-R").read_bytes())
    at = data.index(b"NM\x0c\x01\x00private") - 400
    at = data.index(b"PRIVATE", at) - 33
    data[at + 2 : at + 18] = data[ROOT_RECORD + 2 : ROOT_RECORD + 18]
    image.write_bytes(data)
    log = ["cannot be read as an ISO 9660 image"]
    with Mounted(image, tmp_path / "mnt", options, allow_log=log) as mounted:
        mounted.wait_for_log("the files in circle.iso cannot be shown")
        done = run(None, "ls", "-l", mounted.mountpoint)
        assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, b"", 3)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                os.listdir(mounted.mountpoint / "circle")
        with pytest.raises(OSError, match="Input/output"):
            (mounted.mountpoint / "circle" / "plain.txt").read_bytes()
        assert (mounted.mountpoint / "circle.iso").read_bytes() == data


def test_a_file_outside_of_the_image_cannot_be_opened(
    two_files: tuple[Path, bytes, bytes], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """It is listed with its size; to open it is an error, and its neighbours are as they were."""
    image, first, last = two_files
    os.truncate(image, image.read_bytes().index(last) + 100)
    with Mounted(image, tmp_path / "mnt", options, allow_log=["outside of the image"]) as mounted:
        shown = mounted.mountpoint / "own"
        assert (shown / "last").stat().st_size == len(last)
        with pytest.raises(OSError, match="Input/output"):
            (shown / "last").open("rb").close()
        mounted.wait_for_log("claims to lie outside of the image")
        assert (shown / "first").read_bytes() == first


def test_a_regular_file_as_the_mount_point_is_wrong_usage(rich: Path, tmp_path: Path) -> None:
    """A file can show the image, but no directory beside it."""
    image = make_iso(rich, "xorriso", "-R")
    point = tmp_path / "point.iso"
    point.touch()
    line = Program(tmp_path).fails("mount", "--contents", image, point, code=3)
    assert "--contents needs a directory" in line
    assert not mounted_at(point)


def test_thirty_thousand_files(tmp_path: Path, options: tuple[str, ...]) -> None:
    """All are listed, by a process that reads directories; the next mount has them from the cache."""
    file, listed, image = tmp_path / "file", tmp_path / "list", tmp_path / "big.iso"
    file.write_bytes(b"x")
    listed.write_text("".join(f"d{n % 100}/some-package_{n}.deb={file}\n" for n in range(30_000)))
    command = [tool("xorriso"), "-as", "mkisofs", "-quiet", "-R", "-J", "-joliet-long", "-o", str(image)]
    command += ["-graft-points", "-path-list", str(listed)]
    subprocess.run(command, check=True, capture_output=True)
    for first in (True, False):
        with Mounted(image, tmp_path / "mnt", options) as mounted:
            done = run(None, "find", mounted.mountpoint / "big", "-size", "-2")
            assert len(done.stdout.splitlines()) == 30_101
            assert (children_s(mounted.process.pid) > 0) is first


def test_the_end_does_not_wait_for_a_listing(
    unlistable: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Where directories are in a part that does not come, a listing that waits fails when asked to end."""
    allowed = ["failed", "being stopped"]
    with Mounted(unlistable.jigdo, tmp_path / "mnt", options, allow_log=allowed) as mounted:
        assert run(None, "ls", "-l", mounted.mountpoint).returncode == 0
        (listing,) = listings(mounted.mountpoint, 1)
        try:
            faulty_server.wait_stalled()
            assert listing.poll() is None
            mounted.process.terminate()
            assert mounted.process.wait(10) == 0
            _, errors = listing.communicate(timeout=10)
            assert listing.returncode == 2
            assert b"kit" in errors
        finally:
            listing.kill()
            listing.wait()
        faulty_server.release()
    assert not mounted_at(mounted.mountpoint)


def test_listings_that_wait_hold_nobody_up(
    unlistable: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """However few reads may be on their way, what is no read is answered beside many that wait."""
    require_root()
    allowed = ["failed", "being stopped"]
    options = (*options, "--max-background", "1")
    with Mounted(unlistable.jigdo, tmp_path / "mnt", options, allow_log=allowed) as mounted:
        device = mounted.mountpoint.stat().st_dev
        waiting = listings(mounted.mountpoint, 20)
        try:
            faulty_server.wait_stalled()
            wait_until(lambda: of_connection(device, "waiting") >= len(waiting), "all listings wait")
            assert run(None, "df", mounted.mountpoint).returncode == 0
            assert all(listing.poll() is None for listing in waiting)
            mounted.process.terminate()
            assert mounted.process.wait(10) == 0
        finally:
            for listing in waiting:
                listing.kill()
                listing.communicate()
        faulty_server.release()


def listings(mountpoint: Path, count: int) -> list[subprocess.Popen[bytes]]:
    """Start so many listings of what is inside the image."""
    command = [tool("ls"), str(mountpoint / "kit")]
    return [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(count)
    ]


@pytest.fixture
def unlistable(iso: Path, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    """An image whose directories are in a part that does not come."""
    data = iso.read_bytes()
    pool = tmp_path / "pool" / "main"
    pool.mkdir(parents=True)
    (pool / "directories").write_bytes(data[16 * SECTOR : -200 * SECTOR])
    built = _make_template(iso, tmp_path / "pool", "md5", {"Debian": faulty_server.url("/pool/")})
    faulty_server.files = pool_files(built)
    faulty_server.always("/pool/*", Stall())
    return built


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    """An image with a large file behind its directories."""
    top = tmp_path / "tree"
    top.mkdir()
    (top / "large").write_bytes(bytes(400 * SECTOR))
    image = tmp_path / "kit.iso"
    make_iso(top, "xorriso", "-R").rename(image)
    return image
