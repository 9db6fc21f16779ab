"""`jigdofs download --update --into`: a collection of images that follows its .jigdo files."""

import json
import os
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.kit import images
from tests.kit.faults import Stall, Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM
from tests.kit.scenes import Program, lonely, pool_files

NAMES = ("one", "deep/two", "deep/er/three")
BOUND_S = 20.0


@dataclass
class Collection:
    """A tree of .jigdo files, a server of their parts, and the tree of images to be."""

    program: Program
    server: FaultyServer
    jigdos: Path
    files: dict[str, bytes] = field(repr=False)

    def put(self, name: str, built: BuiltImage) -> BuiltImage:
        """Publish an image's .jigdo and template in a subdirectory, and its parts."""
        self.files |= pool_files(built)
        return built.with_servers(self.jigdos / name, {"Debian": self.server.url("/pool/")})

    def have(self, name: str, built: BuiltImage) -> None:
        """Publish an image that was downloaded some time ago."""
        self.put(name, built)
        self.image(name).parent.mkdir(parents=True)
        shutil.copyfile(built.image, self.image(name))

    def image(self, name: str) -> Path:
        return self.program.home / "out" / name / "kit.iso"

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Update with everything below the tree, or with what is given."""
        self.server.forget_requests()
        return self.program("download", "--update", "--into", "out", "--json", *(arguments or (self.jigdos,)))

    def update(self, *arguments: str | Path) -> dict[str, dict[str, Any]]:
        """Update without trouble; return what is told of each image in the end."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        return ends(done)


def ends(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return what --json tells of each image in the end, by its directory below `out`."""
    told = [json.loads(line) for line in done.stdout.splitlines()]
    found = [event for event in told if event["event"] == "end"]
    return {str(Path(event["path"]).relative_to("out").parent): event for event in found}


def outcomes(told: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: event["outcome"] for name, event in told.items()}


def given(server: FaultyServer) -> Counter[str]:
    """Count what a server gave; odd names are asked for in two spellings, one of them 404."""
    return Counter(request.path for request in server.requests if request.status != 404)


def stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written or replaced."""
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns


@pytest.fixture
def collection(faulty_server: FaultyServer, tmp_path: Path) -> Collection:
    home = tmp_path / "home"
    home.mkdir()
    program = Program(home, environ={"CACHE_DIRECTORY": str(home / "cache")})
    files: dict[str, bytes] = {}
    faulty_server.files = files
    return Collection(program, faulty_server, tmp_path / "jigdos", files)


def iso_with(directory: Path, sizes: Mapping[str, int]) -> BuiltImage:
    """Make the kit's ISO once more, with other bytes in some pool files, of these sizes."""
    pool, site = images._prepare(directory)
    source = Random(4)
    for path, size in sizes.items():
        images._write(pool / path, source.randbytes(size))
    image = directory / "kit.iso"
    graft = [f"/pool={pool.name}", f"/={site.name}"]
    images._run([*images._xorriso(), "-o", image.name, "-graft-points", *graft], directory)
    return images._make_template(image, pool, "md5", None)


@pytest.fixture(scope="module")
def newer_iso(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """The ISO of another day: a part grew, another one is new, all that lies behind them moved."""
    return iso_with(
        tmp_path_factory.mktemp("newer"), {"main/a/plain-02.deb": 300_000, "main/a/added.deb": 50_000}
    )


@pytest.fixture(scope="module")
def as_long_iso(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """The ISO of another day, just as long: a part grew as others shrank, what lies between them moved."""
    return iso_with(
        tmp_path_factory.mktemp("as-long"),
        {"main/a/plain-02.deb": 209_027 + 131_072, "main/a/plain-08.deb": 236_894 - 131_072},
    )


def changed_parts(old: BuiltImage, new: BuiltImage) -> Counter[str]:
    """Return the URL paths of those parts that only the new image has."""
    return Counter(f"/pool/{path}" for checksum, path in new.parts.items() if checksum not in old.parts)


# -- which .jigdo are meant --------------------------------------------------------------------------


def test_a_directory_and_then_nothing_new(collection: Collection, iso_md5: BuiltImage) -> None:
    """All .jigdo below a directory are built in like subdirectories; a second run does not touch a thing."""
    for name in NAMES:
        collection.put(name, iso_md5)
    told = collection.update()
    assert outcomes(told) == dict.fromkeys(NAMES, "built")
    before = {name: stamp(collection.image(name)) for name in NAMES}
    for name in NAMES:
        assert collection.image(name).read_bytes() == iso_md5.image.read_bytes()
    told = collection.update()
    assert outcomes(told) == dict.fromkeys(NAMES, "unchanged")
    assert collection.server.paths() == []
    assert {name: stamp(collection.image(name)) for name in NAMES} == before


def test_a_second_run_does_not_even_read(collection: Collection, iso_md5: BuiltImage) -> None:
    """What was whole when last looked at is believed, as long as nobody touched it."""
    built = collection.put("one", iso_md5)
    collection.update()
    image = collection.image("one")
    assert outcomes(collection.update()) == {"one": "unchanged"}
    status = os.stat(image)
    with image.open("r+b") as file:
        file.seek(lonely(built)[0].offset)
        file.write(b"damaged")
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    told = collection.update()
    assert image.read_bytes() == built.image.read_bytes()
    assert given(collection.server) == {f"/pool/{lonely(built)[0].path}": 1}
    assert told["one"]["fetched"] == lonely(built)[0].length


def test_a_pattern(collection: Collection, iso_md5: BuiltImage) -> None:
    """`**` stands for any depth, and subdirectories count from where the pattern begins."""
    for name in NAMES:
        collection.put(name, iso_md5)
    told = collection.update(f"{collection.jigdos}/**/*.jigdo")
    assert outcomes(told) == dict.fromkeys(NAMES, "built")
    told = collection.update(f"{collection.jigdos}/deep/*/*.jigdo")
    assert outcomes(told) == {"two": "built"}


def test_nothing_found(collection: Collection, iso_md5: BuiltImage) -> None:
    """A pattern, a directory or a file that names no .jigdo is an error; the others are built."""
    built = collection.put("one", iso_md5)
    (collection.program.home / "empty").mkdir()
    nothing = ("none*/*.jigdo", "empty", "nowhere.jigdo")
    done = collection.run(*nothing, built.jigdo)
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == list(nothing)
    assert outcomes(ends(done)) == {".": "built"}


# -- what changed ------------------------------------------------------------------------------------


def test_a_changed_image(collection: Collection, iso_md5: BuiltImage, newer_iso: BuiltImage) -> None:
    """Only what changed is fetched, as the old image is a source; the others are left alone."""
    for name in NAMES[:2]:
        collection.have(name, iso_md5)
    untouched = stamp(collection.image(NAMES[1]))
    collection.put(NAMES[0], newer_iso)
    told = collection.update()
    assert outcomes(told) == {NAMES[0]: "built", NAMES[1]: "there already"}
    assert collection.image(NAMES[0]).read_bytes() == newer_iso.image.read_bytes()
    assert given(collection.server) == changed_parts(iso_md5, newer_iso)
    assert stamp(collection.image(NAMES[1])) == untouched


def test_a_changed_image_of_the_same_length(
    collection: Collection, iso_md5: BuiltImage, as_long_iso: BuiltImage
) -> None:
    """That the new image is by chance as long as the old one makes no difference."""
    assert as_long_iso.image.stat().st_size == iso_md5.image.stat().st_size
    collection.have("one", iso_md5)
    collection.put("one", as_long_iso)
    collection.update()
    assert collection.image("one").read_bytes() == as_long_iso.image.read_bytes()
    assert given(collection.server) == changed_parts(iso_md5, as_long_iso)


def test_replaced_at_one_stroke(collection: Collection, iso_md5: BuiltImage, newer_iso: BuiltImage) -> None:
    """The name is never missing and always a whole image; who has the old one open reads the old one."""
    collection.have("one", iso_md5)
    built = collection.put("one", newer_iso)
    image = collection.image("one")
    lengths: set[int] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            try:
                lengths.add(os.stat(image).st_size)
            except FileNotFoundError:
                lengths.add(-1)

    changed = next(iter(changed_parts(iso_md5, newer_iso)))
    collection.server.always(changed, Stall(100))
    command = [*PROGRAM, "download", "--update", "--into", "out", "--quiet", str(built.jigdo.parent.parent)]
    watcher = threading.Thread(target=look)
    with image.open("rb") as reader:
        watcher.start()
        process = subprocess.Popen(command, cwd=collection.program.home, env=collection.program.environ)
        try:
            collection.server.wait_stalled()
            assert image.read_bytes() == iso_md5.image.read_bytes()
            collection.server.behave()
            collection.server.release()
            assert process.wait(BOUND_S) == 0
        finally:
            process.kill()
            process.wait()
            ended.set()
            watcher.join()
        assert reader.read() == iso_md5.image.read_bytes()
    assert image.read_bytes() == newer_iso.image.read_bytes()
    assert lengths == {iso_md5.image.stat().st_size, newer_iso.image.stat().st_size}


def test_an_update_that_fails_keeps_the_old_image(
    collection: Collection, iso_md5: BuiltImage, newer_iso: BuiltImage
) -> None:
    """The old image serves until the new one is whole; the next run fetches the rest alone."""
    collection.have("one", iso_md5)
    collection.put("one", newer_iso)
    absent, *others = changed_parts(iso_md5, newer_iso)
    collection.server.always(absent, Status(404))
    done = collection.run()
    assert done.returncode == 1
    assert ends(done) == {}
    assert given(collection.server) == dict.fromkeys(others, 1)
    assert collection.image("one").read_bytes() == iso_md5.image.read_bytes()
    collection.server.behave()
    assert outcomes(collection.update()) == {"one": "built"}
    assert collection.server.paths() == [absent]
    assert collection.image("one").read_bytes() == newer_iso.image.read_bytes()


def test_changed_again_before_it_was_done(
    collection: Collection, iso_md5: BuiltImage, newer_iso: BuiltImage, as_long_iso: BuiltImage
) -> None:
    """An unfinished image of yesterday's .jigdo does not block today's."""
    collection.have("one", iso_md5)
    collection.put("one", newer_iso)
    collection.server.always(next(iter(changed_parts(iso_md5, newer_iso))), Status(404))
    assert collection.run().returncode == 1
    collection.server.behave()
    collection.put("one", as_long_iso)
    collection.update()
    assert collection.image("one").read_bytes() == as_long_iso.image.read_bytes()
    assert [path.name for path in collection.image("one").parent.iterdir()] == ["kit.iso"]


def test_one_broken_among_three(collection: Collection, iso_md5: BuiltImage) -> None:
    """What cannot be built is told once, with its exit code; the others are built."""
    built = [collection.put(name, iso_md5) for name in NAMES]
    text = built[1].jigdo.read_bytes()
    built[1].jigdo.write_bytes(b"[Image\n" + text)
    done = collection.run()
    assert done.returncode == 3
    assert outcomes(ends(done)) == {NAMES[0]: "built", NAMES[2]: "built"}
    failed = [event for line in done.stdout.splitlines() if (event := json.loads(line))["event"] == "failed"]
    assert [(event["what"], event["exit_code"]) for event in failed] == [(str(built[1].jigdo), 3)]
    built[1].jigdo.write_bytes(text)
    built[1].template.unlink()
    assert collection.run().returncode == 3
    shutil.copyfile(iso_md5.template, built[1].template)
    assert outcomes(collection.update()) == {
        NAMES[0]: "unchanged",
        NAMES[1]: "built",
        NAMES[2]: "unchanged",
    }
