"""Templates made from searches: never worse than jigdo-file's own, and rebuilt by it."""

import io
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings

from jigdofs.create import make
from jigdofs.create.image_file import ImageFile
from jigdofs.create.local_files import LocalFile, LocalFiles
from jigdofs.create.make import Matches, Settings, find_matches
from jigdofs.errors import SourceChanged
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.rsync64 import Rsync64
from jigdofs.format.template import Compression, Entry, ImageInfo, MatchedFile, UnmatchedData
from jigdofs.format.template_reader import read_template
from tests.kit.requirements import tool
from tests.test_create_search import noise, scenes, units

BOTH = [(algorithm, compression) for algorithm in Algorithm for compression in Compression]


@dataclass(frozen=True)
class Made:
    """What was found, and the template."""

    found: Matches
    template: bytes

    @property
    def entries(self) -> list[Entry]:
        return list(read_template(io.BytesIO(self.template), "template").entries())


def lay_out(directory: Path, data: bytes, files: list[bytes]) -> list[str]:
    """Write image and files into a directory; return the names of the files."""
    (directory / "image").write_bytes(data)
    names = [f"file{number}" for number in range(len(files))]
    for name, content in zip(names, files, strict=True):
        (directory / name).write_bytes(content)
    return names


def unskipped(path: str, why: str) -> None:
    pytest.fail(f"{path}: {why}")


def make_ours(
    directory: Path,
    names: list[str],
    min_length: int = 1024,
    algorithm: Algorithm = Algorithm.MD5,
    compression: Compression = Compression.ZLIB,
) -> Made:
    """Make a template as `image.template`."""
    listed = [LocalFile(f"{directory}/{name}", (directory / name).stat().st_size) for name in names]
    with (directory / "image").open("rb") as file:
        image = ImageFile(file.fileno(), "image")
        found = find_matches(image, LocalFiles(listed, [algorithm], unskipped), min_length, lambda _: None)
        out = io.BytesIO()
        make.write(out, image, found, Settings(algorithm, compression, 9, min_length), lambda _: None)
    (directory / "image.template").write_bytes(out.getvalue())
    return Made(found, out.getvalue())


def jigdo_file(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [tool("jigdo-file"), *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, check=False)


def rebuild(directory: Path, names: list[str]) -> bytes:
    """Let jigdo-file make the image of `image.template`, and verify it."""
    files = ["--image=rebuilt", "--template=image.template", "--report=quiet"]
    for command in (["make-image", "--no-cache", *files, *names], ["verify", *files]):
        done = jigdo_file(directory, *command)
        assert done.returncode == 0, done
    return (directory / "rebuilt").read_bytes()


def covered_by_jigdo_file(directory: Path, names: list[str], min_length: int, *options: str) -> int:
    """Let jigdo-file make a template; return how many bytes of the image are in parts.

    Some overlaps of files with the same bytes kill it (SIGABRT); then it covers nothing.
    """
    files = ["--image=image", "--template=theirs", "--jigdo=theirs.jigdo", "--force"]
    lengths = f"--min-length={min_length}"
    command = ["make-template", "--no-cache", "--report=quiet", lengths, *options, *files, *names]
    done = jigdo_file(directory, *command)
    if done.returncode == -signal.SIGABRT and b"pure virtual method called" in done.stderr:
        return 0
    assert done.returncode == 0, done
    listed = jigdo_file(directory, "list-template", "--template=theirs").stdout.decode().splitlines()
    return sum(int(line.split()[2]) for line in listed if line.startswith("need-file"))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(scenes(units()))
def test_never_fewer_bytes_than_jigdo_file(scene: tuple[bytes, list[bytes], int]) -> None:
    """Whichever way jigdo-file chooses among overlapping files, we cover as much, and it rebuilds ours."""
    data, files, min_length = scene
    data += noise(7, 99)  # so that no file, nor several side by side, is all of it
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        names = lay_out(directory, data, files)
        covered = make_ours(directory, names, min_length).found.bytes_in_parts
        assert rebuild(directory, names) == data
        for option in ("--greedy-matching", "--no-greedy-matching"):
            assert covered >= covered_by_jigdo_file(directory, names, min_length, option)


@pytest.mark.parametrize("before", [0, 1, 1000, 50_000])
def test_what_jigdo_file_misses(tmp_path: Path, before: int) -> None:
    """A file that begins with zeros behind zeros, and an archive with a given file in it, become parts."""
    leading = bytes(3000) + noise(2000, 1)
    member = noise(5000, 2)
    archive = noise(104_096, 3) + member + noise(200_000, 4)
    data = bytes(before) + leading + b"-" + archive
    names = lay_out(tmp_path, data, [leading, member, archive])
    made = make_ours(tmp_path, names)
    assert [(match.start, match.piece.length) for match in made.found.matches] == [
        (before, len(leading)),
        (before + len(leading) + 1, len(archive)),
    ]
    assert made.found.not_found == ()
    assert rebuild(tmp_path, names) == data
    assert made.found.bytes_in_parts > covered_by_jigdo_file(tmp_path, names, 1024)


@pytest.mark.parametrize(("algorithm", "compression"), BOTH)
def test_what_the_template_says(tmp_path: Path, algorithm: Algorithm, compression: Compression) -> None:
    """Parts, what is between them, checksums, rsync64 and the image's end stand in the template."""
    parts = [noise(5000, 1), bytes(2000), noise(70_000, 2)]
    data = b"-" + parts[0] + parts[1] + b"=" * 500 + parts[0] + noise(3000, 3)
    names = lay_out(tmp_path, data, parts)
    made = make_ours(tmp_path, names, 300, algorithm, compression)
    matched = [
        MatchedFile(len(part), Checksum.of(algorithm, part), Rsync64(part[:300]).digest()) for part in parts
    ]
    assert made.entries == [
        UnmatchedData(1),
        matched[0],
        matched[1],
        UnmatchedData(500),
        matched[0],
        UnmatchedData(3000),
        ImageInfo(len(data), Checksum.of(algorithm, data), 300),
    ]
    assert made.found.not_found == (f"{tmp_path}/file2",)
    assert made.found.bytes_in_parts == 12_000
    assert [match.start for match in made.found.matches] == [1, 5001, 7501]
    assert list(made.found.parts(algorithm)) == [one.checksum for one in (matched[0], matched[1])]
    assert rebuild(tmp_path, names) == data


@pytest.mark.parametrize(("algorithm", "compression"), BOTH)
def test_wholly_matched(tmp_path: Path, algorithm: Algorithm, compression: Compression) -> None:
    """Of an image that is all parts the shortest stays in the template, so that jigdo-file survives it."""
    parts = [noise(5000, 1), noise(1024, 2), noise(1500, 3)]
    data = b"".join(parts)
    names = lay_out(tmp_path, data, parts)
    made = make_ours(tmp_path, names, 1024, algorithm, compression)
    assert [match.piece.length for match in made.found.matches] == [5000, 1500]
    assert made.found.not_found == ()
    assert rebuild(tmp_path, names) == data
    (tmp_path / "image").unlink()
    assert [type(entry) for entry in made.entries] == [MatchedFile, UnmatchedData, MatchedFile, ImageInfo]


def test_one_part(tmp_path: Path) -> None:
    """An image that is one small file is all in the template."""
    data = noise(5000, 1)
    names = lay_out(tmp_path, data, [data])
    made = make_ours(tmp_path, names)
    assert made.found.matches == ()
    assert made.found.not_found == ()
    assert rebuild(tmp_path, names) == data


def test_wholly_matched_by_large_parts(tmp_path: Path) -> None:
    """Where the shortest part has more than 1 MiB, its bytes are worth more than old programs."""
    parts = [noise((1 << 20) + 1, 1), noise(2 << 20, 2)]
    names = lay_out(tmp_path, b"".join(parts), parts)
    assert make_ours(tmp_path, names).found.bytes_in_parts == sum(map(len, parts))
    names = lay_out(tmp_path, parts[0][:-1] + parts[1], [parts[0][:-1], parts[1]])
    assert make_ours(tmp_path, names).found.bytes_in_parts == len(parts[1])


@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_twins_and_runs_are_not_missing(tmp_path: Path, zeros: int) -> None:
    """Files with the same bytes as a part, zeros too, are not said to be missing from the image."""
    files = [bytes(2000)] * zeros + [noise(2000, 1)] * 2 + [bytes(1500) + b"x"] * 2 + [noise(2000, 2)]
    data = noise(2000, 1) + b"-" + bytes(9000) + b"x"
    names = lay_out(tmp_path, data, files)
    assert make_ours(tmp_path, names).found.not_found == (f"{tmp_path}/{names[-1]}",)


def test_an_image_without_bytes(tmp_path: Path) -> None:
    """An empty image has a template that can be read."""
    names = lay_out(tmp_path, b"", [])
    assert make_ours(tmp_path, names).entries[-1] == ImageInfo(0, Checksum.of(Algorithm.MD5, b""), 1024)


@pytest.mark.parametrize("length", [0, 10_000, 10_001])
def test_an_image_that_changes(tmp_path: Path, length: int) -> None:
    """An image that was written to between search and writing is refused, at the same length too."""
    part = noise(5000, 1)
    (name,) = lay_out(tmp_path, part + bytes(5000), [part])
    wanted = Settings(Algorithm.MD5, Compression.ZLIB, 9, 1024)
    with (tmp_path / "image").open("r+b") as file:
        image = ImageFile(file.fileno(), "image")
        files = LocalFiles([LocalFile(f"{tmp_path}/{name}", 5000)], [Algorithm.MD5], unskipped)
        found = find_matches(image, files, 1024, lambda _: None)
        status = os.fstat(file.fileno())
        file.truncate(length)
        # the clock of a file system may not have ticked since
        os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns + (length == 10_000)))
        with pytest.raises(SourceChanged, match=r"^image: "):
            make.write(io.BytesIO(), image, found, wanted, lambda _: None)


def test_progress(tmp_path: Path) -> None:
    """While searching the image is counted up to its length, while writing the raw data up to its own."""
    part = noise(5000, 1)
    data = bytes(3 << 20) + part + noise(100, 2)
    (name,) = lay_out(tmp_path, data, [part])
    searched: list[int] = []
    written: list[int] = []
    with (tmp_path / "image").open("rb") as file:
        image = ImageFile(file.fileno(), "image")
        files = LocalFiles([LocalFile(f"{tmp_path}/{name}", 5000)], [Algorithm.MD5], unskipped)
        found = find_matches(image, files, 1024, searched.append)
        wanted = Settings(Algorithm.MD5, Compression.ZLIB, 1, 1024)
        make.write(io.BytesIO(), image, found, wanted, written.append)
    for counted, total in ((searched, len(data)), (written, len(data) - 5000)):
        assert counted == sorted(counted)
        assert len(counted) > 1
        assert counted[-1] == total
