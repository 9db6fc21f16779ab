"""scan: what is computed once is remembered, and believed only as long as it is true."""

import hashlib
import os
import re
import sqlite3
import subprocess
from pathlib import Path

import pytest

from jigdofs.format.checksum import Algorithm
from jigdofs.parts.cache import Cache
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.sources import Sources
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, clean_environ
from tests.test_jigdo_file_verbs import Done, Pair, pair
from tests.test_unfinished import PIECES, A, B, C, Made, make, names, noise, one_line

__all__ = ["pair"]  # a fixture


@pytest.fixture
def made(pair: Pair) -> Made:
    return make(pair.directory, *PIECES)


def read_bytes(done: Done) -> int:
    """How many bytes were read to compute checksums, by its own account."""
    found = re.search(rb"looked at, ([0-9,]+) bytes read", done.stderr)
    assert found is not None, done
    return int(found[1].replace(b",", b""))


def known(index: Path, path: Path) -> set[str]:
    """What an index knows of a file as it is now."""
    remembered = Remembered(str(index), report=pytest.fail)
    sources = Sources([str(path)], remembered=remembered, report=pytest.fail)
    sources.scan(None)
    (piece,) = sources.pieces()
    sources.close()
    return {checksum.hex for checksum in piece.checksums}


def sums(data: bytes) -> set[str]:
    return {hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()}


def test_scan_and_scan_again(pair: Pair, made: Made) -> None:
    """Both checksums of every file are computed once, and what changed since is computed anew."""
    command = ("scan", "--cache=c.db", made.pool)
    assert pair.theirs("scan", "--cache=their.db", made.pool).returncode == 0
    done = pair.ours(*command)
    assert (done.returncode, done.stdout) == (0, b"")
    assert read_bytes(done) == 2 * (len(A) + len(B) + len(C))
    for path, data in zip(made.part_files, (A, B, C), strict=True):
        assert known(pair.directory / "c.db", path) == sums(data)
    assert read_bytes(pair.ours(*command)) == 0
    made.file(1).write_bytes(noise("new", len(B)))
    assert read_bytes(pair.ours(*command)) == 2 * len(B)
    assert known(pair.directory / "c.db", made.file(1)) == sums(noise("new", len(B)))


def test_index_is_asked_by_make_image(pair: Pair, made: Made) -> None:
    """What scan found make-image needs not find out: only what is the part is copied."""
    crowd = pair.directory / "crowd"
    crowd.mkdir()
    for number in range(20):
        (crowd / str(number)).write_bytes(noise(str(number), len(B)))
    assert pair.ours("sc", "-c", "c.db", "-r", "quiet", crowd, made.pool).returncode == 0
    remembered = Remembered(str(pair.directory / "c.db"), report=pytest.fail)
    sources = Sources([str(crowd), str(made.pool)], remembered=remembered, report=pytest.fail)
    with made.blueprint() as blueprint:
        parts = list(blueprint.layout.distinct_parts().values())
    sources.scan({part.length for part in parts})
    assert [len(sources.candidates(part)) for part in parts] == [1, 1, 1]
    sources.close()
    done = pair.ours("mi", "-c", "c.db", "-i", "x.iso", crowd, made.pool)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image


def test_only_what_may_be_a_part(pair: Pair, made: Made) -> None:
    """With a template only files of its lengths are read, in its algorithm, and parts found are counted."""
    (pair.directory / "other").write_bytes(bytes(100_000))
    made.file(1).unlink()
    for named in (("-t", "x.template"), ("-j", "x.jigdo"), ("-i", "x.iso")):
        done = pair.ours("sc", "-c", f"c{named[0]}.db", *named, made.pool, "other")
        assert done.returncode == 0
        assert read_bytes(done) == len(A) + len(C)
        assert b"2 of the 3 parts" in done.stderr
    assert known(pair.directory / "c-t.db", made.file(0)) == {hashlib.md5(A).hexdigest()}


def test_old_images_are_searched(pair: Pair, iso_md5: BuiltImage) -> None:
    """With a template the parts inside an old ISO are found, too; then nothing is read again."""
    command = ("sc", "-c", "c.db", "-t", iso_md5.template, iso_md5.image)
    done = pair.ours(*command)
    assert done.returncode == 0
    count = len(iso_md5.parts)
    assert f"{count} of the {count} parts".encode() in done.stderr
    assert read_bytes(done) > 0
    again = pair.ours(*command)
    assert read_bytes(again) == 0
    assert f"{count} of the {count} parts".encode() in again.stderr


def test_no_place_to_remember(pair: Pair, made: Made) -> None:
    """3 without --cache under the name jigdo-file, as the real one says, also if it was taken back."""
    for arguments in ((), ("--cache=c.db", "--no-cache")):
        assert pair.theirs("scan", *arguments, made.pool).returncode == 3
        one_line(pair.ours("scan", *arguments, made.pool), 3)
    assert not (pair.directory / "c.db").exists()


def test_default_place(pair: Pair, made: Made) -> None:
    """As `jigdofs scan` it remembers where mounts and downloads look, and does not spoil it for them."""
    directory = pair.directory / "cache"
    environ = clean_environ(pair.directory) | {"CACHE_DIRECTORY": str(directory)}
    for expected in (2 * (len(A) + len(B) + len(C)), 0):
        done = subprocess.run([*PROGRAM, "scan", made.pool], env=environ, capture_output=True, check=False)
        assert (done.returncode, read_bytes(done)) == (0, expected), done
        assert done.stderr.startswith(b"jigdofs: ")
    assert (directory / "scanned.db").stat().st_mode & 0o077 == 0
    Cache(directory, max_bytes=None, min_free_bytes=0).close()


def test_a_second_scan_for_an_image_reads_nothing(pair: Pair, made: Made) -> None:
    """What the first scan computed tells which parts are there; no file is read once more for that."""
    for expected in (len(A) + len(B) + len(C), 0):
        done = pair.ours("sc", "-c", "c.db", "-t", "x.template", made.pool)
        assert (done.returncode, read_bytes(done)) == (0, expected), done
        assert b"3 of the 3 parts" in done.stderr


def test_default_place_of_a_cache(pair: Pair, made: Made) -> None:
    """Beside a cache that is there already the index lies, too; a directory of other things is refused."""
    directory = pair.directory / "cache"
    Cache(directory, max_bytes=None, min_free_bytes=0).close()
    for place, code in ((directory, 0), (made.pool, 3)):
        environ = clean_environ(pair.directory) | {"CACHE_DIRECTORY": str(place)}
        done = subprocess.run([*PROGRAM, "scan", made.pool], env=environ, capture_output=True, check=False)
        assert done.returncode == code, done
        assert (place / "scanned.db").exists() == (code == 0)


@pytest.mark.parametrize("arguments", [(), ("none",), ("-T", "none")], ids=str)
def test_nothing_to_scan(pair: Pair, made: Made, arguments: tuple[str, ...]) -> None:
    """0 where there is nothing to read; what is not there is told."""
    assert pair.theirs("sc", "-c", "their.db", *arguments).returncode == 0
    done = pair.ours("sc", "-c", "c.db", *arguments)
    assert (done.returncode, read_bytes(done)) == (0, 0)
    told = [line for line in done.stderr.splitlines() if b"bytes read" not in line]
    assert len(told) == bool(arguments)


@pytest.mark.parametrize("option", ["-i", "-j"])
def test_options_that_mean_nothing_to_the_real_one(pair: Pair, made: Made, option: str) -> None:
    """Scripts hand one set of options to all commands: an image that is not there yet is no failure."""
    arguments = ("sc", "-r", "quiet", option, "none.iso", made.pool, "-c")
    assert pair.theirs(*arguments, "their.db").returncode == 0
    assert pair.ours(*arguments, "c.db").returncode == 0


def test_quiet(pair: Pair, made: Made) -> None:
    """--report=quiet says nothing."""
    done = pair.ours("scan", "-c", "c.db", "--report=quiet", made.pool)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_lists_of_names(pair: Pair, made: Made) -> None:
    """-T reads names from a file and from stdin."""
    (pair.directory / "list").write_bytes(names(made.file(0)))
    done = pair.ours("scan", "-c", "c.db", "-T", "list", "-T", "-", stdin=names(made.file(1)))
    assert read_bytes(done) == 2 * (len(A) + len(B))
    assert known(pair.directory / "c.db", made.file(1)) == sums(B)


def test_trees(pair: Pair) -> None:
    """Every file is read once: links to it, hard links and loops are no other files."""
    tree = pair.directory / "tree\udcff"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "x\udce9").write_bytes(A)
    os.link(tree / "d" / "x\udce9", tree / "hard")
    (tree / "link").symlink_to("hard")
    (tree / "d" / "loop").symlink_to("..")
    os.mkfifo(tree / "fifo")
    done = pair.ours("scan", "-c", "c.db", tree)
    assert done.returncode == 0
    assert read_bytes(done) == 2 * len(A)
    assert read_bytes(pair.ours("scan", "-c", "c.db", tree)) == 0


@pytest.mark.parametrize("kind", ["junk", "theirs", "directory", "nowhere"])
def test_index_that_cannot_be_used(pair: Pair, made: Made, kind: str) -> None:
    """An index that is none is left as it is, and it is told that nothing is remembered."""
    index = pair.directory / "c.db"
    match kind:
        case "junk":
            index.write_bytes(b"junk" * 100)
        case "theirs":
            assert pair.theirs("scan", "-c", "c.db", "-r", "quiet", made.pool).returncode == 0
        case "directory":
            index.mkdir()
        case "nowhere":
            index = pair.directory / "none" / "c.db"
    before = index.read_bytes() if index.is_file() else None
    done = pair.ours("scan", "-c", index, "-r", "quiet", made.pool)
    assert done.returncode in (0, 1, 3)
    assert b"c.db" in done.stderr, "who waited for a scan is to know that it was in vain"
    assert before is None or index.read_bytes() == before


def test_damaged_index(pair: Pair, made: Made) -> None:
    """An index of ours that is damaged is begun anew; nothing wrong comes out of it."""
    command = ("scan", "-c", "c.db", made.pool)
    assert pair.ours(*command).returncode == 0
    data = bytearray((pair.directory / "c.db").read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    (pair.directory / "c.db").write_bytes(data)
    assert read_bytes(pair.ours(*command)) == 2 * (len(A) + len(B) + len(C))
    assert read_bytes(pair.ours(*command)) == 0
    assert known(pair.directory / "c.db", made.file(0)) == sums(A)


def test_two_scans_at_once(pair: Pair, made: Made) -> None:
    """Two processes share an index; what both found is in it, and it is sound."""
    pools = [made.pool, pair.directory / "more"]
    pools[1].mkdir()
    for number in range(50):
        (pools[1] / str(number)).write_bytes(noise(f"more {number}", 3000))
    running = [
        subprocess.Popen(
            [str(pair.link), "scan", "-r", "quiet", "-c", "c.db", str(pool)],
            cwd=pair.directory,
            env=clean_environ(pair.directory),
            stderr=subprocess.PIPE,
        )
        for pool in pools * 2
    ]
    assert [(process.communicate()[1], process.returncode) for process in running] == [(b"", 0)] * 4
    with sqlite3.connect(pair.directory / "c.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert read_bytes(pair.ours("scan", "-c", "c.db", *pools)) == 0


def test_damaged_template(pair: Pair, made: Made) -> None:
    """A file named as template that is none is an error in one line."""
    (pair.directory / "bad.template").write_bytes(made.template.read_bytes()[:-1])
    one_line(pair.ours("scan", "-c", "c.db", "-t", "bad.template", made.pool), 3)


def test_both_algorithms_are_known(pair: Pair, made: Made) -> None:
    """A scan without a template serves images of either algorithm."""
    assert pair.ours("scan", "-c", "c.db", "-r", "quiet", made.pool).returncode == 0
    for algorithm in Algorithm:
        other = make(pair.directory / algorithm.name, *PIECES, algorithm=algorithm)
        command = ("scan", "-c", "c.db", "-t", other.template, made.pool)
        done = pair.ours(*command)
        assert read_bytes(done) == 0
        assert b"3 of the 3 parts" in done.stderr
