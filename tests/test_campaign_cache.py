"""The campaign against the cache, short: nothing wrong, nothing failed, nothing touched outside."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaigns import cache_room
from tests.campaigns.cache import injuries, laid
from tests.campaigns.cache_image import READ_TIMEOUT_S, Found, MountedImage
from tests.campaigns.cache_sharing import fetched_at_once, share
from tests.kit.images import BuiltImage
from tests.kit.requirements import require_fuse, require_root


@pytest.fixture
def image(iso_md5: BuiltImage, tmp_path: Path) -> Iterator[MountedImage]:
    require_fuse()
    require_root()
    found = Found()
    with laid(tmp_path, iso_md5, found) as image:
        yield image
    assert found.broken == []
    assert found.reads
    assert found.slowest_s <= READ_TIMEOUT_S + 1


def test_injuries(image: MountedImage) -> None:
    """Some sixty injuries, while no daemon runs and while one does."""
    injuries(image, seed=3, count=60)
    assert image.found.injuries.total() == 60


@pytest.mark.parametrize(
    "scene", [cache_room.full_from_the_start, cache_room.full_meanwhile, cache_room.read_only]
)
def test_no_room(image: MountedImage, scene: cache_room.Scene) -> None:
    """A full disk, one that fills while parts are written, a read-only one."""
    scene(image)


def test_few_descriptors(image: MountedImage) -> None:
    """Too few descriptors are told at the start; just enough of them are enough."""
    cache_room.few_descriptors(image, counts=(64, 128))


def test_sharing(image: MountedImage) -> None:
    """Two daemons on one small cache, one of them killed again and again."""
    share(image, "3", daemons=2, kills=3)


def test_nothing_is_fetched_twice(image: MountedImage) -> None:
    """Two daemons that read it all at once into an empty cache fetch it once, give or take a few parts."""
    assert fetched_at_once(image, daemons=2) < 1.5
