"""Which files are read, which are not, and what is wrong with some."""

import os
from pathlib import Path

import pytest

from jigdofs.settings import places
from jigdofs.settings.layers import merged
from jigdofs.settings.places import Place, read
from jigdofs.settings.places import places as all_places
from tests.kit.requirements import as_user
from tests.kit.scenes import Program

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="about root")


def system(tmp_path: Path, **files: str) -> str:
    """Write files such as `jigdofs__d__10_a` below a directory that stands for /etc/jigdofs."""
    directory = tmp_path / "etc"
    for name, text in files.items():
        path = directory / f"{name.replace('__', '/').replace('jigdofs/d', 'jigdofs.d')}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(directory)


def test_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """System, what is dropped beside it by name, user, the one that is named: the later ones win."""
    home = tmp_path / "home"
    (home / "jigdofs").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    etc = system(
        tmp_path,
        jigdofs="connections = 1\nreadahead = 1\nmin-speed = 1\nimage = 'x'\nlisten = 'l'",
        jigdofs__d__10="connections = 2\nreadahead = 2\nmin-speed = 2\nimage = 'y'",
        jigdofs__d__20="connections = 3\nreadahead = 3\nmin-speed = 3",
    )
    (tmp_path / "etc" / "jigdofs.d" / ".hidden.toml").write_text("nonsense")
    (tmp_path / "etc" / "jigdofs.d" / "old.toml.dpkg-old").write_text("nonsense")
    (home / "jigdofs" / "config.toml").write_text("connections = 4\nreadahead = 4")
    named = tmp_path / "n.toml"
    named.write_text("connections = 5\nmountpoint = '/mnt'")
    found = read(all_places(str(named), etc))
    assert found.problems == ()
    texts = {name: setting.texts[0] for name, setting in merged(found.layers).items()}
    assert texts == {
        "listen": "l",
        "image": "y",
        "min-speed": "3",
        "readahead": "4",
        "connections": "5",
        "mountpoint": "/mnt",
    }
    assert found.files[-1] == str(named)
    assert len(found.files) == 5


def test_nothing_there(tmp_path: Path) -> None:
    """Where there is no file nothing is said; one that is named must be there."""
    assert read([Place(str(tmp_path / "a")), Place(str(tmp_path / "a" / "b"))]) == places.Read()
    (problem,) = read([Place(str(tmp_path / "a"), named=True)]).problems
    assert str(problem) == f"{tmp_path}/a: No such file or directory"


def test_no_files(tmp_path: Path) -> None:
    """Directories, FIFOs and files without end are told of, and do not hold us up."""
    fifo, long = tmp_path / "fifo", tmp_path / "long"
    os.mkfifo(fifo)
    with long.open("wb") as file:
        file.truncate(1 << 40)
    problems = read([Place(str(tmp_path)), Place(str(fifo)), Place(str(long))]).problems
    reasons = [str(problem).rpartition(": ")[2] for problem in problems]
    assert reasons == ["Is a directory", "is no regular file", "is longer than 1 MiB"]


@root_only
def test_root_follows_no_file_of_others(tmp_path: Path) -> None:
    """What others can write to would give them root's rights."""
    files = {name: tmp_path / name for name in ("group", "world", "theirs", "own")}
    for file in files.values():
        file.write_text("connections = 1")
        file.chmod(0o644)
    files["group"].chmod(0o664)
    files["world"].chmod(0o646)
    os.chown(files["theirs"], 65534, 65534)
    found = read([Place(str(file)) for file in files.values()])
    assert found.files == (str(files["own"]),)
    assert [problem.message.partition(":")[0] for problem in found.problems] == [
        "can be written to by others",
        "can be written to by others",
        "belongs to somebody else",
    ]


@root_only
def test_the_home_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root with a HOME that sudo left to it does not look for settings there."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert all_places(system="/x")[-1].path == f"{tmp_path}/jigdofs/config.toml"
    os.chown(tmp_path, 65534, 65534)
    assert [place.path for place in all_places(system="/x")] == ["/x/jigdofs.toml"]
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [place.path for place in all_places(system="/x")] == ["/x/jigdofs.toml"]


@root_only
def test_what_a_user_may_not_read(public_dir: Path) -> None:
    """A file for root alone says nothing to others; one that could be read before is missed."""
    secret = public_dir / "jigdofs.toml"
    secret.write_text("connections = 1")
    secret.chmod(0o600)
    code = (
        "from jigdofs.settings.places import Place, read\n"
        f"where = [Place({str(secret)!r})]\n"
        "print(read(where).unreadable, *map(str, read(where, [where[0].path]).problems))"
    )
    program = Program(public_dir, user="nobody")
    import subprocess
    import sys

    done = subprocess.run(
        as_user("nobody", [sys.executable, "-c", code]),
        env=program.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"('{secret}',) {secret}: Permission denied\n"
