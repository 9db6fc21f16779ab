"""make-template where disks are full, files change and processes die: nothing half done appears."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.requirements import require_root
from tests.kit.scenes import Program, bytes_read_by, ended, tiny_tmpfs, wait_until
from tests.test_make_template import IMAGE, QUIET, A, B, C, Scene, noise, scene, state
from tests.test_make_template import pair as _pair

pair = _pair
__all__ = ["pair", "scene"]  # fixtures

RAW_BYTES = 60 << 20
OUTPUTS = ("x.jigdo", "x.template")


@pytest.fixture(scope="session")
def slow_image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An image that takes some seconds to compress: text, and a part here and there."""
    words = [hashlib.md5(b"%d" % number).hexdigest().encode() for number in range(1000)]
    text = b" ".join(words[number * number % 997] for number in range(RAW_BYTES // 66))
    return A + text + C + text[::-1] + B


@pytest.fixture
def slow(scene: Scene, slow_image: bytes) -> Scene:
    (scene.here / "x.iso").write_bytes(slow_image)
    return scene


@contextmanager
def started(scene: Scene, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Have make-template at work; at the end it is gone."""
    process = subprocess.Popen(
        [*PROGRAM, "make-template", *QUIET, *arguments],
        cwd=scene.here,
        env=clean_environ(scene.pair.link.parent),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def template_part(scene: Scene) -> Path:
    return scene.here / ".x.template.part"


def part_has(scene: Scene, length: int) -> bool:
    """Tell whether so much of the template is written."""
    try:
        return template_part(scene).stat().st_size >= length
    except FileNotFoundError:
        return False


def half_files(scene: Scene) -> list[str]:
    """Return the outputs that stand there under their names."""
    return [name for name in OUTPUTS if (scene.here / name).exists()]


# -- disks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 8, 50])
def test_full_disk(scene: Scene, room: int) -> None:
    """With so many pages free: one line, nothing left; when there is room, all is well."""
    require_root()
    with tiny_tmpfs(1 << 20) as tiny:
        fill = tiny / "fill"
        with fill.open("wb") as file, pytest.raises(OSError, match="No space"):  # noqa: PT012
            while True:
                os.write(file.fileno(), bytes(4096))
        os.truncate(fill, fill.stat().st_size - 4096 * room)
        (scene.here / "x.iso").write_bytes(IMAGE + noise("raw", 400_000))
        options = ("-i", "x.iso", "-j", tiny / "x.jigdo", "-t", tiny / "x.template", "in")
        done = scene.ours(*QUIET, *options)
        (line,) = done.stderr.splitlines()
        assert done.returncode != 0
        assert b"No space left" in line
        assert os.listdir(tiny) == ["fill"]
        fill.unlink()
        scene.works(*options)
        assert sorted(os.listdir(tiny)) == ["x.jigdo", "x.template"]


def test_full_disk_and_old_outputs(scene: Scene) -> None:
    """With --force, what was there before is left as it was when the new files do not fit."""
    require_root()
    with tiny_tmpfs(256 << 10) as tiny:
        for name in OUTPUTS:
            (tiny / name).write_bytes(b"precious")
        (scene.here / "x.iso").write_bytes(IMAGE + noise("raw", 400_000))
        options = ("-i", "x.iso", "-j", tiny / "x.jigdo", "-t", tiny / "x.template", "in")
        done = scene.ours(*QUIET, "-f", *options)
        assert done.returncode != 0
        assert state(tiny) == dict.fromkeys(OUTPUTS, b"precious")


@pytest.mark.parametrize("option", ["-j", "-t"])
def test_full_stdout(scene: Scene, option: str) -> None:
    """A full device behind stdout is an error in one line, and the other file is not published."""
    command = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *PROGRAM, "mt", *QUIET, "-i", "x.iso", option, "-"]
    done = subprocess.run(
        [*command, "in"],
        cwd=scene.here,
        env=clean_environ(scene.pair.link.parent),
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert (len(done.stderr.splitlines()), b"No space left" in done.stderr) == (1, True), done
    assert half_files(scene) == []


def test_full_stdout_is_not_the_image(scene: Scene) -> None:
    """Where matches cannot be printed, the output is blamed, not the image, and nothing is published."""
    done = subprocess.run(
        [
            "sh",
            "-c",
            'exec "$@" >/dev/full',
            "sh",
            *PROGRAM,
            "mt",
            "-rgrep",
            "--match-exec=:",
            "-ix.iso",
            "in",
        ],
        cwd=scene.here,
        env=clean_environ(scene.pair.link.parent),
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert (len(done.stderr.splitlines()), b"No space left" in done.stderr) == (1, True), done
    assert b"x.iso" not in done.stderr
    assert half_files(scene) == []


def test_nowhere_to_write(scene: Scene) -> None:
    """A directory that is not there, or is a file, is told before the image is searched."""
    for directory in ("none", "x.iso", "/proc"):
        assert directory.encode() in scene.fails("-i", "x.iso", "-t", f"{directory}/x.template", "in")
        assert directory.encode() in scene.fails("-i", "x.iso", "-j", f"{directory}/x.jigdo", "in")


def test_directory_that_is_not_ours(public_dir: Path) -> None:
    """Where an ordinary user may not write, nothing is written, and one line says so."""
    require_root()
    (public_dir / "x.iso").write_bytes(IMAGE)
    (public_dir / "a.bin").write_bytes(A)
    done = Program(public_dir, user="nobody")("mt", "-i", "x.iso", "a.bin")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done
    assert "Permission denied" in done.stderr
    assert sorted(os.listdir(public_dir)) == ["a.bin", "x.iso"]


def test_file_that_may_not_be_read(public_dir: Path) -> None:
    """An ordinary user is told of each file and image that he may not read; the rest is used."""
    require_root()
    (public_dir / "x.iso").write_bytes(IMAGE)
    (public_dir / "in").mkdir()
    for name, data in (("a.bin", A), ("b.bin", B)):
        (public_dir / "in" / name).write_bytes(data)
    (public_dir / "in" / "closed").mkdir(mode=0o700)
    (public_dir / "in" / "b.bin").chmod(0)
    out = public_dir / "out"
    out.mkdir()
    out.chmod(0o777)
    program = Program(public_dir, user="nobody")
    options = ("-r", "noprogress", "-i", "x.iso", "-j", "out/x.jigdo", "-t", "out/x.template", "in")
    done = program("mt", *options)
    assert done.returncode == 0, done
    for name in ("in/b.bin", "in/closed"):
        assert f"warning: {name}: passed over: Permission denied" in done.stderr
    assert (out / "x.jigdo").read_text().count("=A:in/") == 1
    (public_dir / "x.iso").chmod(0)
    done = program("mt", "-f", *options)
    assert (done.returncode, done.stderr.count("x.iso: Permission denied")) == (3, 1)


# -- signals -----------------------------------------------------------------------------------------


Moment = Callable[[Scene, int], bool]


def opened(scene: Scene, _: int) -> bool:
    """Tell whether the outputs are begun."""
    return template_part(scene).exists()


def searching(_: Scene, pid: int) -> bool:
    """Tell whether some of the image is read: more than Python reads to start."""
    return bytes_read_by(pid) > RAW_BYTES // 2


def writing(scene: Scene, _: int) -> bool:
    """Tell whether some of the template is written."""
    return part_has(scene, 10_000)


def wait_for(moment: Moment, scene: Scene, process: subprocess.Popen[bytes]) -> None:
    """Wait until a run has come so far, or has ended."""
    wait_until(lambda: moment(scene, process.pid) or ended(process.pid), "the moment comes", 60)


@pytest.mark.parametrize("moment", [opened, searching, writing])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_by_a_signal(
    slow: Scene,
    slow_image: bytes,
    number: signal.Signals,
    moment: Moment,
) -> None:
    """Whenever a run is ended, no final name is taken; the next run needs no hand and leaves no rest."""
    with started(slow, "-i", "x.iso", "in") as process:
        wait_for(moment, slow, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == (130 if number is signal.SIGINT else -number), errors
    assert errors == b""
    assert half_files(slow) == []
    if number is signal.SIGINT:
        assert sorted(os.listdir(slow.here)) == ["in", "x.iso"]
    slow.works("-1", "-i", "x.iso", "in")
    assert sorted(os.listdir(slow.here)) == ["in", "x.iso", *OUTPUTS]
    slow.rebuilt("in", image=slow_image)


def test_killed_with_force(slow: Scene) -> None:
    """A killed run that was to replace files leaves the old ones whole."""
    for name in OUTPUTS:
        (slow.here / name).write_bytes(b"precious")
    with started(slow, "-f", "-i", "x.iso", "in") as process:
        wait_for(writing, slow, process)
        process.kill()
    assert [(slow.here / name).read_bytes() for name in OUTPUTS] == [b"precious"] * 2


@pytest.mark.parametrize("force", [False, True])
def test_killed_between_the_two(scene: Scene, tmp_path: Path, force: bool) -> None:
    """Killed when the template had its name and the .jigdo not: the same command works, and makes both."""
    scene.works("-i", "x.iso", "in")
    made = {name: (scene.here / name).read_bytes() for name in OUTPUTS}
    for name in OUTPUTS:
        (scene.here / name).unlink()
    if force:
        scene.works("-i", "x.iso", f"in/{min(os.listdir(scene.here / 'in'))}")
    old = {name: (scene.here / name).read_bytes() for name in OUTPUTS if force}
    # a kill exactly before the second of the renames that give a file its name
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "left = [2]\n"
        "def look(event, arguments):\n"
        "    if event == 'os.rename' and '/x.' in f'{arguments}':\n"
        "        left[0] -= 1\n"
        "        left[0] or os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(look)\n"
    )
    command = [*PROGRAM, "make-template", *QUIET, *["-f"] * force, "-i", "x.iso", "in"]
    environ = clean_environ(scene.pair.link.parent)
    environ["PYTHONPATH"] = f"{tmp_path}:{environ['PYTHONPATH']}"
    done = subprocess.run(command, cwd=scene.here, env=environ, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert state(scene.here)["x.template"] == made["x.template"]
    assert state(scene.here).get("x.jigdo") == old.get("x.jigdo")
    scene.works(*["-f"] * force, "-i", "x.iso", "in")
    assert {name: (scene.here / name).read_bytes() for name in OUTPUTS} == made
    assert sorted(os.listdir(scene.here)) == ["in", "x.iso", *OUTPUTS]
    (scene.here / "x.jigdo").unlink()
    assert scene.ours(*QUIET, "-i", "x.iso", "in").returncode != 0, "that template was left by nobody"


def test_something_else_has_the_hidden_name(scene: Scene) -> None:
    """Under which a .jigdo waits for its template: nothing is replaced that is none of ours."""
    (scene.here / ".x.jigdo.whole").write_bytes(IMAGE)
    before = state(scene.here)
    done = scene.ours(*QUIET, "-i", "x.iso", "in")
    assert done.returncode == 3
    assert b"is in the way" in done.stderr
    assert {name: state(scene.here)[name] for name in before} == before


def test_reader_of_the_template_goes(slow: Scene) -> None:
    """When whoever reads the template on stdout has enough, that ends the run without a word or a .jigdo."""
    process = subprocess.Popen(
        [*PROGRAM, "mt", *QUIET, "-i", "x.iso", "-t", "-", "in"],
        cwd=slow.here,
        env=clean_environ(slow.pair.link.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(22) == b"JigsawDownload templat"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert sorted(os.listdir(slow.here)) == ["in", "x.iso"]


# -- two at once -------------------------------------------------------------------------------------


def test_two_runs_at_once(scene: Scene) -> None:
    """Of two runs on the same outputs the second says so and ends; the first is not disturbed."""
    (scene.here / "x.iso").unlink()
    process = subprocess.Popen(
        [*PROGRAM, "mt", *QUIET, "-i", "-", "-j", "x.jigdo", "-t", "x.template", "in"],
        cwd=scene.here,
        env=clean_environ(scene.pair.link.parent),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        wait_until((scene.here / ".x.jigdo.part").exists, "the first run waits for its image", 60)
        for options in ((), ("-f",)):
            line = scene.fails(*options, "-i", "in/c.bin", "-jx.jigdo", "-tx.template", "in")
            assert b"another process is writing it" in line
        line = scene.fails("-i", "in/c.bin", "-jx.jigdo", "-ty.template", "in")
        assert b"x.jigdo: another process is writing it" in line
        _, errors = process.communicate(IMAGE, timeout=60)
    assert (process.returncode, errors) == (0, b"")
    assert sorted(os.listdir(scene.here)) == ["in", *OUTPUTS]
    scene.rebuilt("in")


def test_race(scene: Scene) -> None:
    """Of several runs that start together, one succeeds, no other disturbs it, and no rest is left."""
    command = [*PROGRAM, "mt", *QUIET, "-f", "-i", "x.iso", "in"]
    environ = clean_environ(scene.pair.link.parent)
    processes = [
        subprocess.Popen(command, cwd=scene.here, env=environ, stderr=subprocess.PIPE) for _ in range(4)
    ]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert any(code == 0 for _, code in ends), ends
    for errors, code in ends:
        assert (code, errors) == (0, b"") or (code == 3 and b"another process" in errors), ends
    assert sorted(os.listdir(scene.here)) == ["in", "x.iso", *OUTPUTS]
    template = (scene.here / "x.template").read_bytes()
    assert hashlib.md5(template).hexdigest() in (scene.here / "x.jigdo").read_text()
    scene.rebuilt("in")


# -- what changes meanwhile --------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["truncate", "append", "overwrite"])
@pytest.mark.parametrize("moment", [searching, writing])
def test_image_changes(slow: Scene, change: str, moment: Moment) -> None:
    """An image that somebody writes to while it is read makes no template: one line, 3, nothing published."""
    image = slow.here / "x.iso"
    with started(slow, "-i", "x.iso", "in") as process:
        wait_for(moment, slow, process)
        match change:
            case "truncate":
                os.truncate(image, 5000)
            case "append":
                with image.open("ab") as file:
                    file.write(b"more")
            case _:
                with image.open("r+b") as file:
                    file.write(b"other")
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, len(errors.splitlines())) == (3, 1), errors
    assert errors.startswith(b"jigdofs: x.iso: ")
    assert sorted(os.listdir(slow.here)) == ["in", "x.iso"]


def test_file_changes(slow: Scene, slow_image: bytes) -> None:
    """A file that is cut or rewritten while we work does no harm: what is published was true of the image."""
    (slow.here / "in" / "whole").write_bytes(slow_image[len(A) :])
    with started(slow, "-i", "x.iso", "in") as process:
        wait_until(lambda: bytes_read_by(process.pid) > RAW_BYTES or ended(process.pid), "it reads", 60)
        os.truncate(slow.here / "in" / "whole", 5000)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert all(line.startswith(b"jigdofs: warning: in/whole: ") for line in errors.splitlines()), errors
    (slow.here / "in" / "whole").write_bytes(slow_image[len(A) :])
    slow.rebuilt("in", image=slow_image)


# -- what is no file ---------------------------------------------------------------------------------


def test_odd_things_among_the_files(scene: Scene) -> None:
    """FIFOs, links to nowhere and links in a circle are passed over, told where they are errors; no hang."""
    odd = scene.here / "in" / "odd"
    odd.mkdir()
    os.mkfifo(odd / "fifo")
    (odd / "dangling").symlink_to("nowhere")
    (odd / "loop").symlink_to("loop")
    (odd / "up").symlink_to("..")
    (odd / "device").symlink_to("/dev/zero")
    (odd / "empty").touch()
    done = scene.ours("-i", "x.iso", "in", "in/odd/fifo", "/dev/zero")
    assert done.returncode == 0
    warned = [line for line in done.stderr.splitlines() if b"warning" in line]
    assert len(warned) == 2
    assert any(b"in/odd/dangling: passed over: No such file" in line for line in warned)
    assert any(b"in/odd/loop: passed over: Too many levels" in line for line in warned)
    assert scene.parts() == [b"A:in/a.bin", b"A:in/c.bin", b"A:in/sub/b.bin"]
    scene.rebuilt("in/a.bin", "in/c.bin", "in/sub/b.bin")


def test_linked_files(scene: Scene) -> None:
    """What links lead to is as good as what they stand beside."""
    elsewhere = scene.here / "elsewhere"
    (scene.here / "in").rename(elsewhere)
    (scene.here / "tree").mkdir()
    (scene.here / "tree" / "link").symlink_to("../elsewhere/a.bin")
    (scene.here / "tree" / "dir").symlink_to("../elsewhere/sub")
    scene.works("-i", "x.iso", "tree")
    assert scene.parts() == [b"A:tree/dir/b.bin", b"A:tree/link"]
    scene.rebuilt("tree")


def test_list_of_names_that_is_not_there(scene: Scene) -> None:
    """A list that cannot be read is a warning; the files of the command line are used."""
    done = scene.ours("-i", "x.iso", "-T", "none", "in/a.bin")
    assert done.returncode == 0
    assert b"warning: cannot read the list of names none: No such file" in done.stderr
    assert scene.parts() == [b"A:in/a.bin"]


def test_cache_that_cannot_be_used(scene: Scene) -> None:
    """A cache that is something else is told, left alone, and no reason not to make the template."""
    (scene.here / "c.db").write_bytes(b"something else")
    done = scene.ours(*QUIET, "--cache", "c.db", "-i", "x.iso", "in")
    assert done.returncode == 0
    assert b"c.db" in done.stderr
    assert (scene.here / "c.db").read_bytes() == b"something else"
    scene.rebuilt("in")
