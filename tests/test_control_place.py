"""Where the control socket of a mount lies: never where others can write."""

import os
import socket
from pathlib import Path

import pytest

from jigdofs.control import place
from jigdofs.errors import MountError
from tests.kit.control_sockets import MNT, run_as_user, sockets_below
from tests.kit.requirements import require_root


@pytest.fixture
def runtime(public_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # `tmp_path` is asked for as pytest must not make its own directories where ours is for a while
    return sockets_below(public_dir, monkeypatch)


def test_our_own_directory(runtime: Path) -> None:
    """It is made for us alone, and used again; in that of root lie those of services."""
    assert place.own_directory() == runtime
    assert runtime.lstat().st_mode & 0o7777 == (0o700 if os.geteuid() else 0o755)
    assert place.own_directory() == runtime


@pytest.mark.parametrize("trouble", ["writable", "link", "file", "dangling", "foreign"])
def test_a_directory_that_is_not_safe(runtime: Path, tmp_path: Path, trouble: str) -> None:
    """What others could have made or can write to is passed over, here and by those who look for a socket."""
    if trouble == "writable":
        runtime.mkdir()
        runtime.chmod(0o770)
    elif trouble == "link":
        tmp_path.chmod(0o700)
        runtime.symlink_to(tmp_path)
    elif trouble == "file":
        runtime.write_bytes(b"")
    elif trouble == "dangling":
        runtime.symlink_to(tmp_path / "nowhere")
    else:
        require_root()
        runtime.mkdir(0o700)
        os.chown(runtime, 65534, -1)
    elsewhere = place.own_directory()
    assert elsewhere.parent == runtime.parent
    assert elsewhere.name == f"jigdofs-{os.geteuid()}"
    if runtime.is_dir():
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(runtime / place.socket_name(MNT)))
            assert place.find(MNT, os.geteuid()) == []
    elsewhere.chmod(0o777)
    with pytest.raises(MountError, match="no place for a control socket"):
        place.own_directory()


OWN_DIRECTORY = """
    import tempfile
    from jigdofs.control import place
    print(place.own_directory(), tempfile.gettempdir())
"""


def test_the_directory_of_a_user(public_dir: Path) -> None:
    """A user's is in XDG_RUNTIME_DIR; where that is unset, relative, missing or too long, it is elsewhere."""
    given, long, temporary = public_dir / "run", public_dir / ("x" * 100), public_dir / "tmp"
    for path in (given, long, temporary):
        path.mkdir()
        os.chown(path, 65534, -1)
    assert run_as_user(OWN_DIRECTORY, XDG_RUNTIME_DIR=str(given)).split()[0] == f"{given}/jigdofs"
    for environ in ({}, *({"XDG_RUNTIME_DIR": text} for text in ("", "run", "/nowhere", str(long)))):
        found = run_as_user(OWN_DIRECTORY, TMPDIR=str(temporary), **environ).split()[0]
        assert found == f"{temporary}/jigdofs-65534", environ


def test_the_directory_of_a_service(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon takes what its manager made for it; those who ask find it, if it is private."""
    require_root()
    runtime.mkdir()
    made, foreign = runtime / "debian", runtime / "other"
    for directory in (made, foreign):
        directory.mkdir(0o700)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(directory / place.socket_name(MNT)))
    os.chown(foreign, 65534, -1)
    assert place.find(MNT, 0) == [made / place.socket_name(MNT)]
    assert place.find(MNT, 65534) == [foreign / place.socket_name(MNT)]
    foreign.chmod(0o720)
    assert place.find(MNT, 65534) == []
    for given in (f"{made}:/run/more", str(made)):
        monkeypatch.setenv("RUNTIME_DIRECTORY", given)
        assert place.own_directory() == made
        assert place.find(MNT, 0) == [made / place.socket_name(MNT)]
    for given in (str(foreign), str(runtime.parent), "debian", ""):
        monkeypatch.setenv("RUNTIME_DIRECTORY", given)
        assert place.own_directory() == runtime, given
    place.tidy(MNT, 0)
    assert made.is_dir(), "its manager made it and will remove it"
    assert not list(made.iterdir())


def test_names(runtime: Path) -> None:
    """Each mount point has a socket of its own, whatever bytes are in its name."""
    names = {place.socket_name(os.fsdecode(name)) for name in (b"/a", b"/a/", b"/\xff", b"/" + b"x" * 4000)}
    assert len(names) == 4
    assert {len(name) for name in names} == {21}
