"""`jigdofs download` where everything works: names, several images, local sources, the cache."""

import gzip
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.sources import Sources
from tests.conftest import ALL_IMAGES
from tests.kit.faults import Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.nginx import Nginx
from tests.kit.requirements import require_fuse
from tests.kit.scenes import Program, occurrences, pool_files, publish

PARTS_OF_MOUNT = 3


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program with a home, where it also works, and a cache in it."""
    home = tmp_path / "home"
    home.mkdir()
    return Program(home, environ={"CACHE_DIRECTORY": str(home / "cache")})


@pytest.fixture
def built(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    """An ISO whose parts come from the faulty server, which counts and is not at fault here."""
    faulty_server.files = pool_files(iso_md5)
    return iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})


def events(stdout: str) -> list[dict[str, Any]]:
    """Read what --json wrote."""
    return [json.loads(line) for line in stdout.splitlines()]


def made(directory: Path) -> dict[str, bytes]:
    """Return the files that lie right in a directory, with their bytes."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def url_path(path: str) -> str:
    return f"/pool/{path}"


def given(server: FaultyServer) -> Counter[str]:
    """Count what a server gave; odd names are asked for in two spellings, one of them 404."""
    return Counter(request.path for request in server.requests if request.status != 404)


def describe(built: BuiltImage, directory: Path, *filenames: str) -> Path:
    """Write a .jigdo that describes the same image once for each of these names; return its path."""
    text = built.jigdo.read_bytes()
    section = re.search(rb"(?ms)^\[Image\]\n.*?(?=^\[|\Z)", text)
    assert section is not None
    sections = [
        re.sub(rb"(?m)^Filename=.*$", b"Filename=" + os.fsencode(name).replace(b"\\", rb"\\"), section[0])
        for name in filenames
    ]
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(built.template, directory / built.template.name)
    jigdo = directory / "many.jigdo"
    jigdo.write_bytes(text.replace(section[0], b"".join(sections)))
    return jigdo


# -- whole images ------------------------------------------------------------------------------------


def called(jigdo: bytes, name: str) -> bytes:
    """Return a .jigdo, perhaps gzipped, whose image has another name."""
    zipped = jigdo.startswith(b"\x1f\x8b")
    text = gzip.decompress(jigdo) if zipped else jigdo
    text = re.sub(rb"(?m)^Filename=.*$", f"Filename={name}".encode(), text)
    return gzip.compress(text, mtime=0) if zipped else text


def test_every_image_from_the_net(
    request: pytest.FixtureRequest, program: Program, nginx: Callable[..., Nginx], tmp_path: Path
) -> None:
    """URLs are all that is needed: every image is right, no part was fetched twice for it."""
    site = tmp_path / "site"
    site.mkdir()
    served = nginx(site)
    images: dict[str, BuiltImage] = {name: request.getfixturevalue(name) for name in ALL_IMAGES}
    urls, wanted = [], Counter[str]()
    for name, image in images.items():
        published = image.with_servers(site / name, {"Debian": served.url(f"/{name}/pool/")})
        (site / name / "pool").symlink_to(image.pool)
        published.jigdo.write_bytes(called(published.jigdo.read_bytes(), name))
        urls.append(served.url(f"/{name}/{published.jigdo.name}"))
        names = [published.jigdo.name, published.template.name, *map("pool/{}".format, image.parts.values())]
        wanted.update(f"/{name}/{path}" for path in names)
    done = program("download", *urls)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert {path.name for path in program.home.iterdir()} == {"cache", *images}
    for name, image in images.items():
        assert (program.home / name).read_bytes() == image.image.read_bytes(), name
    assert Counter(entry.path for entry in served.access_log() if entry.status == 200) == wanted


def test_every_image_from_local_files(
    request: pytest.FixtureRequest, program: Program, tmp_path: Path
) -> None:
    """Local .jigdo files with `file:` servers: one run builds all images, each right."""
    images: dict[str, BuiltImage] = {name: request.getfixturevalue(name) for name in ALL_IMAGES}
    for name, image in images.items():
        image.with_servers(tmp_path / "in" / name, {"Debian": f"file:{image.pool}/"})
    done = program("download", "--into", "out", tmp_path / "in")
    assert (done.returncode, done.stderr) == (0, ""), done
    for name, image in images.items():
        (data,) = made(program.home / "out" / name).values()
        assert data == image.image.read_bytes(), name


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("old/deep", "old/deep/kit.iso"),
        ("old/deep/", "old/deep/kit.iso"),
        ("old/x.img", "old/x.img"),
        ("y", "y"),
    ],
)
def test_output_names(iso_md5: BuiltImage, program: Program, output: str, expected: str) -> None:
    """-o means a directory if it is one, and else the name of the image."""
    (program.home / "old" / "deep").mkdir(parents=True)
    done = program("download", iso_md5.jigdo, "-q", "-o", output)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (program.home / expected).read_bytes() == iso_md5.image.read_bytes()
    files = [path for path in program.home.rglob("*") if path.is_file()]
    assert [path for path in files if program.home / "cache" not in path.parents] == [program.home / expected]


@pytest.mark.parametrize("output", ["new/", "new/deep/", "new/x.iso", "file/", "file/x.iso", "loop/"])
def test_a_mistyped_output(iso_md5: BuiltImage, program: Program, output: str) -> None:
    """A directory that -o means and that is not there is named, and not made; --into makes it."""
    (program.home / "file").touch()
    (program.home / "loop").symlink_to("nowhere")
    line = program.fails("download", iso_md5.jigdo, "-q", "-o", output, code=3)
    assert f"--output {output}" in line
    assert "--into" in line
    assert sorted(path.name for path in program.home.iterdir()) == ["file", "loop"]
    done = program("download", iso_md5.jigdo, "-q", "--into", "new/deep", "--no-cache")
    assert (done.returncode, done.stderr) == (0, "")
    assert (program.home / "new" / "deep" / "kit.iso").read_bytes() == iso_md5.image.read_bytes()


def test_several_images_cannot_have_one_name(iso_md5: BuiltImage, program: Program, tmp_path: Path) -> None:
    """Two .jigdo, or one with two images, are refused for one file name before anything is written."""
    line = program.fails("download", iso_md5.jigdo, iso_md5.jigdo, "-o", "one.iso", code=3)
    assert "one.iso" in line
    line = program.fails("download", describe(iso_md5, tmp_path / "in", "a", "b"), "-o", "one.iso", code=3)
    assert "2 images" in line
    assert "--image" in line
    assert made(program.home) == {}


def test_into_and_output_exclude_each_other(iso_md5: BuiltImage, program: Program) -> None:
    """Two answers to the same question are refused."""
    assert "--into" in program.fails("download", iso_md5.jigdo, "-o", ".", "--into", "x", code=3)


def test_hostile_names_are_leaves(iso_md5: BuiltImage, program: Program, tmp_path: Path) -> None:
    """Whatever path a .jigdo claims for its images, they appear in the output directory under a leaf."""
    escape = tmp_path / "escaped.iso"
    hostile = ("../../up.iso", str(escape), "/", "..", "dir/same.iso", "same.iso")
    jigdo = describe(iso_md5, tmp_path / "in", *hostile)
    done = program("download", jigdo, "--into", "a/b/out", "--no-cache")
    assert done.returncode == 0, done
    out = program.home / "a" / "b" / "out"
    assert set(made(out)) == {"up.iso", "escaped.iso", "many", "many~2", "same.iso", "same~2.iso"}
    assert not escape.exists()
    assert set(made(out).values()) == {iso_md5.image.read_bytes()}
    assert [path for path in program.home.rglob("*") if path.is_file() and path.parent != out] == []


def test_a_name_as_long_as_can_be(iso_md5: BuiltImage, program: Program, tmp_path: Path) -> None:
    """A name of 300 characters is cut so that even the unfinished image fits the filesystem."""
    done = program("download", describe(iso_md5, tmp_path / "in", "x" * 296 + ".iso"), "--into", "out")
    assert done.returncode == 0, done
    ((name, data),) = made(program.home / "out").items()
    assert name.startswith("x" * 200)
    assert name.endswith(".iso")
    assert data == iso_md5.image.read_bytes()


# -- several -----------------------------------------------------------------------------------------


def test_one_that_fails_does_not_stop_the_others(
    built: BuiltImage, program: Program, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """What cannot be had is named, the rest is built, and the exit code is that of the worst."""
    faulty_server.always("/gone.jigdo", Status(404))
    twice = describe(built, tmp_path / "twice", "a.iso", "b.iso")
    gone = faulty_server.url("/gone.jigdo")
    done = program("download", gone, twice, built.jigdo, "-o", ".")
    assert done.returncode == 1, done
    assert [line for line in done.stderr.splitlines() if "gone.jigdo" not in line] == []
    expected = dict.fromkeys(("a.iso", "b.iso", "kit.iso"), built.image.read_bytes())
    assert made(program.home) == expected
    malformed = tmp_path / "malformed.jigdo"
    malformed.write_bytes(b"[Image\n")
    done = program("download", malformed, "nowhere.jigdo", gone, built.jigdo, "--json")
    assert done.returncode == 3
    told = events(done.stdout)
    codes = {Path(event["what"]).name: event["exit_code"] for event in told if event["event"] == "failed"}
    assert codes == {"malformed.jigdo": 3, "nowhere.jigdo": 3, "gone.jigdo": 1}
    assert told[-1]["exit_code"] == 3
    assert [event["outcome"] for event in told if event["event"] == "end"] == ["there already"]


def test_one_of_several_images(built: BuiltImage, program: Program, tmp_path: Path) -> None:
    """--image builds the one that is meant; without it all are built."""
    jigdo = describe(built, tmp_path / "many", "a.iso", "b.iso", "c.iso")
    assert program("download", jigdo, "--image", "b.iso").returncode == 0
    assert set(made(program.home)) == {"b.iso"}
    assert "d.iso" in program.fails("download", jigdo, "--image", "d.iso", code=3)


def test_done_already(built: BuiltImage, program: Program, faulty_server: FaultyServer) -> None:
    """A whole image is recognised, left as it is, and no part is asked for; the user is told what it is."""
    shutil.copyfile(built.image, program.home / "kit.iso")
    before = os.stat(program.home / "kit.iso")
    done = program("download", built.jigdo)
    assert (done.returncode, done.stderr) == (0, "")
    assert "there already" in done.stdout
    assert "8,695,808 bytes" in done.stdout
    assert faulty_server.paths() == []
    after = os.stat(program.home / "kit.iso")
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


# -- local sources -----------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [True, False], ids=["with its template", "alone"])
def test_scan_an_old_image(
    built: BuiltImage, program: Program, faulty_server: FaultyServer, tmp_path: Path, beside: bool
) -> None:
    """The old image has every part: nothing is fetched, and it stays as it was."""
    old = built.image
    if not beside:
        old = tmp_path / "anything.bin"
        shutil.copyfile(built.image, old)
    done = program("download", built.jigdo, "--scan", old, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert (program.home / "kit.iso").read_bytes() == built.image.read_bytes()
    assert faulty_server.paths() == []
    (end,) = [event for event in events(done.stdout) if event["event"] == "end"]
    assert end["origins"]["local files"]["parts"] == len(occurrences(built))
    assert end["fetched"] == 0


def half_of_the_pool(built: BuiltImage, directory: Path) -> set[str]:
    """Copy every second part to a directory, under names of no meaning; return the others' paths."""
    directory.mkdir()
    paths = sorted(built.parts.values())
    for number, path in enumerate(paths[::2]):
        shutil.copyfile(built.pool / path, directory / f"{number}.bin")
    return set(paths[1::2])


def test_scan_a_directory_with_half_of_the_parts(
    iso_md5: BuiltImage, program: Program, nginx: Callable[..., Nginx], tmp_path: Path
) -> None:
    """Exactly the parts that no local file has are fetched, each once."""
    others = half_of_the_pool(iso_md5, tmp_path / "half")
    site = tmp_path / "site"
    site.mkdir()
    served = nginx(site)
    published = publish(iso_md5, site, [served.url("/pool/")])
    done = program("download", published.jigdo, "--scan", tmp_path / "half")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert (program.home / "kit.iso").read_bytes() == iso_md5.image.read_bytes()
    fetched = Counter(entry.path for entry in served.access_log() if entry.status == 200)
    assert fetched == {url_path(path): 1 for path in others}


def test_what_was_hashed_is_remembered(
    built: BuiltImage, program: Program, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """After a download that scanned, nothing of these sources need be hashed again."""
    half = tmp_path / "half"
    others = half_of_the_pool(built, half)
    decoy = half / "decoy.bin"  # as long as a part, but none
    decoy.write_bytes(bytes((built.pool / min(others)).stat().st_size))
    assert program("download", built.jigdo, "--scan", half).returncode == 0
    files = {path: path.read_bytes() for path in half.iterdir()}
    notes: list[str] = []
    sources = Sources(
        [str(half)], remembered=Remembered(str(program.home / "cache" / "scanned.db")), report=notes.append
    )
    sources.scan({len(data) for data in files.values()})
    try:
        for path, data in files.items():
            checksum = Checksum(hashlib.md5(data, usedforsecurity=False).digest())
            assert checksum.algorithm is Algorithm.MD5
            found = sources.candidates(Part(checksum, len(data)))[0]
            assert (found.path, found.checksum(Algorithm.MD5)) == (str(path), checksum)
    finally:
        sources.close()
    assert (sources.counts.hashed_bytes, notes) == (0, [])


def test_a_source_that_does_not_exist(built: BuiltImage, program: Program) -> None:
    """--scan of nothing is an error before anything is done: it is most probably a slip of the finger."""
    line = program.fails("download", built.jigdo, "--scan", "nowhere", code=3)
    assert "--scan nowhere" in line
    assert made(program.home) == {}


def test_scanning_where_the_image_is_built(
    built: BuiltImage, program: Program, faulty_server: FaultyServer
) -> None:
    """The output directory may be a source, too: the unfinished image in it causes no trouble."""
    lacking = max(occurrences(built), key=lambda one: one.length)
    faulty_server.always(url_path(lacking.path), Status(404))
    assert program("download", built.jigdo, "--scan", ".").returncode == 1
    faulty_server.behave()
    faulty_server.forget_requests()
    done = program("download", built.jigdo, "--scan", ".")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert faulty_server.paths() == [url_path(lacking.path)]
    assert made(program.home) == {"kit.iso": built.image.read_bytes()}


# -- the cache ---------------------------------------------------------------------------------------


def test_keep_parts_serves_a_mount(
    built: BuiltImage, program: Program, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """What --keep-parts fetched is in the cache: a mount reads the whole image and fetches nothing."""
    require_fuse()
    done = program("download", built.jigdo, "--keep-parts", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert (program.home / "kit.iso").read_bytes() == built.image.read_bytes()
    assert given(faulty_server) == {url_path(path): 1 for path in built.parts.values()}
    (end,) = [event for event in events(done.stdout) if event["event"] == "end"]
    assert end["fetched"] == sum((built.pool / path).stat().st_size for path in built.parts.values())
    faulty_server.forget_requests()
    with Mounted(built.jigdo, tmp_path / "mnt", ["--cache-dir", str(program.home / "cache")]):
        assert (tmp_path / "mnt" / "kit.iso").read_bytes() == built.image.read_bytes()
    assert faulty_server.paths() == []


def test_keep_parts_needs_a_cache(built: BuiltImage, program: Program) -> None:
    """A contradiction is refused."""
    assert "--no-cache" in program.fails("download", built.jigdo, "--keep-parts", "--no-cache", code=3)


def test_parts_in_the_cache_are_not_fetched(
    built: BuiltImage, program: Program, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """What a mount has read before comes from the cache; only the rest is fetched."""
    require_fuse()
    options = ["--cache-dir", str(program.home / "cache"), "--readahead", "0"]
    with Mounted(built.jigdo, tmp_path / "mnt", options):
        fd = os.open(tmp_path / "mnt" / "kit.iso", os.O_RDONLY | os.O_DIRECT)
        try:
            for one in sorted(occurrences(built), key=lambda one: -one.length)[:PARTS_OF_MOUNT]:
                assert os.pread(fd, 4096, one.offset // 4096 * 4096 + 4096)
        finally:
            os.close(fd)
    before = set(given(faulty_server))
    assert len(before) >= PARTS_OF_MOUNT
    faulty_server.forget_requests()
    done = program("download", built.jigdo)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert (program.home / "kit.iso").read_bytes() == built.image.read_bytes()
    wanted = {url_path(path) for path in built.parts.values()}
    assert given(faulty_server) == dict.fromkeys(wanted - before, 1)
    assert f"{len(before)} parts" in done.stdout
    assert "from the cache" in done.stdout
