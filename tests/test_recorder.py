"""Recorder: every part once, in order, whatever the disk does and whoever writes meanwhile."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigdofs.errors import InputError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.format.part_list import FIRST_LINE, parse
from jigdofs.parts.recorder import Recorder
from tests.kit.requirements import require_root
from tests.kit.scenes import tiny_tmpfs

PARTS = [Part(Checksum.of(Algorithm.SHA256, b"%d" % number), number) for number in range(400)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list"


@pytest.fixture
def recorder(path: Path) -> Iterator[Recorder]:
    recorder = Recorder(path)
    yield recorder
    recorder.close()


def listed(path: Path) -> list[Part]:
    return list(parse(path.read_text(), "list"))


def note(recorder: Recorder, *parts: Part) -> None:
    for part in parts:
        recorder.note(part, lambda: "a name")


def test_once_and_in_order(recorder: Recorder, path: Path) -> None:
    """A part that is touched again is not written again; nothing is written before `flush`."""
    assert path.read_text() == FIRST_LINE
    note(recorder, PARTS[1], PARTS[0], PARTS[1])
    assert path.read_text() == FIRST_LINE
    recorder.flush()
    assert listed(path) == [PARTS[1], PARTS[0]]
    note(recorder, PARTS[0], PARTS[2])
    recorder.close()
    assert listed(path) == [PARTS[1], PARTS[0], PARTS[2]]


def test_written_meanwhile(recorder: Recorder, path: Path) -> None:
    """A part that is noted while another thread writes is not lost."""

    def name() -> str:
        thread = threading.Thread(target=recorder.flush)
        thread.start()
        thread.join()
        return "a name"

    for part in PARTS[:5]:
        recorder.note(part, name)
    recorder.flush()
    assert listed(path) == PARTS[:5]


@pytest.mark.logs("No space left on device")
def test_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    """What the disk does not take is written when it does, where it belongs; it is told once."""
    require_root()
    with tiny_tmpfs(64 << 10) as directory:
        path, filler = directory / "list", directory / "filler"
        recorder = Recorder(path)
        fd = os.open(filler, os.O_CREAT | os.O_WRONLY)
        try:
            while os.write(fd, bytes(4096)):
                pass
        except OSError:
            os.close(fd)
        for begin in range(0, 400, 100):
            note(recorder, *PARTS[begin : begin + 100])
            recorder.flush()
        assert listed(path) == PARTS[: len(listed(path))]
        assert len(listed(path)) < 400
        filler.unlink()
        recorder.close()
        assert listed(path) == PARTS
    assert len([record for record in caplog.records if "No space" in record.getMessage()]) == 1


@pytest.mark.parametrize("content", [b"precious\n", b"#", FIRST_LINE.encode()[:-1] + b"0\n", b"\x00"])
def test_something_else(path: Path, content: bytes) -> None:
    """What is no list is left as it is."""
    path.write_bytes(content)
    with pytest.raises(InputError, match="no list of parts"):
        Recorder(path)
    assert path.read_bytes() == content


def test_an_older_list(path: Path) -> None:
    """A list goes on where it ended, behind a line that a crash cut too; in an empty file it begins."""
    path.write_bytes(b"")
    for number in range(1, 4):
        recorder = Recorder(path)
        note(recorder, *PARTS[:number])
        recorder.close()
        assert listed(path) == PARTS[:number]
        with path.open("ab") as file:
            file.write(b"md5:0123")


def test_a_damaged_list_is_not_written_over(path: Path) -> None:
    """A list with a line that is none stays as it is, and is named."""
    text = FIRST_LINE + "nonsense\n"
    path.write_text(text)
    with pytest.raises(InputError, match=":2"):
        Recorder(path)
    assert path.read_text() == text


def test_two_at_once(recorder: Recorder, path: Path) -> None:
    """Two mounts that write one list would spoil it: the second one is refused, and spoils nothing."""
    note(recorder, *PARTS[:3])
    recorder.flush()
    with pytest.raises(InputError, match="another mount"):
        Recorder(path)
    assert listed(path) == PARTS[:3]


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "device"])
def test_what_cannot_be_written(path: Path, kind: str) -> None:
    """What is no place for a list is an error of the user's, in bounded time."""
    if kind == "missing":
        path = path / "x"
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/null")
    with pytest.raises(InputError, match=str(path)):
        Recorder(path)
