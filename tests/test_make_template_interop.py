"""Templates of ours in the hands of jigdo-file, jigit-mkimage and our other verbs: the image comes back."""

import dataclasses
import filecmp
import hashlib
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jigdofs.cli import main
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, Mounted, clean_environ
from tests.kit.nginx import Nginx
from tests.kit.requirements import tool
from tests.test_jigdo_file_verbs import Pair, pair

__all__ = ["pair"]  # a fixture

KINDS = ("iso_md5", "squashfs_md5", "ext4_sha256", "tar_md5", "disk")
ALGORITHMS = pytest.mark.parametrize("algorithm", ["md5", "sha256"])
COMPRESSIONS = pytest.mark.parametrize("compression", ["--gzip", "--bzip2"])
SECTOR = 512
FIRST_SECTOR = 2048


@pytest.fixture(scope="session")
def disk(ext4_sha256: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """A disk with an MBR partition table, an ext4 in its partition and some room behind it."""
    image = tmp_path_factory.mktemp("disk") / "kit.disk"
    file_system = ext4_sha256.image.read_bytes()
    sectors = len(file_system) // SECTOR
    no_chs = b"\xfe\xff\xff"
    entry = struct.pack("<B3sB3sII", 0x80, no_chs, 0x83, no_chs, FIRST_SECTOR, sectors)
    table = struct.pack("<440xI2x16s48x2s", 0x6A696764, entry, b"\x55\xaa")
    assert len(table) == SECTOR
    image.write_bytes(table.ljust(FIRST_SECTOR * SECTOR, b"\0") + file_system + bytes(SECTOR * 33))
    return dataclasses.replace(ext4_sha256, image=image)


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest) -> BuiltImage:
    """Each kind of image in turn; of what the kit made only image and pool are used."""
    built = request.getfixturevalue(request.param)
    assert isinstance(built, BuiltImage)
    return built


def theirs(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run a real tool, which must succeed; return its stdout."""
    program, *rest = map(str, arguments)
    done = subprocess.run([tool(program), *rest], cwd=cwd, capture_output=True, check=False)
    assert done.returncode == 0, done
    return done.stdout.decode(errors="surrogateescape")


def ours(*arguments: str | Path) -> None:
    """Run jigdofs, which must succeed."""
    assert main(list(map(str, arguments))) == 0, arguments


def covered(template: Path) -> int:
    """Return how much of an image is in parts, as jigdo-file tells it."""
    rows = theirs("jigdo-file", "list-template", "-t", template).splitlines()
    return sum(int(row.split()[2]) for row in rows if row.startswith("need-file-"))


def same(made: Path, image: Path) -> bool:
    return filecmp.cmp(made, image, shallow=False)


@ALGORITHMS
@COMPRESSIONS
def test_rebuilt_by_jigdo_file_and_by_us(
    source: BuiltImage, tmp_path: Path, algorithm: str, compression: str
) -> None:
    """Either program builds and verifies the image; no less is in parts than jigdo-file finds."""
    how = ("-r", "quiet", "-C", algorithm, compression)
    pool = f"{source.pool}//"
    jigdo, template = tmp_path / "x.jigdo", tmp_path / "x.template"
    ours("make-template", *how, "-i", source.image, "-j", jigdo, "-t", template, pool)
    their_template = tmp_path / "y.template"
    options = ("--no-cache", "-i", source.image, "-j", tmp_path / "y.jigdo", "-t", their_template)
    theirs("jigdo-file", "make-template", *how, *options, pool)
    assert covered(template) >= covered(their_template) > 0
    assert template.stat().st_size <= 1.02 * their_template.stat().st_size
    built_by = ("-r", "quiet", "-t", template, "-i")
    theirs("jigdo-file", "make-image", *built_by, tmp_path / "1", source.pool)
    ours("make-image", *built_by, tmp_path / "2", source.pool)
    for made in (tmp_path / "1", tmp_path / "2"):
        assert same(made, source.image)
        theirs("jigdo-file", "verify", "-i", made, "-j", jigdo, "-t", template)
    ours("verify", "-r", "quiet", "-i", tmp_path / "1", "-j", jigdo, "-t", template)


@ALGORITHMS
@COMPRESSIONS
def test_rebuilt_by_jigit(source: BuiltImage, tmp_path: Path, algorithm: str, compression: str) -> None:
    """jigit-mkimage builds the image where no name needs quotes, which it does not know."""
    plain = [path for path in source.parts.values() if re.fullmatch(r"[\w./-]+", path, re.ASCII)]
    assert len(plain) >= 10
    names = [f"{source.pool}//{path}" for path in plain]
    jigdo, template = tmp_path / "x.jigdo", tmp_path / "x.template"
    how = ("-r", "quiet", "-C", algorithm, compression, "--label", f"Debian={source.pool}")
    ours("mt", *how, "-i", source.image, "-j", jigdo, "-t", template, *names)
    assert covered(template) >= sum((source.pool / path).stat().st_size for path in plain)
    made = tmp_path / "made"
    theirs("jigit-mkimage", "-j", jigdo, "-t", template, "-m", f"Debian={source.pool}", "-o", made)
    assert same(made, source.image)


@pytest.mark.parametrize(
    ("kind", "algorithm", "compression"), [("iso_md5", "md5", "--gzip"), ("disk", "sha256", "--bzip2")]
)
def test_mounted(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, algorithm: str, compression: str
) -> None:
    """Mounted at once, the .jigdo shows the image to the last byte, its parts read from where they were."""
    built = request.getfixturevalue(kind)
    jigdo, template = tmp_path / "x.jigdo", tmp_path / "x.template"
    how = ("-r", "quiet", "-C", algorithm, compression)
    ours("mt", *how, "-i", built.image, "-j", jigdo, "-t", template, f"{built.pool}//")
    with Mounted(jigdo, tmp_path / "mnt", ["--cache-dir", str(tmp_path / "cache")]) as mounted:
        assert same(mounted.mountpoint / built.image.name, built.image)


# -- a distribution ----------------------------------------------------------------------------------


def make_dvd(directory: Path) -> Path:
    """Make TREE as a CentOS mirror has it, and DVD.iso of the tree and some files of its own."""
    tree = directory / "TREE"
    noise = random.Random(7)
    for number in range(40):
        name = f"package-{number}+plus~1-{number % 7}.el7.centos.{('noarch', 'x86_64')[number % 2]}.rpm"
        path = tree / "7" / "os" / "x86_64" / "Packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise.randbytes(noise.randint(2000, 120_000)))
    (tree / "7" / "os" / "x86_64" / "repodata").mkdir()
    (tree / "7" / "os" / "x86_64" / "repodata" / "repomd.xml").write_bytes(b"<repomd/>\n" * 200)
    (tree / "RPM-GPG-KEY").write_bytes(noise.randbytes(1690))
    own = directory / "own"
    own.mkdir()
    (own / "TRANS.TBL").write_bytes(noise.randbytes(300_000))
    grafts = (f"/={tree}/7/os/x86_64", f"/RPM-GPG-KEY={tree}/RPM-GPG-KEY", f"/isolinux={own}")
    options = ("-quiet", "-r", "-V", "CentOS", "-o", directory / "DVD.iso", "-graft-points")
    theirs("xorriso", "-as", "mkisofs", *options, *grafts)
    return tree


def typed_by_user(pair: Pair, program: str, *arguments: str | Path) -> None:
    """Run our program under a name, as its user does; it must succeed."""
    command = [str(pair.link)] if program == "jigdo-file" else [*PROGRAM]
    environ = clean_environ(pair.link.parent) | {"CACHE_DIRECTORY": str(pair.link.parent / "cache")}
    command += map(str, arguments)
    done = subprocess.run(command, cwd=pair.directory, env=environ, capture_output=True, check=False)
    assert done.returncode == 0, done
    assert b"warning" not in done.stderr, done
    assert all(line.startswith(f"{program}: ".encode()) for line in done.stderr.splitlines()), done


@pytest.mark.parametrize("program", ["jigdofs", "jigdo-file"])
def test_first_command(pair: Pair, nginx: Callable[..., Nginx], program: str) -> None:
    """One tree and one --uri are enough: what comes of it downloads and builds without any editing."""
    here = pair.directory
    tree = make_dvd(here)
    server = nginx(tree)
    files = ("-i", "DVD.iso", "-j", "DVD.jigdo", "-t", "DVD.template")
    typed_by_user(pair, program, "mt", *files, "--uri", f"Centosmirrors={server.url()}", "TREE/")
    text = (here / "DVD.jigdo").read_text()
    assert f"\n[Servers]\nCentosmirrors={server.url()}\n" in text
    assert "\nFilename=DVD.iso\nTemplate=DVD.template\n" in text
    assert "file:" not in text
    paths = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    parts = text.partition("[Parts]\n")[2].splitlines()
    assert {line.partition("=Centosmirrors:")[2] for line in parts} == paths
    printed = pair.theirs("print-missing", "-i", "none", "-j", "DVD.jigdo", "-t", "DVD.template").stdout
    assert set(printed.decode().split()) == {server.url() + path for path in paths}

    elsewhere = here.parent / "elsewhere"
    elsewhere.mkdir()
    for name in ("DVD.jigdo", "DVD.template"):
        shutil.copy(here / name, elsewhere)
    away = dataclasses.replace(pair, directory=elsewhere)
    if program == "jigdofs":
        typed_by_user(away, program, "download", "DVD.jigdo")
        assert {access.path[1:] for access in server.access_log() if access.status == 200} == paths
        assert same(elsewhere / "DVD.iso", here / "DVD.iso")
    done = pair.theirs("make-image", "-r", "quiet", "-i", "y.iso", "-t", "DVD.template", "TREE")
    assert done.returncode == 0, done
    assert same(here / "y.iso", here / "DVD.iso")


# -- any image ---------------------------------------------------------------------------------------

BORDERS = (2 << 20, 899_950)
"""Bytes of raw data in a chunk of zlib's, and of bzip2's at level 9."""
LENGTHS = st.sampled_from([0, 1, 63, 64, 65, 255, 256, 257, 1000, 1023, 1024, 1025, 2048, 4999])
GAP = st.one_of(LENGTHS, st.integers(-2, 2).map(lambda more: BORDERS[0] + more))
PIECE = st.tuples(st.sampled_from(["noise", "noise", "zeros", "pattern", "file"]), LENGTHS, st.integers(0, 5))
FILES = st.lists(st.lists(PIECE, min_size=1, max_size=4), max_size=6)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to make files and an image of them."""

    files: list[list[tuple[str, int, int]]]
    image: list[tuple[str, int, int]]
    seed: int

    def contents(self) -> tuple[list[bytes], bytes]:
        """Return the files and the image."""
        source = random.Random(self.seed)
        files: list[bytes] = []
        for pieces in self.files:
            files.append(b"".join(_piece(source, files, *piece) for piece in pieces))
        return files, b"".join(_piece(source, files, *piece) for piece in self.image)


def _piece(source: random.Random, files: list[bytes], kind: str, length: int, number: int) -> bytes:
    match kind:
        case "noise":
            return source.randbytes(length)
        case "zeros":
            return bytes(length)
        case "pattern":
            return (b"jigdo!"[number:] or b"\xff") * (length // max(6 - number, 1))
        case "half":
            return files[number % len(files)][: length or 1] if files else b""
        case _:
            return files[number % len(files)] if files else b""


def image_pieces(lengths: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    kinds = st.sampled_from(["file", "file", "file", "half", "noise", "zeros", "pattern"])
    return st.lists(st.tuples(kinds, lengths, st.integers(0, 5)), max_size=8)


RECIPES = st.builds(
    Recipe, FILES, st.one_of(image_pieces(LENGTHS), image_pieces(GAP)), st.integers(0, 1 << 16)
)
N5 = ("noise", 4999, 0)
F0 = ("file", 0, 0)


@settings(max_examples=40, derandomize=True, deadline=None, database=None)
@given(RECIPES, st.sampled_from(["md5", "sha256"]), st.booleans(), st.sampled_from([256, 1024, 1025]))
@example(Recipe([], [], 0), "md5", False, 1024)
@example(Recipe([[N5]], [], 0), "sha256", True, 1024)
@example(Recipe([[N5], [("noise", 256, 0)]], [F0, F0, ("file", 0, 1)], 1), "md5", False, 256)
@example(Recipe([[N5]], [F0], 2), "sha256", False, 1024)
@example(Recipe([[("noise", 257, 0)]], [("noise", 1, 0), F0, ("zeros", BORDERS[0], 0)], 3), "md5", False, 256)
@example(Recipe([[N5]], [("noise", BORDERS[1], 0), F0, ("noise", BORDERS[1], 0), F0], 4), "md5", True, 1024)
@example(Recipe([[N5]], [("noise", BORDERS[0] - 1, 0), F0, ("noise", 2, 0)], 5), "sha256", False, 1024)
@example(
    Recipe([[("zeros", 4999, 0), N5]], [("zeros", 50_000, 0), F0, ("zeros", 9, 0)], 6), "md5", False, 256
)
@example(Recipe([[N5], [("noise", 99, 0), F0, N5]], [("noise", 7, 0), ("file", 0, 1)], 7), "md5", True, 1024)
def test_any_image_comes_back(recipe: Recipe, algorithm: str, bzip2: bool, min_length: int) -> None:
    """Repeats, overlaps, files in files, runs, chunk borders: both programs build the same image again."""
    with tempfile.TemporaryDirectory(prefix="kit-any-") as name:
        here = Path(name)
        pool, image, jigdo, template = (here / leaf for leaf in ("pool", "x.iso", "x.jigdo", "x.template"))
        pool.mkdir()
        files, data = recipe.contents()
        for number, content in enumerate(files):
            (pool / str(number)).write_bytes(content)
        image.write_bytes(data)
        how = ["-r", "quiet", "-C", algorithm, f"--min-length={min_length}", *(["--bzip2"] if bzip2 else [])]
        ours("mt", *how, "-i", image, "-j", jigdo, "-t", template, f"{pool}//")
        if data:
            options = ("--no-cache", "-i", image, "-j", here / "y.jigdo", "-t", here / "y.template")
            command = [tool("jigdo-file"), "make-template", *how, *map(str, options), f"{pool}//"]
            code = subprocess.run(command, capture_output=True, check=False).returncode
            if code != -signal.SIGABRT:  # as it does where an image ends in the middle of a file
                assert code == 0
                found = covered(here / "y.template")
                assert covered(template) >= found or found == len(data)
            theirs("jigdo-file", "make-image", "-r", "quiet", "-t", template, "-i", here / "1", pool)
            assert (here / "1").read_bytes() == data
        listing = theirs("jigdo-file", "list-template", "--hex", "-t", template)
        digest = hashlib.new(algorithm, data).hexdigest()
        assert listing.splitlines()[-1].split() == [
            f"image-info-{algorithm}",
            *(str(len(data)), str(min_length), digest),
        ]
        theirs("jigdo-file", "verify", "-i", image, "-t", template)
        ours("make-image", "-r", "quiet", "-t", template, "-i", here / "2", pool)
        assert (here / "2").read_bytes() == data
        ours("verify", "-r", "quiet", "-i", here / "2", "-j", jigdo, "-t", template)
        assert sorted(os.listdir(pool)) == [str(number) for number in range(len(files))]


def test_image_that_is_one_of_the_files(tmp_path: Path) -> None:
    """Something has to stay in the template, but no more than jigdo-file leaves there."""
    member = random.Random(1).randbytes(9000)
    for name, data in (("member", member), ("archive", b"head" + member + b"tail")):
        (tmp_path / "pool" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "pool" / name).write_bytes(data)
    image, pool = tmp_path / "x.iso", f"{tmp_path}/pool//"
    shutil.copy(tmp_path / "pool" / "archive", image)
    ours("mt", "-r", "quiet", "-i", image, pool)
    options = ("--no-cache", "-r", "quiet", "-t", tmp_path / "y.template", "-j", tmp_path / "y.jigdo")
    theirs("jigdo-file", "mt", "-i", image, *options, pool)
    assert covered(tmp_path / "x.template") >= covered(tmp_path / "y.template") == len(member)
    theirs("jigdo-file", "mi", "-r", "quiet", "-t", tmp_path / "x.template", "-i", tmp_path / "1", pool)
    assert same(tmp_path / "1", image)


@pytest.mark.parametrize("compression", ["--gzip", "--bzip2"])
def test_the_price_of_zeros(tmp_path: Path, compression: str) -> None:
    """An empty disk takes no more than 2 % more than in jigdo-file's chunks, which have no bound."""
    image = tmp_path / "x.iso"
    with image.open("wb") as file:
        file.truncate(40 << 20)
    ours("mt", "-r", "quiet", compression, "-i", image, "-t", tmp_path / "x.template")
    names = ("-t", tmp_path / "y.template", "-j", tmp_path / "y.jigdo")
    theirs("jigdo-file", "mt", "-r", "quiet", compression, "-i", image, *names)
    assert (tmp_path / "x.template").stat().st_size <= 1.02 * (tmp_path / "y.template").stat().st_size
