"""Checksums in threads, and the verbs that print them: quick to start, quick to end."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from jigdofs.format.checksum import Algorithm
from jigdofs.hashing import BLOCK_BYTES, hash_file, hash_in_order
from tests.test_architecture import HEAVY, run
from tests.test_jigdo_file_verbs import Pair, pair

__all__ = ["pair"]  # a fixture


@pytest.mark.parametrize("algorithm", Algorithm)
def test_results_come_in_order(tmp_path: Path, algorithm: Algorithm) -> None:
    """However long each file takes, results come in the order of the names; what fails says why."""
    sizes = [3 * BLOCK_BYTES + 1, 1, 0, BLOCK_BYTES, *range(30), 2 * BLOCK_BYTES]
    paths = [str(tmp_path / str(number)) for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Path(path).write_bytes(os.urandom(size))
    paths[5:5] = [str(tmp_path / "none"), str(tmp_path)]
    found = list(hash_in_order(paths, str, algorithm))
    assert [path for path, _ in found] == paths
    for path, result in found:
        if isinstance(result, bytes):
            assert result == hashlib.new(algorithm.short_name, Path(path).read_bytes()).digest()
    assert [type(result) for _, result in found[5:7]] == [FileNotFoundError, IsADirectoryError]


def test_no_more_files_are_begun_than_needed(tmp_path: Path) -> None:
    """Names are taken as the work goes on, and leaving early ends the work."""
    (tmp_path / "x").write_bytes(b"x")
    taken: list[int] = []

    def endless() -> Iterator[int]:
        number = 0
        while True:
            taken.append(number)
            yield number
            number += 1

    results = hash_in_order(endless(), lambda _: str(tmp_path / "x"), Algorithm.MD5)
    assert next(results)[0] == 0
    assert len(taken) < 20
    results.close()


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 7])
def test_many_checksums_of_one_reading(size: int) -> None:
    """One reading gives them all, and the length."""
    data = os.urandom(size)
    names = ("md5", "sha1", "sha256", "sha512")
    found = hash_file(BytesIO(data), names)
    assert found.length == size
    assert found.digests == {name: hashlib.new(name, data).digest() for name in names}


def test_interrupted(pair: Pair) -> None:
    """Ctrl-C ends it at once and in silence, in the middle of a huge file."""
    with (pair.directory / "huge").open("wb") as file:
        file.truncate(1 << 40)
    (pair.directory / "first").write_bytes(b"first")
    command = [str(pair.link), "sha256sum", "first", "huge", *["first"] * 7]
    with subprocess.Popen(
        [*command, "-T", "-"], cwd=pair.directory, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"none\n")  # its report tells that the walk is past the huge file
        process.stdin.flush()
        process.stdin.close()
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"Skipping")
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.stderr.read()) == (130, b"")


@pytest.mark.parametrize("verb", ["pm", "ver", "md5sum", "ls"])
def test_nothing_heavy_is_loaded(tmp_path: Path, verb: str) -> None:
    """Scripts call these verbs by the hundred: none loads the libraries of a mount."""
    options = [verb, "-i", str(tmp_path / "x.iso"), "-r", "quiet"]
    code = f"import sys\nfrom jigdofs.cli import main\nmain({options!r})\n"
    code += f"print('loaded:', *({set(HEAVY)!r} & sys.modules.keys()))"
    assert run(code).splitlines()[-1] == "loaded:"
