"""`jigdofs prefetch`: the program, a real mount, and a server that counts."""

import json
import os
import pty
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from jigdofs.control import place
from tests.kit.faults import Stall, Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.installer import (
    METADATA,
    OTHERS,
    PACKAGES,
    InstallerScene,
    installer_iso,
    set_installer_scene,
    url,
)
from tests.kit.mounts import PROGRAM
from tests.kit.requirements import require_root
from tests.kit.scenes import occurrences, reading, wait_until


@pytest.fixture(scope="module")
def installer(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return installer_iso(tmp_path_factory.mktemp("installer"))


@pytest.fixture
def scene(installer: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> InstallerScene:
    return set_installer_scene(installer, faulty_server, tmp_path)


@contextmanager
def running(scene: InstallerScene, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the verb meanwhile."""
    process = subprocess.Popen(
        [*PROGRAM, "prefetch", str(scene.point), *options],
        env=scene.program.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def next_event(process: "subprocess.Popen[str]") -> dict[str, object]:
    assert process.stdout is not None
    event = json.loads(process.stdout.readline())
    assert isinstance(event, dict)
    return event


def test_what_is_named_is_fetched(scene: InstallerScene) -> None:
    """A range, globs, metadata and at last everything: each part once, and reading then asks for nothing."""
    with scene.mounted():
        place = scene.place("pool/main/a/a-3.deb")
        line = scene.prefetch("--range", f"{place.offset}-{place.offset + 1}")
        assert line == f"1 of 1 parts are here ({place.length:,} bytes)\n"
        assert scene.asked_for() == ["pool/main/a/a-3.deb"]
        wanted = ["doc/manual.txt", *[path for path in PACKAGES if path.startswith("pool/main/l/")]]
        assert scene.prefetch("--path", "pool/main/l", "--path", "*.txt", "-q") == ""
        scene.all_asked_for("pool/main/a/a-3.deb", *wanted)
        assert scene.program("prefetch", scene.image, "--metadata", "--bwlimit", "100M").returncode == 0
        scene.all_asked_for("pool/main/a/a-3.deb", *wanted, *METADATA)
        events = [json.loads(line) for line in scene.prefetch("--all", "--json").splitlines()]
        total = len(METADATA) + len(OTHERS)
        assert {event["event"] for event in events[:-1]} <= {"progress"}
        size = sum(one.length for one in occurrences(scene.built))
        assert events[-1] == {
            "event": "finished",
            "parts": total,
            "size": size,
            "parts_here": total,
            "bytes_here": size,
            "parts_failed": 0,
            "last_failure": "",
            "ended_early": "",
            "full": False,
        }
        scene.all_asked_for(*METADATA, *OTHERS)
        assert scene.image.read_bytes() == scene.built.image.read_bytes()
        scene.all_asked_for(*METADATA, *OTHERS)


def test_exit_codes(scene: InstallerScene) -> None:
    """What cannot be had is 1, what makes no sense 3, and what is no mount of ours 4: in one line each."""
    missing = "pool/main/b/b-1.deb"
    scene.server.always(url(missing), Status(404))
    program = scene.program
    with scene.mounted():
        line = scene.prefetch("--path", "pool/main/b", code=1)
        assert line.startswith("5 of 6 parts are here (")
        assert "; 1 cannot be had; the last: part md5:" in line
        assert line.endswith("404 Not Found\n")
        events = scene.prefetch("--path", missing, "--json", code=1).splitlines()
        assert json.loads(events[-1])["parts_failed"] == 1
        assert "nowhere" in program.fails("prefetch", scene.point, "--path", "nowhere", code=1)
        assert "other.iso" in program.fails("prefetch", scene.point / "other.iso", "--all", code=1)
        for options in ([], ["--range", "5"], ["--range", "5-5"], ["--range", "0-1T"], ["--range", "x-y"]):
            program.fails("prefetch", scene.point, *options, code=3)
        for limit in ("1", "63k", "-1", "fast", "1e6"):
            program.fails("prefetch", scene.point, "--all", f"--bwlimit={limit}", code=3)
        program.fails("prefetch", scene.directory, "--all", code=4)
        program.fails("prefetch", scene.image / "x", "--all", code=4)
    program.fails("prefetch", scene.point, "--all", code=4)


def test_no_room(scene: InstallerScene) -> None:
    """A full cache ends it with 1; what readers had in it stays."""
    with scene.mounted("--cache-max-size", "300k", "--cache-min-free", "0", "--readahead", "0"):
        read = PACKAGES[:2]
        scene.read(*read)
        line = scene.prefetch("--all", code=1)
        assert "ended early: the cache is full" in line
        assert scene.here() > set(read)
        scene.read(*read)
        assert max(Counter(scene.asked_for()).values()) == 1


def test_ctrl_c(scene: InstallerScene) -> None:
    """SIGINT ends the verb and the fetching; what was fetched stays, and what is on its way arrives."""
    scene.server.always(url("pool/main/b/*"), Stall(100))
    with scene.mounted():
        with running(scene, "--path", "doc", "--path", "pool/main/b", "--path", "pool/main/l") as process:
            scene.server.wait_stalled(4)
            begun = len(scene.asked_for())
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
            assert process.communicate()[1] == ""
        scene.server.behave()
        scene.server.release()
        wait_until(lambda: len(scene.here()) >= begun, "what was begun arrives")
        assert scene.prefetch("--path", "doc")
        assert not any(path.startswith("pool/main/l/") for path in scene.asked_for())
        assert max(Counter(scene.asked_for()).values()) == 1


def test_while_a_reader_hangs(scene: InstallerScene) -> None:
    """The daemon answers though a read of the mount hangs, begins nothing, and goes on when it is served."""
    stuck = PACKAGES[0]
    scene.server.always(url(stuck), Stall(100))
    with scene.mounted(), reading(lambda: scene.read(stuck)) as futures:
        scene.server.wait_stalled()
        with running(scene, "--all", "--json") as process:
            events = [next_event(process) for _ in range(3)]
            assert [event["parts_here"] for event in events] == [0] * 3
            assert events[-1]["parts"] == len(METADATA) + len(OTHERS)
            assert scene.asked_for() == [stuck]
            scene.server.release()
            assert process.wait(20) == 0
        futures[0].result(10)
        scene.all_asked_for(*METADATA, *OTHERS)


def test_a_reader_while_the_background_hangs(scene: InstallerScene) -> None:
    """With all transfers of the background stuck, other parts are served; a stuck one is fetched once."""
    for path in METADATA:
        scene.server.always(url(path), Stall(100))
    with scene.mounted(), running(scene, "--metadata", "--json") as process:
        scene.server.wait_stalled(4)
        scene.read(*PACKAGES)
        begun = [path for path in scene.asked_for() if path in METADATA]
        assert begun == [*dict.fromkeys(begun)]
        with reading(lambda: scene.read(begun[0])) as futures:
            scene.server.behave()
            scene.server.release()
            futures[0].result(20)
        assert process.wait(20) == 0
        assert Counter(scene.asked_for()) == Counter([*METADATA, *PACKAGES])


@contextmanager
def another_daemon(point: Path, *events: Mapping[str, object]) -> Iterator[None]:
    """Tell the next client these events, in the place of the daemon of a mount."""
    require_root()  # a user's is elsewhere, as the program sees it
    path = place.own_directory() / place.socket_name(str(point))
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        bound.listen()
        bound.settimeout(20)

        def serve() -> None:
            stream, _ = bound.accept()
            with stream:
                stream.recv(1 << 16)
                # at once: who does not understand the first of them may be gone before the second
                stream.sendall(b"".join(json.dumps(event).encode() + b"\n" for event in events))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()
            path.unlink()


PROGRESS = {"event": "progress", "parts": 0, "size": 0, "parts_here": 0, "bytes_here": 0}
KNOWN = PROGRESS | {"parts": 1, "size": 12_345, "parts_failed": 0, "last_failure": "", "ended_early": ""}
FINISHED = KNOWN | {"event": "finished", "parts_here": 1, "bytes_here": 12_345}
END = {"event": "end"}


def test_a_daemon_of_another_version(scene: InstallerScene) -> None:
    """What it says and the verb does not understand is an error of one line."""
    with scene.mounted():
        for options in ([], ["--json"], ["-q"]):
            for event in ({"event": "progress"}, {"event": "finished", "size": None}, END):
                with another_daemon(scene.point, event, END):
                    done = scene.program("prefetch", scene.point, "--all", *options)
                assert done.returncode == 4, (event, options)
                assert done.stderr.count("\n") == 1
                assert "of another version" in done.stderr


def test_progress_on_a_terminal(scene: InstallerScene) -> None:
    """The bar knows the size though the daemon did not in the beginning."""
    ours, theirs = pty.openpty()
    with scene.mounted(), another_daemon(scene.point, PROGRESS, KNOWN, FINISHED, END):
        done = subprocess.run(
            [*PROGRAM, "prefetch", str(scene.point), "--all"],
            env=scene.program.environ | {"TERM": "xterm", "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            check=False,
        )
    os.close(theirs)
    shown = os.read(ours, 1 << 16)
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, "1 of 1 parts are here (12,345 bytes)\n")
    assert b"/12.1 KiB" in shown.replace(b"\x1b[32m", b"").replace(b"\x1b[0m", b"")


def test_a_limit_alone_and_an_open_range(scene: InstallerScene) -> None:
    """A limit can be set and taken away without fetching; a range may be open, a path begin with a dot."""
    with scene.mounted("--bwlimit", "64k"):
        assert scene.prefetch("--bwlimit", "off") == ""
        assert scene.asked_for() == []
        size = scene.built.image.stat().st_size
        assert scene.prefetch("--range", f"{size - 1}-").startswith(("0 of 0", "1 of 1"))
        assert scene.prefetch("--path", "./doc/manual.txt").startswith("1 of 1 parts are here")
        scene.prefetch("--range", "0-")
        scene.all_asked_for(*METADATA, *OTHERS)


def test_umount_while_fetching(scene: InstallerScene) -> None:
    """Neither stuck transfers nor the limit delay the end; a verb that follows is told of it."""
    scene.server.always(url("pool/main/*"), Stall(100))
    with (
        scene.mounted("--prefetch", "all", "--bwlimit", "256k") as mounted,
        running(scene, "--all") as process,
    ):
        scene.server.wait_stalled(4)
        wait_until(lambda: len(scene.here()) >= 4, "something is here")
        mounted.unmount()
        assert process.wait(10) in (1, 4)
        scene.server.stop()
    assert len(scene.asked_for()) < len(METADATA) + len(OTHERS)
