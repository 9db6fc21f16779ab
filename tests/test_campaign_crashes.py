"""A short run of the crash campaign: some kills of each kind, ends under load, and a loop device."""

from pathlib import Path

from tests.campaigns.crashes import Sizes, crash, figures
from tests.kit.images import BuiltImage
from tests.kit.requirements import require_fuse, require_root

SIZES = Sizes(mounts=5, downloads=3, templates=2, ends=4)


def test_kills_and_ends(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """After each the next start needs no hand, no byte is wrong, nothing verified is lost or left behind."""
    require_root()
    require_fuse()
    seen = crash(iso_md5, tmp_path, 1, SIZES)
    assert [*seen.findings.broken, *seen.ends.wrong] == []
    assert [figure for figure in figures(seen) if not figure.met] == []
    assert sum(seen.findings.kills.values()) == SIZES.mounts + SIZES.downloads + SIZES.templates
    assert seen.findings.bytes_compared > len(iso_md5.image.read_bytes())
