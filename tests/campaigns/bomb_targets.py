"""Put something in the way of a download, and look whether it goes through it to somewhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from jigdofs import demo
from tests.campaigns.bomb_runs import Run, measured
from tests.kit.mounts import PROGRAM

_PRECIOUS = b"precious\n"
_NOBODY = 65534


def _link(target: Path, outside: Path) -> None:
    (target / "demo.img.tmp").symlink_to(outside)


def _dangling(target: Path, outside: Path) -> None:
    (target / "demo.img.tmp").symlink_to(outside.with_name("made-by-us"))


def _hard_link(target: Path, outside: Path) -> None:
    os.link(outside, target / "demo.img.tmp")


def _fifo(target: Path, _outside: Path) -> None:
    os.mkfifo(target / "demo.img.tmp")


def _device(target: Path, _outside: Path) -> None:
    os.mknod(target / "demo.img.tmp", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _directory(target: Path, _outside: Path) -> None:
    (target / "demo.img.tmp").mkdir()


def _image_is_a_directory(target: Path, _outside: Path) -> None:
    (target / "demo.img").mkdir()


def _anothers_link(target: Path, outside: Path) -> None:
    (target / "demo.img").symlink_to(outside)
    os.lchown(target / "demo.img", _NOBODY, _NOBODY)


def _anothers_dangling_link(target: Path, outside: Path) -> None:
    (target / "demo.img").symlink_to(outside.with_name("made-by-us"))
    os.lchown(target / "demo.img", _NOBODY, _NOBODY)


OBSTACLES: tuple[Callable[[Path, Path], None], ...] = (
    _link,
    _dangling,
    _hard_link,
    _fifo,
    _device,
    _directory,
    _image_is_a_directory,
    _anothers_link,
    _anothers_dangling_link,
)


def run_targets(directory: Path, ways: tuple[bool, ...] = (False, True)) -> Iterator[Run]:
    """Download onto each obstacle, without --force and with it; what lies outside must stay as it is."""
    source = directory / "source"
    source.mkdir(parents=True)
    demo.build(source, 2)
    for obstacle in OBSTACLES:
        for force in ways:
            home = directory / f"{obstacle.__name__}-{force}" / "home"
            target, outside = home / "target", home.parent / "outside"
            for path in (target, home / "tmp"):
                path.mkdir(parents=True)
            outside.write_bytes(_PRECIOUS)
            obstacle(target, outside)
            command = [*PROGRAM, "download", str(source / "demo.jigdo"), "-o", "target/", "--no-cache", "-q"]
            what = f"target {obstacle.__name__.strip('_')}{' --force' if force else ''}"
            run = measured([*command, *(["--force"] if force else [])], home, what, {})
            if outside.read_bytes() != _PRECIOUS or outside.with_name("made-by-us").exists():
                run.problems.append("something outside was written to")
            lines = run.errors.splitlines()
            if run.code not in (0, 3) or (run.code == 3 and len(lines) != 1) or "Traceback" in run.errors:
                run.problems.append(f"code {run.code} with {len(lines)} lines")
            yield run
