"""make-template from outside: its options, what it writes and says, often side by side with jigdo-file."""

import bz2
import hashlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.requirements import require_root
from tests.kit.scenes import Program, loop_device, tiny_tmpfs
from tests.test_jigdo_file_verbs import Done, Pair, pair

__all__ = ["pair"]  # a fixture


def noise(name: str, length: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(length)


A, B, C = noise("a", 5000), noise("b", 3000), noise("c", 200_000)
IMAGE = b"n" * 700 + A + B + bytes(100) + C + A + b"tail"
QUIET = ("-r", "quiet")


@dataclass(frozen=True)
class Scene:
    """An image `x.iso` of three parts, one of them twice, and `in` with these and one more."""

    pair: Pair

    @property
    def here(self) -> Path:
        return self.pair.directory

    def ours(self, *arguments: str | Path, stdin: bytes = b"") -> Done:
        """Run `jigdofs make-template`."""
        done = subprocess.run(
            [*PROGRAM, "make-template", *map(str, arguments)],
            cwd=self.here,
            env=clean_environ(self.pair.link.parent),
            input=stdin,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done
        assert all(line.startswith(b"jigdofs: ") for line in done.stderr.splitlines()), done
        return done

    def theirs(self, *arguments: str | Path, stdin: bytes = b"") -> Done:
        """Run the real `jigdo-file make-template`."""
        return self.pair.theirs("make-template", "--no-cache", *arguments, stdin=stdin)

    def works(self, *arguments: str | Path, stdin: bytes = b"") -> bytes:
        """Run ours, which must succeed without a word on stderr; return stdout."""
        done = self.ours(*QUIET, *arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout

    def fails(self, *arguments: str | Path, stdin: bytes = b"") -> bytes:
        """Run ours, which must end with 3, one line (returned) and the directory as it was."""
        before = state(self.here)
        done = self.ours(*arguments, stdin=stdin)
        lines = done.stderr.splitlines()
        assert (done.returncode, done.stdout, len(lines)) == (3, b"", 1), done
        assert state(self.here) == before
        return lines[0]

    def sections(self, name: str = "x.jigdo") -> dict[str, list[bytes]]:
        """Return the entries of a .jigdo by section."""
        found: dict[str, list[bytes]] = {}
        section = ""
        for line in (self.here / name).read_bytes().split(b"\n"):
            if line.startswith(b"["):
                section = line.strip(b"[]").decode()
                found.setdefault(section, [])
            elif line and not line.startswith(b"#"):
                found[section].append(line)
        return found

    def parts(self, name: str = "x.jigdo") -> list[bytes]:
        """Return the locations in [Parts], as written."""
        return [line.partition(b"=")[2] for line in self.sections(name)["Parts"]]

    def rebuilt(self, *files: str | Path, template: str = "x.template", image: bytes = IMAGE) -> None:
        """Let the real one build the image."""
        done = self.pair.theirs("make-image", *QUIET, "-t", template, "-i", "made", *files)
        assert (done.returncode, (self.here / "made").read_bytes()) == (0, image), done
        (self.here / "made").unlink()


def state(directory: Path) -> dict[str, bytes | None]:
    """Return what lies in a directory, hidden files too."""
    return {path.name: path.read_bytes() if path.is_file() else None for path in directory.iterdir()}


@pytest.fixture
def scene(pair: Pair) -> Scene:
    here = pair.directory
    (here / "in" / "sub").mkdir(parents=True)
    files = {"a.bin": A, "sub/b.bin": B, "c.bin": C, "none.bin": noise("none", 4000)}
    for name, data in files.items():
        (here / "in" / name).write_bytes(data)
    (here / "x.iso").write_bytes(IMAGE)
    return Scene(pair)


def chunks(template: bytes) -> list[tuple[bytes, int, bytes]]:
    """Return the chunks of a template: kind, length as stated, what they inflate to."""
    at = template.index(b"\r\n\r\n\r\n") + 6
    found = []
    while template[at : at + 4] != b"DESC":
        kind, length = template[at : at + 4], int.from_bytes(template[at + 4 : at + 10], "little")
        packed = template[at + 16 : at + length]
        data = zlib.decompress(packed) if kind == b"DATA" else bz2.decompress(packed)
        found.append((kind, int.from_bytes(template[at + 10 : at + 16], "little"), data))
        at += length
    assert int.from_bytes(template[-6:], "little") == len(template) - at
    return found


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (("-i", "x.iso"), ("x.jigdo", "x.template")),
        (("-i", "x.iso", "-j", "other.jigdo"), ("other.jigdo", "x.template")),
        (("-i", "x.iso", "-t", "other.tmpl"), ("x.jigdo", "other.tmpl")),
        (("--image=x.iso", "--jigdo=y", "--template=z"), ("y", "z")),
    ],
    ids=str,
)
def test_names_are_deduced(scene: Scene, options: tuple[str, ...], written: tuple[str, str]) -> None:
    """The image's name is enough; both programs then write the same files, and nothing else."""
    before = set(os.listdir(scene.here))
    assert scene.theirs(*QUIET, *options, "in").returncode == 0
    assert set(os.listdir(scene.here)) - before == set(written)
    for name in written:
        (scene.here / name).unlink()
    scene.works(*options, "in")
    assert set(os.listdir(scene.here)) - before == set(written)


def test_image_deduced_from_the_jigdo(scene: Scene) -> None:
    """Of `y.jigdo` the image is `y`."""
    (scene.here / "x.iso").rename(scene.here / "y")
    scene.works("-j", "y.jigdo", "in")
    assert scene.sections("y.jigdo")["Image"][:2] == [b"Filename=y", b"Template=y.template"]


def test_no_image(scene: Scene) -> None:
    """Without any name, or without the image itself, nothing can be made."""
    assert b"--image" in scene.fails("in")
    assert b"nowhere.iso: No such file" in scene.fails("-i", "nowhere.iso", "in")
    assert b"in: " in scene.fails("-i", "in", "-j", "y.jigdo", "-t", "y.template", "in")


def test_names_from_lists_and_image_from_stdin(scene: Scene) -> None:
    """-T - ends at an empty line, and what follows on stdin is the image."""
    (scene.here / "x.iso").unlink()
    stdin = b"in/a.bin\nin/sub/b.bin\n\n" + IMAGE
    scene.works("-T", "-", "--image=-", "-j", "x.jigdo", "-t", "x.template", stdin=stdin)
    assert scene.parts() == [b"A:in/a.bin", b"A:in/sub/b.bin"]
    scene.rebuilt("in")
    (scene.here / "list").write_bytes(b"in/c.bin\n\nin/a.bin\n")
    scene.works("-f", "-T", "list", "-i-", "-jx.jigdo", "-tx.template", stdin=IMAGE)
    assert scene.parts() == [b"A:in/c.bin"]
    scene.rebuilt("in")
    assert scene.sections()["Image"][0] != b"Filename=-"


@pytest.mark.parametrize("option", ["-j", "-t"])
def test_output_to_stdout(scene: Scene, option: str) -> None:
    """Either file may go to stdout, the other is written as ever, with the same bytes."""
    scene.works("-i", "x.iso", "-j", "y.jigdo", "-t", "y.template", "in")
    others = {"-j": ("-t", "y.template"), "-t": ("-j", "y.jigdo")}[option]
    done = scene.ours("-f", *QUIET, "-i", "x.iso", option, "-", *others, "in")
    assert (done.returncode, done.stderr) == (0, b"")
    if option == "-j":
        assert done.stdout == (scene.here / "y.jigdo").read_bytes()
    else:
        assert done.stdout == (scene.here / "y.template").read_bytes()
    left = set(os.listdir(scene.here))
    assert left == {"in", "x.iso", "y.jigdo", "y.template"}


@pytest.mark.parametrize(
    "options", [("-j", "-", "-t", "-"), ("-j", "-", "--json"), ("-t", "-", "-r", "grep")], ids=str
)
def test_one_thing_on_stdout(scene: Scene, options: tuple[str, ...]) -> None:
    """Two things on one stdout would be neither."""
    assert b"stdout" in scene.fails("-i", "x.iso", *options, "in")


def test_both_from_stdin(scene: Scene) -> None:
    """Stdin is the image or the .jigdo to merge, not both."""
    options = ("-i", "-", "-j", "x.jigdo", "-t", "x.template", "--merge", "-")
    assert b"stdin" in scene.fails(*options, "in", stdin=IMAGE)


# -- what is there already ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.jigdo", "x.template"])
def test_existing_outputs(scene: Scene, name: str) -> None:
    """3 and untouched, in both programs; --force replaces, --no-force takes that back."""
    (scene.here / name).write_bytes(b"precious")
    assert scene.theirs(*QUIET, "-i", "x.iso", "in").returncode == 3
    for options in ((), ("-f", "--no-force")):
        assert f"{name}: exists already".encode() in scene.fails(*options, "-i", "x.iso", "in")
    scene.works("--force", "-i", "x.iso", "in")
    assert (scene.here / name).read_bytes() != b"precious"
    scene.rebuilt("in")


@pytest.mark.parametrize("kind", ["directory", "dangling", "fifo"])
def test_odd_things_in_the_way(scene: Scene, kind: str) -> None:
    """A directory, a link to nowhere or a FIFO under an output's name is not replaced unasked."""
    way = scene.here / "x.template"
    match kind:
        case "directory":
            way.mkdir()
        case "dangling":
            way.symlink_to("nowhere")
        case _:
            os.mkfifo(way)
    assert b"x.template: " in scene.fails("-i", "x.iso", "in")
    if kind == "directory":
        assert b"x.template: is a directory" in scene.fails("-f", "-i", "x.iso", "in")


@pytest.mark.parametrize("option", ["-j", "-t"])
@pytest.mark.parametrize("name", ["x.iso", "./x.iso", "hard", "soft"])
def test_outputs_that_are_the_image(scene: Scene, option: str, name: str) -> None:
    """No --force lets the image be overwritten, whatever name it is given by."""
    os.link(scene.here / "x.iso", scene.here / "hard")
    (scene.here / "soft").symlink_to("x.iso")
    assert b"is the image" in scene.fails("-f", "-i", "x.iso", option, name, "in")
    assert (scene.here / "x.iso").read_bytes() == IMAGE


def test_outputs_that_are_the_same(scene: Scene) -> None:
    """One file cannot be .jigdo and template."""
    assert b"different names" in scene.fails("-f", "-i", "x.iso", "-j", "y", "-t", "./y", "in")


def test_image_and_old_outputs_in_the_tree(scene: Scene) -> None:
    """With everything in one directory, neither the image nor what an earlier run wrote becomes a part."""
    for force in ((), ("-f",)):
        scene.works(*force, "-i", "x.iso", ".")
        assert scene.parts() == [b"A:./in/a.bin", b"A:./in/c.bin", b"A:./in/sub/b.bin"]
    whole = b"".join(path.read_bytes() for path in (scene.here / "x.template", scene.here / "x.jigdo"))
    (scene.here / "x.iso").write_bytes(IMAGE + whole)
    scene.works("-f", "-i", "x.iso", ".")
    assert scene.parts() == [b"A:./in/a.bin", b"A:./in/c.bin", b"A:./in/sub/b.bin"]
    scene.rebuilt("in", image=IMAGE + whole)


def test_output_through_a_link(scene: Scene) -> None:
    """A link under an output's name stays one; what it leads to is replaced."""
    (scene.here / "store").mkdir()
    (scene.here / "store" / "t").write_bytes(b"old")
    (scene.here / "x.template").symlink_to("store/t")
    scene.works("-f", "-i", "x.iso", "in")
    assert (scene.here / "x.template").is_symlink()
    assert os.listdir(scene.here / "store") == ["t"]
    scene.rebuilt("in", template="store/t")


# -- labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("in",),
        ("in//",),
        ("./in/",),
        ("in//a.bin", "in/sub//b.bin", "in//c.bin"),
        ("--label", "My=in", "in//"),
        ("--label", "My=in", "--uri", "My=http://h/d/", "in//"),
        ("--label", "My=in", "--uri", "My='http://h/b c/' --try-last", "in//"),
        ("--label", "My=in/", "--label", "Sub=in/sub", "in//a.bin", "in/sub//b.bin"),
        ("-C", "sha256", "in//"),
    ],
    ids=" ".join,
)
def test_servers_and_parts_are_theirs(scene: Scene, arguments: tuple[str, ...]) -> None:
    """[Servers] and [Parts] are what jigdo-file writes, line for line."""
    assert scene.theirs(*QUIET, "-i", "x.iso", "-jt.jigdo", "-tt.template", *arguments).returncode == 0
    scene.works("-i", "x.iso", *arguments)
    theirs, ours = scene.sections("t.jigdo"), scene.sections()
    assert ours["Parts"] == theirs["Parts"]
    assert ours["Servers"] == theirs["Servers"]
    assert ours["Jigdo"][0] == theirs["Jigdo"][0]
    assert ours.keys() == theirs.keys()


def test_one_tree_and_one_uri(scene: Scene) -> None:
    """A label of --uri without a directory means the one tree that is given."""
    scene.works("-i", "x.iso", "--uri", "Mirror=http://h/", "--uri", "Mirror=http://i/", "in/")
    assert scene.sections()["Servers"] == [b"Mirror=http://h/", b"Mirror=http://i/"]
    assert scene.parts() == [b"Mirror:a.bin", b"Mirror:c.bin", b"Mirror:sub/b.bin"]


def test_uri_that_nothing_uses(scene: Scene) -> None:
    """A label that no part has is told, with a way on."""
    done = scene.ours("-r", "noprogress", "-i", "x.iso", "--uri", "Mirror=http://h/", "in", "in/sub")
    assert done.returncode == 0
    assert b"warning: no part has the label Mirror" in done.stderr
    assert scene.sections()["Servers"] == [b"A=file:"]


@pytest.mark.parametrize("label", ["http", "a b", "a#b", ""])
def test_labels_that_cannot_be(scene: Scene, label: str) -> None:
    """A label that would break the .jigdo is refused before anything is written."""
    assert b"label" in scene.fails("-i", "x.iso", "--label", f"{label}=in", "in")


# -- template ----------------------------------------------------------------------------------------


def chunky(scene: Scene, length: int = 2_500_000) -> bytes:
    """Give the scene an image with raw data of several chunks around a part; return it."""
    text = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(length // 25))
    image = text + C + bytes(length) + A
    (scene.here / "x.iso").write_bytes(image)
    return image


def test_levels(scene: Scene) -> None:
    """-0 to -9 are obeyed, the last one counts, and 9 is what comes of none."""
    image = chunky(scene, 700_000)
    sizes = {}
    for level in ("-0", "-1", "-9", "-19", ""):
        scene.works("-f", "-i", "x.iso", *filter(None, [level]), "in")
        sizes[level] = (scene.here / "x.template").stat().st_size
        scene.rebuilt("in", image=image)
    assert sizes["-0"] > sizes["-1"] > sizes["-9"] == sizes["-19"] == sizes[""]


@pytest.mark.parametrize(
    ("options", "kind", "most"),
    [
        ((), b"DATA", 2 << 20),
        (("--bzip2",), b"BZIP", 899_950),
        (("--bzip2", "-1"), b"BZIP", 99_950),
        (("--bzip2", "--gzip"), b"DATA", 2 << 20),
        (("--gzip", "--bzip2", "-0"), b"BZIP", 99_950),
    ],
    ids=str,
)
def test_compression(scene: Scene, options: tuple[str, ...], kind: bytes, most: int) -> None:
    """Chunks are of the kind asked for, none is empty or large, together they are what is in no part."""
    image = chunky(scene)
    scene.works("-i", "x.iso", *options, "in")
    found = chunks((scene.here / "x.template").read_bytes())
    assert {name for name, _, _ in found} == {kind}
    assert all(0 < length == len(data) <= most for _, length, data in found)
    assert b"".join(data for _, _, data in found) == image.replace(C, b"").replace(A, b"")
    scene.rebuilt("in", image=image)


@pytest.mark.parametrize(
    ("value", "smallest"),
    [("3k", 3072), ("3072", 3072), ("1", 256), ("", 256), (None, 1024), ("1M", 1 << 20)],
)
def test_min_length(scene: Scene, value: str | None, smallest: int) -> None:
    """Shorter files are no parts, files of exactly that length are; below 256 it is 256; as in jigdo-file."""
    lengths = (255, 256, 1023, 1024, 3071, 3072)
    files = {str(length): noise(f"of {length}", length) for length in lengths}
    for name, data in files.items():
        (scene.here / "in" / name).write_bytes(data)
    image = b"-".join(files.values()) + b"-"
    (scene.here / "x.iso").write_bytes(image)
    options = ("-i", "x.iso", *([] if value is None else [f"--min-length={value}"]))
    scene.works(*options, "in")
    found = {line.rpartition(b"/")[2].decode() for line in scene.parts()}
    assert found == {str(length) for length in lengths if length >= smallest}
    scene.theirs(*QUIET, *options, "-jt.jigdo", "-tt.template", "in")
    assert scene.sections("t.jigdo")["Parts"] == scene.sections()["Parts"]
    listings = [
        scene.pair.theirs("ls", "-t", name).stdout.splitlines() for name in ("x.template", "t.template")
    ]
    assert listings[0] == listings[1]
    scene.rebuilt("in", image=image)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_entries_are_theirs(scene: Scene, algorithm: str) -> None:
    """list-template shows for our template, rsync64 and all, what it shows for jigdo-file's."""
    scene.works("-i", "x.iso", "-C", algorithm, "in")
    scene.theirs(*QUIET, "-C", algorithm, "-i", "x.iso", "-jt.jigdo", "-tt.template", "in")
    ours = scene.pair.theirs("ls", "-t", "x.template").stdout
    assert ours == scene.pair.theirs("ls", "-t", "t.template").stdout
    assert ours.count(f"need-file-{algorithm}".encode()) == 4


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_checksums_in_the_jigdo(scene: Scene, algorithm: str) -> None:
    """Both checksums of template and image are told as libjte tells them, and they are true."""
    scene.works("-i", "x.iso", "-C", algorithm, "in")
    text = (scene.here / "x.jigdo").read_text()
    for subject, data in (("Template", (scene.here / "x.template").read_bytes()), ("Image", IMAGE)):
        for name in ("MD5", "SHA256"):
            digest = hashlib.new(name, data).hexdigest()
            assert f"\n# {subject} Hex {name}Sum {digest}\n" in text
        assert f"\n# {subject} size {len(data)} bytes\n" in text
    for verb in ("md5sum", "sha256sum"):
        digest = scene.pair.theirs(verb, *QUIET, "x.template").stdout.split()[0].decode()
        key = {"md5sum": "MD5Sum", "sha256sum": "SHA256Sum"}[verb]
        assert f"\nTemplate-{key}={digest}\n" in text


def test_deterministic(scene: Scene) -> None:
    """The same input makes the same bytes, on one processor as on all."""
    chunky(scene)
    results = []
    alone = {min(os.sched_getaffinity(0))}
    for processors in (os.sched_getaffinity(0), alone, os.sched_getaffinity(0)):
        old = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors)
        try:
            scene.works("-f", "-i", "x.iso", "in")
        finally:
            os.sched_setaffinity(0, old)
        results.append([(scene.here / name).read_bytes() for name in ("x.jigdo", "x.template")])
    assert results[0] == results[1] == results[2]


def test_order_of_the_directory(scene: Scene) -> None:
    """In which order a file system lists a directory makes no difference, twins and hard links included."""
    require_root()
    files = {f"twin-{n}": A for n in range(3)} | {f"b{n}": noise(str(n), 2000 + n) for n in range(6)}
    image = b"+".join(files.values())
    results = []
    orders = []
    for names in (list(files), list(files)[::-1]):
        with tiny_tmpfs(4 << 20) as tiny:  # it lists the latest file first
            (tiny / "tree").mkdir()
            (tiny / "x.iso").write_bytes(image)
            for name in names:
                (tiny / "tree" / name).write_bytes(files[name])
            for link in ("y", "z") if names == list(files) else ("z", "y"):
                os.link(tiny / "tree" / "b3", tiny / "tree" / link)
            orders.append(os.listdir(tiny / "tree"))
            replace(scene, pair=replace(scene.pair, directory=tiny)).works("-i", "x.iso", "tree")
            results.append([(tiny / name).read_bytes() for name in ("x.jigdo", "x.template")])
    assert orders[0] != orders[1]
    assert results[0] == results[1]


# -- the .jigdo --------------------------------------------------------------------------------------


def test_identical_files(scene: Scene) -> None:
    """Of identical files one stands in [Parts], and none of them counts as missing."""
    for name in ("again.bin", "sub/again.bin"):
        (scene.here / "in" / name).write_bytes(A)
    account = json.loads(scene.ours("--json", "-i", "x.iso", "in").stdout)
    assert account["not_found"] == ["in/none.bin"]
    assert (account["parts"], account["places"], account["files"]) == (3, 4, 6)
    assert len(scene.sections()["Parts"]) == 3


ODD_NAMES = [
    "with blank",
    "it's",
    'say "x"',
    """both ' and " \\""",
    "back\\slash",
    "ha#sh",
    "per%20cent%",
    "--option",
    "a=b:c",
    "[Parts]",
    "latin-\udcfc",
    "caf\u00e9-\u96ea",
    " begins and ends ",
    "tab\there",
    "return\r",
    "re\rturn",
    "\x01\x1b[31m",
    "~$;&|*?",
]


def test_odd_names(scene: Scene) -> None:
    """Whatever a name is made of, jigdo-file and we read the same bytes back and find the file."""
    parts = [noise(name.encode(errors="replace").hex(), 1500) for name in ODD_NAMES]
    odd = scene.here / "odd"
    odd.mkdir()
    for name, data in zip(ODD_NAMES, parts, strict=True):
        (odd / name).write_bytes(data)
    image = b"+".join(parts)
    (scene.here / "x.iso").write_bytes(image)
    scene.works("-i", "x.iso", "odd//")
    expected = {b"odd/" + os.fsencode(name) for name in ODD_NAMES}
    for run in (scene.pair.theirs, scene.pair.ours):
        done = run("print-missing", "-i", "none", "-j", "x.jigdo", "-t", "x.template")
        assert done.returncode == 0
        assert set(done.stdout.split(b"\n")) - {b""} == expected
    scene.rebuilt("odd", image=image)


def test_line_feed_in_a_name(scene: Scene) -> None:
    """A part whose name no .jigdo can hold is an error that names it; elsewhere such names do no harm."""
    (scene.here / "in" / "no\npart").write_bytes(noise("line feed", 2000))
    scene.works("-i", "x.iso", "-j", "y.jigdo", "-t", "y.template", "in")
    (scene.here / "in" / "a.bin").rename(scene.here / "in" / "a\nb")
    line = scene.fails("-i", "x.iso", "in")
    assert rb"in/a\nb" in line
    assert scene.fails("-i", "x.iso", "--label", "My=in", "--uri", "My=http://h/", "in").count(rb"a\nb") == 1


def test_odd_names_of_the_image(scene: Scene) -> None:
    """Image and template may be called as they like, but for a line feed."""
    for name in ("OS X (Server) #1", "it's 100%", "latin-\udcfc", "-"):
        (scene.here / "x.iso").rename(scene.here / f"{name}.iso")
        scene.works(f"--image=./{name}.iso", "in")
        sections = scene.sections(f"{name}.jigdo")
        assert sections["Image"][0] == os.fsencode(f"Filename={name}.iso")
        assert sections["Image"][1] == os.fsencode(f"Template={name}.template")
        scene.rebuilt("in", template=f"./{name}.template")
        (scene.here / f"{name}.iso").rename(scene.here / "x.iso")
    (scene.here / "x.iso").rename(scene.here / "a\nb.iso")
    assert rb"a\nb" in scene.fails("-i", "a\nb.iso", "in")


@pytest.mark.parametrize("option", ["--no-image-section", "--no-servers-section"])
def test_sections_left_out(scene: Scene, option: str) -> None:
    """[Image] and [Servers] can be left out, as in jigdo-file; the last word counts."""
    scene.works("-i", "x.iso", option, "in")
    assert scene.theirs(*QUIET, option, "-i", "x.iso", "-jt.jigdo", "-tt.template", "in").returncode == 0
    left = {"--no-image-section": "Image", "--no-servers-section": "Servers"}[option]
    assert left not in scene.sections()
    assert scene.sections().keys() == scene.sections("t.jigdo").keys()
    scene.works("-f", "-i", "x.iso", option, option.replace("no-", ""), "in")
    assert left in scene.sections()


@pytest.mark.parametrize("source", ["file", "stdin", "itself"])
def test_merge(scene: Scene, source: str) -> None:
    """--merge adds an image to a .jigdo from a file or stdin, with --force to that very file."""
    (scene.here / "y.iso").write_bytes(b"y" * 300 + C + B)
    scene.works("-i", "x.iso", "--label", "My=in", "--uri", "My=http://h/", "in//a.bin", "in//c.bin")
    old = (scene.here / "x.jigdo").read_bytes().replace(b"[Servers]", b"# my own words\n[Servers]")
    (scene.here / "x.jigdo").write_bytes(old)
    options: tuple[str, ...] = ("--merge", "x.jigdo", "-j", "y.jigdo")
    if source != "file":
        options = {"stdin": ("--merge=-", "-j", "y.jigdo"), "itself": ("-f", "--merge=x.jigdo", "-jx.jigdo")}[
            source
        ]
    scene.works("-i", "y.iso", "-t", "y.template", *options, "in//", stdin=old)
    name = "x.jigdo" if source == "itself" else "y.jigdo"
    text, sections = (scene.here / name).read_bytes(), scene.sections(name)
    assert b"\n# my own words\n" in text
    assert text.count(b"[Image]") == 2
    assert [line for line in sections["Image"] if line.startswith(b"Filename=")] == [
        b"Filename=x.iso",
        b"Filename=y.iso",
    ]
    assert sections["Servers"] == [b"My=http://h/", b"A=file:in/"]
    assert sorted(scene.parts(name)) == [b"A:sub/b.bin", b"My:a.bin", b"My:c.bin"]
    if source != "itself":
        assert (scene.here / "x.jigdo").read_bytes() == old
    for template, image in (("x.template", "x.iso"), ("y.template", "y.iso")):
        done = scene.pair.theirs("pm", "-i", "none", "-j", name, "-t", template)
        assert b"MD5Sum:" not in done.stdout
        scene.rebuilt("in", template=template, image=(scene.here / image).read_bytes())


def test_merge_of_what_is_not_there(scene: Scene) -> None:
    """A .jigdo to merge that is missing or broken is named, and nothing is written."""
    assert b"none.jigdo: No such file" in scene.fails("-i", "x.iso", "--merge", "none.jigdo", "in")
    (scene.here / "broken").write_bytes(b"[Jigdo]\nVersion=1.2\n[Parts\nx=y\n")
    assert b"broken:3: " in scene.fails("-i", "x.iso", "--merge", "broken", "in")


# -- what is told ------------------------------------------------------------------------------------


def test_grep(scene: Scene) -> None:
    """--report=grep prints place and name of every match to stdout, exactly as jigdo-file does."""
    theirs = scene.theirs("-r", "grep", "-i", "x.iso", "-jt.jigdo", "-tt.template", "in//", "in/sub")
    done = scene.ours("-r", "grep", "-i", "x.iso", "in//", "in/sub")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == theirs.stdout != b""
    assert done.stdout.splitlines()[0] == b"700 in/a.bin"


def test_account(scene: Scene) -> None:
    """In a pipe, a short account on stderr without any bar: parts, bytes, template, files not found."""
    for report in ("default", "noprogress"):
        done = scene.ours("-f", "-r", report, "-i", "x.iso", "in")
        assert (done.returncode, done.stdout) == (0, b"")
        text = done.stderr.decode()
        size = (scene.here / "x.template").stat().st_size
        assert f"x.iso: {len(IMAGE):,} bytes, {2 * len(A) + len(B) + len(C):,} (" in text
        assert "in 3 parts in 4 places" in text
        assert f"x.template: {size:,} bytes, for 804 bytes of the image" in text
        assert "not in the image, in one piece: 1 of 4 files: in/none.bin" in text
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)


def test_names_that_hurt_a_terminal(scene: Scene) -> None:
    """Control characters in names of files are escaped in what is told."""
    (scene.here / "in" / "\x1b[31mred\udcff").write_bytes(noise("red", 3000))
    done = scene.ours("-i", "x.iso", "in")
    assert done.returncode == 0
    assert rb"\x1b[31mred\xff" in done.stderr


def test_quiet(scene: Scene) -> None:
    """--report=quiet leaves nothing to say where all is well."""
    assert scene.works("-i", "x.iso", "in") == b""


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_json(scene: Scene, algorithm: str) -> None:
    """The account as JSON is alone on stdout, and every number in it is the template's."""
    odd = scene.here / "in" / "odd\n\udcff \u96ea"
    odd.write_bytes(noise("odd", 2000))
    done = scene.ours(
        "--json", "-C", algorithm, "-i", "x.iso", "--uri=My=http://h/", "--uri=My=http://i/", "in"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    account = json.loads(done.stdout)
    rows = [line.split() for line in scene.pair.theirs("ls", "--hex", "-tx.template").stdout.splitlines()]
    places = [row for row in rows if row[0].startswith(b"need-file-")]
    in_parts = sum(int(row[2]) for row in places)
    template = (scene.here / "x.template").read_bytes()
    expected = {
        "image": "x.iso",
        "jigdo": "x.jigdo",
        "template": "x.template",
        "size": len(IMAGE),
        "checksums": {name: hashlib.new(name, IMAGE).hexdigest() for name in ("md5", "sha256")},
        "template_size": len(template),
        "template_checksums": {name: hashlib.new(name, template).hexdigest() for name in ("md5", "sha256")},
        "parts": len({row[3] for row in places}),
        "places": len(places),
        "bytes_in_parts": in_parts,
        "bytes_in_template": len(IMAGE) - in_parts,
        "share_in_parts": round(in_parts / len(IMAGE), 4),
        "files": 5,
        "servers": {"My": ["http://h/", "http://i/"]},
    }
    assert {key: value for key, value in account.items() if key in expected} == expected
    assert len(account["not_found"]) == 2
    assert "in/none.bin" in account["not_found"]
    assert account["parts"] == len(scene.sections()["Parts"])


def test_json_with_quiet_and_failure(scene: Scene) -> None:
    """--json does what it says under --report=quiet too, and prints nothing where nothing was made."""
    json.loads(scene.works("--json", "-i", "x.iso", "in"))
    scene.fails("--json", "-i", "x.iso", "in")


def test_nothing_to_look_for(scene: Scene) -> None:
    """Without files the template holds the whole image, which is worth a warning and no error."""
    done = scene.ours("-i", "x.iso")
    assert done.returncode == 0
    assert b"warning: there are no files" in done.stderr
    assert scene.sections()["Parts"] == []
    scene.rebuilt()


def test_operand_that_is_not_there(scene: Scene) -> None:
    """A file that is not there is a warning that names it; the rest is used."""
    done = scene.ours("-i", "x.iso", "gone", "in")
    assert done.returncode == 0
    assert b"warning: gone: passed over: No such file or directory" in done.stderr
    assert len(scene.sections()["Parts"]) == 3


def test_empty_image(scene: Scene) -> None:
    """Of an image of no bytes comes a template that list-template, verify and make-image can read."""
    (scene.here / "x.iso").write_bytes(b"")
    account = json.loads(scene.ours("--json", "-i", "x.iso", "in").stdout)
    assert (account["size"], account["parts"], account["share_in_parts"]) == (0, 0, 0)
    assert len(account["not_found"]) == 4
    assert chunks((scene.here / "x.template").read_bytes()) == []
    assert scene.pair.theirs("ls", "-t", "x.template").returncode == 0
    assert scene.pair.theirs("verify", "-i", "x.iso", "-t", "x.template").returncode == 0
    assert scene.pair.ours("mi", *QUIET, "-i", "y.iso", "-t", "x.template").returncode == 0
    assert (scene.here / "y.iso").read_bytes() == b""


def test_bar_on_a_terminal(scene: Scene) -> None:
    """On a terminal bars tell what goes on, with rate and time left; stdout is free."""
    image = scene.here / "x.iso"
    with image.open("ab") as file:
        file.truncate(100 << 20)
    for report, shown in (("default", True), ("noprogress", False)):
        text, output = on_a_terminal(scene, "mt", "-f", "-r", report, "-i", "x.iso", "in")
        assert (b"searching x.iso" in text) == shown
        assert (b"0:00:0" in text or b"-:--:--" in text) == shown
        assert b"\x1b[?25h" in text or not shown
        assert b"in 3 parts in 4 places" in text
        assert output == b""


def on_a_terminal(scene: Scene, *arguments: str) -> tuple[bytes, bytes]:
    """Run jigdofs with stderr on a terminal; return what it writes there, and to stdout."""
    master, slave = pty.openpty()
    environ = clean_environ(scene.pair.link.parent) | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*PROGRAM, *arguments], cwd=scene.here, env=environ, stdout=subprocess.PIPE, stderr=slave
    )
    os.close(slave)
    text = b""
    try:
        while True:
            assert select.select([master], [], [], 60)[0], text
            try:
                text += os.read(master, 4096)
            except OSError:  # the other end is closed
                break
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return text, output


# -- commands and memory -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--label", "My=in"), ("-C", "sha256")], ids=str)
def test_match_exec(scene: Scene, options: tuple[str, ...]) -> None:
    """The command runs for every match, in image order, and is told what jigdo-file tells it."""
    names = ("LABEL", "LABELPATH", "MATCHPATH", "LEAF", "MD5SUM", "SHA256SUM", "FILE")
    show = "; ".join(f'printf "%s|" "{name}=${name}"' for name in names) + "; echo"
    theirs = scene.theirs(
        *QUIET, *options, "-i", "x.iso", "-jt.jigdo", "-tt.template", "--match-exec", show, "in//"
    )
    ours = scene.works(*options, "-i", "x.iso", "--match-exec", show, "in//")
    assert ours.count(b"\n") == 4
    assert strip_sums(ours) == strip_sums(theirs.stdout)
    md5 = scene.pair.theirs("md5sum", *QUIET, "in/a.bin").stdout.split()[0]
    sha256 = scene.pair.theirs("sha256sum", *QUIET, "in/a.bin").stdout.split()[0]
    assert b"|MD5SUM=%s|SHA256SUM=%s|" % (md5, sha256) in ours.splitlines()[0]
    for line, reference in zip(ours.splitlines(), theirs.stdout.splitlines(), strict=True):
        told = [word for word in reference.split(b"|") if b"SUM=" in word and not word.endswith(b"=")]
        assert set(told) <= set(line.split(b"|"))


def strip_sums(text: bytes) -> bytes:
    """Drop the checksums: jigdo-file tells only that of the algorithm in use."""
    return re.sub(rb"(MD5|SHA256)SUM=[^|]*\|", b"", text)


def test_match_exec_fails(scene: Scene) -> None:
    """When the command fails, that is an error of one line, and nothing is written."""
    line = scene.fails("-i", "x.iso", "--match-exec", 'test "$LEAF" != b.bin', "in")
    assert b"b.bin" in line
    assert b"exit code 1" in line
    assert b"exit code -9" in scene.fails("-i", "x.iso", "--match-exec", "kill -9 $$", "in")


def test_cache(scene: Scene) -> None:
    """What make-template learnt of the files make-image need not compute again."""
    large = noise("large", 30 << 20)
    (scene.here / "in" / "large").write_bytes(large)
    image = b"head" + large + A
    (scene.here / "x.iso").write_bytes(image)
    scene.works("--cache", "c.db", "-i", "x.iso", "in")
    assert (scene.here / "c.db").exists()
    read = {}
    for cache in ("c.db", "other.db"):
        read[cache] = bytes_read(scene, "scan", *QUIET, "--scan-whole-file", "--cache", cache, "in/large")
    assert read["c.db"] + len(large) * 0.9 < read["other.db"]
    done = scene.pair.ours("mi", *QUIET, "--cache", "c.db", "-i", "y.iso", "-t", "x.template", "in")
    assert (done.returncode, (scene.here / "y.iso").read_bytes()) == (0, image)


def bytes_read(scene: Scene, *arguments: str) -> int:
    """Run jigdofs; return how much it read in all."""
    code = "import os,sys; from jigdofs.cli import main; code = main(sys.argv[1:]); sys.stdout.flush(); "
    code += "print(open('/proc/self/io').read()); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=scene.here,
        env=clean_environ(scene.pair.link.parent),
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"^rchar: (\d+)$", done.stdout, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_no_cache(scene: Scene) -> None:
    """--no-cache takes back a --cache before it."""
    scene.works("--cache", "c.db", "--no-cache", "-i", "x.iso", "in")
    assert not (scene.here / "c.db").exists()


# -- what cannot be ----------------------------------------------------------------------------------


def test_image_in_a_pipe(scene: Scene) -> None:
    """An image in a pipe cannot be searched from any place: one line says so."""
    command = ["sh", "-c", 'cat x.iso | "$@"', "sh", *PROGRAM, "mt", "-i", "/dev/stdin", "-j", "x.jigdo"]
    done = subprocess.run(
        [*command, "-t", "x.template", "in"],
        cwd=scene.here,
        env=clean_environ(scene.pair.link.parent),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done
    assert b"/dev/stdin: " in done.stderr


def test_image_is_a_fifo(scene: Scene) -> None:
    """A FIFO that nobody writes to is no image, and does not hold us up."""
    os.mkfifo(scene.here / "fifo.iso")
    assert b"fifo.iso: " in scene.fails("-i", "fifo.iso", "in")


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_image_on_a_device(scene: Scene, device: str) -> None:
    """A device that has no size is no image of no bytes."""
    assert device.encode() in scene.fails("-i", device, "-j", "y.jigdo", "-t", "y.template", "in")


def test_image_on_a_block_device(scene: Scene) -> None:
    """A disk itself may be the image."""
    require_root()
    (scene.here / "x.iso").write_bytes(IMAGE + bytes(-len(IMAGE) % 512))
    with loop_device(scene.here / "x.iso") as device:
        scene.works("-i", device, "-j", "x.jigdo", "-t", "x.template", "in")
    assert len(scene.sections()["Parts"]) == 3
    scene.rebuilt("in", image=IMAGE + bytes(-len(IMAGE) % 512))


def test_without_numpy(scene: Scene) -> None:
    """Without numpy one line tells what to install; other verbs do without it."""
    code = (
        "import sys; sys.modules['numpy'] = None; from jigdofs.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    results = []
    for arguments in (("mt", "-i", "x.iso", "in"), ("mt", "--help"), ("md5sum", "in/a.bin")):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=scene.here,
            env=clean_environ(scene.pair.link.parent),
            capture_output=True,
            text=True,
            check=False,
        )
        results.append(done)
    assert results[0].returncode == 3
    (line,) = results[0].stderr.splitlines()
    assert line.startswith("jigdofs: make-template needs numpy: ")
    assert [done.returncode for done in results[1:]] == [0, 0]
    assert not (scene.here / "x.template").exists()


def test_help(tmp_path: Path) -> None:
    """The help explains itself with the command that everybody starts with."""
    text = Program(tmp_path)("mt", "--help").stdout
    assert "--uri Centosmirrors=" in text
    for option in ("--merge", "--match-exec", "--bzip2", "--min-length", "--json", "--check-urls"):
        assert option in text


@pytest.mark.parametrize("short", ["-k", "--no-such", "--min-length=x", "-Csha1", "-rloud"])
def test_wrong_options(scene: Scene, short: str) -> None:
    """An option there is not, or a value that makes no sense, is one line and 3."""
    scene.fails("-i", "x.iso", short, "in")
