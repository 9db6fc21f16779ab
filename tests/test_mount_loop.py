"""An image with a file system in it, mounted from the FUSE file through a loop device."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted, mounted_at
from tests.kit.requirements import require_fuse, require_root, tool
from tests.kit.scenes import QUICK, loop_device, loop_devices, pool_files, read_again, wait_until

FILE_SYSTEMS = ("squashfs_md5", "ext4_sha256")


@dataclass(frozen=True)
class Scene:
    """A file system image mounted by us; `inside` is where the kernel is to mount what is in it."""

    built: BuiltImage
    server: FaultyServer
    mounted: Mounted
    inside: Path

    @property
    def image(self) -> Path:
        return self.mounted.mountpoint / self.built.image.name

    @property
    def tree(self) -> Path:
        """The files that went into the image."""
        return self.built.image.parent / "tree"


@pytest.fixture(params=FILE_SYSTEMS)
def scene(request: pytest.FixtureRequest, faulty_server: FaultyServer, tmp_path: Path) -> Iterator[Scene]:
    require_root()
    require_fuse()
    image: BuiltImage = request.getfixturevalue(request.param)
    faulty_server.files = pool_files(image)
    built = image.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    inside = tmp_path / "inside"
    inside.mkdir()
    options = ["--cache-dir", str(tmp_path / "cache"), *QUICK]
    with Mounted(built.jigdo, tmp_path / "mnt", options, allow_log=("cannot be had",)) as mounted:
        yield Scene(built, faulty_server, mounted, inside)


@contextmanager
def attached(scene: Scene, *, direct_io: bool) -> Iterator[Path]:
    """Mount the file system as our documentation says; at the end neither mount nor device is left."""
    if direct_io:
        with loop_device(scene.image, "--direct-io=on") as device:
            subprocess.run([tool("mount"), "-o", "ro", device, str(scene.inside)], check=True)
            try:
                yield scene.inside
            finally:
                subprocess.run([tool("umount"), str(scene.inside)], check=True)
        return
    command = [tool("mount"), "-o", "loop,ro", str(scene.image), str(scene.inside)]
    subprocess.run(command, check=True)
    try:
        yield scene.inside
    finally:
        subprocess.run([tool("umount"), str(scene.inside)], check=True)
        # the kernel detaches an autoclear device when its last user is gone
        wait_until(lambda: not loop_devices(scene.image), "the loop device is gone")


@pytest.mark.parametrize("direct_io", [True, False], ids=["direct-io", "plain"])
def test_what_is_in_the_image_is_what_went_in(scene: Scene, *, direct_io: bool) -> None:
    """`diff -r` finds no difference between the mounted file system and the files it was made of."""
    with attached(scene, direct_io=direct_io) as inside:
        command = [tool("diff"), "--recursive", "--no-dereference", "--exclude=lost+found"]
        done = subprocess.run([*command, str(scene.tree), str(inside)], capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        for path in scene.built.parts.values():
            assert (inside / "pool" / path).read_bytes() == (scene.built.pool / path).read_bytes()
        asked = scene.server.paths()
        assert len(asked) == len(set(asked)), "no part was fetched twice"
    assert not mounted_at(scene.inside)


@pytest.mark.parametrize("direct_io", [True, False], ids=["direct-io", "plain"])
def test_looking_around_fetches_little(scene: Scene, *, direct_io: bool) -> None:
    """Mounting the file system and listing every file does not fetch what the files hold."""
    with attached(scene, direct_io=direct_io) as inside:
        names = [Path(folder, name) for folder, _, names in os.walk(inside) for name in names]
        assert sum(path.stat().st_size for path in names) > 5_000_000
        # mount(8) looks for signatures of file systems, the kernel reads around what it needs
        assert len(set(scene.server.paths())) < len(scene.built.parts) // 2


@pytest.mark.parametrize("direct_io", [True, False], ids=["direct-io", "plain"])
def test_a_file_that_cannot_be_had_now_can_be_had_later(scene: Scene, *, direct_io: bool) -> None:
    """Server gone: EIO, and other files stay readable; server back: the same file reads well (M4).

    squashfs itself remembers the error for as long as it is mounted; the device below it does not.
    """
    near = "main/a/large.deb"
    with attached(scene, direct_io=direct_io) as inside:
        assert (inside / "pool" / near).read_bytes() == (scene.built.pool / near).read_bytes()
        scene.server.wait_until(lambda server: server._in_flight == 0)
        scene.server.stop()
        left = [path for path in scene.built.parts.values() if f"/pool/{path}" not in scene.server.paths()]
        far = max(left, key=lambda path: (scene.built.pool / path).stat().st_size)
        with pytest.raises(OSError) as caught:
            (inside / "pool" / far).read_bytes()
        assert caught.value.errno == errno.EIO
        assert (inside / "pool" / near).read_bytes() == (scene.built.pool / near).read_bytes()
        scene.server.start()
        if scene.image.suffix != ".squashfs":
            found = read_again((inside / "pool" / far).read_bytes)
            assert found == (scene.built.pool / far).read_bytes()

    def attached_again() -> bytes:
        with attached(scene, direct_io=direct_io) as inside:
            return (inside / "pool" / far).read_bytes()

    assert read_again(attached_again) == (scene.built.pool / far).read_bytes()
