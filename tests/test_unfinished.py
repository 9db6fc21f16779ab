"""The unfinished image: jigdo-file goes on where we stopped, we where it did, and nothing wrong is kept."""

import hashlib
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from jigdofs.build.blueprint import Blueprint, open_template, read_blueprint
from jigdofs.build.unfinished import Replace, Unfinished
from jigdofs.errors import ForeignFile, InputError, JigdofsError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.rsync64 import Rsync64
from jigdofs.format.template import Compression, Entry, ImageInfo, MatchedFile, UnmatchedData
from jigdofs.format.template_writer import TemplateWriter
from tests.kit.images import BuiltImage
from tests.kit.mounts import clean_environ
from tests.kit.requirements import require_root
from tests.kit.scenes import tiny_tmpfs, wait_until
from tests.test_jigdo_file_verbs import Pair, pair

__all__ = ["pair"]  # a fixture

BLOCK = 1024
DESC_ENTRIES = 10
"""Bytes before the first entry of a DESC part."""


# -- images made to measure --------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A template written by ourselves, its image, and a file for each of its parts."""

    template: Path
    image: bytes
    pool: Path
    parts: tuple[bytes, ...]

    def file(self, number: int) -> Path:
        """The file that holds a part."""
        return self.pool / f"{number}.bin"

    @property
    def part_files(self) -> list[Path]:
        """All of them."""
        return [self.file(number) for number in range(len(self.parts))]

    @contextmanager
    def blueprint(self) -> Iterator[Blueprint]:
        """Have the template open."""
        template = open_template(str(self.template))
        try:
            yield read_blueprint(template, {}, str(self.template))
        finally:
            os.close(template.fd)


def noise(name: str, length: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(length)


A, B, C = noise("a", 5000), noise("b", 3000), noise("c", 200_000)


def make(
    directory: Path,
    *pieces: bytes,
    parts: tuple[bytes, ...] = (A, B, C),
    algorithm: Algorithm = Algorithm.MD5,
    old: bool = False,
    compression: Compression = Compression.ZLIB,
    image_checksum: Checksum | None = None,
    rsync64: bytes | None = None,
) -> Made:
    """Write x.template: of these pieces those in `parts` are parts, the others raw data."""
    directory.mkdir(parents=True, exist_ok=True)
    image = b"".join(pieces)
    entries: list[Entry] = []
    with (directory / "x.template").open("wb") as file:
        writer = TemplateWriter(file, algorithm, creator="tests", compression=compression)
        for piece in pieces:
            if piece in parts:
                hint = None if old else rsync64 or Rsync64(piece[:BLOCK]).digest()
                entries.append(MatchedFile(len(piece), Checksum.of(algorithm, piece), hint))
            else:
                writer.raw_data(piece)
                entries.append(UnmatchedData(len(piece)))
        checksum = image_checksum or Checksum.of(algorithm, image)
        entries.append(ImageInfo(len(image), checksum, 0 if old else BLOCK))
        writer.finish(entries)
    if old:  # an image info of type 1 has no block length; the writer of today writes none of these
        _make_old(directory / "x.template")
    pool = directory / "pool"
    pool.mkdir(exist_ok=True)
    made = Made(directory / "x.template", image, pool, parts)
    for number, data in enumerate(parts):
        made.file(number).write_bytes(data)
    return made


def _make_old(template: Path) -> None:
    data = template.read_bytes()
    at = data.rindex(b"DESC")
    entries = bytearray(data[at + DESC_ENTRIES : -6])
    info = entries[-27:]
    assert info[0] == 5
    entries[-27:] = b"\x01" + info[1:-4]
    length = (len(entries) + 16).to_bytes(6, "little")
    template.write_bytes(data[:at] + b"DESC" + length + entries + length)


PIECES = (b"n" * 700, A, B, bytes(100), C, A, b"tail")


@pytest.fixture
def made(pair: Pair) -> Made:
    """An image of three parts, one of them twice, in the directory where the programs run."""
    return make(pair.directory, *PIECES)


def names(*paths: Path) -> bytes:
    return b"".join(os.fsencode(path) + b"\n" for path in paths)


def halves(built: BuiltImage) -> tuple[list[Path], list[Path]]:
    paths = [built.pool / path for path in built.parts.values()]
    random.Random(1).shuffle(paths)
    return paths[::2], paths[1::2]


def one_line(done: subprocess.CompletedProcess[bytes], code: int) -> bytes:
    """Assert an exit code and one line on stderr, and return it."""
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, b""), done
    assert line.startswith(b"jigdo-file: ")
    return line


# -- side by side ------------------------------------------------------------------------------------


def test_each_completes_what_the_other_left(pair: Pair, any_image: BuiltImage) -> None:
    """Ours is theirs to the byte; list-template names what is in place; either goes on with it."""
    first, second = halves(any_image)
    mine, theirs = pair.directory / "mine.iso", pair.directory / "theirs.iso"
    command = ("mi", "-r", "quiet", "-t", any_image.template, "-T", "-", "-i")
    assert pair.ours(*command, mine, stdin=names(*first)).returncode == 1
    assert pair.theirs(*command, theirs, stdin=names(*first)).returncode == 1
    assert Path(f"{mine}.tmp").read_bytes() == Path(f"{theirs}.tmp").read_bytes()
    listing = pair.theirs("list-template", "--hex", f"--template={mine}.tmp").stdout.splitlines()
    listed = {line.split()[3].decode() for line in listing if line.startswith(b"have-file")}
    assert listed == {hashlib.new(any_image.algorithm, path.read_bytes()).hexdigest() for path in first}
    assert pair.theirs(*command, mine, stdin=names(*second)).returncode == 0
    done = pair.ours(*command, theirs, stdin=names(*second))
    assert (done.returncode, done.stderr) == (0, b"")
    assert mine.read_bytes() == theirs.read_bytes() == any_image.image.read_bytes()
    assert sorted(os.listdir(pair.directory)) == ["mine.iso", "theirs.iso"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("algorithm", Algorithm)
def test_taking_turns(pair: Pair, algorithm: Algorithm, *, old: bool) -> None:
    """A part a turn; templates of format 1.0, which the real one cannot read any more, we do alone."""
    pieces: tuple[bytes, ...] = PIECES
    if old and algorithm is Algorithm.SHA256:
        algorithm = Algorithm.MD5
        pieces = (A, B, C)  # nothing raw at all
    made = make(pair.directory, *pieces, algorithm=algorithm, old=old)
    command = ("mi", "-i", "x.iso")
    assert not old or pair.theirs(*command, made.file(0)).returncode < 0
    assert pair.ours(*command, made.file(0)).returncode == 1
    listing = pair.agree("list-template", "-t", "x.iso.tmp").stdout
    assert listing.count(b"have-file") == pieces.count(A)
    if old:
        assert pair.ours(*command, made.file(1)).returncode == 1
    else:
        assert pair.theirs(*command, made.file(1)).returncode == 1
    assert pair.ours(*command, made.file(2)).returncode == 0
    assert (pair.directory / "x.iso").read_bytes() == made.image


@pytest.mark.parametrize("compression", Compression)
def test_image_all_in_the_template(pair: Pair, compression: Compression) -> None:
    """No part at all: no file is needed, and the image is there."""
    data = noise("raw", 1_100_000)
    made = make(pair.directory, data[:10], data[10:], parts=(), compression=compression)
    assert pair.ours("mi", "-i", "x.iso").returncode == 0
    assert (pair.directory / "x.iso").read_bytes() == made.image
    assert pair.theirs("mi", "-i", "y.iso", "-t", "x.template").returncode == 0


def test_empty_image(pair: Pair) -> None:
    """An image of no bytes is an empty file; the real one refuses the template that it writes itself."""
    make(pair.directory)
    assert pair.theirs("mi", "-i", "x.iso").returncode == 3
    assert pair.ours("mi", "-i", "x.iso").returncode == 0
    assert sorted(os.listdir(pair.directory)) == ["pool", "x.iso", "x.template"]
    assert (pair.directory / "x.iso").read_bytes() == b""


def test_part_many_times(pair: Pair) -> None:
    """A part that belongs everywhere is found once, also beside itself."""
    made = make(pair.directory, *([A] * 50), b"gap", *([A, B] * 20))
    assert pair.ours("mi", "-i", "x.iso", made.file(1)).returncode == 1
    assert pair.ours("mi", "-i", "x.iso", made.file(0)).returncode == 0
    assert (pair.directory / "x.iso").read_bytes() == made.image


def test_part_in_one_place_fills_the_other(pair: Pair, made: Made) -> None:
    """What is in place once is put in its other places from there; no file is needed."""
    tmp = pair.directory / "x.iso.tmp"
    assert pair.ours("mi", "-i", "x.iso", made.file(0), made.file(1)).returncode == 1
    data = bytearray(tmp.read_bytes())
    first = len(made.image) + DESC_ENTRIES + 7  # behind an entry of unmatched data
    assert data[first] == 7
    data[first] = 6
    data[700:5700] = bytes(5000)
    tmp.write_bytes(data)
    assert pair.ours("mi", "-i", "x.iso", made.file(2)).returncode == 0
    assert (pair.directory / "x.iso").read_bytes() == made.image


# -- what lies in the way ----------------------------------------------------------------------------


def begun(made: Made) -> bytes:
    """A .tmp of ours in which nothing but the marks is in place."""
    with made.blueprint() as blueprint:
        unfinished = begin(made, blueprint)
        unfinished.mark(part_indexes(blueprint)[:2])
        unfinished.complete_raw()
        unfinished.close()
    path = made.template.with_name("x.iso.tmp")
    data = path.read_bytes()
    path.unlink()
    return data


def foreign_files(made: Made) -> dict[str, bytes]:
    own, length = begun(made), len(made.image)
    assert own.count(hashlib.md5(B).digest()) == 1
    return {
        "junk": b"junk",
        "other": begun(make(made.pool.parent / "other", *reversed(PIECES))),
        "longer": own + b"\0",
        "shorter": own[:-1],
        "frame": own[:length] + b"Desc" + own[length + 4 :],
        "checksum": own.replace(hashlib.md5(B).digest(), hashlib.md5(A).digest()),
        "end": own[:-6] + bytes(6),
        "all zeros": bytes(len(own)),
    }


@pytest.mark.parametrize("kind", ["junk", "other"])
def test_foreign_file(pair: Pair, made: Made, kind: str) -> None:
    """A .tmp that is something else is refused and left as it is; --force replaces it."""
    content = foreign_files(made)[kind]
    tmp = pair.directory / "x.iso.tmp"
    tmp.write_bytes(content)
    command: list[str | Path] = ["mi", "-r", "quiet", "-i", "x.iso", *made.part_files]
    assert pair.theirs(*command).returncode == 3
    assert b"x.iso.tmp: is not an unfinished image" in one_line(pair.ours(*command), 3)
    assert tmp.read_bytes() == content
    done = pair.ours(*command, "--force")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image


def test_foreign_files_of_every_kind(pair: Pair, made: Made, blueprint: Blueprint) -> None:
    """However like ours it looks: what jigdo-file refuses we refuse, untouched, until we are told to."""
    tmp = pair.directory / "x.iso.tmp"
    for kind, content in foreign_files(made).items():
        tmp.write_bytes(content)
        assert pair.theirs("mi", "-i", "x.iso", *made.part_files).returncode == 3, kind
        with pytest.raises(ForeignFile):
            begin(made, blueprint)
        assert tmp.read_bytes() == content, kind
        unfinished = begin(made, blueprint, replace=Replace.ANY)
        assert not any(map(unfinished.is_written, range(len(blueprint.layout)))), kind
        assert not unfinished.raw_complete
        unfinished.close()
        assert not any(tmp.read_bytes()[: len(made.image)]), kind


@pytest.mark.parametrize("content", ["zeros", "damaged"])
def test_foreign_file_of_the_images_length(pair: Pair, made: Made, content: str) -> None:
    """A file exactly as long as the image is no proof of anything: no part in it is marked unseen."""
    data = bytearray(made.image if content == "damaged" else bytes(len(made.image)))
    data[6000] ^= 1  # in the second part
    tmp = pair.directory / "x.iso.tmp"
    tmp.write_bytes(data)
    done = pair.ours("mi", "-i", "x.iso")
    assert done.returncode != 0
    assert b"every part is right" not in done.stderr
    if tmp.exists() and tmp.stat().st_size > len(made.image):
        for _, offset, length, checksum, *_ in _have(pair):
            digest = hashlib.md5(tmp.read_bytes()[int(offset) :][: int(length)]).hexdigest()
            assert digest == checksum.decode(), "marked, but wrong"
    assert pair.ours("mi", "-i", "x.iso", "--force", *made.part_files).returncode == 0
    assert (pair.directory / "x.iso").read_bytes() == made.image


def _have(pair: Pair) -> list[list[bytes]]:
    listing = pair.theirs("list-template", "--hex", "-t", "x.iso.tmp").stdout.splitlines()
    return [line.split() for line in listing if line.startswith(b"have-file")]


def test_killed_before_the_new_name(pair: Pair, made: Made) -> None:
    """Killed between the last mark and the rename the image is whole: only its name is missing."""
    (pair.directory / "x.iso.tmp").write_bytes(made.image)
    done = pair.ours("mi", "-i", "x.iso")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image
    assert not (pair.directory / "x.iso.tmp").exists()


@pytest.mark.parametrize(
    ("kind", "force"),
    [("link", False), ("link", True), ("dangling", True), ("fifo", True), ("directory", True)],
)
def test_no_regular_file(pair: Pair, made: Made, kind: str, *, force: bool) -> None:
    """A link is not followed, a FIFO does not hold us up, and nothing is removed, not even by --force."""
    tmp, target = pair.directory / "x.iso.tmp", pair.directory / "target"
    match kind:
        case "link":
            target.write_bytes(b"precious")
            tmp.symlink_to(target)
        case "dangling":
            tmp.symlink_to(target)
        case "fifo":
            os.mkfifo(tmp)
        case "directory":
            tmp.mkdir()
    before = tmp.lstat()
    options = ("--force",) if force else ()
    line = one_line(pair.ours("mi", "-i", "x.iso", *options, *made.part_files), 3)
    assert b"x.iso.tmp: " in line
    assert tmp.lstat().st_ino == before.st_ino
    assert target.exists() == (kind == "link")
    assert kind != "link" or target.read_bytes() == b"precious"


def test_two_at_once(pair: Pair, made: Made) -> None:
    """The second process is told in one line, and may begin as soon as the first has ended."""
    command: list[str | Path] = ["mi", "-i", "x.iso", *made.part_files]
    with made.blueprint() as blueprint:
        path = str(pair.directory / "x.iso.tmp")
        first = Unfinished(path, blueprint.layout, blueprint.desc, replace=Replace.NOTHING)
        assert b"another process" in one_line(pair.ours(*command, "--force"), 3)
        with pytest.raises(InputError, match="another process"):
            Unfinished(path, blueprint.layout, blueprint.desc, replace=Replace.NOTHING)
        first.close()
    assert pair.ours(*command).returncode == 0
    assert (pair.directory / "x.iso").read_bytes() == made.image


def test_many_at_once(pair: Pair, made: Made) -> None:
    """Whoever is first builds the image; the others are refused, and nobody leaves a wrong one."""
    command = [str(pair.link), "mi", "-f", "-i", "x.iso", *map(str, made.part_files)]
    environ = clean_environ(pair.link.parent)
    running = [
        subprocess.Popen(command, cwd=pair.directory, env=environ, stderr=subprocess.PIPE) for _ in range(3)
    ]
    ends = [(process.communicate()[1], process.returncode) for process in running]
    assert {code for _, code in ends} <= {0, 3}
    assert any(code == 0 for _, code in ends)
    assert all(b"another process" in told for told, code in ends if code)
    assert (pair.directory / "x.iso").read_bytes() == made.image
    assert not (pair.directory / "x.iso.tmp").exists()


# -- raw data ----------------------------------------------------------------------------------------


def test_raw_data_not_complete(pair: Pair, made: Made) -> None:
    """A .tmp whose raw data is not marked as complete is refused by jigdo-file, and mended by us."""
    tmp = pair.directory / "x.iso.tmp"
    assert pair.ours("mi", "-i", "x.iso", made.file(0)).returncode == 1
    data = tmp.read_bytes()
    frame = data[len(made.image) :]
    assert frame.startswith(b"DESC")
    tmp.write_bytes(bytes(700) + data[700 : len(made.image)] + b"Raw?" + frame[4:])
    assert pair.theirs("mi", "-i", "x.iso", *made.part_files).returncode == 3
    assert pair.ours("mi", "-i", "x.iso", made.file(1)).returncode == 1
    assert tmp.read_bytes()[: len(made.image)].startswith(b"n" * 700)
    assert pair.theirs("mi", "-i", "x.iso", made.file(2)).returncode == 0
    assert (pair.directory / "x.iso").read_bytes() == made.image


def damaged(template: bytes, kind: str) -> bytes:
    """Damage the only chunk of a template, or its last one."""
    desc = template.rindex(b"DESC")
    start = template.rindex(b"DATA", 0, desc)
    chunk = bytearray(template[start:desc])
    match kind:
        case "adler":
            chunk[-1] ^= 1
        case "bytes":
            chunk[20:24] = b"\xff\xff\xff\xff"
        case "cut":
            del chunk[-9:]
            chunk[4:10] = len(chunk).to_bytes(6, "little")
        case "header":
            chunk[:4] = b"JUNK"
    return template[:start] + chunk + template[desc:]


@pytest.mark.parametrize(
    ("kind", "raw_length"),
    [("adler", 700), ("adler", 2 << 20), ("cut", 700), ("header", 700)],
)
def test_damaged_template(pair: Pair, kind: str, raw_length: int) -> None:
    """Exit code 3 and no image; with the right template the work goes on."""
    made = make(pair.directory, noise("raw", raw_length), A, B)
    good = made.template.read_bytes()
    made.template.write_bytes(damaged(good, kind))
    command: list[str | Path] = ["mi", "-i", "x.iso", *made.part_files]
    assert b"x.template" in one_line(pair.ours(*command), 3)
    assert not (pair.directory / "x.iso").exists()
    made.template.write_bytes(good)
    done = pair.ours(*command)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image


@pytest.mark.parametrize("cut", [30, -1])
def test_template_cut_short(pair: Pair, made: Made, cut: int) -> None:
    """However much of a template there is, it is refused before anything is written."""
    made.template.write_bytes(made.template.read_bytes()[:cut])
    one_line(pair.ours("mi", "-i", "x.iso", *made.part_files), 3)
    assert sorted(os.listdir(pair.directory)) == ["pool", "x.template"]


# -- disks and kills ---------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 8 << 10, 160 << 10])
def test_full_disk(pair: Pair, made: Made, room: int) -> None:
    """Exit code 1 and one line, however early the disk is full; with room made, the work goes on."""
    require_root()
    with tiny_tmpfs(1 << 20) as tiny:
        fill = tiny / "fill"
        with fill.open("wb") as file, pytest.raises(OSError, match="No space"):  # noqa: PT012
            while True:
                os.write(file.fileno(), bytes(4096))
        os.truncate(fill, fill.stat().st_size - room)
        options: list[str | Path] = ["-r", "quiet", "-i", tiny / "x.iso", "-t", made.template]
        assert b"No space left" in one_line(pair.ours("mi", *options, *made.part_files), 1)
        assert not (tiny / "x.iso").exists()
        fill.unlink()
        done = pair.ours("mi", *options, *made.part_files)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (tiny / "x.iso").read_bytes() == made.image
        assert os.listdir(tiny) == ["x.iso"]


def test_limit_of_file_size(pair: Pair, made: Made) -> None:
    """A limit on the size of files is told in one line, not by a signal."""
    command = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", str(pair.link), "mi", "-i", "x.iso"]
    done = subprocess.run(
        [*command, *map(str, made.part_files)],
        cwd=pair.directory,
        env=clean_environ(pair.link.parent),
        capture_output=True,
        check=False,
    )
    assert b"does not permit files of that size" in one_line(done, 1)
    assert pair.ours("mi", "-i", "x.iso", *made.part_files).returncode == 0
    assert (pair.directory / "x.iso").read_bytes() == made.image


@pytest.mark.parametrize("marks", [0, 1, 3])
def test_killed_at_work(pair: Pair, marks: int) -> None:
    """Killed at any moment, the marks are true, and another run completes the image."""
    parts = tuple(noise(f"part {number}", 1_500_000) for number in range(8))
    made = make(pair.directory, b"head", *parts, parts=parts)
    tmp = pair.directory / "x.iso.tmp"
    command = [str(pair.link), "mi", "-r", "quiet", "-i", "x.iso", *map(str, made.part_files)]
    environ = clean_environ(pair.link.parent)
    with subprocess.Popen(command, cwd=pair.directory, env=environ) as process:

        def is_time() -> bool:
            if process.poll() is not None:
                return True
            if not tmp.exists():
                return False
            frame = tmp.read_bytes()[len(made.image) :]
            return marks == 0 or frame[DESC_ENTRIES + 7 :: 31].count(7) >= marks

        wait_until(is_time, "so many parts are in place")
        process.send_signal(signal.SIGKILL)
    if tmp.exists():
        data = tmp.read_bytes()
        for number, part in enumerate(parts):
            if data[len(made.image) + DESC_ENTRIES + 7 + 31 * number :][:1] == b"\x07":
                assert data[4 + 1_500_000 * number :][:1_500_000] == part
    done = pair.ours("mi", "-f", "-i", "x.iso", *made.part_files)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image


def test_file_of_nothing_but_a_length(pair: Pair, made: Made) -> None:
    """Killed before the first mark was written, there is a hole as long as the image: nothing is in it."""
    (pair.directory / "x.iso.tmp").touch()
    os.truncate(pair.directory / "x.iso.tmp", len(made.image))
    done = pair.ours("mi", "-r", "quiet", "-i", "x.iso", *made.part_files)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image


@pytest.mark.parametrize("there", [0, 1, 9, DESC_ENTRIES + 40, -1])
def test_half_a_frame(pair: Pair, made: Made, there: int) -> None:
    """Killed while the frame was written, its beginning stands behind a hole: that is begun anew."""
    tmp = pair.directory / "x.iso.tmp"
    with made.blueprint() as blueprint:
        Unfinished(str(tmp), blueprint.layout, blueprint.desc, replace=Replace.NOTHING).close()
    whole = tmp.stat().st_size
    os.truncate(tmp, whole - 1 if there < 0 else len(made.image) + there)
    done = pair.ours("mi", "-r", "quiet", "-i", "x.iso", *made.part_files)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image


@pytest.mark.parametrize("at", [0, -1, 3])
def test_what_only_looks_like_half_a_frame(pair: Pair, made: Made, at: int) -> None:
    """A byte anywhere that no run of ours writes there makes it somebody's file: it is left alone."""
    tmp = pair.directory / "x.iso.tmp"
    with made.blueprint() as blueprint:
        Unfinished(str(tmp), blueprint.layout, blueprint.desc, replace=Replace.NOTHING).close()
    os.truncate(tmp, len(made.image) + 9)
    with tmp.open("r+b") as file:
        file.seek(len(made.image) + at if at else 0)
        file.write(b"!")
    before = tmp.read_bytes()
    done = pair.ours("mi", "-r", "quiet", "-i", "x.iso", *made.part_files)
    assert done.returncode == 3
    assert tmp.read_bytes() == before


# -- the class itself --------------------------------------------------------------------------------


@pytest.fixture
def blueprint(made: Made) -> Iterator[Blueprint]:
    with made.blueprint() as blueprint:
        yield blueprint


def begin(made: Made, blueprint: Blueprint, *, replace: Replace = Replace.NOTHING) -> Unfinished:
    path = str(made.template.with_name("x.iso.tmp"))
    return Unfinished(path, blueprint.layout, blueprint.desc, replace=replace)


def part_indexes(blueprint: Blueprint) -> list[int]:
    return [index for index in range(len(blueprint.layout)) if blueprint.layout.part(index) is not None]


def test_marks_are_kept(made: Made, blueprint: Blueprint) -> None:
    """Marks come and go one by one, and a later run sees them."""
    indexes = part_indexes(blueprint)
    unfinished = begin(made, blueprint)
    assert unfinished.created
    assert not any(map(unfinished.is_written, range(len(blueprint.layout))))
    unfinished.mark(indexes)
    unfinished.unmark(indexes[:2])
    unfinished.complete_raw()
    unfinished.close()
    again = begin(made, blueprint)
    assert not again.created
    assert again.raw_complete
    assert [index for index in range(len(blueprint.layout)) if again.is_written(index)] == indexes[2:]
    again.close()


def test_empty_file_is_begun(made: Made, blueprint: Blueprint) -> None:
    """A file of no bytes holds nothing that could be lost."""
    made.template.with_name("x.iso.tmp").touch()
    unfinished = begin(made, blueprint)
    assert unfinished.created
    assert os.fstat(unfinished.fd).st_size > blueprint.layout.length
    unfinished.discard()
    unfinished.discard()
    unfinished.close()
    assert not made.template.with_name("x.iso.tmp").exists()


def test_refused_file_is_let_go(made: Made, blueprint: Blueprint) -> None:
    """Refusing a file leaves no descriptor and no lock behind."""
    made.template.with_name("x.iso.tmp").write_bytes(b"junk")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(ForeignFile):
            begin(made, blueprint)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    begin(made, blueprint, replace=Replace.ANY).close()


def test_copy_in(made: Made, blueprint: Blueprint) -> None:
    """Bytes are copied from files, from themselves even where they overlap, and as far as they go."""
    unfinished = begin(made, blueprint)
    fd = os.open(made.file(2), os.O_RDONLY)
    try:
        assert unfinished.copy_in(fd, 10, 4097, 100_000) == 100_000
        assert os.pread(unfinished.fd, 100_000, 4097) == C[10:100_010]
        assert unfinished.copy_in(fd, len(C) - 7, 0, 100) == 7
        assert unfinished.copy_in(fd, len(C), 0, 100) == 0
        assert unfinished.copy_in(unfinished.fd, 4097, 150_000, 50_000) == 50_000
        assert os.pread(unfinished.fd, 50_000, 150_000) == C[10:50_010]
    finally:
        os.close(fd)
    wanted = Checksum.of(Algorithm.SHA256, C[10:1010])
    assert unfinished.checksum(4097, 1000, Algorithm.SHA256) == wanted
    unfinished.close()


def test_copy_from_another_filesystem(made: Made, blueprint: Blueprint) -> None:
    """Where the kernel cannot copy (a pipe's file, another disk) the bytes go through us."""
    unfinished = begin(made, blueprint)
    source = Path("/proc/version")  # has no length and cannot be copied by the kernel everywhere
    fd = os.open(source, os.O_RDONLY)
    try:
        length = len(source.read_bytes())
        copied = unfinished.copy_in(fd, 0, 0, length)
        assert copied in (0, length)
        shared = Path("/dev/shm")
        if os.access(shared, os.W_OK):
            other = shared / f"jigdofs-test-{os.getpid()}"
            other.write_bytes(C)
            try:
                with other.open("rb") as file:
                    assert unfinished.copy_in(file.fileno(), 0, 5, len(C)) == len(C)
            finally:
                other.unlink()
            assert os.pread(unfinished.fd, len(C), 5) == C
    finally:
        os.close(fd)
        unfinished.close()


def test_disk_fails(made: Made, blueprint: Blueprint) -> None:
    """What the disk says becomes an error that names the file."""
    unfinished = begin(made, blueprint)
    real = unfinished.fd
    unfinished.fd = os.open(unfinished.path, os.O_RDONLY)
    failing: list[Callable[[], None]] = [
        lambda: unfinished.write(b"x", 0),
        lambda: unfinished.mark([1]),
        lambda: unfinished.finish(str(made.template.with_name("x.iso"))),
    ]
    for work in failing:
        with pytest.raises(JigdofsError, match=r"x\.iso\.tmp"):
            work()
    unfinished.close()
    os.close(real)
    assert not made.template.with_name("x.iso").exists()


def test_finish_replaces(made: Made, blueprint: Blueprint) -> None:
    """The finished image takes the place of any other, and has no entries behind it."""
    image = made.template.with_name("x.iso")
    image.write_bytes(b"old")
    unfinished = begin(made, blueprint)
    unfinished.write(made.image, 0)
    unfinished.finish(str(image))
    unfinished.close()
    assert image.read_bytes() == made.image


def test_umask_counts(pair: Pair, made: Made) -> None:
    """The image has the rights that any new file has."""
    old = os.umask(0o027)
    try:
        assert pair.ours("mi", "-i", "x.iso", *made.part_files).returncode == 0
    finally:
        os.umask(old)
    assert (pair.directory / "x.iso").stat().st_mode & 0o777 == 0o640


def test_absurd_length(pair: Pair, made: Made) -> None:
    """An image that no disk holds is refused at once, without a traceback."""
    for length in ((1 << 48) - 1, 1 << 44):
        with made.template.open("wb") as file:
            writer = TemplateWriter(file, Algorithm.MD5, creator="tests")
            checksum = Checksum.of(Algorithm.MD5, b"")
            writer.finish([MatchedFile(length, checksum, bytes(8)), ImageInfo(length, checksum, BLOCK)])
        assert pair.ours("mi", "-i", "x.iso", made.file(0)).returncode in (1, 3)
        assert not (pair.directory / "x.iso").exists()
