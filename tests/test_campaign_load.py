"""The short form of the campaign of load: 64 readers over bad lines; nothing wrong, nothing left."""

from pathlib import Path

from tests.benchmarks.mounting import publish_pool
from tests.campaigns.load import observe, promises
from tests.kit.requirements import require_fuse, tool

READERS, READS = 64, 4


def test_nothing_wrong_and_nothing_left(tmp_path: Path) -> None:
    """Every read is right or fails in time; neither tasks nor sockets are left when all is quiet."""
    require_fuse()
    tool("jigdo-file")
    published = publish_pool(tmp_path / "site", 60, 12)
    seen = observe(published, tmp_path, 1, readers=READERS, reads=READS)
    assert [figure for figure in promises(seen) if not figure.met] == []
    assert seen.tally.reads == READERS * READS
    assert seen.tally.failed < seen.tally.reads // 2, "the lines are not so bad that nothing gets through"
