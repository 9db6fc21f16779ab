"""Which places are ours, from mountinfo alone."""

import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from jigdofs.sources.own_mounts import FSTYPE, MountLine, OwnMounts, closed_points, parse_mountinfo
from jigdofs.sources.walk import Reports, Walker
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.requirements import require_fuse, require_root, tool

MOUNTINFO = (
    rb"""22 1 252:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
40 22 0:50 / /mnt/our\040image ro,nosuid - fuse.jigdofs /srv/a\134b.jigdo ro,user_id=0
41 22 0:51 / /srv/file.iso ro - fuse.jigdofs file.jigdo ro
42 22 0:52 / /mnt/sshfs rw master:3 propagate_from:2 - fuse.sshfs host:/ rw
43 22 7:0 / /mnt/cd ro - iso9660 /dev/loop0 ro
44 22 7:1 / /mnt/other ro - iso9660 /dev/loop1p1 ro
45 22 7:2 / /mnt/inner ro - squashfs /dev/loop2 ro
46 22 0:53 / /mnt/caf\303\251\377 ro - fuse.jigdofs x ro
broken line
"""
    b"47 22 0:54 / /mnt/a\rb ro - fuse.jigdofs c\rd ro\n"
)  # by the kernel, carriage returns are not escaped
BACKING = {"loop0": "/mnt/our image/a.iso", "loop1": "/srv/other.iso", "loop2": "/mnt/cd/live/fs.squashfs"}


def test_mountinfo_is_read_with_its_escapes() -> None:
    """Blanks, backslashes and bytes that are no UTF-8 come out as they are; a broken line is passed over."""
    lines = parse_mountinfo(MOUNTINFO)
    assert len(lines) == 10
    assert lines[2] == MountLine("/mnt/our image", FSTYPE, "/srv/a\\b.jigdo", "ro,user_id=0")
    assert lines[-2].mountpoint == os.fsdecode(b"/mnt/caf\xc3\xa9\xff")
    assert lines[-1] == MountLine("/mnt/a\rb", FSTYPE, "c\rd", "ro")


def test_ours_are_the_mounts_and_what_is_loop_mounted_from_them() -> None:
    """A mount over a file counts, a loop mount from ours, and one from within that; others do not."""
    points = closed_points(parse_mountinfo(MOUNTINFO), BACKING.get)
    assert {"/mnt/our image", "/srv/file.iso", "/mnt/cd", "/mnt/inner", "/proc"} <= points
    assert not {"/", "/mnt/sshfs", "/mnt/other"} & points


def test_a_path_is_resolved_without_touching_ours(tmp_path: Path) -> None:
    """Links and `..` are followed, and where they lead into a closed place the answer is None."""
    real = tmp_path.resolve()
    (real / "dir").mkdir()
    (real / "dir" / "file").touch()
    (real / "link").symlink_to("dir")
    (real / "out").symlink_to(real / "link" / ".." / "closed" / "deep")
    own = OwnMounts([f"{real}/closed", f"{real}/dir/over.iso"])
    assert own.resolve(f"{real}/link/./file") == f"{real}/dir/file"
    assert own.resolve(f"{real}/link/../dir//file") == f"{real}/dir/file"
    # none of these exists: they are refused by name, before anybody asks
    assert own.resolve(f"{real}/out/x") is None
    assert own.resolve(f"{real}/closed") is None
    assert own.resolve(f"{real}/link/over.iso") is None
    assert own.names_in(f"{real}/dir") == {"over.iso"}
    assert own.resolve("/") == "/"


def test_links_in_circles_and_missing_names_are_errors(tmp_path: Path) -> None:
    """The kernel's own errors come, unless what is missing may be missing."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    own = OwnMounts([])
    with pytest.raises(OSError) as caught:
        own.resolve(str(tmp_path / "a"))
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError):
        own.resolve(str(tmp_path / "none" / "x"))
    assert own.resolve(str(tmp_path / "none" / "x"), missing_ok=True) == f"{tmp_path.resolve()}/none/x"


def test_a_place_to_keep_out_of_is_closed(tmp_path: Path) -> None:
    """The mount point to be is kept out of, through whatever link it was named."""
    (tmp_path / "mnt").mkdir()
    (tmp_path / "link").symlink_to("mnt")
    own = OwnMounts.now([str(tmp_path / "link"), str(tmp_path / "to-be" / "made")])
    assert own.resolve(str(tmp_path / "mnt" / "x.iso")) is None
    assert own.resolve(str(tmp_path / "to-be" / "made"), missing_ok=True) is None


@pytest.fixture
def mounted(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> Callable[[Path], Mounted]:
    """Mount an image whose parts nobody can have: reading it would be told in the log."""
    require_fuse()
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    return lambda point: Mounted(built.jigdo, point, ["--cache-dir", str(tmp_path / "cache")])


def search(paths: list[Path]) -> tuple[list[str], list[str]]:
    lines: list[str] = []
    walker = Walker(OwnMounts.now(), Reports(lines.append), lambda *_: True)
    found = [file.path for file in walker.walk([str(path) for path in paths])]
    return found, lines


def test_a_real_mount_of_ours_is_not_entered(mounted: Callable[[Path], Mounted], tmp_path: Path) -> None:
    """Neither from above, nor by name, nor through a link; not even while its daemon is stopped and hangs."""
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "good").write_bytes(b"x")
    with mounted(top / "mnt") as mount:
        image = top / "mnt" / "kit.iso"
        (top / "sub" / "link.iso").symlink_to(image)
        mount.process.send_signal(signal.SIGSTOP)  # whoever asks it anything waits
        try:
            found, lines = search([top, top / "mnt", image])
        finally:
            mount.process.send_signal(signal.SIGCONT)
    assert found == [str(top.resolve() / "sub" / "good")]
    assert len(lines) == 4
    assert all("mount of jigdofs" in line for line in lines)


def test_a_real_mount_over_a_file_is_not_touched(mounted: Callable[[Path], Mounted], tmp_path: Path) -> None:
    """An image that appears as a file among others is left out, the others are found."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "other.iso").write_bytes(b"x")
    (top / "over.iso").touch()
    with mounted(top / "over.iso") as mount:
        mount.process.send_signal(signal.SIGSTOP)
        try:
            found, lines = search([top, top / "over.iso"])
        finally:
            mount.process.send_signal(signal.SIGCONT)
    assert found == [str(top.resolve() / "other.iso")]
    assert len(lines) == 2


def test_a_loop_mount_from_ours_is_not_entered(
    ext4_sha256: BuiltImage, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """What the kernel shows of an image of ours is ours as well."""
    require_root()
    require_fuse()
    faulty_server.files = {
        f"/pool/{path}": (ext4_sha256.pool / path).read_bytes() for path in ext4_sha256.parts.values()
    }
    built = ext4_sha256.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    inside = tmp_path / "inside"
    inside.mkdir()
    with Mounted(built.jigdo, tmp_path / "mnt", ["--cache-dir", str(tmp_path / "cache")]) as mount:
        image = mount.mountpoint / built.image.name
        subprocess.run([tool("mount"), "-o", "loop,ro", str(image), str(inside)], check=True)
        try:
            found, lines = search([inside])
            assert (found, len(lines)) == ([], 1)
        finally:
            subprocess.run([tool("umount"), str(inside)], check=True)
