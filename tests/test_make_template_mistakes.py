"""make-template where somebody errs: options swapped, names in the way, trees that are not there."""

import gzip
import json
import os
import shutil

import pytest

from tests.kit.faulty_server import FaultyServer
from tests.test_make_template import QUIET, A, B, C, Scene, pair, scene, state

__all__ = ["pair", "scene"]  # fixtures


# -- files that somebody needs -----------------------------------------------------------------------


def test_swapped_options(scene: Scene) -> None:
    """With image and .jigdo swapped, --force does not destroy the image, and nobody is told to delete it."""
    scene.works("-i", "x.iso", "in")
    for force in ((), ("--force",)):
        line = scene.fails(*force, "-j", "x.iso", "-i", "x.jigdo", "-t", "y.template", "in")
        assert line.startswith(b"jigdofs: x.iso: exists and is neither .jigdo nor template")


@pytest.mark.parametrize(
    "content",
    [b"\x7fELF\0\0", b"\x1f\x8bdamaged", gzip.compress(b"<metadata/>", mtime=0)],
    ids=["binary", "damaged", "gzipped"],
)
@pytest.mark.parametrize("option", ["-j", "-t"])
def test_what_force_does_not_replace(scene: Scene, option: str, content: bytes) -> None:
    """--force replaces no file that is neither a .jigdo nor a template, nor text."""
    (scene.here / "precious").write_bytes(content)
    assert b"precious: exists and is neither" in scene.fails("-f", "-i", "x.iso", option, "precious", "in")


def test_what_force_replaces(scene: Scene) -> None:
    """--force replaces a .jigdo, gzipped or not, and a template."""
    scene.works("-i", "x.iso", "in")
    jigdo, template = scene.here / "x.jigdo", scene.here / "x.template"
    before = state(scene.here)
    jigdo.write_bytes(gzip.compress(jigdo.read_bytes()))
    template.write_bytes(template.read_bytes() + b"\0")
    scene.works("-f", "-i", "x.iso", "in")
    assert state(scene.here) == before


def test_the_image_where_we_would_write(scene: Scene) -> None:
    """An image under the very name that a template has while it is written is left alone."""
    (scene.here / "x.iso").rename(scene.here / ".z.template.part")
    line = scene.fails("-i", ".z.template.part", "-j", "z.jigdo", "-t", "z.template", "in")
    assert b".z.template.part: is in the way" in line


def test_a_second_name_where_we_would_write(scene: Scene) -> None:
    """A file that has another name as well is no left-over of ours."""
    (scene.here / "notes").write_bytes(b"text")
    os.link(scene.here / "notes", scene.here / ".x.template.part")
    assert b".x.template.part: is in the way" in scene.fails("-i", "x.iso", "in")


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_something_odd_where_we_would_write(scene: Scene, kind: str) -> None:
    """A directory or a link there is named, and nothing behind it is touched."""
    way = scene.here / ".x.template.part"
    if kind == "directory":
        way.mkdir()
    else:
        way.symlink_to("x.iso")
    assert b".x.template.part: is in the way" in scene.fails("-i", "x.iso", "in")


@pytest.mark.parametrize(
    ("jigdo", "template"), [("y", "y"), ("y", "./y"), ("y", ".y.part"), (".y.part", "y")], ids=str
)
def test_both_in_one_place(scene: Scene, jigdo: str, template: str) -> None:
    """The .jigdo and the template are not written over each other."""
    assert b"different names" in scene.fails("-i", "x.iso", "-j", jigdo, "-t", template, "in")


def test_the_longest_names(scene: Scene) -> None:
    """A name as long as the file system takes it can be written."""
    jigdo, template = "j" * 255, "t" * 250
    scene.works("-i", "x.iso", "-j", jigdo, "-t", template, "in")
    assert {jigdo, template} < set(os.listdir(scene.here))
    scene.rebuilt("in", template=template)


def test_a_copy_of_the_image(scene: Scene) -> None:
    """A copy of the image among the files is told of, and is not its only part."""
    shutil.copy(scene.here / "x.iso", scene.here / "in" / "copy.iso")
    done = scene.ours(*QUIET, "-i", "x.iso", "in")
    assert done.returncode == 0
    assert done.stderr.startswith(b"jigdofs: warning: in/copy.iso: passed over: is as long as the image")
    assert len(scene.parts()) == 3
    scene.rebuilt("in")


# -- what is not there -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [("gone",), ("gone", "gone too"), ("-T", "no list"), ("-T", "list")], ids=str
)
def test_nothing_is_there(scene: Scene, arguments: tuple[str, ...]) -> None:
    """A mistyped tree or list does not make a template of everything."""
    (scene.here / "list").write_bytes(b"in\r\n")
    before = state(scene.here)
    done = scene.ours("-i", "x.iso", *arguments)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        b"jigdofs: none of the files that are given is there; nothing is written"
    )
    assert state(scene.here) == before


def test_an_empty_directory(scene: Scene) -> None:
    """Without any file the whole image goes into the template, as with jigdo-file, which is told."""
    (scene.here / "empty").mkdir()
    done = scene.ours(*QUIET, "-i", "x.iso", "empty")
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)
    assert b"there are no files" in done.stderr
    scene.rebuilt()


@pytest.mark.parametrize("option", ["--uri", "--label"])
def test_no_label(scene: Scene, option: str) -> None:
    """What has no `=` is told with how it is to be written."""
    assert b"write it as LABEL=" in scene.fails(option, "http://127.0.0.1/", "-i", "x.iso", "in")


@pytest.mark.parametrize("value", ["127.0.0.1/centos/", "ftp://h/centos/", "centos/"])
def test_no_url(scene: Scene, value: str) -> None:
    """A --uri from which nobody can fetch earns a warning."""
    done = scene.ours(*QUIET, "--uri", f"C={value}", "-i", "x.iso", "in")
    assert done.returncode == 0
    assert f"--uri C={value}: is no http: or https: URL".encode() in done.stderr


def test_two_trees_and_the_letters_told(scene: Scene) -> None:
    """A --uri for the letters that an earlier run handed out is used for them."""
    (scene.here / "two").mkdir()
    (scene.here / "in" / "c.bin").rename(scene.here / "two" / "c.bin")
    scene.works("-i", "x.iso", "in//", "two//")
    assert scene.sections()["Servers"] == [b"A=file:in/", b"B=file:two/"]
    uris = ("--uri", "A=http://a/", "--uri", "B=http://b/")
    scene.works("-f", "-i", "x.iso", *uris, "in//", "two//")
    assert scene.sections()["Servers"] == [b"A=http://a/", b"B=http://b/"]


# -- merging -----------------------------------------------------------------------------------------


def test_merge_into_itself(scene: Scene) -> None:
    """The .jigdo that is merged may be the one that is written, without --force; a new mirror is added."""
    scene.works("-i", "x.iso", "--uri", "C=http://one/", "in")
    shutil.copy(scene.here / "x.iso", scene.here / "y.iso")
    with (scene.here / "y.iso").open("ab") as file:
        file.write(b"more")
    options = ("-i", "y.iso", "-j", "x.jigdo", "-t", "y.template", "--merge", "x.jigdo")
    scene.works(*options, "--uri", "C=http://two/", "in")
    found = scene.sections()
    assert found["Servers"] == [b"C=http://one/", b"C=http://two/"]
    assert [line for line in found["Image"] if line.startswith(b"Filename")] == [
        b"Filename=x.iso",
        b"Filename=y.iso",
    ]
    assert len(found["Parts"]) == 3


# -- telling and asking ------------------------------------------------------------------------------


def test_json_and_a_command(scene: Scene) -> None:
    """What the command of --match-exec prints does not get into the JSON."""
    done = scene.ours("--json", "--match-exec", "echo jigdofs: $LEAF", "-i", "x.iso", "in")
    assert json.loads(done.stdout)["places"] == 4
    assert done.stderr.split()[1::2] == [b"a.bin", b"b.bin", b"c.bin", b"a.bin"]


def test_short_files_in_the_account(scene: Scene) -> None:
    """Files shorter than a part may be are counted."""
    (scene.here / "in" / "short").write_bytes(b"x" * 1023)
    done = scene.ours("-i", "x.iso", "in")
    assert b"too short for a part (--min-length): 1 of 5 files\n" in done.stderr
    done = scene.ours("-f", "--json", "-i", "x.iso", "in")
    account = json.loads(done.stdout)
    assert (account["files"], account["files_too_short"]) == (5, 1)


def test_check_urls(scene: Scene, faulty_server: FaultyServer) -> None:
    """--check-urls asks every location once all is written; a dead one is named, and is exit code 1."""
    faulty_server.files = scene.here / "in"
    uri = ("--uri", f"C={faulty_server.url()}")
    done = scene.ours(*QUIET, "--check-urls", *uri, "-i", "x.iso", "in")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"urls:     3 locations of 3 parts asked, 3 alive, 0 dead\n"
    faulty_server.files = {"/a.bin": A, "/sub/b.bin": B[:-1], "/c.bin": C}
    done = scene.ours("-f", "--json", "--check-urls", *uri, "-i", "x.iso", "in")
    urls = json.loads(done.stdout)["urls"]
    assert (done.returncode, urls["locations"], urls["alive"]) == (1, 3, 2)
    assert [dead["url"].rpartition("/sub/")[2] for dead in urls["dead"]] == ["b.bin"]
    assert {path.name for path in scene.here.glob("x.*")} == {"x.iso", "x.jigdo", "x.template"}


def test_check_urls_needs_files(scene: Scene) -> None:
    """What goes to stdout cannot be asked about."""
    assert b"--check-urls" in scene.fails("--check-urls", "-i", "x.iso", "-j", "-", "-t", "y", "in")
