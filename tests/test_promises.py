"""The bounds that docs/promises.md states are those of the program."""

import re

from jigdofs import load
from jigdofs.config import FetchOptions, ReadOptions
from jigdofs.format import jigdo_limits, label_growth, template
from jigdofs.parts.haste import HESITATE_S
from jigdofs.wiring.foundation import MEMORY_BYTES
from tests.kit.mounts import REPOSITORY

TEXT = (REPOSITORY / "docs" / "promises.md").read_text("utf-8")
BOUNDS = {
    "`.jigdo`, inflated, with all it includes": f"{jigdo_limits.MAX_BYTES >> 20} MiB",
    "lines of `[Parts]`": f"{jigdo_limits.MAX_PART_LINES:,}",
    "other lines": f"{jigdo_limits.MAX_OTHER_LINES:,}",
    "one line": f"{jigdo_limits.MAX_LINE_LENGTH >> 10} KiB",
    "includes; their depth": f"{load.MAX_INCLUDES}; {load.MAX_INCLUDE_DEPTH}",
    "places one label stands for": f"{label_growth.MAX_PLACES}",
    "parts of an image": f"{template.MAX_PARTS:,}",
    "entries of a template": f"{template.MAX_ENTRIES:,}",
    "chunks of a template": f"{template.MAX_CHUNKS:,}",
}


def test_bounds() -> None:
    """Each row of the table of bounds says what the code says, and none is missing."""
    table = TEXT.split("| bound |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| .+ \|$", table, re.MULTILINE)
    assert dict(rows[1:]) == BOUNDS


def test_times() -> None:
    """The times that are named are the defaults."""
    fetch, read = FetchOptions(), ReadOptions()
    assert f"the next location after {HESITATE_S:g} s while there are others" in TEXT
    assert f"`--read-timeout` ({read.timeout_s / 60:g} minutes)" in TEXT
    assert f"tried up to {fetch.rounds} times" in TEXT
    assert f"at most {fetch.max_redirects};" in TEXT
    assert f"up to {MEMORY_BYTES >> 20} MiB, to memory" in TEXT
