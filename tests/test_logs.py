"""Log lines as the journal wants them, and messages that come again and again."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigdofs import logs
from jigdofs.errors import JigdofsError
from jigdofs.troubles import SAME_S, RecentTroubles, Repeats
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.scenes import QUICK, lonely, read_direct


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def restored() -> Iterator[None]:
    """Leave the one log of the process as it was."""
    loggers = [logging.getLogger(name) for name in ("jigdofs", "trio.serve_listeners")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, kept in zip(loggers, before, strict=True):
        logger.handlers[:], logger.level, logger.propagate = kept


class Log:
    """A log of its own, with what stood in it."""

    def __init__(self, clock: Clock) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.repeats = Repeats(self.handler, clock)
        self.handler.addFilter(self.repeats)
        self.logger = logging.Logger("tried", logging.INFO)  # noqa: LOG001  of nobody else's concern
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.mark.usefixtures("restored")
def test_out_of_descriptors(capsys: pytest.CaptureFixture[str]) -> None:
    """What trio says of a listener that cannot accept is one line of ours, however often it says it."""
    logs.to_stderr(logging.WARNING)
    for _ in range(100):
        try:
            raise OSError(24, "Too many open files")
        except OSError:
            logging.getLogger("trio.serve_listeners").exception("accept returned %s", "EMFILE")
    assert capsys.readouterr().err == "ERROR trio.serve_listeners: accept returned EMFILE\n"
    assert logs.troubles()[0].times == 100


def test_flood() -> None:
    """A message is said at once, then only how often it came; another one is never held up."""
    clock = Clock()
    log = Log(clock)
    for number in range(1000):
        log.logger.error("no space left")
        if number == 500:
            log.logger.error("another matter")
    assert log.lines == ["no space left", "another matter"]
    clock.now_s += SAME_S
    log.repeats.tell()
    assert log.lines[2:] == ["no space left (repeated 999 times)"]
    log.logger.error("no space left")  # it went on all the time
    assert len(log.lines) == 3
    clock.now_s += SAME_S
    log.repeats.tell()
    assert log.lines[3:] == ["no space left (repeated once)"]
    clock.now_s += SAME_S
    log.repeats.tell()
    log.logger.error("no space left")
    assert log.lines[4:] == ["no space left"]


def test_nothing_distinct_is_lost() -> None:
    """However many different errors come, each is said, and what is remembered of them is bounded."""
    clock = Clock()
    log = Log(clock)
    for number in range(5000):
        log.logger.error("error %d", number)
        log.logger.error("error %d", number)
    said = [line for line in log.lines if "repeated" not in line]
    assert said == [f"error {number}" for number in range(5000)]
    log.repeats.tell(all_of_it=True)
    assert sum("(repeated once)" in line for line in log.lines) == 5000
    assert len(log.repeats._said) <= 256


def test_same_reason_of_different_reads() -> None:
    """Reads that fail for one reason at different places are one error."""
    log = Log(Clock())
    errors = logs.ErrorLog(log.logger)
    for offset in range(0, 65536, 4096):
        errors.report(f"read at {offset}", JigdofsError("part x cannot be had"))
    errors.report("read at 0", JigdofsError("part y cannot be had"))
    assert log.lines == ["read at 0 failed: part x cannot be had", "read at 0 failed: part y cannot be had"]


def test_what_is_not_held_back() -> None:
    """What was asked for in detail (-v) is said as often as it happens, and so are our own bugs."""
    log = Log(Clock())
    for _ in range(3):
        log.logger.info("a step")
        try:
            raise ValueError("a bug")
        except ValueError:
            log.logger.exception("internal error")
    assert log.lines.count("a step") == 3
    assert log.lines.count("internal error") == 3


def test_recent_troubles() -> None:
    """The last twenty that differ are remembered, each with its number, the latest first."""
    recent = RecentTroubles()
    logger = logging.Logger("tried", logging.INFO)  # noqa: LOG001  of nobody else's concern
    logger.addHandler(recent)
    logger.info("all is well")
    for number in range(30):
        logger.warning("trouble %d", number)
    for offset in (0, 4096):
        logger.error("read at %d failed: %s", offset, "no mirror", extra={"why": "no mirror"})
    logger.warning("trouble 25")
    last = recent.last()
    assert len(last) == 20
    assert (last[0].what, last[0].times, last[0].level) == ("trouble 25", 2, "WARNING")
    assert (last[1].what, last[1].why, last[1].times) == ("read at 4096 failed", "no mirror", 2)
    assert last[1].first_s <= last[1].last_s
    assert "trouble 10" not in {trouble.what for trouble in last}


def _written_to_the_journal(
    monkeypatch: pytest.MonkeyPatch, path: Path, stream: str | None = None
) -> list[str]:
    with path.open("w") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", stream or f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr(sys, "stderr", file)
        logs.to_stderr(logging.DEBUG)
        logger = logging.getLogger("jigdofs.tried")
        for level in (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG):
            logger.log(level, "said\nover two lines")
        try:
            raise ValueError("a bug")
        except ValueError:
            logger.exception("internal error")
    return path.read_text().splitlines()


def test_journal(restored: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For the journal a record is one line that begins with its priority, and has no word for it."""
    lines = _written_to_the_journal(monkeypatch, tmp_path / "stderr")
    said = "jigdofs.tried: said\\nover two lines"
    assert lines[:5] == [f"<{priority}>{said}" for priority in (2, 3, 4, 6, 7)]
    assert len(lines) == 6
    assert lines[5].startswith("<3>jigdofs.tried: internal error\\nTraceback")
    assert lines[5].endswith("ValueError: a bug")
    assert logs.where() == "journal"


def test_stream_of_somebody_else(restored: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where stderr was led elsewhere, JOURNAL_STREAM, which is inherited, means nothing."""
    lines = _written_to_the_journal(monkeypatch, tmp_path / "stderr", "1:2")
    assert lines[1] == "ERROR jigdofs.tried: said\\nover two lines"
    assert logs.where() == "stderr"


def test_mount_whose_reads_fail(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A reader who tries again and again fills no log: one line, and at the end how often it came."""
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": f"file://{tmp_path}/nowhere/"})
    part = lonely(iso_md5)[0]
    with Mounted(
        built.jigdo, tmp_path / "mnt", ("--no-cache", *QUICK), allow_log=["failed", "is avoided"]
    ) as mounted:
        image = mounted.mountpoint / "kit.iso"
        for _ in range(50):
            with pytest.raises(OSError):
                read_direct(image, part.offset // 512 * 512, 512)
        lines = [line for line in mounted.stderr() if "ERROR" in line]
        assert len(lines) == 1, lines
        assert part.checksum in lines[0]
        mounted.unmount()
        mounted.wait_for_log("(repeated ")
