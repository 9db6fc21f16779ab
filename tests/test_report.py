"""What `jigdofs download` tells: in words, with a bar on a terminal, or in JSON."""

import contextlib
import hashlib
import json
import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.faults import Stall, Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM
from tests.kit.scenes import Occurrence, Program, occurrences, pool_files

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
BOUND_S = 20.0


@pytest.fixture
def program(tmp_path: Path) -> Program:
    home = tmp_path / "home"
    home.mkdir()
    return Program(home, environ={"CACHE_DIRECTORY": str(home / "cache"), "TERM": "xterm"})


@pytest.fixture
def built(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    faulty_server.files = pool_files(iso_md5)
    return iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})


def events(stdout: str) -> list[dict[str, Any]]:
    """Read what --json wrote: every line is an object."""
    told = [json.loads(line) for line in stdout.splitlines()]
    assert all(isinstance(event, dict) for event in told)
    return told


def largest(built: BuiltImage) -> Occurrence:
    return max(occurrences(built), key=lambda one: one.length)


def raw_bytes(built: BuiltImage) -> int:
    return built.image.stat().st_size - sum(one.length for one in occurrences(built))


@contextlib.contextmanager
def running(program: Program, *arguments: str | Path, stderr: int) -> Iterator[subprocess.Popen[str]]:
    """Have a download run while the test goes on; in the end it is gone."""
    process = subprocess.Popen(
        [*PROGRAM, "download", *map(str, arguments)],
        cwd=program.home,
        env=program.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


# -- JSON --------------------------------------------------------------------------------------------


def test_json_of_a_download(built: BuiltImage, program: Program, faulty_server: FaultyServer) -> None:
    """From begin to finished the sizes are those of the image, its parts and its template."""
    done = program("download", built.jigdo, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = events(done.stdout)
    kinds = [event["event"] for event in told]
    assert re.fullmatch("begin (progress )*end finished", " ".join(kinds)), kinds
    begin, end, finished = told[0], told[-2], told[-1]
    size = built.image.stat().st_size
    assert begin["size"] == end["size"] == size
    assert begin["path"] == end["path"]
    assert (program.home / end["path"]).read_bytes() == built.image.read_bytes()
    assert end["outcome"] == "built"
    assert end["sums"] == {"md5": hashlib.md5(built.image.read_bytes()).hexdigest()}
    places = occurrences(built)
    parts_bytes = sum({one.checksum: one.length for one in places}.values())
    assert end["fetched"] == parts_bytes
    assert end["origins"] == {
        "mirrors": {"parts": len(places), "bytes": sum(one.length for one in places)},
        "template": {"parts": 0, "bytes": raw_bytes(built)},
    }
    assert 0 < end["seconds"] < BOUND_S
    assert finished["exit_code"] == 0
    (given,) = finished["mirrors"].items()
    assert given == (faulty_server.url("/pool/"), {"parts": len(built.parts), "bytes": parts_bytes})


def test_json_while_it_works(built: BuiltImage, program: Program, faulty_server: FaultyServer) -> None:
    """Progress comes as it goes, a line at a time: what is present, and what came over the net."""
    held = largest(built)
    faulty_server.always(f"/pool/{held.path}", Stall(1000))
    with running(program, built.jigdo, "--json", stderr=subprocess.PIPE) as process:
        faulty_server.wait_stalled()
        assert process.stdout is not None
        told: list[dict[str, Any]] = []
        in_place = built.image.stat().st_size - held.length
        for line in process.stdout:
            told.append(json.loads(line))
            if told[-1]["event"] == "progress" and told[-1]["present"] >= in_place:
                break
        faulty_server.behave()
        faulty_server.release()
        rest, stderr = process.communicate(timeout=BOUND_S)
    told += events(rest)
    assert (process.returncode, stderr) == (0, "")
    progress = [event for event in told if event["event"] == "progress"]
    size = built.image.stat().st_size
    assert {event["size"] for event in progress} == {size}
    presents = [event["present"] for event in progress]
    assert presents == sorted(presents)
    assert in_place <= max(presents) <= size
    assert all(event["fetched"] <= size for event in progress)
    assert [event["seconds"] for event in progress] == sorted(event["seconds"] for event in progress)


def test_json_of_a_second_run(built: BuiltImage, program: Program, faulty_server: FaultyServer) -> None:
    """What an earlier run had put in place is told apart from what was fetched now."""
    held = largest(built)
    faulty_server.always(f"/pool/{held.path}", Status(404))
    done = program("download", built.jigdo, "--json")
    assert done.returncode == 1
    told = events(done.stdout)
    (failed,) = [event for event in told if event["event"] == "failed"]
    assert Path(failed["what"]).name == "kit.iso"
    assert failed["exit_code"] == told[-1]["exit_code"] == 1
    assert Path(held.path).name in failed["error"] or held.checksum in failed["error"]
    assert told[-1]["event"] == "finished"
    assert [event for event in told if event["event"] == "end"] == []
    faulty_server.behave()
    told = events(program("download", built.jigdo, "--json").stdout)
    (end,) = [event for event in told if event["event"] == "end"]
    assert end["fetched"] == held.length
    assert end["origins"]["mirrors"] == {"parts": 1, "bytes": held.length}
    others = [one for one in occurrences(built) if one.checksum != held.checksum]
    assert end["origins"]["an earlier run"] == {
        "parts": len(others),
        "bytes": sum(one.length for one in others),
    }
    assert sum(origin["bytes"] for origin in end["origins"].values()) == end["size"]


def test_json_of_names_that_are_no_text(built: BuiltImage, program: Program) -> None:
    """A directory whose name is no UTF-8 and has a line feed still makes one line of JSON each."""
    directory = os.fsdecode(b"caf\xe9\nnoir/")
    (program.home / directory).mkdir()
    done = program("download", built.jigdo, "--json", "-o", directory)
    assert (done.returncode, done.stderr) == (0, "")
    (end,) = [event for event in events(done.stdout) if event["event"] == "end"]
    assert end["path"] == r"caf\xe9\nnoir/kit.iso"
    assert (program.home / directory / "kit.iso").read_bytes() == built.image.read_bytes()


def test_no_credentials(built: BuiltImage, program: Program) -> None:
    """What a mirror's URL has of secrets is not told to anybody."""
    url = f"http://user:s3cret@{built_host(built)}/pool/"
    done = program("download", built.jigdo, f"--mirror=Debian={url}")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert built_host(built) in done.stdout
    assert "s3cret" not in done.stdout


def built_host(built: BuiltImage) -> str:
    """Return host and port of the server that a .jigdo names."""
    found = re.search(r"Debian=http://([^/]+)/", built.jigdo.read_text("utf-8", "replace"))
    assert found is not None
    return found[1]


# -- words -------------------------------------------------------------------------------------------


def test_words(built: BuiltImage, program: Program, faulty_server: FaultyServer) -> None:
    """The account names the image, its size, its checksum, and what came from where."""
    places = occurrences(built)
    done = program("download", built.jigdo)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, third = done.stdout.splitlines()
    assert re.search(r"kit\.iso is complete: 8,695,808 bytes in [\d.]+ s; checked against its md5$", first)
    fetched = f"{len(places)} parts ({sum(one.length for one in places):,} bytes) from mirrors"
    assert second.strip() == f"{fetched}; {raw_bytes(built):,} bytes from the template"
    assert faulty_server.url("/pool/") in third
    assert f"{len(built.parts)} parts" in third


def test_quiet(built: BuiltImage, program: Program) -> None:
    """-q says nothing of what goes well, and still what goes wrong."""
    done = program("download", built.jigdo, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "nowhere.jigdo" in program.fails("download", "nowhere.jigdo", "-q", code=3)


# -- a terminal --------------------------------------------------------------------------------------


class Terminal:
    """Be the terminal that a program writes its stderr to."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self.text = ""

    def read_until(self, wanted: str) -> None:
        """Read on until some text was there, or fail."""
        while wanted not in self.text:
            assert select.select([self._ours], [], [], BOUND_S)[0], self.text
            self.text += os.read(self._ours, 65536).decode("utf-8", "replace")

    def read_to_the_end(self) -> None:
        """Read what is left when nobody has the terminal open any more."""
        os.close(self.theirs)
        with contextlib.suppress(OSError):  # EIO is how a terminal ends
            while data := os.read(self._ours, 65536):
                self.text += data.decode("utf-8", "replace")
        os.close(self._ours)


def test_a_bar_on_a_terminal(built: BuiltImage, program: Program, faulty_server: FaultyServer) -> None:
    """While it works a terminal shows the image's name and how far it is; in the end the bar is gone."""
    faulty_server.always(f"/pool/{largest(built).path}", Stall(1000))
    terminal = Terminal()
    with running(program, built.jigdo, stderr=terminal.theirs) as process:
        faulty_server.wait_stalled()
        terminal.read_until("MiB")
        faulty_server.behave()
        faulty_server.release()
        stdout, _ = process.communicate(timeout=BOUND_S)
    terminal.read_to_the_end()
    assert process.returncode == 0
    assert "is complete" in stdout
    assert "\x1b" not in stdout
    assert "kit.iso" in terminal.text
    assert terminal.text.rfind(SHOW_CURSOR) > terminal.text.rfind(HIDE_CURSOR) >= 0


def test_quiet_on_a_terminal(built: BuiltImage, program: Program) -> None:
    """-q shows no bar either."""
    terminal = Terminal()
    with running(program, built.jigdo, "-q", stderr=terminal.theirs) as process:
        stdout, _ = process.communicate(timeout=BOUND_S)
    terminal.read_to_the_end()
    assert (process.returncode, stdout, terminal.text) == (0, "", "")


def test_a_terminal_after_an_interrupt(
    built: BuiltImage, program: Program, faulty_server: FaultyServer
) -> None:
    """Ctrl-C leaves a terminal with its cursor, without a traceback."""
    faulty_server.always(f"/pool/{largest(built).path}", Stall(1000))
    terminal = Terminal()
    with running(program, built.jigdo, stderr=terminal.theirs) as process:
        faulty_server.wait_stalled()
        terminal.read_until("MiB")
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=BOUND_S)
    terminal.read_to_the_end()
    assert (process.returncode, stdout) == (130, "")
    assert "Traceback" not in terminal.text
    assert HIDE_CURSOR in terminal.text
    assert terminal.text.rfind(SHOW_CURSOR) > terminal.text.rfind(HIDE_CURSOR)
