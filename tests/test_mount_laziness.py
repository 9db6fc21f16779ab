"""A mount asks the servers for nothing but what is read, and for that once: told from nginx's access log."""

import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from tests.kit.images import BuiltImage, roomy_iso
from tests.kit.mounts import Mounted
from tests.kit.nginx import Nginx
from tests.kit.requirements import require_fuse, tool
from tests.kit.scenes import (
    Occurrence,
    lonely,
    occurrences,
    publish,
    read_buffered,
    read_direct,
    reading,
)

READERS = 16


@dataclass(frozen=True)
class Scene:
    """An image published by nginx, and where to mount it."""

    built: BuiltImage
    server: Nginx
    directory: Path
    options: tuple[str, ...]

    @property
    def url(self) -> str:
        return self.server.url(f"/kit/{self.built.jigdo.name}")

    @property
    def mounting(self) -> Counter[str]:
        """What is sent for the mount itself."""
        return Counter([f"/kit/{self.built.jigdo.name}", f"/kit/{self.built.template.name}"])

    @property
    def every_part(self) -> Counter[str]:
        """What is sent when each part is fetched once."""
        return Counter(f"/pool/{path}" for path in self.built.parts.values())

    def mounted(self, point: str = "mnt") -> Mounted:
        return Mounted(self.url, self.directory / point, self.options)

    def expect(self, *, offset: int = 0, length: int | None = None) -> bytes:
        data = self.built.image.read_bytes()[offset:]
        return data if length is None else data[:length]

    def asked_for(self) -> Counter[str]:
        """Return what was sent; of a name with `?` or `%41` another spelling was asked for before."""
        return Counter(entry.path for entry in self.server.access_log() if entry.status in (200, 206))

    def parts_asked_for(self) -> Counter[str]:
        asked = self.asked_for()
        return Counter({path: count for path, count in asked.items() if path.startswith("/pool/")})


def set_scene(image: BuiltImage, nginx: Callable[..., Nginx], directory: Path) -> Scene:
    require_fuse()
    site = directory / "site"
    site.mkdir()
    server = nginx(site)
    built = publish(image, site, [server.url("/pool/")])
    return Scene(built, server, directory, ("--cache-dir", str(directory / "cache")))


@pytest.fixture
def scene(iso_md5: BuiltImage, nginx: Callable[..., Nginx], tmp_path: Path) -> Scene:
    return set_scene(iso_md5, nginx, tmp_path)


@pytest.fixture(scope="module")
def roomy_image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return roomy_iso(tmp_path_factory.mktemp("roomy"))


@pytest.fixture
def roomy(roomy_image: BuiltImage, nginx: Callable[..., Nginx], tmp_path: Path) -> Scene:
    """The scene with an image whose parts lie far from each other."""
    return set_scene(roomy_image, nginx, tmp_path)


def part_url(part: Occurrence) -> str:
    return f"/pool/{part.path}"


def xorriso(*arguments: str) -> str:
    done = subprocess.run([tool("xorriso"), *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return os.fsdecode(done.stdout)


def extract(image: Path, path: str, target: Path) -> None:
    xorriso("-osirrox", "on", "-indev", f"stdio:{image}", "-extract", path, str(target))


def same_everywhere(futures: list[Future[bytes]], expected: bytes) -> None:
    for future in futures:
        assert future.result(30) == expected


def test_mounting_and_looking_fetches_the_jigdo_and_the_template_only(scene: Scene) -> None:
    """Neither the mount nor `ls`, `stat`, `statfs` or an open without a read asks for a part."""
    with scene.mounted() as mounted:
        image = mounted.mountpoint / "kit.iso"
        assert os.listdir(mounted.mountpoint) == ["kit.iso"]
        assert image.stat().st_size == scene.built.image.stat().st_size
        os.statvfs(image)
        os.close(os.open(image, os.O_RDONLY))
        assert scene.asked_for() == scene.mounting


def test_a_listing_of_the_iso_fetches_no_part(roomy: Scene) -> None:
    """`xorriso -find` reads the directory tree, which is in the template."""
    with roomy.mounted() as mounted:
        listing = xorriso(
            "-indev", f"stdio:{mounted.mountpoint}/roomy.iso", "-find", "/", "-exec", "lsdl", "--"
        )
        assert "'/pool/main/roomy-2.deb'" in listing
        assert roomy.asked_for() == roomy.mounting


def test_unmatched_data_fetches_no_part(scene: Scene) -> None:
    """The widest stretch between two parts is read from the template alone."""
    listed = occurrences(scene.built)
    begin, end = max(
        ((one.pages[1], other.pages[0]) for one, other in pairwise(listed)),
        key=lambda gap: gap[1] - gap[0],
    )
    assert end - begin > 500_000
    with scene.mounted() as mounted:
        data = read_buffered(mounted.mountpoint / "kit.iso", begin, end - begin)
        assert data == scene.expect(offset=begin, length=end - begin)
        assert scene.asked_for() == scene.mounting


@pytest.mark.parametrize("read", [read_direct, read_buffered])
def test_one_part_is_fetched_alone_and_once_for_many_readers(
    scene: Scene, read: Callable[[Path, int, int], bytes]
) -> None:
    """Sixteen readers of one part cause one request, for that part only."""
    part = lonely(scene.built)[0]
    with scene.mounted() as mounted:
        image = mounted.mountpoint / "kit.iso"
        with reading(lambda: read(image, part.offset, part.length), READERS) as futures:
            same_everywhere(futures, scene.expect(offset=part.offset, length=part.length))
        assert scene.asked_for() == scene.mounting + Counter([part_url(part)])


def test_one_byte_fetches_its_part_alone(scene: Scene) -> None:
    """The first and the last byte of parts, in any order, fetch those parts and no neighbour."""
    parts = occurrences(scene.built)
    random.Random(7).shuffle(parts)
    with scene.mounted() as mounted:
        image = mounted.mountpoint / "kit.iso"
        expected: Counter[str] = Counter()
        for part in parts[:8]:
            for offset in (part.offset, part.end - 1):
                assert read_direct(image, offset, 1) == scene.expect(offset=offset, length=1)
            expected[part_url(part)] = 1
            assert scene.parts_asked_for() == expected


def test_a_part_that_occurs_twice_is_fetched_once(scene: Scene) -> None:
    """The second place of a part is served from the cache."""
    listed = occurrences(scene.built)
    counts = Counter(one.checksum for one in listed)
    places = [one for one in listed if counts[one.checksum] == 2]
    assert len(places) == 2
    with scene.mounted() as mounted:
        for place in places:
            data = read_direct(mounted.mountpoint / "kit.iso", place.offset, place.length)
            assert data == scene.expect(offset=place.offset, length=place.length)
        assert scene.parts_asked_for() == Counter([part_url(places[0])])


def test_extracting_files_fetches_their_parts_alone(roomy: Scene) -> None:
    """`xorriso -extract` of a package, as a user would do it, fetches that package; several fetch it once."""
    with roomy.mounted() as mounted:
        image = mounted.mountpoint / "roomy.iso"
        for number in (2, 0):
            path = f"main/roomy-{number}.deb"
            targets = [roomy.directory / f"extracted-{number}-{reader}" for reader in range(4)]
            with ThreadPoolExecutor(len(targets)) as threads:
                list(threads.map(partial(extract, image, f"/pool/{path}"), targets))
            assert {target.read_bytes() for target in targets} == {(roomy.built.pool / path).read_bytes()}
        assert roomy.parts_asked_for() == Counter(["/pool/main/roomy-2.deb", "/pool/main/roomy-0.deb"])


def test_reading_everything_fetches_every_part_once(scene: Scene) -> None:
    """A plain sequential reader with all readahead there is causes one request for each part."""
    with scene.mounted() as mounted:
        assert (mounted.mountpoint / "kit.iso").read_bytes() == scene.expect()
        assert scene.asked_for() == scene.mounting + Counter(
            f"/pool/{path}" for path in scene.built.parts.values()
        )


def test_a_second_mount_fetches_nothing(scene: Scene) -> None:
    """After unmounting, all is in the cache; the .jigdo is asked for again, but not sent again."""
    for _ in range(2):
        with scene.mounted() as mounted:
            assert (mounted.mountpoint / "kit.iso").read_bytes() == scene.expect()
    assert scene.asked_for() == scene.mounting + Counter(
        f"/pool/{path}" for path in scene.built.parts.values()
    )
    scene.server.clear_log()
    with scene.mounted() as mounted:
        assert (mounted.mountpoint / "kit.iso").read_bytes() == scene.expect()
        again = [(entry.path, entry.status, entry.body_bytes) for entry in scene.server.access_log()]
        assert again == [("/kit/kit.jigdo", 304, 0)]


def test_a_second_mount_works_without_the_server(scene: Scene) -> None:
    """What was read once can be mounted and read while the server is away; a warning says so."""
    with scene.mounted() as mounted:
        assert (mounted.mountpoint / "kit.iso").read_bytes() == scene.expect()
    scene.server.stop()
    options = (*scene.options, "--connect-timeout", "1s")
    with Mounted(scene.url, scene.directory / "mnt", options, allow_log=["an earlier time"]) as mounted:
        mounted.wait_for_log("using the copy of an earlier time")
        assert (mounted.mountpoint / "kit.iso").read_bytes() == scene.expect()


def test_two_mounts_share_one_cache_at_once(scene: Scene) -> None:
    """What one daemon has fetched, the other does not fetch; each may read all there is."""
    parts = lonely(scene.built)
    with ExitStack() as stack:
        images = [
            stack.enter_context(scene.mounted(point)).mountpoint / "kit.iso" for point in ("one", "two")
        ]
        for number, part in enumerate(parts):
            for image in (images[number % 2], images[1 - number % 2]):
                data = read_direct(image, part.offset, part.length)
                assert data == scene.expect(offset=part.offset, length=part.length)
        assert scene.parts_asked_for() == Counter(map(part_url, parts))
        for image in images:
            assert image.read_bytes() == scene.expect()
        assert scene.parts_asked_for() == scene.every_part


def test_two_images_share_the_parts(scene: Scene, squashfs_md5: BuiltImage) -> None:
    """A part that one image has fetched is there for every other image that has it."""
    other = publish(squashfs_md5, scene.built.jigdo.parent.parent, [scene.server.url("/pool/")], "other")
    with scene.mounted() as mounted:
        assert (mounted.mountpoint / "kit.iso").read_bytes() == scene.expect()
    scene.server.clear_log()
    url = scene.server.url("/other/kit.jigdo")
    with Mounted(url, scene.directory / "mnt", scene.options) as mounted:
        data = (mounted.mountpoint / "kit.squashfs").read_bytes()
        assert data == other.image.read_bytes()
        assert scene.parts_asked_for() == Counter()
