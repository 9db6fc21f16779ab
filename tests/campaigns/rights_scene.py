"""The directories that a case of the matrix of rights happens in, with the owners and modes that it names."""

import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.rights_matrix import OTHER, USER, Case
from tests.kit.mounts import detach_everything
from tests.kit.requirements import tool


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a case happens: directories that all can enter; `mounted` is the mount point behind any link."""

    directory: Path
    home: Path
    cache: Path
    point: Path
    mounted: Path
    temporary: Path


@contextmanager
def staged(case: Case) -> Iterator[Scene]:
    """Have the directories of a case as it wants them; nothing is left of them."""
    directory = Path(tempfile.mkdtemp(prefix="rights-"))
    directory.chmod(0o755)
    temporary = directory / "tmp"
    mounted = directory / ("behind-mnt" if case.point == "a link to our own" else "mnt")
    scene = Scene(directory, directory / "home", directory / "cache", directory / "mnt", mounted, temporary)
    temporary.mkdir()
    temporary.chmod(0o1777)
    foreign = USER if case.mounter == "root" else OTHER
    try:
        if case.home != "missing":
            owner = {"own": case.mounter, "not writable": "root", "of another": foreign}[case.home]
            _directory(scene.home, owner, 0o755)
        _make_cache(case, scene, foreign)
        _make_point(case, scene, foreign)
        yield scene
    finally:
        detach_everything(scene.mounted)
        detach_everything(scene.cache)
        shutil.rmtree(directory)
        for path in (Path("/var/cache/jigdofs"), Path("/var/log/jigdofs")):  # ours here, see `main`
            shutil.rmtree(path, ignore_errors=True)


def _directory(path: Path, owner: str, mode: int = 0o700) -> None:
    path.mkdir()
    shutil.chown(path, owner, pwd.getpwnam(owner).pw_gid)
    path.chmod(mode)


def _make_cache(case: Case, scene: Scene, foreign: str) -> None:
    behind = scene.directory / "behind-cache"
    match case.cache:
        case "own":
            _directory(scene.cache, case.mounter)
        case "of another":
            _directory(scene.cache, foreign, 0o755)
        case "writable by the group":
            _directory(scene.cache, case.mounter, 0o770)
        case "writable by all":
            _directory(scene.cache, case.mounter, 0o777)
        case "a link to our own" | "a link to another's":
            _directory(behind, case.mounter if case.cache == "a link to our own" else foreign)
            scene.cache.symlink_to(behind)
        case "with another's directory inside":
            _directory(scene.cache, case.mounter)
            for name in ("objects", "incoming", "sessions"):
                _directory(scene.cache / name, foreign, 0o777)
        case "on a read-only file system":
            scene.cache.mkdir()
            owner = f"uid={pwd.getpwnam(case.mounter).pw_uid},mode=700"
            command = [tool("mount"), "-t", "tmpfs", "-o", f"ro,{owner}", "rights", str(scene.cache)]
            subprocess.run(command, check=True)


def _make_point(case: Case, scene: Scene, foreign: str) -> None:
    match case.point:
        case "own" | "not empty":
            _directory(scene.point, case.mounter)
            if case.point == "not empty":
                (scene.point / "file").write_bytes(b"")
        case "own, not writable":
            _directory(scene.point, case.mounter, 0o555)
        case "a link to our own":
            _directory(scene.mounted, case.mounter)
            scene.point.symlink_to(scene.mounted)
        case "a file":
            scene.point.write_bytes(b"")
            shutil.chown(scene.point, case.mounter)
        case "of another":
            _directory(scene.point, foreign, 0o755)
        case "of another, writable by all":
            _directory(scene.point, foreign, 0o777)
        case "of another, with the sticky bit":
            _directory(scene.point, foreign, 0o1777)
