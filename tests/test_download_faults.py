"""`jigdofs download` when servers, disks and files fail, and when it is ended in the middle."""

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.template import ImageInfo, MatchedFile
from jigdofs.format.template_writer import TemplateWriter
from tests.kit.faults import Fault, Reset, Stall, Status, Truncate, WrongBytes
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM
from tests.kit.requirements import require_root, tool
from tests.kit.scenes import (
    Occurrence,
    Program,
    bytes_read_by,
    lonely,
    occurrences,
    pool_files,
    tiny_tmpfs,
    wait_until,
)

HASTY = ("--connect-timeout", "1s", "--stall-timeout", "1s")
"""A server that is gone or silent is given up within a second or two."""
PROMPTLY_S = 5.0
BOUND_S = 20.0
MIDDLE = 10
INTERRUPTED = "jigdofs: interrupted; run the same command again: it goes on from here"


@dataclass
class Scene:
    """An ISO whose parts come from a server that misbehaves on demand, and a home to download to."""

    built: BuiltImage
    server: FaultyServer
    program: Program
    data: bytes = field(repr=False)

    @property
    def image(self) -> Path:
        return self.program.home / "kit.iso"

    @property
    def tmp(self) -> Path:
        return self.program.home / "kit.iso.tmp"

    @property
    def paths(self) -> set[str]:
        return {url_path(one) for one in occurrences(self.built)}

    def run(self, *options: str | Path) -> subprocess.CompletedProcess[str]:
        return self.program("download", self.built.jigdo, *HASTY, *options)

    def fails(self, *options: str | Path, code: int) -> str:
        return self.program.fails("download", self.built.jigdo, *HASTY, *options, code=code)

    def succeeds(self, *options: str | Path) -> str:
        """Download, silently but for the account (returned); the image is right, and alone."""
        done = self.run(*options)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert self.image.read_bytes() == self.data
        assert not self.tmp.exists()
        return done.stdout

    @contextmanager
    def started(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Run it while the test goes on; in the end it is gone."""
        process = subprocess.Popen(
            [*PROGRAM, "download", str(self.built.jigdo), *options],
            cwd=self.program.home,
            env=self.program.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def recover(self) -> None:
        """Let the server serve well again, and forget what was asked."""
        self.server.behave()
        self.server.release()
        self.server.wait_until(lambda server: server._in_flight == 0)
        self.server.forget_requests()


def url_path(one: Occurrence) -> str:
    return f"/pool/{one.path}"


def given(server: FaultyServer) -> Counter[str]:
    """Count what a server gave; odd names are asked for in two spellings, one of them 404."""
    return Counter(request.path for request in server.requests if request.status != 404)


def by_size(built: BuiltImage) -> list[Occurrence]:
    """Return each part once, the longest first."""
    return sorted({one.checksum: one for one in occurrences(built)}.values(), key=lambda one: -one.length)


def flip(path: Path, offset: int) -> None:
    """Damage one byte, not the length."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def lacking(tmp: Path) -> set[str]:
    """Return which parts an unfinished image lacks, as jigdo-file reads it; none without raw data."""
    command = [tool("jigdo-file"), "list-template", "--hex", f"--template={tmp}"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {line.split()[3] for line in listing.splitlines() if line.startswith("need-file-")}


def fill_up(path: Path) -> None:
    """Write a file until its disk is full."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="No space"):
            write_for_ever(fd)
    finally:
        os.close(fd)


def write_for_ever(fd: int) -> None:
    while True:
        os.write(fd, bytes(4096))


def differing(one: bytes, other: bytes, step: int = 512) -> set[int]:
    """Return the blocks in which two images differ."""
    return {at for at in range(0, len(other), step) if one[at : at + step] != other[at : at + step]}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    home = tmp_path / "home"
    home.mkdir()
    return Program(home, environ={"CACHE_DIRECTORY": str(home / "cache")})


@pytest.fixture
def scene(iso_md5: BuiltImage, faulty_server: FaultyServer, program: Program, tmp_path: Path) -> Scene:
    faulty_server.files = pool_files(iso_md5)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    return Scene(built, faulty_server, program, built.image.read_bytes())


# -- ended in the middle -----------------------------------------------------------------------------


def test_killed_again_and_again(scene: Scene) -> None:
    """After each kill -9 a run goes on from there: at most two parts on their way are had again."""
    parts = by_size(scene.built)
    stations = (parts[0], parts[MIDDLE], parts[-5])
    sent = 0
    asked: Counter[str] = Counter()
    for held in (*stations, None):
        if held is not None:
            scene.server.always(url_path(held), Stall(100))
            # with one connection one part is on its way, and one more is being verified
            with scene.started("--connections=1") as process:
                scene.server.wait_stalled()
                process.kill()
                process.wait()
            assert scene.tmp.exists()
            assert not scene.image.exists()
        else:
            scene.succeeds()
        # before the server is released: what it sends then, nobody receives
        sent += sum(request.body_bytes for request in scene.server.requests if request.status != 404)
        asked += given(scene.server)
        scene.recover()
    assert set(asked) == scene.paths
    again = {one: asked[url_path(one)] - 1 for one in parts}
    assert sum(again.values()) <= 2 * len(stations)
    assert all(again[held] >= 1 for held in stations)
    assert sent <= sum(one.length * (1 + again[one]) for one in parts)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)], ids=["INT", "TERM"]
)
def test_ended_by_a_signal(scene: Scene, number: signal.Signals, code: int) -> None:
    """It ends at once, though a server is silent, says how to go on, and another run does."""
    held = by_size(scene.built)[MIDDLE]
    scene.server.always(url_path(held), Stall(100))
    with scene.started() as process:
        scene.server.wait_until(lambda server: len(set(given(server))) == len(scene.paths))
        scene.server.wait_stalled()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=PROMPTLY_S)
    assert (process.returncode in {code, 128 + number}, stdout) == (True, ""), process.returncode
    assert stderr.splitlines() == ([INTERRUPTED] if number is signal.SIGINT else [])
    assert not scene.image.exists()
    scene.recover()
    scene.succeeds()
    assert 1 <= len(scene.server.paths()) <= 16
    assert given(scene.server)[url_path(held)] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_ended_while_it_checks_a_large_image(
    program: Program, tmp_path: Path, number: signal.Signals
) -> None:
    """Who interrupts a check that takes minutes need not wait for its end."""
    length = 60 << 30
    wrong = Checksum(bytes(16))
    jigdo, template = tmp_path / "huge.jigdo", tmp_path / "huge.template"
    with template.open("wb") as file:
        writer = TemplateWriter(file, Algorithm.MD5, creator="test")
        writer.finish([MatchedFile(length, wrong, bytes(8)), ImageInfo(length, wrong, 1024)])
    checksum = base64.urlsafe_b64encode(hashlib.md5(template.read_bytes()).digest()).decode().rstrip("=")
    jigdo.write_text(
        f"[Jigdo]\nVersion=1.1\n[Image]\nFilename=huge.iso\nTemplate={template.name}\nTemplate-MD5Sum={checksum}\n"
    )
    with (program.home / "huge.iso").open("wb") as image:
        image.truncate(length)
    command = [*PROGRAM, "download", str(jigdo)]
    process = subprocess.Popen(
        command,
        cwd=program.home,
        env=program.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: bytes_read_by(process.pid) > 200 << 20, "it reads the image")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=PROMPTLY_S)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode in {128 + number, -number}, stdout) == (True, "")
    assert stderr.splitlines() == ([INTERRUPTED] if number is signal.SIGINT else [])


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_taking_over_from_jigdo_file(
    request: pytest.FixtureRequest, scene: Scene, tmp_path: Path, algorithm: str
) -> None:
    """Of an image that the real jigdo-file left half done only the other half is fetched."""
    built: BuiltImage = request.getfixturevalue(f"iso_{algorithm}")
    scene.built = built.with_servers(tmp_path / algorithm, {"Debian": scene.server.url("/pool/")})
    parts = by_size(built)
    half = [built.pool / one.path for one in parts[::2]]
    command = [tool("jigdo-file"), "make-image", "--no-cache", f"--image={scene.image}", "--report=quiet"]
    command += [f"--jigdo={scene.built.jigdo}", f"--template={scene.built.template}"]
    (tmp_path / "half").mkdir()
    for number, path in enumerate(half):
        shutil.copyfile(path, tmp_path / "half" / str(number))
    left = subprocess.run([*command, str(tmp_path / "half")], capture_output=True, check=False)
    assert left.returncode == 1, left
    assert scene.tmp.exists()
    account = scene.succeeds()
    assert given(scene.server) == {url_path(one): 1 for one in parts[1::2]}
    assert "from an earlier run" in account


def test_jigdo_file_takes_over(scene: Scene) -> None:
    """What we left undone for want of a part, the real jigdo-file completes with that part alone."""
    absent = by_size(scene.built)[MIDDLE]
    scene.server.always(url_path(absent), Status(404))
    assert scene.run().returncode == 1
    command = [tool("jigdo-file"), "make-image", "--no-cache", f"--image={scene.image}", "--report=quiet"]
    command += [f"--jigdo={scene.built.jigdo}", f"--template={scene.built.template}"]
    done = subprocess.run([*command, scene.built.pool / absent.path], capture_output=True, check=False)
    assert done.returncode == 0, done
    assert scene.image.read_bytes() == scene.data


def test_two_at_the_same_image(scene: Scene) -> None:
    """A second download of an image that is being built is refused in one line; the first goes on."""
    scene.server.always(url_path(by_size(scene.built)[0]), Stall(100))
    with scene.started() as process:
        scene.server.wait_stalled()
        line = scene.fails(code=3)
        assert "another process" in line
        assert str(scene.tmp.name) in line
        scene.server.behave()
        scene.server.release()
        stdout, stderr = process.communicate(timeout=BOUND_S)
    assert (process.returncode, stderr) == (0, "")
    assert "is complete" in stdout
    assert scene.image.read_bytes() == scene.data


# -- servers -----------------------------------------------------------------------------------------


def test_the_first_mirror_lacks_a_third(scene: Scene) -> None:
    """What one mirror lacks comes from the other; nothing else is asked of that."""
    parts = by_size(scene.built)
    absent = {one.path for one in parts[::3]}
    with FaultyServer(pool_files(scene.built, "/third/")) as third:
        for path in absent:
            third.always(f"/third/{path}", Status(404))
        scene.succeeds(f"--mirror=Debian={third.url('/third/')}")
        assert given(third) == {f"/third/{one.path}": 1 for one in parts if one.path not in absent}
    assert given(scene.server) == {f"/pool/{path}": 1 for path in absent}


def test_a_mirror_with_wrong_bytes(scene: Scene) -> None:
    """The image is right all the same; warnings name the mirror, which is soon not asked any more."""
    with FaultyServer(pool_files(scene.built, "/liar/")) as liar:
        liar.always("/liar/*", WrongBytes())
        done = scene.run(f"--mirror=Debian={liar.url('/liar/')}", "--connections=2")
        assert done.returncode == 0, done
        assert scene.image.read_bytes() == scene.data
        lines = done.stderr.splitlines()
        assert 3 <= len(lines) <= 16
        assert all(f"wrong content from mirror {liar.url('/')[:-1]}" in line for line in lines)
        assert len(liar.paths()) < len(scene.paths)
    assert given(scene.server) == dict.fromkeys(scene.paths, 1)


def test_passing_faults(scene: Scene) -> None:
    """Truncated and reset transfers and a server that asks for patience cost time, not an error."""
    parts = [one for one in by_size(scene.built) if one.length > 5000]
    faults: list[Fault] = [Truncate(1000), Status(503, retry_after=1), Reset(1000), Reset(), Stall(1000)]
    for one, fault in zip(parts, faults, strict=False):
        scene.server.script(url_path(one), fault)
    scene.succeeds()
    for one in parts[: len(faults)]:
        assert scene.server.count(url_path(one)) == 2
    waited = [request for request in scene.server.requests if request.path == url_path(parts[0])]
    assert waited[1].range == "bytes=1000-"


def test_a_part_that_nobody_has(scene: Scene) -> None:
    """Everything else is kept; the message names the part and what to do, and doing it fetches one part."""
    absent = lonely(scene.built)[1]
    scene.server.always(url_path(absent), Status(404))
    done = scene.run()
    assert done.returncode == 1
    assert not scene.image.exists()
    last = done.stderr.splitlines()[-1]
    assert absent.checksum in last or Path(absent.path).name in last
    assert "1 of 30 parts" in last
    assert f"{scene.tmp.name} keeps" in last
    assert "--mirror" in last
    assert "--scan" in last
    assert len(done.stderr.splitlines()) <= 2
    wrong = differing(scene.tmp.read_bytes(), scene.data)
    assert wrong
    assert all(absent.offset - 512 < at < absent.end for at in wrong)
    scene.server.forget_requests()
    with FaultyServer(pool_files(scene.built, "/other/")) as other:
        scene.succeeds(f"--mirror=Debian={other.url('/other/')}")
        assert other.paths() == [f"/other/{absent.path}"]
    assert scene.server.paths() == []


def test_a_part_that_nobody_has_right(scene: Scene) -> None:
    """Wrong bytes are never marked as right: they are fetched again when the mirror is mended."""
    absent = lonely(scene.built)[0]
    scene.server.always(url_path(absent), WrongBytes())
    done = scene.run()
    assert done.returncode == 1
    assert "wrong" in done.stderr.splitlines()[-1]
    scene.recover()
    scene.succeeds()
    assert scene.server.paths() == [url_path(absent)]


def test_no_mirror_answers(scene: Scene) -> None:
    """Where nobody listens it ends soon, whatever the number of parts; another run completes the image."""
    scene.server.stop()
    begin = time.monotonic()
    done = scene.run()
    assert time.monotonic() - begin < BOUND_S
    assert done.returncode == 1
    assert "the rest was not asked for" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) <= 8
    assert scene.tmp.exists()
    scene.server.start()
    scene.succeeds()
    assert given(scene.server) == dict.fromkeys(scene.paths, 1)


# -- damage ------------------------------------------------------------------------------------------


def test_a_damaged_byte_in_a_part(scene: Scene) -> None:
    """A whole image that rotted is recognised, and the damaged part alone is fetched."""
    damaged = lonely(scene.built)[1]
    shutil.copyfile(scene.built.image, scene.image)
    flip(scene.image, damaged.offset + damaged.length // 2)
    account = scene.succeeds()
    assert "was damaged" in account
    assert scene.server.paths() == [url_path(damaged)]


def test_a_damaged_byte_in_raw_data(scene: Scene) -> None:
    """Raw data is in the template: nothing is fetched to mend it."""
    shutil.copyfile(scene.built.image, scene.image)
    flip(scene.image, 32768 + 100)
    assert all(not one.offset <= 32868 < one.end for one in occurrences(scene.built))
    assert "was damaged" in scene.succeeds()
    assert scene.server.paths() == []


def test_damage_whose_part_is_away_at_first(scene: Scene) -> None:
    """What was taken from a damaged image is not lost, nor in the way, when the mending takes two runs."""
    damaged = lonely(scene.built)[1]
    shutil.copyfile(scene.built.image, scene.image)
    flip(scene.image, damaged.offset)
    scene.server.always(url_path(damaged), Status(404))
    assert scene.run().returncode == 1
    assert differing(scene.image.read_bytes(), scene.data) == {damaged.offset // 512 * 512}
    scene.recover()
    assert "was damaged" in scene.succeeds()
    assert scene.server.paths() == [url_path(damaged)]


def test_damage_in_an_unfinished_image(scene: Scene) -> None:
    """A byte that changed behind a mark is found by the check of the whole, and that part had again."""
    absent, damaged = lonely(scene.built)[:2]
    scene.server.always(url_path(absent), Status(404))
    assert scene.run().returncode == 1
    flip(scene.tmp, damaged.offset)
    scene.recover()
    done = scene.run("--json")
    assert done.returncode == 0, done
    assert scene.image.read_bytes() == scene.data
    assert Counter(scene.server.paths()) == {url_path(absent): 1, url_path(damaged): 1}
    told: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    (end,) = [event for event in told if event["event"] == "end"]
    assert end["fetched"] == absent.length + damaged.length
    assert sum(origin["bytes"] for origin in end["origins"].values()) == len(scene.data)


def with_wrong_image_sum(built: BuiltImage) -> None:
    """Make the template claim another MD5 of the image, and the .jigdo agree with the template."""
    digest = hashlib.md5(built.image.read_bytes()).digest()
    template = built.template.read_bytes()
    assert template.count(digest) == 1
    built.template.write_bytes(template.replace(digest, bytes(reversed(digest))))
    checksum = base64.urlsafe_b64encode(hashlib.md5(built.template.read_bytes()).digest()).rstrip(b"=")
    text = re.sub(rb"(?m)^Template-MD5Sum=.*$", b"Template-MD5Sum=" + checksum, built.jigdo.read_bytes())
    built.jigdo.write_bytes(text)


def test_a_template_with_a_wrong_image_sum(scene: Scene) -> None:
    """Right parts that make a wrong whole are exit code 2, and the image never gets its name."""
    with_wrong_image_sum(scene.built)
    for fetched in (scene.paths, set()):
        done = scene.run()
        assert done.returncode == 2, done
        assert scene.built.template.name in done.stderr.splitlines()[-1]
        assert "md5" in done.stderr.splitlines()[-1]
        assert not scene.image.exists()
        assert scene.tmp.read_bytes()[: len(scene.data)] == scene.data
        assert set(given(scene.server)) == fetched
        scene.server.forget_requests()


def test_a_jigdo_with_a_wrong_image_sum(scene: Scene, iso_jte_md5: BuiltImage, tmp_path: Path) -> None:
    """The comment of libjte counts: an image without the SHA-512 that it gives is not finished."""
    built = iso_jte_md5.with_servers(tmp_path / "jte", {"Debian": scene.server.url("/pool/")})
    text = gzip.decompress(built.jigdo.read_bytes())
    found = re.search(rb"# Image Hex SHA512Sum ([0-9a-f]{128})", text)
    assert found is not None
    built.jigdo.write_bytes(gzip.compress(text.replace(found[1], found[1][::-1])))
    done = scene.program("download", built.jigdo, "-o", scene.image, "-q")
    assert done.returncode == 2, done
    assert "sha512" in done.stderr.splitlines()[-1]
    assert str(built.jigdo) in done.stderr.splitlines()[-1]
    assert not scene.image.exists()
    assert scene.tmp.exists()


# -- in the way --------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_length", [False, True])
def test_something_else_in_the_way(scene: Scene, same_length: bool) -> None:
    """An unrelated file is left untouched; only --force replaces it."""
    foreign = b"precious" * (len(scene.data) // 8) if same_length else b"precious"
    scene.image.write_bytes(foreign)
    before = os.stat(scene.image)
    line = scene.fails(code=3)
    assert scene.image.name in line
    assert "--force" in line
    after = os.stat(scene.image)
    assert scene.image.read_bytes() == foreign
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not scene.tmp.exists()
    assert scene.server.paths() == []
    scene.succeeds("--force")


@pytest.mark.parametrize("same_length", [False, True])
def test_something_else_in_the_way_of_the_unfinished(scene: Scene, same_length: bool) -> None:
    """A `.tmp` that is no unfinished image of ours is left untouched, as --force is not given."""
    foreign = b"precious" * (len(scene.data) // 8) if same_length else b"precious"
    scene.tmp.write_bytes(foreign)
    line = scene.fails(code=3)
    assert scene.tmp.name in line
    assert "--force" in line
    assert scene.tmp.read_bytes() == foreign


@pytest.mark.parametrize("name", ["kit.iso", "kit.iso.tmp"])
def test_a_directory_in_the_way(scene: Scene, name: str) -> None:
    """A directory of the name is refused, even with --force, and stays."""
    (scene.program.home / name).mkdir()
    assert name in scene.fails("--force", code=3)
    assert (scene.program.home / name).is_dir()


# -- disks -------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small(scene: Scene) -> None:
    """That is said in one line before parts are fetched; after room is made it goes on."""
    require_root()
    with tiny_tmpfs(5 << 20) as small:
        line = scene.fails("-o", small, code=1)
        assert "make room" in line
        assert str(small) in line
        assert scene.server.paths() == []
        subprocess.run([tool("mount"), "-o", "remount,size=20m", str(small)], check=True)
        done = scene.run("-o", small)
        assert (done.returncode, done.stderr) == (0, "")
        assert (small / "kit.iso").read_bytes() == scene.data


@pytest.mark.parametrize("keep", [(), ("--keep-parts",)], ids=["straight", "through the cache"])
def test_a_disk_that_becomes_full(scene: Scene, keep: tuple[str, ...]) -> None:
    """Others may fill the disk meanwhile: one line, exit code 1, and nothing is fetched twice later."""
    require_root()
    held = by_size(scene.built)[0]
    with tiny_tmpfs(12 << 20) as small:
        scene.server.always(url_path(held), Stall(100))
        with scene.started("-o", str(small), "-q", *keep) as process:
            scene.server.wait_until(lambda server: len(set(given(server))) == len(scene.paths))
            scene.server.wait_stalled()
            wait_until(lambda: lacking(small / "kit.iso.tmp") == {held.checksum}, "the others are in place")
            fill_up(small / "filler")
            scene.server.release()
            stdout, stderr = process.communicate(timeout=BOUND_S)
        assert (process.returncode, stdout) == (1, "")
        (line,) = stderr.splitlines()
        assert "make room" in line
        (small / "filler").unlink()
        scene.recover()
        done = scene.run("-o", small, *keep)
        assert (done.returncode, done.stderr) == (0, "")
        assert (small / "kit.iso").read_bytes() == scene.data
        # in the cache all of them are: what was on the way in is not lost
        assert given(scene.server) == ({} if keep else {url_path(held): 1})


def test_a_directory_without_rights(
    iso_md5: BuiltImage, faulty_server: FaultyServer, public_dir: Path
) -> None:
    """Where one may not write, that is said in one line, and nothing is asked for but the inputs."""
    require_root()
    built = iso_md5.with_servers(public_dir / "in", {"Debian": faulty_server.url("/pool/")})
    (public_dir / "home").mkdir(mode=0o777)
    (public_dir / "home").chmod(0o777)
    (public_dir / "closed").mkdir()
    program = Program(public_dir / "home", user="nobody")
    line = program.fails("download", built.jigdo, "-o", "../closed", "--no-cache", code=3)
    assert "closed" in line
    assert "Permission denied" in line
    assert list((public_dir / "closed").iterdir()) == []
    assert faulty_server.paths() == []


def test_hopeless_inputs_end_at_once(program: Program, tmp_path: Path) -> None:
    """A .jigdo without a template, or with another one, is told in one line with its exit code."""
    jigdo = tmp_path / "lone.jigdo"
    jigdo.write_text(
        "[Jigdo]\nVersion=1.1\n[Image]\nFilename=x.iso\nTemplate=lone.template\nTemplate-MD5Sum=1B2M2Y8AsgTpgAmY7PhCfg\n"
    )
    assert "lone.template" in program.fails("download", jigdo, code=3)
    (tmp_path / "lone.template").write_bytes(b"not what the .jigdo says")
    assert "lone.template" in program.fails("download", jigdo, code=2)
    assert [path.name for path in program.home.iterdir() if path.is_file()] == []
