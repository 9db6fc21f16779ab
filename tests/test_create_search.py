"""The search against `bytes.find`: every occurrence of every file, at any offset, and nothing else."""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.create import image_runs, places
from jigdofs.create.choose import Occurrence, choose
from jigdofs.create.image_file import ImageFile
from jigdofs.create.local_files import LocalFile, LocalFiles
from jigdofs.create.runs import MAX_PERIOD
from jigdofs.create.search import Findings, search
from jigdofs.errors import InputError
from jigdofs.format.checksum import Algorithm, Checksum
from tests.kit.mounts import REPOSITORY

BLOCK = 2 << 20  # what the search reads at once
MIN_LENGTHS = (256, 300, 319, 320, 383, 384, 511, 1023, 1024, 1025, 5000)


def noise(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


def stretch(pattern: bytes, length: int) -> bytes:
    return (pattern * (length // len(pattern) + 1))[:length]


@contextmanager
def image_of(data: bytes) -> Iterator[ImageFile]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield ImageFile(file.fileno(), "image")


@dataclass(frozen=True)
class Found:
    """What the search found, and what it said about files."""

    findings: Findings
    skipped: list[tuple[str, str]]

    def starts(self, file: int) -> list[int]:
        """Return where a file stands."""
        return sorted(one.start for one in self.findings.occurrences if one.file == file)

    @property
    def covered(self) -> int:
        """Bytes in parts."""
        return sum(one.length for one in choose(self.findings.occurrences))


def find(data: bytes, files: list[bytes], min_length: int = 1024) -> Found:
    """Search an image for files, none of which is too short."""
    skipped: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as directory, image_of(data) as image:
        listed = []
        for number, content in enumerate(files):
            path = Path(directory, f"{number:05}")
            path.write_bytes(content)
            listed.append(LocalFile(str(path), len(content)))
        local = LocalFiles(listed, [Algorithm.MD5], lambda path, why: skipped.append((path, why)))
        findings = search(image, local, min_length, lambda _: None)
    return Found(findings, skipped)


def all_places(data: bytes, file: bytes) -> list[int]:
    """Return every offset at which a file stands, overlapping ones too."""
    starts = []
    at = data.find(file)
    while at >= 0:
        starts.append(at)
        at = data.find(file, at + 1)
    return starts


def is_run(file: bytes) -> bool:
    """Tell whether a file is nothing but a short pattern that repeats."""
    return any(file[period:] == file[:-period] for period in range(1, MAX_PERIOD + 1))


def left_to_right(data: bytes, files: list[bytes], *, soonest: bool) -> int:
    """Return what a greedy program covers: the longest file at each place, or the one that is over first."""
    found = [(start, len(one)) for one in set(files) for start in all_places(data, one)]
    order = sorted(found, key=lambda one: (one[0] + one[1], one[0]) if soonest else (one[0], -one[1]))
    at = covered = 0
    for start, length in order:
        if start >= at:
            at = start + length
            covered += length
    return covered


def check(data: bytes, files: list[bytes], min_length: int) -> None:
    """Compare what is found with what there is."""
    found = find(data, files, min_length)
    first_of: dict[bytes, int] = {}
    for number, file in enumerate(files):
        first = first_of.setdefault(file, number)
        starts, expected = found.starts(number), all_places(data, file)
        if is_run(file):
            assert set(starts) <= set(expected)
            assert bool(starts) == bool(expected) or found.findings.twins.get(number) == first != number
        elif first == number:
            assert starts == expected
        else:
            assert starts == expected or found.findings.twins.get(number) == first
            assert set(starts) <= set(expected)
    for soonest in (False, True):
        assert found.covered >= left_to_right(data, files, soonest=soonest)
    assert found.findings.image == {one: Checksum.of(one, data) for one in Algorithm}
    assert found.skipped == []


def units() -> st.SearchStrategy[bytes]:
    """Make what files and images consist of: noise, zeros, short and long patterns."""
    lengths = st.sampled_from([1, 3, 63, 64, 65, 100, 255, 256, 257, 300, 959, 960, 1023, 1024, 1025, 3000])
    patterns = st.one_of(
        st.sampled_from([b"\x00", b"\xff", b"ab", b"ba", b"aab"]),
        st.builds(noise, st.sampled_from([5, 31, 63, 64, 65, 100, 512]), st.integers(0, 3)),
    )
    return st.builds(noise, lengths, st.integers(0, 9)) | st.builds(stretch, patterns, lengths)


@st.composite
def scenes(draw: st.DrawFn, some: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes], int]:
    """Make an image, files that may be in it, and the length of a shortest part."""
    few = st.lists(some, min_size=1, max_size=6)
    parts = draw(few)
    files = [b"".join(chosen) for chosen in draw(st.lists(st.lists(st.sampled_from(parts), max_size=4)))]
    files += [one[draw(st.integers(0, len(one))) :] for one in files[:2]]
    files += [one[: draw(st.integers(0, len(one)))] for one in files[2:4]]
    pieces = draw(st.lists(st.sampled_from(parts + files) | some, max_size=12))
    cut = draw(st.lists(st.integers(0, 400), max_size=4))
    pieces = [piece[: -cut[at]] if at < len(cut) and cut[at] else piece for at, piece in enumerate(pieces)]
    data = b"".join(pieces)
    min_length = draw(st.sampled_from(MIN_LENGTHS))
    if draw(st.booleans()):
        files.append(data)
    return data, [one for one in files if min_length <= len(one) <= len(data)], min_length


@settings(max_examples=200, deadline=None)
@given(scenes(units()))
def test_every_occurrence(scene: tuple[bytes, list[bytes], int]) -> None:
    """Repeats, overlaps, files inside files, cut copies, runs: found is what stands there, all of it."""
    check(*scene)


def runs_only() -> st.SearchStrategy[bytes]:
    lengths = st.integers(256, 700) | st.integers(1, 3000)
    return st.builds(stretch, st.sampled_from([b"\x00", b"\x00", b"\xff", b"ab", b"ba", b"aab"]), lengths)


@settings(max_examples=200, deadline=None)
@given(scenes(runs_only() | st.just(noise(300, 1))))
def test_files_that_are_runs(scene: tuple[bytes, list[bytes], int]) -> None:
    """Among runs of zeros and the like no left-to-right program covers more."""
    check(*scene)


@pytest.mark.parametrize("offset", range(0, 130, 7))
def test_block_borders(offset: int) -> None:
    """Files that straddle what is read at once are found wherever the border cuts them."""
    files = [noise(1024, 1), noise(960, 2) + bytes(3000), bytes(1500) + noise(1000, 3), stretch(b"abc", 2000)]
    image = bytearray(noise(4 * BLOCK + 300, 5))
    placed = []
    for number, file in enumerate(files):
        # from all behind the border to all before it, a little further each time
        start = (number + 1) * BLOCK - offset * len(file) // 129
        start = min(start, len(image) - len(file))
        image[start : start + len(file)] = file
        placed.append([start])
    found = find(bytes(image), files)
    assert [found.starts(number) for number in range(len(files))] == placed


@pytest.mark.parametrize("distance", [0, 1, 62, 63, 64, 65, 895, 896, 897, 960, 1023, 1024])
def test_a_border_amid_the_first_window(distance: int) -> None:
    """A file that begins so many bytes before a border is found, at each border of the image."""
    file = noise(1024, 1)
    borders = range(BLOCK, 3 * BLOCK + 1, BLOCK)
    image = bytearray(noise(3 * BLOCK + 1024, 2))
    starts = [border - distance for border in borders]
    for start in starts:
        image[start : start + len(file)] = file
    assert find(bytes(image), [file]).starts(0) == starts


@pytest.mark.parametrize(
    "length", [0, 1, 63, 64, 959, 960, 1023, 1024, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK]
)
def test_lengths_of_images(length: int) -> None:
    """An empty image, one shorter than a window, one that ends at a border: checksums and files are right."""
    data = noise(length, 1)
    found = find(data, [data[-1024:]] if length >= 1024 else [])
    assert found.findings.image == {one: Checksum.of(one, data) for one in Algorithm}
    assert [one.start for one in found.findings.occurrences] == ([length - 1024] if length >= 1024 else [])


def test_zeros_across_blocks() -> None:
    """Runs of several MB are one run, with a file at either end and files of zeros between."""
    head, tail, zeros = bytes(3000) + noise(2000, 1), noise(50, 2) + bytes(3000), bytes(1_000_000)
    data = noise(50, 2) + bytes(5_000_000) + noise(2000, 1)
    found = find(data, [head, tail, zeros])
    assert found.starts(0) == [50 + 5_000_000 - 3000]
    assert found.starts(1) == [0]
    assert {3050, 1_003_050, 2_003_050, 3_003_050} <= set(found.starts(2))
    assert found.covered == 5_000_000


def test_a_file_of_a_long_pattern() -> None:
    """A file that repeats 70 bytes has hints everywhere, and is not compared anew for each of them."""
    file = stretch(noise(70, 1), 300_000)
    data = noise(5000, 2) + file + noise(9999, 3) + file[:-1]
    before = bytes_read()
    assert find(data, [file]).starts(0) == [5000]
    assert bytes_read() - before < 20 * len(data)


def bytes_read() -> int:
    """Return what this process has read so far, from the page cache too."""
    return int(Path("/proc/self/io").read_text("ascii").split()[1])


@pytest.mark.parametrize("lead", [noise(1100, 1), bytes(1100), noise(30, 1) + bytes(1070)])
def test_many_files_that_begin_alike(lead: bytes) -> None:
    """Of 1000 files with one beginning each is found where it is, having been read a few times at most."""
    files = [lead + noise(300 + seed % 700, seed) for seed in range(1000)]
    data = b"-" + b"--".join(files)
    before = bytes_read()
    found = find(data, files)
    assert bytes_read() - before < 80 * len(data)
    assert {one.file for one in found.findings.occurrences} == set(range(1000))
    assert found.covered == sum(map(len, files))


def test_the_most_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places of a file of zeros are given up at a limit, which is told; the longest file goes first."""
    data = bytes(1_000_000)
    short, longer = bytes(1024), bytes(150_000)
    everything = find(data, [short])
    assert (len(everything.starts(0)), everything.skipped) == (976, [])
    monkeypatch.setattr(image_runs, "_MAX_REPEATS", 100)
    limited = find(data, [short])
    assert limited.starts(0) == [number * 1024 for number in range(100)]
    ((path, why),) = limited.skipped
    assert path.endswith("/00000")
    assert why == "behind the first 100 places of such files"
    both = find(data, [short, longer])
    assert both.covered >= 6 * len(longer) + (100 - 7) * 1024
    assert len(both.findings.occurrences) == 100
    assert len(both.skipped) == 1


def test_too_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """More parts than a template can have are an error that says what to do."""
    file = noise(1024, 1)
    monkeypatch.setattr(places, "MAX_OCCURRENCES", 20)
    assert len(find(file * 20, [file]).starts(0)) == 20
    with pytest.raises(InputError, match="stand in more than 20 places; use a larger --min-length"):
        find(file * 21, [file])


def test_twins() -> None:
    """Of files with the same bytes the earlier one occurs, and the later ones are known to be it."""
    file, zeros, other = noise(5000, 1), bytes(2000), noise(3000, 2)
    found = find(file + b"x" + zeros + file, [other, file, file, zeros, zeros, file])
    assert found.findings.twins == {2: 1, 5: 1}
    assert [one.file for one in choose(found.findings.occurrences)] == [1, 3, 1]
    assert found.starts(3) == found.starts(4) == [5001]


def test_same_result_each_time() -> None:
    """However the threads run, three searches find the same."""
    files = [noise(1024 + seed, seed % 50) for seed in range(200)] + [bytes(2000), bytes(2000)]
    data = b"".join(random.Random(1).choices(files, k=3000))
    first, *others = (find(data, files) for _ in range(3))
    assert others == [first, first]
    assert first.covered > len(data) // 2


_SPARSE = """
import os
from jigdofs.create.choose import choose
from jigdofs.create.image_file import ImageFile
from jigdofs.create.local_files import LocalFile, LocalFiles
from jigdofs.create.search import search
from jigdofs.format.checksum import Algorithm

image = ImageFile(os.open("image", os.O_RDONLY), "image")
names = sorted(os.listdir("files"))
listed = [LocalFile(f"files/{name}", os.path.getsize(f"files/{name}")) for name in names]
found = search(image, LocalFiles(listed, [Algorithm.MD5], print), 1024, lambda _: None)
print(sorted(tuple(one)[::2] for one in found.occurrences))
# not ru_maxrss, which remembers what the process was before it became this program
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


def test_memory(tmp_path: Path) -> None:
    """An image of 1 GB with 300 files needs less than 150 MB."""
    (tmp_path / "files").mkdir()
    expected = []
    with (tmp_path / "image").open("wb") as image:
        image.truncate(1 << 30)
        for number in range(300):
            content = (bytes(2000) if number % 3 else b"") + noise(20_000, number)
            (tmp_path / f"files/{number:03}").write_bytes(content)
            image.seek(number * 3_000_017)
            image.write(content)
            expected.append((number * 3_000_017, number))
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", _SPARSE]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    found, peak = done.stdout.splitlines()
    assert found == repr(expected)
    assert int(peak) < 150 << 10


@pytest.mark.parametrize("before", [0, 1, 1000, 50_000])
def test_what_jigdo_file_misses(before: int) -> None:
    """A file that begins with zeros behind zeros is found, and an archive wins against the file in it."""
    leading = bytes(3000) + noise(2000, 1)
    member = noise(5000, 2)
    archive = noise(104_096, 3) + member + noise(200_000, 4)
    data = bytes(before) + leading + archive
    found = find(data, [leading, member, archive])
    assert choose(found.findings.occurrences) == [
        Occurrence(before, len(leading), 0),
        Occurrence(before + len(leading), len(archive), 2),
    ]
    assert found.starts(1) == [before + len(leading) + 104_096]


def test_the_most_places_of_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that fills a disk is given up at a limit, which is told; other files are found all the same."""
    monkeypatch.setattr(places, "MAX_TIMES", 50)
    block, other = noise(1500, 1), noise(3000, 2)
    found = find(block * 200 + other + block, [block, other])
    assert found.starts(0) == [number * 1500 for number in range(50)]
    assert found.starts(1) == [300_000]
    ((path, why),) = found.skipped
    assert path.endswith("/00000")
    assert why == "behind its first 50 places"


def test_many_files_with_a_long_common_beginning() -> None:
    """Files with the same first 64 KiB are told apart by their ends, without comparing each at each place."""
    common = noise(65_536, 1)
    files = [common + noise(500, number) for number in range(2, 202)]
    data = b"".join(files[::10])
    found = find(data, files)
    assert [found.starts(number) for number in range(0, 200, 10)] == [
        [at * len(files[0])] for at in range(20)
    ]
    assert sum(len(found.starts(number)) for number in range(200)) == 20
