"""Set the scene for fetching ahead: an ISO as an installer wants it, and a server that counts."""

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit import images
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.requirements import require_fuse
from tests.kit.scenes import Occurrence, Program, occurrences, pool_files, read_direct, wait_until

METADATA = (
    ".disk/info",
    "README.html",
    "boot/grub/efi.img",
    "dists/bookworm/Release",
    "dists/bookworm/main/binary-amd64/Packages",
    "install.amd/initrd.gz",
    "install.amd/vmlinuz",
    "isolinux/isolinux.bin",
)
PACKAGES = tuple(f"pool/main/{letter}/{letter}-{number}.deb" for letter in "abl" for number in range(6))
OTHERS = ("doc/manual.txt", *PACKAGES)


def installer_iso(tmp: Path) -> BuiltImage:
    """Make an ISO laid out as Debian's are, in which every file is a part."""
    source = random.Random(5)
    pool = tmp / "pool"
    for path in (*METADATA, *OTHERS):
        images._write(pool / "main" / path, source.randbytes(source.randint(4000, 60_000)))
    command = [*images._xorriso(), "-o", "installer.iso", "-graft-points", f"/={pool.name}/main"]
    images._run(command, tmp)
    built = images._make_template(tmp / "installer.iso", pool, "md5", None)
    assert len(built.parts) == len(METADATA) + len(OTHERS)
    return built


@dataclass
class InstallerScene:
    """The ISO, a server that has its parts, and where to mount it."""

    built: BuiltImage
    server: FaultyServer
    directory: Path
    program: Program

    @property
    def point(self) -> Path:
        return self.directory / "mnt"

    @property
    def image(self) -> Path:
        return self.point / "installer.iso"

    @contextmanager
    def mounted(self, *options: str | Path, allow_log: tuple[str, ...] = ()) -> Iterator[Mounted]:
        """Mount it, and wait until the daemon can be asked."""
        cache = [] if "--no-cache" in options else ["--cache-dir", str(self.directory / "cache")]
        timeouts = ["--stall-timeout", "30s", "--read-timeout", "60s"]
        words = [*cache, *timeouts, *map(str, options)]
        with Mounted(self.built.jigdo, self.point, words, allow_log=allow_log) as mounted:
            wait_until(lambda: self.sockets(mounted.process.pid), "the daemon's control socket")
            yield mounted

    @staticmethod
    def sockets(pid: int) -> bool:
        """Tell whether a process listens at a control socket."""
        inodes = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
        rows = [line.split() for line in Path("/proc/net/unix").read_text("utf-8", "replace").splitlines()]
        return any(f"socket:[{row[6]}]" in inodes for row in rows if row[-1].endswith(".sock"))

    def mount_fails(self, *options: str | Path) -> str:
        """Run `jigdofs mount` with options that make it fail with 3, and return what it says."""
        cache = [] if "--no-cache" in options else ["--cache-dir", self.directory / "cache"]
        return self.program.fails("mount", self.built.jigdo, self.point, *map(str, cache), *options, code=3)

    def prefetch(self, *options: str | Path, code: int = 0) -> str:
        """Run the verb and return what it prints."""
        done = self.program("prefetch", self.point, *options)
        assert (done.returncode, done.stderr) == (code, ""), done
        return done.stdout

    def place(self, path: str) -> Occurrence:
        """Return where a file of the ISO lies."""
        (found,) = [one for one in occurrences(self.built) if one.path == f"main/{path}"]
        return found

    def read(self, *paths: str) -> bytes:
        """Read files, which must be what they are, and return the last one."""
        data = b""
        for path in paths:
            place = self.place(path)
            data = read_direct(self.image, place.offset, place.length)
            assert data == (self.built.pool / place.path).read_bytes()
        return data

    def asked_for(self) -> list[str]:
        """Return the files that were asked for, in order."""
        return [path.removeprefix("/pool/main/") for path in self.server.paths()]

    def all_asked_for(self, *paths: str) -> None:
        """Wait until these were asked for; nothing else may have been, and nothing twice."""
        self.server.wait_until(lambda server: len(server.paths()) >= len(paths))
        assert Counter(self.asked_for()) == Counter(paths)

    def here(self) -> set[str]:
        """Return the files whose parts are in the cache."""
        found = {path.name for path in (self.directory / "cache" / "objects" / "md5").rglob("*")}
        return {path.removeprefix("main/") for sum_, path in self.built.parts.items() if sum_ in found}

    def listed(self, path: Path) -> list[str]:
        """Return the files in a list that --record wrote."""
        lines = path.read_text().splitlines()
        assert lines.pop(0) == "# jigdofs part list 1"
        found = [self.built.parts[line.split()[0].removeprefix("md5:")] for line in lines]
        assert [line.split()[2] for line in lines] == [path.rpartition("/")[2] for path in found]
        return [path.removeprefix("main/") for path in found]


def url(path: str) -> str:
    return f"/pool/main/{path}"


def set_installer_scene(installer: BuiltImage, server: FaultyServer, directory: Path) -> InstallerScene:
    """Have the server serve the parts of the ISO."""
    require_fuse()
    server.files = pool_files(installer)
    built = installer.with_servers(directory / "in", {"Debian": server.url("/pool/")})
    (directory / "home").mkdir()
    return InstallerScene(built, server, directory, Program(directory / "home"))
