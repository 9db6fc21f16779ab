"""`jigdofs mount --scan`: parts are served from local files and old images where they lie."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.requirements import require_fuse
from tests.kit.scenes import (
    Occurrence,
    Program,
    bytes_read_by,
    daemon_pid,
    detached,
    drop_pages,
    lonely,
    occurrences,
    pool_files,
    read_direct,
    reading,
    wait_until,
)

ENOUGH_S = 15.0
"""Far below the 30 s for which readers wait for a search that hangs."""


class Scene:
    """An ISO whose parts could come from a server that counts, and where to mount it."""

    def __init__(self, built: BuiltImage, server: FaultyServer, directory: Path) -> None:
        self.built = built
        self.server = server
        self.directory = directory
        self.data = built.image.read_bytes()
        self.cache = directory / "cache"
        self.point = directory / "mnt"
        self.image = self.point / "kit.iso"

    def mounted(self, *scan: Path, allow_log: tuple[str, ...] = ()) -> Mounted:
        options = [f"--scan={path}" for path in scan]
        return Mounted(
            self.built.jigdo,
            self.point,
            ["--cache-dir", str(self.cache), "--readahead=0", *options],
            allow_log=allow_log,
        )

    def cached_parts(self) -> list[Path]:
        return [path for path in (self.cache / "objects" / "md5").rglob("*") if path.is_file()]

    def read(self, part: Occurrence) -> bytes:
        return read_direct(self.image, part.offset, part.length)

    def expect(self, part: Occurrence) -> bytes:
        return self.data[part.offset : part.end]

    def copy(self, part: Occurrence, directory: Path) -> Path:
        """Put a part into a directory as a file of its own."""
        directory.mkdir(exist_ok=True)
        path = directory / part.checksum
        shutil.copyfile(self.built.pool / part.path, path)
        return path


@pytest.fixture
def scene(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> Scene:
    require_fuse()
    faulty_server.files = pool_files(iso_md5)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    return Scene(built, faulty_server, tmp_path)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes of a file in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("beside", [True, False], ids=["with its template", "alone"])
def test_an_old_image_serves_everything(scene: Scene, beside: bool) -> None:
    """Reading the whole image fetches nothing and copies no part into the cache."""
    old = scene.built.image
    if not beside:
        old = scene.directory / "old.iso"
        shutil.copyfile(scene.built.image, old)
    with scene.mounted(old):
        assert scene.image.read_bytes() == scene.data
        drop_pages(scene.image)
        assert scene.image.read_bytes() == scene.data
    assert scene.server.paths() == []
    assert scene.cached_parts() == []


def test_only_what_no_source_has_is_fetched(scene: Scene) -> None:
    """Half of the parts lie in a directory: the others are fetched and cached, these neither."""
    parts = {one.checksum: one for one in occurrences(scene.built)}
    half = list(parts.values())[::2]
    for part in half:
        scene.copy(part, scene.directory / "half")
    with scene.mounted(scene.directory / "half"):
        assert scene.image.read_bytes() == scene.data
    fetched = {request.path for request in scene.server.requests if request.status == 200}
    others = {one.checksum for one in parts.values()} - {one.checksum for one in half}
    assert fetched == {f"/pool/{parts[checksum].path}" for checksum in others}
    assert {path.name for path in scene.cached_parts()} == others


def test_in_the_background_with_a_relative_name(scene: Scene, tmp_path: Path, iso_md5: BuiltImage) -> None:
    """The source is found from where the user stood, though the daemon stands elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    scene.point.mkdir()
    shutil.copyfile(iso_md5.image, home / "old.iso")
    program = Program(home, environ={"CACHE_DIRECTORY": str(scene.cache)})
    with detached(program, scene.built.jigdo, "--scan", "old.iso", mountpoint=scene.point) as done:
        assert done.returncode == 0, done
        assert daemon_pid(scene.point)
        assert scene.image.read_bytes() == scene.data
    assert scene.server.paths() == []


def test_a_source_that_does_not_exist(scene: Scene) -> None:
    """--scan of nothing is refused before anything is mounted."""
    scene.point.mkdir()
    home = scene.directory / "home"
    home.mkdir()
    program = Program(home, environ={"CACHE_DIRECTORY": str(scene.cache)})
    line = program.fails("mount", scene.built.jigdo, scene.point, "--scan", "nowhere", code=3)
    assert "--scan nowhere" in line


@pytest.mark.parametrize("read_before", [True, False])
def test_a_source_that_changes(scene: Scene, read_before: bool) -> None:
    """Other bytes of the same length in a part's place are never served: the mirror has the right ones."""
    part, other = lonely(scene.built)[:2]
    old = scene.directory / "old.iso"
    shutil.copyfile(scene.built.image, old)
    with scene.mounted(old, allow_log=("changed since it was found",)):
        # both waits for the search to end and leaves the file open
        first = part if read_before else other
        assert scene.read(first) == scene.expect(first)
        overwrite(old, part.offset, bytes(part.length))
        assert scene.read(part) == scene.expect(part)
        assert scene.server.paths() == [f"/pool/{part.path}"]
        drop_pages(scene.image)
        assert scene.image.read_bytes() == scene.data


def test_a_source_that_changes_while_it_is_read(scene: Scene) -> None:
    """Readers at work while the source is rewritten again and again get right bytes or an error."""
    part = lonely(scene.built)[0]
    source = scene.copy(part, scene.directory / "sources")
    right, wrong = source.read_bytes(), bytes(part.length)
    with scene.mounted(source.parent, allow_log=("changed since it was found", "a local file changed")):
        outcomes: list[bytes | int] = []

        def read_on() -> bytes:
            data = b""
            for _ in range(40):
                try:
                    data = scene.read(part)
                except OSError as error:
                    outcomes.append(error.errno or 0)
                else:
                    outcomes.append(data)
            return data

        with reading(read_on, 2) as futures:
            wait_until(lambda: outcomes, "the first read is done")
            while not all(future.done() for future in futures):
                overwrite(source, 0, wrong)
                overwrite(source, 0, right)
        assert [future.exception() for future in futures] == [None, None]
        assert set(outcomes) <= {right, errno.EIO}
        assert right in outcomes
        assert scene.read(part) == right


def test_a_source_that_is_removed(scene: Scene) -> None:
    """What is gone, opened before or not, comes from the mirror."""
    opened, unopened = lonely(scene.built)[:2]
    files = [scene.copy(part, scene.directory / "sources") for part in (opened, unopened)]
    with scene.mounted(files[0].parent, allow_log=("No such file",)):
        assert scene.read(opened) == scene.expect(opened)
        for path in files:
            path.unlink()
        assert scene.server.paths() == []
        for part in (opened, unopened):
            drop_pages(scene.image)
            assert scene.read(part) == scene.expect(part)
        assert scene.server.paths() == [f"/pool/{part.path}" for part in (opened, unopened)]


def test_a_source_that_is_damaged_from_the_start(scene: Scene) -> None:
    """An old image with a rotten part serves all others; that one is fetched."""
    part = lonely(scene.built)[0]
    old = scene.directory / "old.iso"
    shutil.copyfile(scene.built.image, old)
    overwrite(old, part.offset + 7, bytes(64))
    with scene.mounted(old):
        assert scene.image.read_bytes() == scene.data
    assert scene.server.paths() == [f"/pool/{part.path}"]


def test_a_source_around_the_mount_point(scene: Scene) -> None:
    """A directory that contains the mount is searched but for the mount, so nobody waits for himself."""
    parts = lonely(scene.built)[:2]
    scene.copy(parts[0], scene.directory / "sources")
    (scene.directory / "sources" / "way").symlink_to(scene.point)
    scene.point.mkdir()
    with scene.mounted(scene.directory, scene.point, allow_log=("it is not searched",)):
        with reading(lambda: scene.read(parts[0])) as (near,):
            assert near.result(ENOUGH_S) == scene.expect(parts[0])
        assert scene.server.paths() == []
        with reading(lambda: scene.read(parts[1])) as (far,):
            assert far.result(ENOUGH_S) == scene.expect(parts[1])
        assert scene.server.paths() == [f"/pool/{parts[1].path}"]


def test_what_was_found_out_is_remembered(scene: Scene) -> None:
    """A second mount with the same cache does not read an old image to learn what it knows already."""
    old = scene.directory / "old.iso"
    shutil.copyfile(scene.built.image, old)
    part = lonely(scene.built)[0]
    counts = []
    for _ in range(2):
        with scene.mounted(old) as mounted:
            before = bytes_read_by(mounted.process.pid)
            assert scene.read(part) == scene.expect(part)
            counts.append(bytes_read_by(mounted.process.pid) - before)
    assert counts[0] >= 2 * part.length
    assert counts[1] < counts[0] - part.length // 2
    assert os.path.getsize(scene.cache / "scanned.db") > 0
