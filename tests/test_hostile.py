"""What hostile or careless input may try: little input must not cost much, nor hold anything up."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from jigdofs.config import FetchOptions
from jigdofs.demo import build
from jigdofs.errors import FormatError, MirrorTrouble
from jigdofs.fetch.fetcher import Answer
from jigdofs.format import jigdo, jigdo_limits, jigdo_reader
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.format.template import MatchedFile
from jigdofs.image.layout import Layout
from jigdofs.image.raw_data import RawData, TemplateFile
from jigdofs.image.reader import ImageReader
from jigdofs.parts.locations import Locator
from jigdofs.parts.objects import ObjectStore
from jigdofs.templates import Templates, TemplateSource
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, Mounted, clean_environ, mounted_at
from tests.kit.requirements import require_fuse, require_root

RSYNC64 = bytes(8)
FAST = FetchOptions(rounds=1)


def run(home: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, words)]
    return subprocess.run(
        command, env=clean_environ(home), cwd=home, capture_output=True, text=True, check=False, timeout=60
    )


def test_labels_that_grow_and_multiply(tmp_path: Path) -> None:
    """Labels that multiply and lengthen at each step cost neither memory nor time."""
    lines = [f"A{i}=A{i + 1}:{'x' * 900}" for i in range(200) for _ in range(64)]
    key = Checksum.of(Algorithm.MD5, b"").base64
    text = "\n".join(["[Parts]", f"{key}=A0:f", "[Servers]", *lines])
    (piece,) = jigdo_reader.parse(text.encode(), "http://h/x.jigdo")
    assert isinstance(piece, jigdo.JigdoFile)
    assert Locator(piece, {}, None).locations(Checksum.parse(key)) == []


def test_includes_share_one_budget() -> None:
    """What files include counts together: many that are just small enough are too much."""
    budget = jigdo_limits.Budget()
    line = b"A" * 22 + b"=" + b"x" * 4000 + b"\n"
    text = b"[Parts]\n" + line * ((jigdo_limits.MAX_BYTES // 2 - 8) // len(line))
    for _ in range(2):
        jigdo_reader.parse(text, "x", budget)
    with pytest.raises(FormatError, match="larger than"):
        jigdo_reader.parse(text, "x", budget)


def test_images_beyond_number() -> None:
    """Nobody publishes a thousand images in one .jigdo; each would cost a template."""
    with pytest.raises(FormatError, match="images"):
        jigdo_reader.parse(b"[Image]\n" * (jigdo_limits.MAX_IMAGES + 1), "x")


class CountingParts:
    """Parts that never come, and how many were waited for at once."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.looked_at = 0

    def peek(self, key: Part) -> None:
        self.looked_at += 1

    async def open(self, key: Part) -> "Nothing":
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            await trio.sleep_forever()
        finally:
            self.waiting -= 1
        raise AssertionError

    def hint(self, key: Part) -> None:
        pass


class Nothing:
    fd = -1
    start = 0
    fetched_s = 0.0

    def unchanged(self) -> bool:
        return True

    def unpin(self) -> None:
        pass


async def test_parts_of_one_byte(autojump_clock: trio.testing.MockClock) -> None:
    """One read of ten thousand parts waits for a few dozen at a time, and ends when it must."""
    entries = [MatchedFile(1, Checksum(i.to_bytes(16, "big")), RSYNC64) for i in range(10_000)]
    parts = CountingParts()
    raw_data = RawData(TemplateFile(-1, "x", "00", (0, 0)), (), NoObjects())
    reader = ImageReader(Layout(entries), raw_data, parts, timeout_s=5, readahead_bytes=0)
    with pytest.raises(Exception, match="within 5 s"):
        await reader.read(0, 10_000)
    assert 1 < parts.most <= 64
    assert parts.waiting == 0


async def test_others_have_their_turn(autojump_clock: trio.testing.MockClock) -> None:
    """While a read of ten thousand parts looks at them all, others go on."""
    entries = [MatchedFile(1, Checksum(i.to_bytes(16, "big")), RSYNC64) for i in range(10_000)]
    raw_data = RawData(TemplateFile(-1, "x", "00", (0, 0)), (), NoObjects())
    parts = CountingParts()
    reader = ImageReader(Layout(entries), raw_data, parts, timeout_s=5, readahead_bytes=0)
    looked: list[int] = []

    async def look_on() -> None:
        while not parts.waiting:
            looked.append(parts.looked_at)
            await trio.lowlevel.checkpoint()

    assert not reader.read_now(0, memoryview(bytearray(10_000)))
    assert parts.looked_at < 1000
    parts.looked_at = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_on)
        with pytest.raises(Exception, match="within 5 s"):
            await reader.read(0, 10_000)
    steps = [after - before for before, after in itertools.pairwise(looked)]
    assert max(steps) < 1000
    assert parts.looked_at == 10_000


class NoObjects(ObjectStore):
    def __init__(self) -> None:
        pass


async def test_template_written_to_while_it_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template that changes behind the hash is refused, even if what was hashed was right."""
    image = build(tmp_path, 1)
    path = tmp_path / "demo.template"
    checksum = Checksum.of(Algorithm.SHA256, path.read_bytes())
    assert image.template_size == path.stat().st_size
    pread = os.pread

    def pread_and_spoil(fd: int, length: int, offset: int) -> bytes:
        data = pread(fd, length, offset)
        if not data:
            with path.open("r+b") as file:
                file.seek(100)
                file.write(b"spoilt")
        return data

    templates = Templates(FailingFetcher(), None, (), FAST)
    source = TemplateSource((str(path),), (checksum,), "x.jigdo:1")
    os.close((await templates.open(source)).fd)
    monkeypatch.setattr("jigdofs.templates.os.pread", pread_and_spoil)
    with pytest.raises(Exception, match="written to"):
        await templates.open(source)


class FailingFetcher:
    async def fetch(self, request: object, receiver: object) -> None:
        raise MirrorTrouble("x", "unused")

    async def ask(self, request: object) -> Answer:
        raise MirrorTrouble("x", "unused")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "mnt").mkdir()
    build(tmp_path, 2)
    return tmp_path


def cases() -> Iterator[tuple[list[str], int, str]]:
    cache = ["--cache-dir", "cache"]
    yield ["mount", "demo.jigdo", "mnt", *cache, "--log-file", "mnt/log"], 3, "below the mount point"
    yield ["mount", "demo.jigdo", "mnt", "--cache-dir", "mnt/cache"], 3, "below the mount point"
    yield ["mount", "demo.jigdo", "mnt", "--cache-dir", "pool"], 3, "holds other things"
    yield ["mount", "demo.jigdo", "demo.jigdo", *cache], 3, "looks like an input"
    yield ["mount", "demo.template", "mnt", *cache], 3, "is a template"
    yield ["mount", "demo.jigdo", "mnt", *cache, "--mirror", "Demo=/nonexistent"], 3, "is no directory"
    yield ["mount", "demo.jigdo", "mnt", *cache, "--mirror", "Demo=htp://x/"], 3, "http: or https:"
    yield ["mount", "demo.jigdo", "mnt", *cache, "--uid", "-5"], 3, "no user or group number"
    yield ["mount", "demo.jigdo", "mnt", *cache, "--gid", "99999999999"], 3, "no user or group number"
    yield ["mount", "demo.jigdo", "mnt", "--cahce-dir=x"], 3, "did you mean --cache-dir"
    yield ["info", "http://127.0.0.1:1/x.jigdo", *cache], 1, "cannot connect"
    yield ["info", "nonexistent.jigdo", *cache], 3, "No such file"


@pytest.mark.parametrize(("words", "code", "text"), list(cases()))
def test_careless_words(home: Path, words: list[str], code: int, text: str) -> None:
    """A careless command ends with one line that says what is wrong, and nothing is mounted or hidden."""
    done = run(home, *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert text in done.stderr
    assert not mounted_at(home / "mnt")


def test_wrong_template_is_a_mismatch(home: Path) -> None:
    """A template of another .jigdo is told by an exit code of its own."""
    template = home / "demo.template"
    template.write_bytes(template.read_bytes() + b"x")
    done = run(home, "info", "demo.jigdo", "--no-cache")
    assert done.returncode == 2
    assert "is not the template that belongs" in done.stderr


def test_info_goes_on_after_a_failure(home: Path) -> None:
    """One bad .jigdo does not hide what is known of the others."""
    done = run(home, "info", "nonexistent.jigdo", "demo.jigdo", "--no-cache")
    assert done.returncode == 3
    assert "demo.img" in done.stdout
    assert "nonexistent.jigdo" in done.stderr


def test_unknown_label_is_told(home: Path) -> None:
    """A mirror for a label that no part has is most probably a typing error."""
    done = run(home, "info", "demo.jigdo", "--no-cache", "--mirror", "Dmeo=http://h/")
    assert done.returncode == 0
    assert "no part has the label `Dmeo'; labels here: Demo" in done.stderr


def test_lazy_umount_of_a_daemon_that_hangs(home: Path) -> None:
    """A mount whose daemon answers nothing can be detached at once."""
    with Mounted(home / "demo.jigdo", home / "mnt", ["--cache-dir", str(home / "cache")]) as mount:
        mount.process.send_signal(signal.SIGSTOP)
        try:
            done = run(home, "umount", "--lazy", home / "mnt")
        finally:
            mount.process.send_signal(signal.SIGCONT)
        assert (done.returncode, done.stderr) == (0, "")
        assert mount.process.wait(20) == 0


def test_mirror_inside_the_mount_itself(
    iso_md5: BuiltImage, tmp_path: Path, expected_log: Callable[[str], None]
) -> None:
    """Parts sought in our own mount end in an error, not in a daemon that waits for itself."""
    require_fuse()
    require_root()
    point = tmp_path / "mnt"
    point.mkdir()
    options = ["--mirror", f"Debian={point}", "--cache-dir", str(tmp_path / "cache"), "--read-timeout", "3s"]
    built = iso_md5.with_servers(tmp_path, {"Debian": "http://127.0.0.1:1/"})
    allowed = ("cannot be had", "avoided", "within 3 s")
    with Mounted(built.jigdo, point, options, allow_log=allowed) as mount:
        image = next(point.iterdir())
        began = time.monotonic()
        with pytest.raises(OSError, match="Input/output"):
            image.read_bytes()
        assert time.monotonic() - began < 30
        assert mount.process.poll() is None
