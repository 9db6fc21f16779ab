"""`jigdofs cache`: what real mounts and downloads left in a cache, tidied up beside running daemons."""

import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import jigdofs
from jigdofs.parts.shelf import looking_at
from tests.kit.images import BuiltImage, roomy_iso
from tests.kit.mounts import PROGRAM, Mounted
from tests.kit.requirements import require_root
from tests.kit.scenes import Program, drop_pages, lonely, read_direct, tiny_tmpfs, wait_until


@pytest.fixture(scope="session")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return roomy_iso(tmp_path_factory.mktemp("roomy"))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Verb:
    """Run `jigdofs cache ACTION … --cache-dir DIR`."""

    def __init__(self, program: Program, directory: Path) -> None:
        self.program = program
        self.directory = directory

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        done = self.program("cache", *arguments, "--cache-dir", self.directory)
        assert done.returncode == code, done
        return done.stdout

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))

    def images(self) -> dict[str, Any]:
        return {image["name"]: image for image in self.json("ls")}


@pytest.fixture
def cache(program: Program, directory: Path) -> Verb:
    return Verb(program, directory)


def options(*images: BuiltImage, directory: Path, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    mirrors = [word for image in images for word in ("--mirror", f"Debian={image.pool}/")]
    return (*mirrors, "--cache-dir", str(directory), *more)


def mounted(tmp_path: Path, *images: BuiltImage, directory: Path, more: tuple[str, ...] = ()) -> Mounted:
    return Mounted(
        [image.jigdo for image in images],
        tmp_path / "mnt",
        options(*images, directory=directory, more=more),
    )


def knows(cache: Verb, *images: BuiltImage) -> None:
    """Wait until the daemon has noted its images: it is ready before."""

    def noted() -> bool:
        with looking_at(cache.directory) as shelf:
            known = [] if shelf is None else list(shelf.manifests.all())
        names = {one.manifest.contents.name for one in known if one.manifest is not None and one.in_use}
        return {one.image.name for one in images} <= names

    wait_until(noted, "the images are noted")


def files(directory: Path, below: str = "objects") -> dict[Path, int]:
    return {
        Path(root, name): os.lstat(os.path.join(root, name)).st_size
        for root, _, names in os.walk(directory / below)
        for name in names
    }


def has_all(cache: Verb, image: BuiltImage) -> bool:
    told = cache.images()[image.image.name]
    return bool(told["parts_here"] == told["parts"] and told["share"] == 1.0)


def filled(tmp_path: Path, cache: Verb, *images: BuiltImage) -> None:
    """Read images whole through a mount that has ended then."""
    with mounted(tmp_path, *images, directory=cache.directory) as mount:
        for image in images:
            assert (mount.mountpoint / image.image.name).read_bytes() == image.image.read_bytes()
        knows(cache, *images)


# -- ls and du ---------------------------------------------------------------------------------------


def test_no_cache_is_made(cache: Verb, directory: Path) -> None:
    """What does not exist is empty, for whatever it is asked."""
    assert cache.json("ls") == []
    assert "there is no cache" in cache("ls")
    assert cache.json("du")["total_bytes"] == 0
    assert cache.json("gc")["freed_bytes"] == 0
    assert cache.json("verify")["right"] == 0
    cache("clear", "--yes")
    assert "knows no image" in cache.program.fails("cache", "pin", "x.iso", "--cache-dir", directory, code=3)
    assert not directory.exists()


def test_images_that_share_parts(
    tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage, tar_md5: BuiltImage
) -> None:
    """What is read of one image is here for the other; each is told by itself, and shared bytes once."""
    with mounted(tmp_path, iso_md5, tar_md5, directory=directory) as mount:
        knows(cache, iso_md5, tar_md5)
        assert all(image["in_use"] for image in cache.images().values())
        assert (mount.mountpoint / iso_md5.image.name).read_bytes() == iso_md5.image.read_bytes()
        iso, tar = (cache.images()[image.image.name] for image in (iso_md5, tar_md5))
        assert (iso["parts_here"], iso["share"], iso["size"]) == (
            iso["parts"],
            1.0,
            iso_md5.image.stat().st_size,
        )
        assert 0 < tar["parts_here"] <= tar["parts"]
        assert iso["source"] == str(iso_md5.jigdo)
        (detail,) = cache.json("ls", iso["id"][:8])
        assert {part["key"] for part in detail["part_list"]} == {f"md5-{sum_}" for sum_ in iso_md5.parts}
        assert all(part["here"] for part in detail["part_list"])
        assert [one["id"] for one in cache.json("ls", mount.mountpoint)] == [
            one["id"] for one in cache.json("ls")
        ]
        assert [one["id"] for one in cache.json("ls", iso_md5.jigdo)] == [iso["id"]]
    assert not any(image["in_use"] for image in cache.images().values())
    du = cache.json("du")
    assert du["total_bytes"] == sum(files(directory).values())
    by_name = {image["name"]: image for image in du["images"]}
    alone = by_name[iso_md5.image.name]["alone_bytes"]
    assert 0 < alone < by_name[iso_md5.image.name]["stored_bytes"]
    shared = by_name[tar_md5.image.name]["stored_bytes"]
    assert alone + shared + du["of_no_known_image_bytes"] == du["total_bytes"]
    assert du["parts_bytes"] + du["chunks_bytes"] + du["trees_bytes"] + du["other_bytes"] == du["total_bytes"]
    assert du["limit_bytes"] == 20 << 30
    assert iso_md5.image.name in cache("ls")
    assert "in total" in cache("du")
    assert f"{len(iso_md5.parts)} of {len(iso_md5.parts)} parts" in cache("ls", iso_md5.image.name)


def test_download_is_known(
    tmp_path: Path, cache: Verb, directory: Path, program: Program, iso_md5: BuiltImage
) -> None:
    """A download notes its image, too, and whoever is no longer running does not use it."""
    into = tmp_path / "into"
    into.mkdir()
    arguments = options(iso_md5, directory=directory, more=("--keep-parts", "--into", str(into)))
    done = program("download", iso_md5.jigdo, *arguments)
    assert done.returncode == 0, done
    image = cache.images()[iso_md5.image.name]
    assert (image["parts_here"], image["in_use"]) == (image["parts"], False)


# -- gc ----------------------------------------------------------------------------------------------


def test_gc_and_pins(
    tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage, roomy: BuiltImage
) -> None:
    """The pinned image stays whole whatever gc is asked for; the other one goes, and is forgotten."""
    filled(tmp_path, cache, iso_md5, roomy)
    before = files(directory)
    cache("pin", iso_md5.image.name)
    would = cache.json("gc", "--max-size", "1", "--dry-run", code=1)
    assert files(directory) == before
    did = cache.json("gc", "--max-size", "1", code=1)
    assert {**did, "dry_run": True} == would
    assert did["freed_bytes"] == sum(before.values()) - sum(files(directory).values()) > 4_000_000
    assert did["pinned_bytes"] == did["excess_bytes"] + 1 == sum(files(directory).values())
    assert cache.images().keys() == {iso_md5.image.name}
    assert has_all(cache, iso_md5)
    cache("unpin", iso_md5.jigdo)
    assert cache.json("gc", "--older-than", "1h")["freed_files"] == 0
    assert cache.json("gc", "--max-size", "0")["forgotten"] == 1
    assert files(directory) == {}
    assert cache.json("ls") == []


def test_gc_by_age(tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage) -> None:
    """What nobody used for so long goes, the rest stays."""
    filled(tmp_path, cache, iso_md5)
    count = len(files(directory))
    assert cache.json("gc", "--older-than", "1d")["freed_files"] == 0
    (directory / "used").unlink()  # nobody knows any more when they were used, but for their times
    old = sorted(files(directory))[: count // 2]
    for path in old:
        os.utime(path, (1_000_000_000, path.stat().st_mtime))
    assert cache.json("gc", "--older-than", "52w")["freed_files"] == len(old)
    assert len(files(directory)) == count - len(old)


def test_gc_removes_what_killed_daemons_left(
    tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage
) -> None:
    """Sessions and files of a daemon that was killed go; those of one that runs stay."""
    with mounted(tmp_path, iso_md5, directory=directory) as mount:
        knows(cache, iso_md5)
        (session,) = (path.name for path in (directory / "sessions").iterdir())
        in_flight = directory / "incoming" / f"{session}-77"
        in_flight.write_bytes(bytes(1000))
        assert cache.json("gc")["leftovers"] == 0
        assert cache.json("du")["in_flight_bytes"] == 1000
        assert in_flight.exists()
        mount.process.send_signal(signal.SIGKILL)
        mount.process.wait()
        (directory / "index.damaged").mkdir()
        (directory / "index.damaged" / "cache.db").write_bytes(bytes(500))
        assert cache.json("du")["leftover_bytes"] == 1500
        assert cache.json("gc", "--dry-run")["leftovers"] == 3
        assert in_flight.exists()
        told = cache.json("gc")
        assert (told["leftovers"], told["leftover_bytes"]) == (3, 1500)
    assert not in_flight.exists()
    assert not (directory / "index.damaged").exists()
    assert list((directory / "sessions").iterdir()) == []


def test_gc_beside_a_reader(tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage) -> None:
    """However often everything is removed, who reads meanwhile reads what is right."""
    wanted = iso_md5.image.read_bytes()
    with mounted(tmp_path, iso_md5, directory=directory) as mount, ThreadPoolExecutor(1) as threads:
        image = mount.mountpoint / iso_md5.image.name
        collecting = threads.submit(
            lambda: [cache.json("gc", "--max-size", "0", code=1)["in_use_files"] for _ in range(4)]
        )
        reads = 0
        while not collecting.done() or not reads:
            assert read_direct(image, 0, len(wanted)) == wanted
            reads += 1
        assert all(count > 0 for count in collecting.result()[1:])


def test_gc_on_a_full_disk(tmp_path: Path, program: Program, iso_md5: BuiltImage) -> None:
    """Where nothing can be written any more, room is made all the same."""
    require_root()
    with tiny_tmpfs(24 << 20) as disk:
        directory = disk / "cache"
        cache = Verb(program, directory)
        with mounted(tmp_path, iso_md5, directory=directory, more=("--cache-min-free", "0")) as mount:
            (mount.mountpoint / iso_md5.image.name).read_bytes()
            knows(cache, iso_md5)
        with (disk / "filler").open("wb", buffering=0) as filler:
            with suppress(OSError):
                while filler.write(bytes(4096)):
                    pass
            assert os.statvfs(disk).f_bavail == 0
        told = cache.json("gc", "--max-size", "1M")
        assert told["freed_bytes"] > 2 << 20
        assert sum(files(directory).values()) <= 1 << 20


# -- pins --------------------------------------------------------------------------------------------


def test_pins_hold_against_every_daemon(
    tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage, roomy: BuiltImage
) -> None:
    """A pinned image fills the quota: others are read all the same, and nothing of it is evicted."""
    filled(tmp_path, cache, iso_md5)
    cache("pin", iso_md5.image.name)
    quota = ("--cache-max-size", str(sum(files(directory).values()) + 300_000))
    with mounted(tmp_path, roomy, directory=directory, more=quota) as mount:
        for _ in range(2):
            image = mount.mountpoint / roomy.image.name
            assert read_direct(image, 0, roomy.image.stat().st_size) == roomy.image.read_bytes()
    assert has_all(cache, iso_md5)
    assert sum(files(directory).values()) <= int(quota[1])


def test_parts_fetched_later_are_pinned(
    tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage, roomy: BuiltImage
) -> None:
    """A pin is of the image, not of what is here of it; a .jigdo need not have been mounted before."""
    cache("pin", iso_md5.jigdo)
    assert cache.images()[iso_md5.image.name]["pinned"]
    filled(tmp_path, cache, iso_md5)
    assert cache.json("gc", "--max-size", "0", code=1)["pinned_bytes"] > 0
    assert has_all(cache, iso_md5)
    too_small = ("--cache-max-size", "1M")
    line = cache.program.fails("cache", "pin", roomy.jigdo, *too_small, "--cache-dir", directory, code=3)
    assert "MiB, and the cache may have 1.0 MiB" in line
    assert not cache.images()[roomy.image.name]["pinned"]


# -- verify ------------------------------------------------------------------------------------------


def test_verify_finds_what_no_fingerprint_shows(
    tmp_path: Path, program: Program, iso_md5: BuiltImage
) -> None:
    """A bit flips under a daemon that has the file open: it is found, and the daemon has the part anew."""
    require_root()
    part = lonely(iso_md5)[0]
    with tiny_tmpfs(64 << 20) as disk:
        directory = disk / "cache"
        cache = Verb(program, directory)
        more = ("--cache-min-free", "0")
        with mounted(tmp_path, iso_md5, directory=directory, more=more) as mount:
            image = mount.mountpoint / iso_md5.image.name
            right = read_direct(image, part.offset // 4096 * 4096, part.length)
            assert cache.json("verify")["wrong"] == []
            path = directory / "objects" / "md5" / part.checksum[:2] / part.checksum
            before = path.stat()
            with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[part.length // 2] ^= 1
            after = path.stat()
            assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
            drop_pages(image)
            assert read_direct(image, part.offset // 4096 * 4096, part.length) != right, "nobody saw it"
            (wrong,) = cache.json("verify", "--keep", code=2)["wrong"]
            assert (wrong["key"], wrong["removed"]) == (f"md5-{part.checksum}", False)
            assert path.exists()
            assert f"md5-{part.checksum}: its content has another checksum; removed" in cache(
                "verify", code=2
            )
            assert not path.exists()
            drop_pages(image)
            assert read_direct(image, part.offset // 4096 * 4096, part.length) == right
            assert path.read_bytes() == (iso_md5.pool / part.path).read_bytes()
            told = cache.json("verify")
            assert told["wrong"] == []
            assert told["right"] + told["unknown"] == len(files(directory))


def test_verify_does_not_count_as_use(
    tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage
) -> None:
    """Which file goes first is what it was before all were read."""
    filled(tmp_path, cache, iso_md5)
    for path in files(directory):
        os.utime(path, (1_000_000_000, path.stat().st_mtime))
    cache("verify")
    assert {path.stat().st_atime for path in files(directory)} == {1_000_000_000}


def test_damaged_manifest(tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage) -> None:
    """A damaged manifest is found and removed; the pin of its image outlives that, and mends by itself."""
    filled(tmp_path, cache, iso_md5)
    cache("pin", iso_md5.image.name)
    image = cache.images()[iso_md5.image.name]["id"]
    path = directory / "images" / image
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert cache.json("ls") == [{"name": None, "id": image, "pinned": True, "in_use": False}]
    assert cache.json("verify", code=2)["damaged_manifests"] == [image]
    with mounted(tmp_path, iso_md5, directory=directory):
        knows(cache, iso_md5)
        assert cache.images()[iso_md5.image.name]["pinned"]
    path.unlink()
    cache("unpin", image[:10])
    assert cache.json("ls") == []


# -- clear -------------------------------------------------------------------------------------------


def test_clear_one_image(
    tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage, tar_md5: BuiltImage
) -> None:
    """What an image shares with another one stays."""
    filled(tmp_path, cache, iso_md5, tar_md5)
    alone = cache.images()[iso_md5.image.name]["alone_bytes"]
    assert cache.json("clear", iso_md5.image.name, "--yes")["freed_bytes"] == alone
    assert cache.images().keys() == {tar_md5.image.name}
    assert has_all(cache, tar_md5)


def test_clear_spares_what_is_open(
    tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage, roomy: BuiltImage
) -> None:
    """Without --yes nothing goes in a pipe; what a daemon has open stays and is counted; so does a pin."""
    filled(tmp_path, cache, roomy)
    cache("pin", roomy.image.name)
    with mounted(tmp_path, iso_md5, directory=directory) as mount:
        image = mount.mountpoint / iso_md5.image.name
        size = iso_md5.image.stat().st_size
        assert read_direct(image, 0, size) == iso_md5.image.read_bytes()
        before = files(directory)
        assert "--yes" in cache.program.fails("cache", "clear", "--cache-dir", directory, code=3)
        assert "is pinned" in cache.program.fails(
            "cache", "clear", roomy.image.name, "--yes", "--cache-dir", directory, code=3
        )
        assert files(directory) == before
        told = cache.json("clear", "--yes")
        assert told["in_use_files"] > 0
        assert told["in_use_bytes"] + told["pinned_bytes"] == sum(files(directory).values())
        assert has_all(cache, roomy)
        assert read_direct(image, 0, size) == iso_md5.image.read_bytes()
    cache("clear", "--yes", "--pinned")
    assert files(directory) == {}
    assert cache.json("ls") == []


@pytest.mark.parametrize(("answer", "code"), [("n\n", 130), ("\n", 130), ("y\n", 0)])
def test_clear_asks_on_a_terminal(
    tmp_path: Path, cache: Verb, iso_md5: BuiltImage, answer: str, code: int
) -> None:
    """Only who says yes loses anything."""
    directory = cache.directory
    filled(tmp_path, cache, iso_md5)
    before = files(directory)
    ours, theirs = os.openpty()
    os.write(ours, answer.encode())
    done = subprocess.run(
        [*PROGRAM, "cache", "clear", "--cache-dir", directory],
        stdin=theirs,
        capture_output=True,
        env=cache.program.environ,
        cwd=tmp_path,
        check=False,
        timeout=30,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code
    assert b"Remove everything that is neither open nor pinned" in done.stderr
    assert files(directory) == ({} if code == 0 else before)


# -- what lies in the way ----------------------------------------------------------------------------


def test_links_lead_nowhere(tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage) -> None:
    """Links in the cache are neither followed nor written through, whatever is done."""
    filled(tmp_path, cache, iso_md5)
    outside = tmp_path / "outside"
    (outside / "ab").mkdir(parents=True)
    (outside / "precious").write_text("precious")
    (outside / "ab" / ("ab" + "0" * 30)).write_text("precious")
    image = cache.images()[iso_md5.image.name]["id"]
    (directory / "objects" / "sha256").symlink_to(outside)
    link = next(iter(files(directory))).with_name("f" * 32)
    link.symlink_to(outside / "precious")
    (directory / "images" / image).unlink()
    (directory / "images" / image).symlink_to(outside / "precious")
    (directory / "images" / f"{image}.pin").symlink_to(outside / "precious")
    (directory / "index.damaged").symlink_to(outside)
    assert cache.json("ls") == []
    assert [one["reason"] for one in cache.json("verify", code=2)["wrong"]] == ["it is a link"]
    cache("gc", "--max-size", "0")
    shutil.rmtree(directory / "images")
    (directory / "images").symlink_to(outside)
    assert cache.json("ls") == []
    with mounted(tmp_path, iso_md5, directory=directory):
        knows(cache, iso_md5)
    cache("pin", iso_md5.image.name)
    cache("clear", "--yes", "--pinned")
    assert {path.name for path in outside.rglob("*")} == {"ab", "precious", "ab" + "0" * 30}
    assert {path.read_text() for path in files(outside, ".")} == {"precious"}


def test_a_mount_without_the_file_of_locks(
    tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage
) -> None:
    """What cannot be locked costs the knowledge of who uses an image, and no mount."""
    (directory / "images" / "lock" / "full").mkdir(parents=True)
    directory.chmod(0o700)
    with mounted(tmp_path, iso_md5, directory=directory) as mount:
        wait_until(lambda: iso_md5.image.name in cache.images(), "the image is noted")
        assert (mount.mountpoint / iso_md5.image.name).read_bytes() == iso_md5.image.read_bytes()
    cache("pin", iso_md5.image.name)
    cache("unpin", iso_md5.image.name)
    cache("clear", "--yes")


def test_names_that_are_no_text(tmp_path: Path, cache: Verb, directory: Path, iso_md5: BuiltImage) -> None:
    """Whatever a file in the cache is called, it is counted, told of and evicted; no daemon minds."""
    filled(tmp_path, cache, iso_md5)
    odd = os.path.join(os.fsencode(directory), b"objects", b"m\xffd", b"\xfe\n", b"\xff\x1b[31m")

    def make() -> None:
        os.makedirs(os.path.dirname(odd), exist_ok=True)
        Path(os.fsdecode(odd)).write_bytes(b"odd")
        os.utime(odd, (0, 0))  # used before all others

    make()
    assert cache.json("du")["other_bytes"] == 3
    assert cache.json("verify")["unknown"] == 1
    assert cache.json("gc", "--max-size", "0")["in_use_files"] == 0
    assert not os.path.exists(odd)
    with mounted(tmp_path, iso_md5, directory=directory) as mount:  # killed: what it used is counted anew
        assert (mount.mountpoint / iso_md5.image.name).read_bytes() == iso_md5.image.read_bytes()
        mount.process.kill()
        mount.process.wait()
    for path in files(directory, "objects/md5"):
        path.unlink()
    make()
    with mounted(tmp_path, iso_md5, directory=directory, more=("--cache-max-size", "64k")) as mount:
        assert (mount.mountpoint / iso_md5.image.name).read_bytes() == iso_md5.image.read_bytes()
    assert not os.path.exists(odd)


def test_root_acts_as_the_owner(public_dir: Path, iso_md5: BuiltImage, program: Program) -> None:
    """Root who names another user's cache has that user's rights in it: nothing there becomes root's."""
    require_root()
    site = public_dir / "site"
    published = iso_md5.with_servers(site, {"Debian": [f"{site}/pool/"]})
    shutil.copytree(iso_md5.pool, site / "pool")
    directory = public_dir / "home" / "cache"
    arguments = ("--mirror", f"Debian={site}/pool/", "--cache-dir", str(directory))
    home = public_dir / "home"
    with Mounted(published.jigdo, public_dir / "mnt", arguments, home=home, user="nobody"):
        cache = Verb(program, directory)
        wait_until(lambda: iso_md5.image.name in cache.images(), "the image is noted")
        cache("pin", iso_md5.image.name)
        owner = directory.stat().st_uid
        cache("verify", "--quiet")
        cache.json("gc")
        cache("unpin", iso_md5.image.name)
    assert owner != 0
    owners = {path.lstat().st_uid for path in [directory, *directory.rglob("*")]}
    assert owners == {owner}
    forbidden = directory / "images" / "lock"
    forbidden.unlink()
    (directory / "images").chmod(0o500)
    os.chown(directory / "images", 0, 0)
    assert cache.json("ls") == [], "that user may not look there any more"


def test_root_alone_can_read_the_program(
    tmp_path: Path, public_dir: Path, iso_md5: BuiltImage, program: Program
) -> None:
    """Where the program lies among root's files, all that the owner's rights do is loaded before."""
    require_root()
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    shutil.copytree(Path(jigdofs.__file__).parent, private / "jigdofs")
    published = iso_md5.with_servers(public_dir / "site", {"Debian": ["http://127.0.0.1:1/"]})
    directory = public_dir / "cache"
    directory.mkdir(mode=0o700)
    shutil.chown(directory, "nobody")
    for source, code in ((str(published.jigdo), 0), ("http://127.0.0.1:1/a.jigdo", 1)):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jigdofs", "cache", "pin", source, "--cache-dir", directory],
            env=os.environ | {"PYTHONPATH": str(private)},
            cwd=public_dir,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, len(done.stderr.splitlines())) == (code, code), done
    assert Verb(program, directory).images()[iso_md5.image.name]["pinned"]


def test_a_directory_of_something_else(tmp_path: Path, cache: Verb, directory: Path) -> None:
    """What is no cache is left alone."""
    directory.mkdir(mode=0o700)
    (directory / "letters.txt").write_text("dear")
    for action in (("ls",), ("gc",), ("clear", "--yes")):
        line = cache.program.fails("cache", *action, "--cache-dir", directory, code=3)
        assert "holds other things" in line
    assert [path.name for path in directory.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["du", "x.iso"], "takes no image"),
        (["pin"], "needs an image"),
        (["ls", "--dry-run"], "--dry-run is for gc only"),
        (["gc", "--older-than", "soon"], "is no time"),
        (["tidy"], "invalid choice"),
        (["ls", "--no-cache"], "leaves nothing"),
    ],
)
def test_wrong_usage(program: Program, arguments: list[str], text: str) -> None:
    """What makes no sense is said in one line."""
    assert text in program.fails("cache", *arguments, code=3)
