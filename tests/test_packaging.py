"""Wheel and source distribution: complete, the same from either tree, and at work where the source is not."""

import email
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from jigdofs import __version__
from jigdofs.demo import build
from tests.kit.mounts import REPOSITORY
from tests.kit.requirements import require_fuse

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
TARGETS = PROJECT["tool"]["hatch"]["build"]["targets"]
NEVER = {".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "dist", ".git"}


def ran(command: list[str | Path], directory: Path) -> str:
    """Run a program that must succeed, away from the source tree, and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["HOME"] = str(directory)
    done = subprocess.run(
        [*map(str, command)], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def hatch(tree: Path, target: str, directory: Path) -> Path:
    """Build the wheel or the sdist of a tree, without network."""
    directory.mkdir(parents=True)
    ran([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", directory], tree)
    (built,) = directory.iterdir()
    return built


def shared_data() -> dict[str, Path]:
    """Return what lies where below the prefix of an installation, and the file it comes from."""
    found = {}
    for source, place in TARGETS["wheel"]["shared-data"].items():
        path = REPOSITORY / source
        assert path.exists(), f"pyproject.toml names {source}"
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found[str(Path(place) / file.relative_to(path))] = file
    return found


def tracked() -> set[str]:
    """Return the files of this tree that git knows or would take."""
    command = ["git", "-c", f"safe.directory={REPOSITORY}", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (REPOSITORY / name).exists()}


@dataclass(frozen=True)
class Built:
    """What was built: the sdist from a copy of this tree, a wheel from the copy, one from the sdist."""

    tree: Path
    sdist: Path
    wheel: Path
    wheel_of_sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    # from a copy, which no other test and nobody at work on this tree changes meanwhile
    top = tmp_path_factory.mktemp("packaging")
    tree = top / "tree"
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tree / name)
    (tree / "jigdofs" / "__pycache__").mkdir()
    (tree / "jigdofs" / "__pycache__" / "left.cpython-311.pyc").write_bytes(b"left")
    (tree / ".venv").mkdir()
    (tree / ".venv" / "left").write_bytes(b"left")
    sdist = hatch(tree, "sdist", top / "sdist")
    (top / "unpacked").mkdir()
    ran(["tar", "--extract", "--file", sdist], top / "unpacked")
    (unpacked,) = (top / "unpacked").iterdir()
    return Built(
        tree,
        sdist,
        hatch(tree, "wheel", top / "wheel"),
        hatch(unpacked, "wheel", top / "wheel-of-sdist"),
    )


@pytest.fixture(scope="module")
def prefix(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel of the sdist into a new environment; what it needs is taken from ours."""
    where = tmp_path_factory.mktemp("installed")
    environment = where / "venv"
    ran([sys.executable, "-m", "venv", "--without-pip", environment], where)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    python = environment / "bin" / "python"
    ran([*pip, "--python", python, "install", "--no-deps", "--no-index", built.wheel_of_sdist], where)
    (packages,) = environment.glob("lib/python3.*/site-packages")
    # a line of a .pth adds a directory, and not what the .pth files there add: not the tree we run from
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_the_sdist_is_complete(built: Built) -> None:
    """It has what git has, of all that builds and tests need, and nothing of what lies about."""
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in tracked() if name.partition("/")[0] in TARGETS["sdist"]["only-include"]}
    assert {
        "tests/kit/mounts.py",
        "docs/man/jigdofs.1",
        "systemd/jigdofs@.service",
        ".ci/build-deb",
    } <= wanted
    assert names == wanted | {"PKG-INFO"}
    assert not [name for name in names if NEVER & set(name.split("/"))]


def test_nothing_of_the_tree_is_forgotten() -> None:
    """A new directory or file at the top is either in the sdist or named here."""
    assert {name.partition("/")[0] for name in tracked()} == set(TARGETS["sdist"]["only-include"])


def test_the_wheel_of_the_sdist_is_the_wheel(built: Built) -> None:
    """Both have the same bytes in the same files."""
    with zipfile.ZipFile(built.wheel) as ours, zipfile.ZipFile(built.wheel_of_sdist) as theirs:
        contents = [{name: archive.read(name) for name in archive.namelist()} for archive in (ours, theirs)]
    assert contents[0] == contents[1]
    modules = {name for name in contents[0] if name.startswith("jigdofs/")}
    assert modules == {name for name in tracked() if name.startswith("jigdofs/")}
    assert "jigdofs/py.typed" in modules


def test_the_metadata(built: Built) -> None:
    """Who reads it finds version, licence, this README, and every requirement."""
    with zipfile.ZipFile(built.wheel) as archive:
        name = f"jigdofs-{__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{name}/METADATA"))
        licences = [
            file for file in archive.namelist() if file.startswith(name) and file.endswith("/LICENSE")
        ]
        assert [archive.read(file) for file in licences] == [(REPOSITORY / "LICENSE").read_bytes()]
    assert metadata["Version"] == __version__
    assert metadata["License"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (REPOSITORY / "README.md").read_text()
    required = {
        value.replace(" ", "") for value in metadata.get_all("Requires-Dist", []) if "extra" not in value
    }
    assert len(required) == len(PROJECT["project"]["dependencies"])
    assert set(metadata.get_all("Provides-Extra", [])) == set(PROJECT["project"]["optional-dependencies"])


def test_it_works_where_the_source_is_not(prefix: Path, tmp_path: Path) -> None:
    """The installed command is this version, and it mounts, reads and proves an image."""
    require_fuse()
    where = ran([prefix / "bin" / "python", "-c", "import jigdofs; print(jigdofs.__file__)"], tmp_path)
    assert Path(where).is_relative_to(prefix)
    assert ran([prefix / "bin" / "jigdofs", "--version"], tmp_path) == f"jigdofs {__version__}\n"
    assert "is that of the original" in ran([prefix / "bin" / "jigdofs", "demo"], tmp_path)


def test_an_image_is_mounted_by_the_helper(prefix: Path, tmp_path: Path) -> None:
    """A link to the installed command is what mount(8) calls, and the mount ends with umount."""
    require_fuse()
    helper = tmp_path / "mount.jigdofs"
    helper.symlink_to(prefix / "bin" / "jigdofs")
    (tmp_path / "image").mkdir()
    image = build(tmp_path / "image")
    point = tmp_path / "mnt"
    point.mkdir()
    options = f"ro,cache_dir={tmp_path / 'cache'},scan={tmp_path / 'image' / 'pool'}"
    ran([helper, tmp_path / "image" / "demo.jigdo", point, "-o", options], tmp_path)
    try:
        assert hashlib.sha256((point / image.name).read_bytes()).hexdigest() == image.sha256
    finally:
        ran([prefix / "bin" / "jigdofs", "umount", point], tmp_path)


def test_data_files_are_installed(prefix: Path) -> None:
    """Man pages, completion, units and documents lie where they are looked for, as they are here."""
    found = {place: prefix / place for place in shared_data()}
    assert {
        "share/man/man1/jigdofs.1",
        "share/man/man5/jigdofs.toml.5",
        "share/man/man8/mount.jigdofs.8",
        "share/bash-completion/completions/jigdofs",
        "share/zsh/site-functions/_jigdofs",
        "share/fish/vendor_completions.d/jigdofs.fish",
        "share/jigdofs/systemd/jigdofs@.service",
        "share/jigdofs/systemd/user/jigdofs@.service",
        "share/jigdofs/systemd/jigdofs-update@.timer",
    } <= found.keys()
    for place, source in shared_data().items():
        assert found[place].read_bytes() == source.read_bytes(), place
