"""`jigdofs download` as part of scripts: pipes that close, odd command lines, homes that are not ours."""

import subprocess
from pathlib import Path

import pytest

from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM
from tests.kit.requirements import require_root
from tests.kit.scenes import Program, pool_files


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program with a home, where it also works, and a cache in it."""
    home = tmp_path / "home"
    home.mkdir()
    return Program(home, environ={"CACHE_DIRECTORY": str(home / "cache")})


@pytest.fixture
def built(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    """An ISO whose parts come from a server."""
    faulty_server.files = pool_files(iso_md5)
    return iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})


@pytest.mark.parametrize("options", [(), ("--json",)], ids=str)
def test_nobody_reads_what_it_says(built: BuiltImage, program: Program, options: tuple[str, ...]) -> None:
    """Whoever read our output may go: the image is built all the same, and the exit code is true."""
    process = subprocess.Popen(
        [*PROGRAM, "download", str(built.jigdo), "-o", "x.iso", *options],
        cwd=program.home,
        env=program.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait(60)) == (b"", 0)
    process.stderr.close()
    assert (program.home / "x.iso").read_bytes() == built.image.read_bytes()


def test_options_between_jigdos(built: BuiltImage, program: Program) -> None:
    """Options may stand anywhere, as in the commands of others."""
    (program.home / "out").mkdir()
    done = program("download", "nowhere.jigdo", "-o", "out/", built.jigdo, "-q")
    assert done.returncode == 3
    assert [path.read_bytes() for path in (program.home / "out").iterdir()] == [built.image.read_bytes()]
    assert len(done.stderr.splitlines()) == 1


def test_output_to_a_pipe_is_refused(built: BuiltImage, program: Program) -> None:
    """An image has to be whole before it is given away, so `-` is no output."""
    assert "name a file" in program.fails("download", built.jigdo, "-o", "-", code=3)
    assert list(program.home.iterdir()) == []


def test_a_home_of_somebody_else(built: BuiltImage, public_dir: Path) -> None:
    """Under su or sudo HOME may be another's, closed to us: that costs the cache, not the image."""
    require_root()
    closed = public_dir / "closed"
    closed.mkdir(mode=0o700)
    work = public_dir / "work"
    work.mkdir()
    work.chmod(0o777)
    for path in (built.jigdo, built.template):
        (public_dir / path.name).write_bytes(path.read_bytes())
    program = Program(work, user="nobody", environ={"HOME": str(closed), "XDG_CACHE_HOME": ""})
    done = program("download", public_dir / built.jigdo.name, "-o", "x.iso")
    assert done.returncode == 0, done
    assert "without a cache" in done.stderr
    assert "Traceback" not in done.stderr
    assert (work / "x.iso").read_bytes() == built.image.read_bytes()


def test_a_link_as_output(built: BuiltImage, program: Program) -> None:
    """The file that a link leads to is made or replaced; the link stays."""
    (program.home / "big").mkdir()
    (program.home / "x.iso").symlink_to("big/real.iso")
    for _ in range(2):
        assert program("download", built.jigdo, "-o", "x.iso").returncode == 0
    assert (program.home / "x.iso").is_symlink()
    assert (program.home / "big" / "real.iso").read_bytes() == built.image.read_bytes()
