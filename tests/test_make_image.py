"""make-image side by side with the real jigdo-file and jigit-mkimage, and under jigdo-lite."""

import gzip
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.template import ImageInfo, MatchedFile, UnmatchedData
from jigdofs.format.template_writer import TemplateWriter
from tests.kit.images import BuiltImage, iso_by_jigdo_file
from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.nginx import Nginx
from tests.kit.requirements import tool
from tests.test_jigdo_file_verbs import Done, Pair, pair
from tests.test_unfinished import PIECES, A, B, C, Made, halves, make, names, noise, one_line

__all__ = ["pair"]  # a fixture


@pytest.fixture
def made(pair: Pair) -> Made:
    """An image of three parts, one of them twice."""
    return make(pair.directory, *PIECES)


def both(
    pair: Pair, *arguments: str | Path, prepare: Callable[[Path], object] = lambda _: None, stdin: bytes = b""
) -> tuple[Done, Done]:
    """Run both programs, each in a directory of its own with the template; they leave the same behind."""
    results: list[tuple[Done, dict[str, bytes | None]]] = []
    for name in ("theirs", "ours"):
        here = pair.directory / name
        here.mkdir()
        shutil.copy(pair.directory / "x.template", here)
        prepare(here)
        own = replace(pair, directory=here)
        done = (own.theirs if name == "theirs" else own.ours)(*arguments, stdin=stdin)
        left = {path.name: path.read_bytes() if path.is_file() else None for path in here.iterdir()}
        results.append((done, left))
    (theirs, their_files), (ours, our_files) = results
    assert ours.stdout == theirs.stdout
    assert our_files.keys() == their_files.keys(), (theirs, ours)
    assert our_files == their_files
    return theirs, ours


def agree(
    pair: Pair,
    code: int,
    *arguments: str | Path,
    prepare: Callable[[Path], object] = lambda _: None,
    stdin: bytes = b"",
) -> Done:
    theirs, ours = both(pair, *arguments, prepare=prepare, stdin=stdin)
    assert (theirs.returncode, ours.returncode) == (code, code), (theirs, ours)
    return ours


def spoilt(data: bytes) -> bytes:
    """The same length and first block, another tail."""
    return data[:-1] + bytes([data[-1] ^ 1])


# -- exit codes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["make-image", "mi"])
def test_complete(pair: Pair, made: Made, verb: str) -> None:
    """0 and the image, nothing but the image, and not a word."""
    done = agree(pair, 0, verb, "-i", "x.iso", made.pool)
    assert done.stderr == b""
    assert (pair.directory / "ours" / "x.iso").read_bytes() == made.image


def test_part_of_the_parts(pair: Pair, made: Made) -> None:
    """1, and the .tmp that keeps them; places are counted, not parts, and how to go on is told."""
    done = agree(pair, 1, "mi", "-i", "x.iso", made.file(0), made.file(1))
    assert b"found 3 of the 4 files" in done.stderr
    assert b"x.iso.tmp" in done.stderr


@pytest.mark.parametrize("files", [(), ("x.template", "none", "/dev/null")], ids=str)
def test_nothing_matches(pair: Pair, made: Made, files: tuple[str, ...]) -> None:
    """1, and nothing is written."""
    done = agree(pair, 1, "mi", "-i", "x.iso", *files)
    assert b"found 0 of the 4 files" in done.stderr


def test_nothing_new_matches(pair: Pair, made: Made) -> None:
    """1, and what an earlier run left stays as it is."""

    def prepare(here: Path) -> None:
        assert replace(pair, directory=here).theirs("mi", "-i", "x.iso", made.file(0)).returncode == 1

    agree(pair, 1, "mi", "-i", "x.iso", prepare=prepare)
    assert (pair.directory / "ours" / "x.iso.tmp").stat().st_size > len(made.image)


def test_damaged_file(pair: Pair, made: Made) -> None:
    """2 where a file begins like a missing part, and it is named; what is good is kept."""
    bad = pair.directory / "bad"
    bad.mkdir()
    (bad / "damaged").write_bytes(spoilt(C))
    options = ("mi", "-i", "x.iso", bad)
    done = pair.ours(*options, made.file(0))
    assert done.returncode == 2
    assert f"{bad / 'damaged'}: begins like".encode() in done.stderr
    assert pair.ours(*options).returncode == 2
    assert pair.ours(*options, made.file(1)).returncode == 2
    done = pair.ours(*options, made.file(2))
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image


def test_damaged_file_alone(pair: Pair, made: Made) -> None:
    """2, and nothing is written where nothing was found."""
    (pair.directory / "damaged").write_bytes(spoilt(C))
    assert pair.ours("mi", "-i", "x.iso", "damaged").returncode == 2
    assert not (pair.directory / "x.iso.tmp").exists()


def test_right_file_that_the_real_one_refuses(pair: Pair) -> None:
    """A wrong rsync64, as libjte writes for short parts, is no reason to refuse the right file."""
    made = make(pair.directory, *PIECES, rsync64=b"12345678")
    theirs = pair.theirs("mi", "-i", "y.iso", "-t", "x.template", *made.part_files)
    assert theirs.returncode == 2
    assert b"does not match checksum" in theirs.stderr
    done = pair.ours("mi", "-i", "x.iso", *made.part_files)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image


def test_no_check_files_checks(pair: Pair, made: Made) -> None:
    """--no-check-files is no licence to put damaged files into an image."""
    (pair.directory / "damaged").write_bytes(spoilt(C))
    done = pair.ours("mi", "--no-check-files", "-i", "x.iso", *made.part_files[:2], "damaged")
    assert done.returncode == 2
    assert not (pair.directory / "x.iso").exists()


@pytest.mark.parametrize("kind", ["file", "directory", "dangling"])
def test_image_exists(pair: Pair, made: Made, kind: str) -> None:
    """3, and what is there is left alone; --force replaces a file, and no directory."""

    def prepare(here: Path) -> None:
        match kind:
            case "file":
                (here / "x.iso").write_bytes(b"precious")
            case "directory":
                (here / "x.iso").mkdir()
            case "dangling":
                (here / "x.iso").symlink_to("nowhere")

    prepare(pair.directory)
    line = one_line(pair.ours("mi", "-i", "x.iso", made.pool), 3)
    assert b"x.iso: exists already" in line
    if kind == "directory":
        for program in (pair.theirs, pair.ours):
            assert program("mi", "-f", "-i", "x.iso", made.pool).returncode == 3
        assert os.listdir(pair.directory / "x.iso") == []
    if kind == "file":
        agree(pair, 0, "mi", "-r", "quiet", "-f", "-i", "x.iso", made.pool, prepare=prepare)
        assert (pair.directory / "x.iso").read_bytes() == b"precious"
        assert (pair.directory / "ours" / "x.iso").read_bytes() == made.image


@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("-i", "x.iso", "-t", "none"), ("-j", "none.jigdo")),
        *(("-i", "x.iso", "-t", "."), ("-i", "none/x.iso", "-t", "x.template")),
        *(("-i", "/proc/x.iso", "-t", "x.template"), ("-i", "x.iso", "-t", "-")),
        *(("-t", "x.template", "-i", "-"), ("-i", "x.iso", "-t", "x.template", "--no-such")),
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_and_input(pair: Pair, made: Made, arguments: tuple[str, ...]) -> None:
    """3 and one line: no names, no template, nowhere to write, a part missing for a pipe."""
    for program in (pair.theirs, pair.ours):
        done = program("mi", *arguments, made.file(0))
        assert done.returncode == 3, done
    one_line(done, 3)
    assert sorted(os.listdir(pair.directory)) == ["pool", "x.template"]


def test_names_are_deduced(pair: Pair, made: Made) -> None:
    """Of image, .jigdo and template one is enough."""
    for option, name in (("-i", "x.iso"), ("-j", "x.jigdo"), ("-t", "x.template")):
        image = pair.directory / ("x.iso" if option == "-i" else "x")
        assert pair.ours("mi", option, name, made.pool).returncode == 0
        assert image.read_bytes() == made.image
        image.unlink()


def test_pipe_into_a_full_disk(pair: Pair, made: Made) -> None:
    """An image on a full device is an error in one line."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >/dev/full', "sh", pair.link, "mi", "-i", "-", "-tx.template", made.pool],
        cwd=pair.directory,
        env=clean_environ(pair.directory),
        capture_output=True,
        check=False,
    )
    assert b"No space left" in one_line(done, 1)


# -- what is said ------------------------------------------------------------------------------------


def test_quiet(pair: Pair, made: Made) -> None:
    """--report=quiet leaves nothing to say where nothing is wrong; code 1 tells enough."""
    for code, files in ((1, []), (1, [made.file(0)]), (0, [made.pool])):
        done = pair.ours("mi", "--report=quiet", "-i", "x.iso", *files)
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.parametrize("report", ["default", "grep"])
def test_stdout_stays_empty(pair: Pair, made: Made, report: str) -> None:
    """What is told goes to stderr, under the program's name, line by line."""
    done = pair.ours("mi", "-r", report, "-i", "x.iso", made.file(0), "none")
    assert (done.returncode, done.stdout) == (1, b"")
    assert all(line.startswith(b"jigdo-file: ") for line in done.stderr.splitlines())


def test_names_that_hurt_a_terminal(pair: Pair, made: Made) -> None:
    """Control characters in names are escaped in whatever is told, and a line stays a line."""
    bad = pair.directory / "bad\n\x1b[31m\udcff"
    bad.write_bytes(spoilt(C))
    done = pair.ours("mi", "-i", "x\n\x1b.iso", "-t", "x.template", bad, made.file(0))
    assert done.returncode == 2
    assert b"\x1b" not in done.stderr
    assert all(line.startswith(b"jigdo-file: ") for line in done.stderr.splitlines())
    assert rb"\xff" in done.stderr


def test_as_jigdofs(pair: Pair, made: Made) -> None:
    """`jigdofs make-image` is the same, and speaks under its own name."""
    command = [*PROGRAM, "make-image", "-i", "x.iso"]
    environ = clean_environ(pair.directory)
    for code, path in ((1, made.file(0)), (0, made.pool)):
        done = subprocess.run(
            [*command, path], cwd=pair.directory, env=environ, capture_output=True, check=False
        )
        assert done.returncode == code
        assert all(line.startswith(b"jigdofs: ") for line in done.stderr.splitlines())
    assert (pair.directory / "x.iso").read_bytes() == made.image


# -- where files come from ---------------------------------------------------------------------------


def test_names_from_lists(pair: Pair, made: Made) -> None:
    """-T reads names from files and from stdin, up to an empty line, besides those on the command line."""
    (pair.directory / "list").write_bytes(names(made.file(1)) + b"\n" + names(made.file(2)))
    listed = pair.directory / "list"
    options = ("-T", listed, "--files-from=-")
    agree(pair, 1, "mi", "-i", "x.iso", *options, stdin=names(made.file(0)))
    (pair.directory / "list").write_bytes(names(made.file(1)) + os.fsencode(made.file(2)))
    for name in ("ours", "theirs"):
        shutil.rmtree(pair.directory / name)
    agree(pair, 0, "mi", "-i", "x.iso", *options, stdin=names(made.file(0)))


def test_list_that_is_not_there(pair: Pair, made: Made) -> None:
    """A list that cannot be read is told and no failure."""
    done = agree(pair, 0, "mi", "-i", "x.iso", "-T", "none", made.pool)
    assert b"none" in done.stderr


def test_trees(pair: Pair, made: Made) -> None:
    """Directories are searched, links followed, loops entered once, hard links are as good as files."""
    tree = pair.directory / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    os.link(made.file(0), tree / "deep" / "hard")
    (tree / "link").symlink_to(made.file(1))
    (tree / "deep" / "loop").symlink_to("..")
    (tree / "gone").symlink_to("nowhere")
    outside = pair.directory / "outside"
    outside.mkdir()
    (outside / "c").write_bytes(C)
    (tree / "deep" / "er" / "out").symlink_to(outside)
    os.mkfifo(tree / "fifo")
    agree(pair, 0, "mi", "-i", "x.iso", tree)


def test_names_that_are_no_utf8(pair: Pair) -> None:
    """Files, images and templates may be called whatever a filesystem permits."""
    strange = pair.directory / "l\udcfctin \u96ea"
    made = make(strange, *PIECES)
    made.template.rename(strange / "x\udcff.template")
    (made.pool / "1.bin").rename(made.pool / "\udce9\n")
    shutil.copy(strange / "x\udcff.template", pair.directory / "x.template")
    agree(pair, 0, "mi", "-i", "x\udcfe.iso", "-t", strange / "x\udcff.template", made.pool)
    assert (pair.directory / "ours" / "x\udcfe.iso").read_bytes() == made.image
    assert pair.ours("mi", f"--image={strange}/x\udcff.iso", made.pool).returncode == 0


def test_what_cannot_be_read(pair: Pair, made: Made) -> None:
    """What cannot be read is told, and the rest is used."""
    (pair.directory / "broken").symlink_to("broken")
    done = agree(pair, 0, "mi", "-i", "x.iso", pair.directory / "broken", made.pool)
    assert b"broken" in done.stderr


def test_the_own_directory(pair: Pair, made: Made) -> None:
    """What is being built lies among what is searched, and does not get in its own way."""
    for code, hidden in ((1, made.file(2)), (0, None)):
        if hidden is not None:
            hidden.rename(pair.directory.parent / "hidden")
        else:
            (pair.directory.parent / "hidden").rename(made.file(2))
        done = pair.ours("mi", "-r", "quiet", "-i", "x.iso", ".")
        assert (done.returncode, done.stderr) == (code, b"")
    assert (pair.directory / "x.iso").read_bytes() == made.image


def test_index_is_used(pair: Pair, made: Made) -> None:
    """With --cache a second image is built from files that are known, changed ones excepted."""
    options = ("mi", "-r", "quiet", "-c", "c.db", "-t", "x.template", "-i")
    assert pair.ours(*options, "x.iso", made.pool).returncode == 0
    assert (pair.directory / "c.db").exists()
    assert pair.ours(*options, "y.iso", made.pool).returncode == 0
    assert (pair.directory / "y.iso").read_bytes() == made.image
    made.file(1).write_bytes(noise("changed", len(B)))
    assert pair.ours(*options, "z.iso", made.pool).returncode == 1


def test_index_of_the_real_one(pair: Pair, made: Made) -> None:
    """jigdo-lite hands us the real one's cache: it is left alone, which is told, and costs nothing else."""
    assert pair.theirs("scan", "-c", "c.db", "-r", "quiet", made.pool).returncode == 0
    before = (pair.directory / "c.db").read_bytes()
    done = pair.ours("mi", "-c", "c.db", "-i", "x.iso", made.pool)
    assert done.returncode == 0
    assert b"c.db" in done.stderr
    assert (pair.directory / "c.db").read_bytes() == before


# -- to a pipe ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "old"), [(Algorithm.MD5, False), (Algorithm.SHA256, False), (Algorithm.MD5, True)]
)
def test_to_a_pipe(pair: Pair, algorithm: Algorithm, *, old: bool) -> None:
    """`-i -` writes the image to stdout and nothing anywhere else."""
    made = make(pair.directory, *PIECES, old=old, algorithm=algorithm)
    command = ("mi", "-i", "-", "-t", "x.template", made.pool)
    done = pair.ours(*command)
    assert (done.returncode, done.stdout, done.stderr) == (0, made.image, b"")
    if not old:
        assert pair.theirs(*command).stdout == made.image
    assert sorted(os.listdir(pair.directory)) == ["pool", "x.template"]


def test_every_image_to_a_pipe_as_jigit_does(pair: Pair, any_image: BuiltImage) -> None:
    """What we write is what jigit-mkimage writes of the same parts, and what xorriso or tar wrote."""
    done = pair.ours("mi", "-i", "-", f"--template={any_image.template}", any_image.pool)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == any_image.image.read_bytes()
    sums = pair.directory / "sums"
    paths = [any_image.pool / path for path in any_image.parts.values()]
    sums.write_bytes(
        b"".join(
            b"%s  %12d  %s\n"
            % (hashlib.new(any_image.algorithm, data).hexdigest().encode(), len(data), os.fsencode(path))
            for path in paths
            for data in [path.read_bytes()]
        )
    )
    option = "-f" if any_image.algorithm == "md5" else "-F"
    command = [tool("jigit-mkimage"), "-q", "-t", str(any_image.template), option, str(sums)]
    jigit = subprocess.run(command, capture_output=True, check=False, cwd=pair.directory)
    assert (jigit.returncode, jigit.stdout == done.stdout) == (0, True), jigit.stderr


def test_pipe_lacks_parts(pair: Pair, made: Made) -> None:
    """3 and not one byte: nothing can be taken back from a pipe."""
    for files in ((), (made.file(0), made.file(1))):
        command = ("mi", "-i", "-", "-t", "x.template", *files)
        assert pair.theirs(*command).returncode == 3
        one_line(pair.ours(*command), 3)


def test_pipe_and_wrong_image_sum(pair: Pair) -> None:
    """2, after the fact: it is the template that is wrong."""
    made = make(pair.directory, *PIECES, image_checksum=Checksum.of(Algorithm.MD5, b""))
    done = pair.ours("mi", "-i", "-", "-t", "x.template", made.pool)
    assert (done.returncode, done.stdout) == (2, made.image)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("image", ["-", "x.iso"])
def test_one_checksum_of_two_lengths(pair: Pair, image: str) -> None:
    """A template that gives a checksum two lengths cannot be right; that is an error, no traceback."""
    checksum = Checksum.of(Algorithm.MD5, A)
    with (pair.directory / "x.template").open("wb") as file:
        writer = TemplateWriter(file, Algorithm.MD5, creator="tests")
        writer.raw_data(b"x")
        parts = [MatchedFile(len(A), checksum, bytes(8)), MatchedFile(len(A) - 1, checksum, bytes(8))]
        writer.finish([UnmatchedData(1), *parts, ImageInfo(2 * len(A), checksum, 1024)])
    (pair.directory / "a").write_bytes(A)
    (pair.directory / "b").write_bytes(A[:-1])
    done = pair.ours("mi", "-i", image, "-t", "x.template", "a", "b")
    assert done.returncode in (1, 2, 3)
    assert not (pair.directory / "x.iso").exists()


def test_reader_leaves_early(pair: Pair) -> None:
    """A reader that goes gets no whole image, as the exit code and one line tell."""
    make(pair.directory, noise("x", 3_000_000), parts=())
    command = f"{pair.link} mi -i - -t x.template | head -c 10; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=pair.directory,
        env=clean_environ(pair.directory),
        capture_output=True,
        check=True,
    )
    assert done.stdout == noise("x", 3_000_000)[:10] + b"1\n"
    assert done.stderr.splitlines() == [b"jigdo-file: whoever read the image has gone; it is not whole"]


# -- old images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["iso_md5", "iso_jte_sha256"])
def test_from_the_same_iso(pair: Pair, fixture: str, request: pytest.FixtureRequest) -> None:
    """An old ISO with all parts, unmounted and alone, is enough; the real one needs it mounted."""
    built = request.getfixturevalue(fixture)
    assert isinstance(built, BuiltImage)
    shutil.copy(built.image, pair.directory / "old.iso")
    command = ("mi", "-i", "x.iso", f"--template={built.template}", "old.iso")
    assert pair.theirs(*command).returncode == 1
    done = pair.ours(*command)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == built.image.read_bytes()


@pytest.mark.parametrize("fixture", ["squashfs_md5", "ext4_sha256", "tar_md5"])
def test_from_an_old_image_and_its_template(
    pair: Pair, fixture: str, request: pytest.FixtureRequest
) -> None:  # fmt: skip
    """An image that is no ISO is of use where its template lies beside it."""
    built = request.getfixturevalue(fixture)
    assert isinstance(built, BuiltImage)
    old = pair.directory / f"old{built.image.suffix}"
    shutil.copy(built.image, old)
    shutil.copy(built.template, pair.directory / "old.template")
    done = pair.ours("mi", "-i", "x.iso", f"--template={built.template}", old)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (pair.directory / "x.iso").read_bytes() == built.image.read_bytes()


def test_from_an_iso_with_half_of_the_parts(pair: Pair, iso_md5: BuiltImage) -> None:
    """What an old ISO has is taken from it, the rest from elsewhere; a damaged ISO costs what is damaged."""
    first, second = halves(iso_md5)
    here = pair.directory
    (here / "tree").mkdir()
    for number, path in enumerate(first):
        shutil.copy(path, here / "tree" / f"other-name-{number}")
    command = [tool("xorriso"), "-as", "mkisofs", "-quiet", "-o", str(here / "old.iso"), str(here / "tree")]
    subprocess.run(command, check=True, capture_output=True)
    options = ("mi", "-i", "x.iso", f"--template={iso_md5.template}")
    assert pair.ours(*options, here / "old.iso").returncode == 1
    listing = pair.theirs("ls", "--hex", "-t", "x.iso.tmp").stdout.splitlines()
    have = {line.split()[3].decode() for line in listing if line.startswith(b"have-file")}
    assert have == {hashlib.md5(path.read_bytes()).hexdigest() for path in first}
    assert pair.theirs(*options, "-T", "-", stdin=names(*second)).returncode == 0
    assert (here / "x.iso").read_bytes() == iso_md5.image.read_bytes()


def test_from_a_damaged_iso(pair: Pair, iso_md5: BuiltImage) -> None:
    """Of an old ISO with a bad spot everything but the bad part is used."""
    image = bytearray(iso_md5.image.read_bytes())
    part = (iso_md5.pool / "main/a/large.deb").read_bytes()
    at = image.index(part)
    image[at + 1_000_000] ^= 1
    (pair.directory / "old.iso").write_bytes(image)
    options = ("mi", "-i", "x.iso", f"--template={iso_md5.template}")
    done = pair.ours(*options, "old.iso")
    assert done.returncode in (1, 2)
    listing = pair.theirs("ls", "--hex", "-t", "x.iso.tmp").stdout.splitlines()
    missing = [line.split()[3].decode() for line in listing if line.startswith(b"need-file")]
    assert missing == [hashlib.md5(part).hexdigest()]


# -- interrupted -------------------------------------------------------------------------------------


def test_interrupted(pair: Pair) -> None:
    """Ctrl-C ends it with 130 and without a traceback; another run completes the image."""
    parts = tuple(noise(f"part {number}", 2_000_000) for number in range(8))
    made = make(pair.directory, b"head", *parts, parts=parts)
    command = [str(pair.link), "mi", "-i", "x.iso", *map(str, made.part_files)]
    environ = clean_environ(pair.directory)
    with subprocess.Popen(command, cwd=pair.directory, env=environ, stderr=subprocess.PIPE) as process:
        tmp = pair.directory / "x.iso.tmp"
        while process.poll() is None and not tmp.exists():
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=20)[1]
    assert process.returncode in (0, 130)
    assert b"Traceback" not in stderr
    assert pair.ours("mi", "-f", "-i", "x.iso", *made.part_files).returncode == 0
    assert (pair.directory / "x.iso").read_bytes() == made.image


# -- jigdo-lite --------------------------------------------------------------------------------------


def lite_image(directory: Path, algorithm: str) -> tuple[bytes, Path]:
    """Publish an image with names that wget and jigdo-lite can bear; return it and its pool."""
    pool = directory / "pool"
    pieces: list[bytes] = [noise("head", 3000)]
    for number in range(70):
        data = noise(f"lite {number}", 2000 + 37 * number)
        path = pool / "main" / f"p{number % 7}" / f"part-{number:02}.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        pieces += [data, bytes(number)]
    (directory / "kit.iso").write_bytes(b"".join(pieces))
    command = [tool("jigdo-file"), "mt", "-rquiet", "--no-cache", "-i", "kit.iso", "-C", algorithm]
    command += ["--label", "Debian=pool", "--uri", "Debian=http://127.0.0.1:9/nowhere/", "pool//main"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    jigdo = (directory / "kit.jigdo").read_bytes()
    (directory / "kit.jigdo").write_bytes(gzip.compress(jigdo, mtime=0))
    image = (directory / "kit.iso").read_bytes()
    (directory / "kit.iso").unlink()
    return image, pool


@pytest.mark.parametrize(
    ("algorithm", "scan", "beside"),
    [("md5", False, True), ("sha256", False, False), ("md5", True, False), ("sha256", True, True)],
)
def test_jigdo_lite(
    pair: Pair, nginx: Callable[..., Nginx], tmp_path: Path, algorithm: str, *, scan: bool, beside: bool
) -> None:
    """jigdo-lite, which knows nothing of us, completes an image with us in the place of jigdo-file."""
    site, home = tmp_path / "site", tmp_path / "home"
    site.mkdir()
    home.mkdir()
    image, pool = lite_image(site, algorithm)
    server = nginx(site)
    lite = pair.link.parent / "jigdo-lite" if beside else tmp_path / "elsewhere" / "jigdo-lite"
    lite.parent.mkdir(exist_ok=True)
    shutil.copy(tool("jigdo-lite"), lite)
    (home / ".jigdo-lite").write_text(f"debianMirror='{server.url('/pool/')}'\n")
    options: list[str] = []
    if scan:
        old = tmp_path / "old"
        for number, path in enumerate(sorted(pool.rglob("*.deb"))):
            if number % 2:
                old.mkdir(exist_ok=True)
                shutil.copy(path, old / f"{number}.bin")
        options = ["--scan", str(old)]
    environ = clean_environ(home)
    environ["PATH"] = f"{pair.link.parent}{os.pathsep}{environ['PATH']}"
    done = subprocess.run(
        [str(lite), *options, "--noask", server.url("/kit.jigdo")],
        cwd=pair.directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,  # it never gives up by itself
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert b"Traceback" not in told
    assert b"files that the image needs" in told, "that is how we put it, not the real one"
    assert re.search(rb"(?m)^OK", told), told
    assert (pair.directory / "kit.iso").read_bytes() == image
    left = set(os.listdir(pair.directory))
    assert left <= {"kit.iso", "kit.jigdo", "kit.template", "jigdo-file-cache.db"}, left
    fetched = {access.path for access in server.access_log() if access.path.endswith(".deb")}
    assert len(fetched) == (35 if scan else 70)


def test_tree_of_a_real_pool(pair: Pair, tmp_path: Path) -> None:
    """A pool with names of every kind gives the image, as it does to the real one."""
    built = iso_by_jigdo_file(tmp_path / "built")
    shutil.copy(built.template, pair.directory / "x.template")
    agree(pair, 0, "mi", "-r", "quiet", "-i", "x.iso", built.pool)
    assert (pair.directory / "ours" / "x.iso").read_bytes() == built.image.read_bytes()
