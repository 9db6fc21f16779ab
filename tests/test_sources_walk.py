"""Walking what the user named: real links, loops, rights and names."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from jigdofs.sources.own_mounts import OwnMounts
from jigdofs.sources.walk import Reports, Walker
from tests.kit.requirements import as_user, require_root


def walk(*paths: Path | str) -> tuple[list[str], list[str]]:
    lines: list[str] = []
    reports = Reports(lines.append)
    walker = Walker(OwnMounts([]), reports, lambda *_: True)
    found = [file.path for file in walker.walk([str(path) for path in paths])]
    reports.finish()
    return sorted(found), lines


def test_every_file_is_found_once(tmp_path: Path) -> None:
    """Hard links, links to files and directories, and paths named twice do not show a file again."""
    top = tmp_path.resolve()
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "one").write_bytes(b"1")
    (top / "a" / "two").write_bytes(b"2")
    os.link(top / "a" / "two", top / "a" / "hard")
    (top / "a" / "soft").symlink_to("two")
    (top / "a" / "dirlink").symlink_to("b")
    found, lines = walk(top, top / "a", top / "a" / "two")
    assert lines == []
    assert len(found) == 2
    assert str(top / "a" / "b" / "one") in found


def test_links_are_followed(tmp_path: Path) -> None:
    """A link out of the tree leads to files, and the file keeps the name the user sees."""
    top = tmp_path.resolve()
    (top / "store").mkdir()
    (top / "store" / "8a7f").write_bytes(b"x")
    (top / "store" / "sub").mkdir()
    (top / "store" / "sub" / "y").write_bytes(b"y")
    (top / "tree").mkdir()
    (top / "tree" / "package.deb").symlink_to(top / "store" / "8a7f")
    (top / "tree" / "more").symlink_to(top / "store" / "sub")
    found, lines = walk(top / "tree")
    assert (found, lines) == ([str(top / "store" / "sub" / "y"), str(top / "tree" / "package.deb")], [])


def test_loops_end(tmp_path: Path) -> None:
    """Links to a directory above, to themselves and to each other end the walk, with a line where need be."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "file").write_bytes(b"x")
    found, lines = walk(tmp_path)
    assert found == [str(tmp_path.resolve() / "a" / "file")]
    assert len(lines) == 1
    assert "self: " in lines[0]


def test_what_is_missing_is_reported(tmp_path: Path) -> None:
    """A dangling link, a name that does not exist, and one with a NUL get a line each."""
    (tmp_path / "dangling").symlink_to("nowhere")
    found, lines = walk(tmp_path, tmp_path / "missing", "a\0b")
    assert found == []
    assert [line.rpartition(": ")[2] for line in lines[:2]] == ["No such file or directory"] * 2
    assert len(lines) == 3


def test_only_regular_files_count(tmp_path: Path) -> None:
    """FIFOs, sockets and devices are passed over, and reported where the user named one."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert walk(tmp_path) == ([], [])
        found, lines = walk(tmp_path / "fifo", "/dev/null")
    assert found == []
    assert [line.rpartition(": ")[2] for line in lines] == ["is neither a file nor a directory"] * 2


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 and control characters are kept in paths, and made visible in reports."""
    name = os.fsdecode(b"latin-\xfc\x1b[31m\n")
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / f"{name}-link").symlink_to("nowhere")
    found, lines = walk(tmp_path)
    assert found == [str(tmp_path.resolve() / name)]
    assert lines == [f"{tmp_path.resolve()}/latin-\\xfc\\x1b[31m\\n-link: No such file or directory"]


def test_trouble_is_told_in_few_lines(tmp_path: Path) -> None:
    """After twenty lines the rest is counted."""
    for number in range(50):
        (tmp_path / f"dangling-{number}").symlink_to("nowhere")
    _, lines = walk(tmp_path)
    assert len(lines) == 21
    assert lines[-1] == "30 more such files and directories"


def test_a_deep_tree_is_walked(tmp_path: Path) -> None:
    """Depth is bounded by the kernel's path length, not by our stack."""
    deep = str(tmp_path.resolve())
    try:
        for _ in range(1500):
            deep += "/d"
            os.mkdir(deep)
        Path(deep, "f").write_bytes(b"x")
        assert walk(tmp_path) == ([f"{deep}/f"], [])
    finally:  # too deep for shutil.rmtree, and thus for pytest
        subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)


DENIED = """
import sys
from jigdofs.sources.own_mounts import OwnMounts
from jigdofs.sources.walk import Reports, Walker
walker = Walker(OwnMounts.now(), Reports(print), lambda name, size: True)
for found in walker.walk(sys.argv[1:]):
    print("found", found.path)
"""


def test_a_directory_without_rights_is_reported(public_dir: Path) -> None:
    """An ordinary user is told of what may not be entered, and gets the rest."""
    require_root()
    (public_dir / "closed").mkdir(mode=0o000)
    (public_dir / "unsearchable").mkdir()
    (public_dir / "unsearchable" / "f").touch()
    (public_dir / "unsearchable").chmod(0o444)
    (public_dir / "open").write_bytes(b"x")
    command = as_user("nobody", [sys.executable, "-c", DENIED, str(public_dir)])
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    lines = sorted(line.removeprefix(f"{public_dir}/") for line in done.stdout.splitlines())
    assert lines == [
        "closed: Permission denied",
        f"found {public_dir}/open",
        "unsearchable/f: Permission denied",
    ]
