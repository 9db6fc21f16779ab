"""The Debian package: what it says agrees with the project, and it builds, without a word from lintian."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from jigdofs import __version__
from tests.kit.mounts import REPOSITORY
from tests.kit.requirements import require

PACKAGE = sorted((REPOSITORY / "jigdofs").rglob("*.py"))
DEBIAN = REPOSITORY / ".ci" / "debian"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
SCRIPTS = ("postinst", "prerm", "postrm")


def field(name: str) -> dict[str, str]:
    """Return a field of relations of the binary package: of each package, its bound or nothing."""
    paragraph = (DEBIAN / "control").read_text().split("\n\n")[1]
    text = re.search(rf"(?m)^{name}:((?:\n .*)+)", paragraph)
    assert text, name
    relations = [line.strip(" ,") for line in text[1].strip().splitlines()]
    found = [re.fullmatch(r"(\S+)(?: \(>= (\S+)\))?", one) for one in relations]
    return {one[1]: one[2] or "" for one in found if one}


def bounds(requirements: list[str]) -> dict[str, list[int]]:
    """Return the least versions of requirements in pyproject.toml, under Debian's names."""
    found = {}
    for requirement in requirements:
        parts = re.match(r"([\w-]+)>=([\d.]+)", requirement)
        assert parts, requirement
        found[f"python3-{parts[1]}"] = version(parts[2])
    return found


def version(text: str) -> list[int]:
    """Return the numbers of a version, without an epoch and zeros at the end, which say nothing."""
    numbers = [int(number) for number in text.rpartition(":")[2].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


@pytest.mark.parametrize("name", ["Depends", "Recommends"])
def test_it_depends_on_what_the_project_requires(name: str) -> None:
    """What is required is depended on, what is an extra is recommended; the bounds are the same."""
    if name == "Depends":
        wanted = bounds(PROJECT["dependencies"])
    else:
        wanted = bounds([one for extra in PROJECT["optional-dependencies"].values() for one in extra])
    relations = {package: bound for package, bound in field(name).items() if package.startswith("python3-")}
    assert {package: version(bound) for package, bound in relations.items()} == wanted


def test_versions_agree() -> None:
    """The first entry of debian/changelog is of this version."""
    first = re.match(r"jigdofs \((\S+)-\d+\) ", (DEBIAN / "changelog").read_text())
    assert first
    assert first[1] == __version__
    assert re.search(
        r"(?m)^## \[Unreleased\]|^## \[" + re.escape(__version__), (REPOSITORY / "CHANGELOG.md").read_text()
    )


def test_what_is_installed_is_there() -> None:
    """Every line of debian/jigdofs.install and .docs finds files, and every unit is found by one."""
    found = set()
    for line in [*lines("jigdofs.install"), *lines("jigdofs.docs")]:
        pattern = line.split()[0]
        place = (
            DEBIAN / pattern.removeprefix("debian/")
            if pattern.startswith("debian/")
            else REPOSITORY / pattern
        )
        matching = set(place.parent.glob(place.name))
        assert matching, line
        found |= matching
    units = {path for path in (REPOSITORY / "systemd").rglob("*.*") if path.is_file()}
    assert {unit for unit in units if not (found & {unit, *unit.parents})} == set()


def lines(name: str) -> list[str]:
    return (DEBIAN / name).read_text().splitlines()


@pytest.mark.parametrize("name", SCRIPTS)
def test_maintainer_scripts(name: str) -> None:
    """They are shell scripts that end at the first error and have a place for debhelper's."""
    script = DEBIAN / f"jigdofs.{name}"
    assert lines(script.name)[:2] == ["#!/bin/sh", "set -e"]
    assert lines(script.name).count("#DEBHELPER#") == 1
    subprocess.run(["sh", "-n", script], check=True)


def test_purging_removes_all_that_units_write() -> None:
    """The directories that systemd makes for our units go with the package."""
    units = "".join(path.read_text() for path in (REPOSITORY / "systemd").glob("*.service"))
    tops = {"CacheDirectory": "/var/cache", "StateDirectory": "/var/lib", "RuntimeDirectory": "/run"}
    written = re.findall(r"(?m)^(\w+Directory)=([^/\n]+)", units)
    assert written
    removed = set((DEBIAN / "jigdofs.postrm").read_text().split())
    assert {f"{tops[kind]}/{name}" for kind, name in written} | {
        "/etc/jigdofs",
        "/var/cache/jigdofs",
    } <= removed


def test_it_says_what_it_lacks_or_wants(tmp_path: Path) -> None:
    """Wrong usage is told in its own words; without its tools, it tells which to install."""
    build = REPOSITORY / ".ci" / "build-deb"
    wrong = subprocess.run([build, "--where"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert ".ci/build-deb [--outdir DIR]" in wrong.stderr
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    lacking = subprocess.run(
        [build], env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert lacking.returncode == 1
    assert lacking.stderr == ".ci/build-deb: as root, run: apt-get install dpkg-dev\n"


def test_it_builds(tmp_path: Path) -> None:
    """Source and binary package are made, the tree stays as it was, and lintian finds no error."""
    require("dpkg-buildpackage", "dh", "pybuild", "lintian")
    build = subprocess.run(
        [REPOSITORY / ".ci" / "build-deb", "--outdir", tmp_path, "--lintian"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    assert "\nE: " not in f"\n{build.stdout}"
    deb = Path(build.stdout.splitlines()[-1])
    assert {path.suffix for path in tmp_path.iterdir()} == {
        ".deb",
        ".dsc",
        ".xz",
        ".gz",
        ".changes",
        ".buildinfo",
    }
    assert not (REPOSITORY / "debian").exists()
    listed = subprocess.run(
        ["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True
    ).stdout
    installed = {line.split()[5].removeprefix(".") for line in listed.splitlines()}
    modules = {f"/usr/lib/python3/dist-packages/{path.relative_to(REPOSITORY)}" for path in PACKAGE}
    assert modules <= installed
    assert {
        "/usr/bin/jigdofs",
        "/usr/sbin/mount.jigdofs",
        "/usr/sbin/mount.fuse.jigdofs",
        "/usr/lib/systemd/system/jigdofs@.service",
        "/usr/lib/systemd/user/jigdofs@.service",
        "/usr/lib/sysusers.d/jigdofs.conf",
        "/usr/share/man/man8/mount.jigdofs.8.gz",
        "/usr/share/zsh/vendor-completions/_jigdofs",
        "/etc/jigdofs/jigdofs.toml",
        "/etc/jigdofs/images.d/",
    } <= installed
