"""The campaign of bombs, short: each verb sees the worst few."""

from pathlib import Path

import pytest

from tests.campaigns.bomb_list import bombs, tiny_parts
from tests.campaigns.bomb_live import mounts_beside
from tests.campaigns.bomb_makers import Bomb
from tests.campaigns.bomb_net import NetBomb, net_bombs, run_net
from tests.campaigns.bomb_sockets import control_flood, serve_flood
from tests.campaigns.bomb_targets import run_targets
from tests.campaigns.bombs import MAX_RSS_MIB, run_files
from tests.kit.requirements import require_fuse, require_root

SEED = 1
VERBS = {
    "gz-10-gb": ("info",),
    "line-of-50-mb": ("print-missing",),
    "part-lines": ("mount",),
    "labels-double": ("info", "print-missing-all"),
    "include-self": ("download",),
    "name-climbs": ("info",),
    "name-escapes": ("info",),
    "entries-10-million": ("list-template",),
    "entries-million-1": ("verify", "make-image"),
    "parts-million-1": ("print-missing",),
    "chunks-million": ("info",),
    "chunk-claims-2-47": ("mount",),
    "desc-lies-long": ("make-image",),
    "lengths-2-63": ("info",),
}
"""What the short version looks at; the long one gives every bomb to every verb that takes it."""
NET = ("net-endless", "net-include-two", "net-part-0", "net-redirect-other", "net-redirect-from-https")


def some_files() -> list[Bomb]:
    return [bomb for bomb in bombs(SEED) if bomb.name in VERBS]


def some_from_the_net() -> list[NetBomb]:
    return [bomb for bomb in net_bombs() if bomb.name in NET]


@pytest.mark.parametrize("bomb", some_files(), ids=lambda bomb: bomb.name)
def test_files(bomb: Bomb, tmp_path: Path) -> None:
    """A bomb ends in one line, in little memory, and leaves nothing."""
    verbs = VERBS[bomb.name]
    if "mount" in verbs:
        require_fuse()
    for run in run_files(bomb, tmp_path, verbs):
        assert run.problems == [], run
        assert run.rss_mib <= MAX_RSS_MIB, run


def test_all_of_the_short_version_exist() -> None:
    """No bomb is left out because it was renamed."""
    assert {bomb.name for bomb in some_files()} == VERBS.keys()
    assert {bomb.name for bomb in some_from_the_net()} == set(NET)


@pytest.mark.parametrize("bomb", some_from_the_net(), ids=lambda bomb: bomb.name)
def test_from_the_net(bomb: NetBomb, tmp_path: Path) -> None:
    """A .jigdo from the net reaches no local file, and takes no password along."""
    for run in run_net(bomb, tmp_path / "net"):
        assert run.problems == [], run
        assert run.rss_mib <= MAX_RSS_MIB, run


def test_targets(tmp_path: Path) -> None:
    """Nothing is written through what lies in the way of a download."""
    require_root()
    for run in run_targets(tmp_path, (True,)):
        assert run.problems == [], run


def test_readers_beside_a_bomb(tmp_path: Path) -> None:
    """A good image is read on while a hostile one on the same daemon is."""
    require_fuse()
    (tmp_path / "in").mkdir()
    watched = mounts_beside(tmp_path, "tiny parts", tiny_parts(tmp_path / "in", 60_000), 2, 256 << 10)
    assert watched.problems == []
    assert watched.reads > 1


def test_sockets(tmp_path: Path) -> None:
    """Silent, slow and endless clients hold nobody up."""
    require_fuse()
    for name in ("control", "serve"):
        (tmp_path / name).mkdir()
    for watched in control_flood(tmp_path / "control", connections=100, line_bytes=64 << 20):
        assert watched.problems == [], watched
    for watched in serve_flood(tmp_path / "serve", connections=20):
        assert watched.problems == [], watched
