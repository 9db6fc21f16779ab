"""`mount --prefetch`, `--record`, `--prefetch-list`: what is fetched by itself, and what is learnt."""

import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from jigdofs import logs
from jigdofs.cli import options as cli_options
from jigdofs.cli.mount import daemon_options
from jigdofs.control import place
from jigdofs.errors import UsageError
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.installer import (
    METADATA,
    OTHERS,
    PACKAGES,
    InstallerScene,
    installer_iso,
    set_installer_scene,
)
from tests.kit.mounts import Mounted
from tests.kit.scenes import pool_files, wait_until


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return installer_iso(tmp_path_factory.mktemp("installer"))


@pytest.fixture
def scene(installer: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> InstallerScene:
    return set_installer_scene(installer, faulty_server, tmp_path)


def test_prefetch_all(scene: InstallerScene) -> None:
    """Everything comes by itself, what an installer reads first before the rest."""
    with scene.mounted("--prefetch", "all", "--connections", "1", "-v") as mounted:
        scene.all_asked_for(*METADATA, *OTHERS)
        assert set(scene.asked_for()[: len(METADATA)]) == set(METADATA)
        mounted.wait_for_log("fetched ahead: 27 of 27 parts")
        assert scene.here() == {*METADATA, *OTHERS}


def test_prefetch_metadata(scene: InstallerScene) -> None:
    """Exactly the parts of what an installer reads first come by themselves."""
    with scene.mounted("--prefetch", "metadata", "--bwlimit", "128k", "-v") as mounted:
        mounted.wait_for_log("fetched ahead: 8 of 8 parts", 20)
        assert Counter(scene.asked_for()) == Counter(METADATA)
        scene.read(*METADATA)
        assert Counter(scene.asked_for()) == Counter(METADATA)


@pytest.mark.parametrize("kind", ["all", "metadata"])
def test_an_image_that_is_no_iso(
    tar_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path, kind: str
) -> None:
    """There is no metadata in it, which is nothing to be warned of; everything can be fetched."""
    faulty_server.files = pool_files(tar_md5)
    built = tar_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    options = ["--cache-dir", str(tmp_path / "cache"), "--prefetch", kind, "-v"]
    with Mounted(built.jigdo, tmp_path / "mnt", options) as mounted:
        count = len(built.parts) if kind == "all" else 0
        mounted.wait_for_log(f"fetched ahead: {count} of {count} parts")


def test_record(scene: InstallerScene) -> None:
    """A list has the parts in the order of the first touch, cached or not, but not those fetched ahead."""
    record = scene.directory / "list"
    cached, ahead = PACKAGES[7], "doc/manual.txt"
    touched = [PACKAGES[9], cached, METADATA[2], PACKAGES[1], PACKAGES[0]]
    with scene.mounted("--readahead", "0"):
        scene.read(cached)
    with scene.mounted("--record", record, "--readahead", "0") as mounted:
        scene.prefetch("--path", ahead)
        scene.read(*touched, *touched[::-1])
        mounted.process.send_signal(signal.SIGTERM)
        assert mounted.process.wait(10) == 0
    assert scene.listed(record) == touched
    with scene.mounted("--record", record, "--readahead", "0"):
        scene.read(ahead)
        (scene.directory / "foreign").write_text("precious\n")
        other = scene.directory / "other"
        other.mkdir()
        for path, reason in ((scene.directory / "foreign", "no list"), (record, "another mount")):
            words = ("mount", scene.built.jigdo, other, "--no-cache", "--record", path)
            line = scene.program.fails(*words, code=3)
            assert reason in line
        assert (scene.directory / "foreign").read_text() == "precious\n"
    assert scene.listed(record) == [*touched, ahead], "a list goes on where it ended"


def test_record_and_kill(scene: InstallerScene) -> None:
    """After kill -9 the list has all but the last seconds."""
    record = scene.directory / "list"
    with scene.mounted("--record", record, "--readahead", "0") as mounted:
        scene.read(*PACKAGES[:4])
        wait_until(lambda: len(scene.listed(record)) == 4, "the list is written now and then", 15)
        scene.read(*PACKAGES[4:6])
        mounted.process.kill()
        mounted.process.wait()
        for path in place.find(str(scene.point), os.geteuid()):
            path.unlink()  # nobody will mount there again, and replace it
    assert scene.listed(record)[:4] == [*PACKAGES[:4]]


def test_record_and_replay(scene: InstallerScene) -> None:
    """A second machine fetches what the first one read, in that order, before anybody reads there."""
    record = scene.directory / "list"
    dice = random.Random(8)
    touched = dice.sample([*METADATA, *OTHERS], 15)
    with scene.mounted("--record", record, "--readahead", "0"):
        scene.read(*touched)
    shutil.rmtree(scene.directory / "cache")
    scene.server.forget_requests()
    with scene.mounted("--prefetch-list", record, "-v") as mounted:
        mounted.wait_for_log("fetched ahead: 15 of 15 parts")
        asked = scene.asked_for()
        assert Counter(asked) == Counter(touched)
        for place, path in enumerate(asked):  # at most so many are on their way at once
            assert abs(place - touched.index(path)) < 8
        scene.read(*touched)
        assert scene.asked_for() == asked


def test_lists_of_others(scene: InstallerScene) -> None:
    """A list of another image is harmless; what is no list, or is missing, is an error before the mount."""
    known = scene.place(PACKAGES[2])
    path = scene.directory / "list"
    lines = [f"md5:{'0' * 32} 5 unknown", f"md5:{known.checksum} {known.length + 1} another length"]
    text = "\n".join(["# jigdofs part list 1", *lines, f"md5:{known.checksum} {known.length}", "md5:12"])
    path.write_text(text)
    with scene.mounted("--prefetch-list", path, "-v") as mounted:
        mounted.wait_for_log("fetched ahead: 1 of 1 parts")
        assert scene.asked_for() == [PACKAGES[2]]
    for content, reason in (("garbage\n", "no list"), (text + "\n", "list:5: ")):
        path.write_text(content)
        line = scene.mount_fails("--prefetch-list", path)
        assert reason in line
    scene.mount_fails("--prefetch-list", path / "x")


def test_options_that_make_no_sense(scene: InstallerScene) -> None:
    """Nothing can be fetched ahead without a cache, nor slower than servers bear."""
    scene.point.mkdir()
    path = scene.directory / "list"
    path.write_text("# jigdofs part list 1\n")
    for options in (
        ["--no-cache", "--prefetch", "all"],
        ["--no-cache", "--prefetch", "metadata"],
        ["--no-cache", "--prefetch-list", str(path)],
        ["--prefetch", "some"],
        ["--bwlimit", "1k"],
        ["--record", str(scene.directory / "nowhere" / "list")],
        ["--record", str(scene.directory)],
        ["--record", str(scene.point / "list")],
    ):
        scene.mount_fails(*options)
    with scene.mounted("--no-cache", "--record", path, "--bwlimit", "off"):
        scene.read(PACKAGES[0])
        assert "no cache" in scene.program.fails("prefetch", scene.point, "--all", code=3)
    assert scene.listed(path) == [PACKAGES[0]]


def test_default_places_below_the_mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever mounts at HOME is told what lies there: the daemon would wait for itself."""
    monkeypatch.setattr(logs, "_SYSLOG_SOCKET", "/nowhere")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))
    monkeypatch.setattr(cli_options, "default_cache_dir", lambda: tmp_path / "home" / "cache")
    mount = ["x.jigdo", str(tmp_path / "home")]
    with pytest.raises(UsageError, match=r"--log-file .*/mount\.log lies below the mount point"):
        daemon_options([*mount, "--no-cache"])
    with pytest.raises(UsageError, match=r"--cache-dir .*/cache lies below the mount point"):
        daemon_options([*mount, "--foreground"])
    assert daemon_options([*mount, "--foreground", "--no-cache"]).cache is None
