"""The man pages: no complaint by who formats them, and true: all that there is, and nothing else."""

import re
import subprocess

import pytest

from jigdofs import errors
from jigdofs.cli import ALIASES, VERBS, completion, fuse_options, mount8
from jigdofs.completion.grammar import Verb
from jigdofs.control import xattrs
from jigdofs.settings import keys
from tests.documents import refresh, roff
from tests.kit.mounts import REPOSITORY
from tests.kit.requirements import tool

PAGES = {name: (refresh.MAN / name).read_text("utf-8") for name in refresh.PAGES}
MAIN, HELPER, SETTINGS = PAGES.values()


@pytest.mark.parametrize("name", PAGES)
def test_formatted_without_complaint(name: str) -> None:
    """Neither groff nor mandoc has anything to say."""
    page = str(refresh.MAN / name)
    lint = subprocess.run(
        [tool("mandoc"), "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False
    )
    assert (lint.stdout, lint.stderr, lint.returncode) == ("", "", 0)
    command = [tool("man"), "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page]
    environ = {"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "PATH": "/usr/bin:/bin"}
    shown = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert len(shown.stdout) > 1000


@pytest.mark.parametrize("name", PAGES)
def test_the_lists_are_fresh(name: str) -> None:
    """What the pages have from the program is as it is now: python -m tests.documents.refresh."""
    assert dict(refresh.pages())[refresh.MAN / name] == PAGES[name]


def options_in(text: str) -> set[str]:
    return {tag for tag in roff.tags(text) if tag.startswith("-")}


def options_of(verb: Verb) -> set[str]:
    """Return all option strings of a verb and its verbs, but for --help, which the page tells once."""
    own = {name for option in verb.options for name in option.names}
    return (own | {name for one in verb.verbs for name in options_of(one)}) - {"-h", "--help"}


@pytest.mark.parametrize("verb", completion.verbs(), ids=lambda verb: verb.names[0])
def test_every_verb_has_a_section(verb: Verb) -> None:
    """In it stand all its options, there or under a heading that it names; and no others."""
    sections = roff.sections(MAIN)
    text = sections[f"JIGDOFS {verb.names[0].upper()}"]
    told = options_in(text)
    for heading in re.findall(r"\\\(lq(.*?)\\\(rq", text):
        if heading in sections:
            told |= options_in(sections[heading])
    assert told == options_of(verb)
    for alias in verb.names[1:]:
        assert re.search(rf"(?m)^\.B[R]? {re.escape(roff.escaped(alias))}\b", text), alias
    bold = {
        roff.plain(word)
        for word in re.findall(r"\\fB(.*?)\\fR|^\.B (\S+)$", text, re.MULTILINE)
        for word in word
    }
    for operand in verb.operands:
        assert {word.split()[-1] for word in bold if word} >= set(operand.words)
    for one in verb.verbs:
        assert f"{verb.names[0]} {one.names[0]}" in roff.tags(text)


def test_no_section_of_a_verb_that_is_not() -> None:
    told = re.findall(r'(?m)^\.SH "JIGDOFS (.*)"$', MAIN)
    assert {roff.plain(name).lower() for name in told} == set(VERBS)


def test_the_list_of_verbs() -> None:
    """The overview names every verb and every short name."""
    overview = MAIN[MAIN.index(".SH VERBS") : MAIN.index('.SH "JIGDOFS MOUNT"')]
    bold = {roff.plain(word).removeprefix("jigdofs ") for word in re.findall(r"\\fB(.*?)\\fR", overview)}
    assert set(VERBS) <= bold
    assert set(ALIASES) - {"unmount"} <= bold


def test_mount_options() -> None:
    """mount.jigdofs(8) tells what -o takes, and -o takes what it tells."""
    sections = roff.sections(HELPER)
    ours = {name.replace("_", "-") for name in roff.tags(sections["Options of jigdofs"])}
    assert ours == fuse_options._FLAGS | fuse_options._VALUES
    for name in roff.tags(sections["Options of jigdofs"]):
        value = "" if name.replace("_", "-") in fuse_options._FLAGS else "=1"
        assert fuse_options.translate([name + value]).arguments == (f"--{name.replace('_', '-')}{value}",)
    assert roff.tags(sections["Options of FUSE"]) == set(fuse_options._PASSED)
    without_effect = set(re.findall(r"\\fB(.*?)\\fR", sections["Options that mean nothing here"]))
    known = {roff.plain(name) for name in without_effect}
    assert known >= {*fuse_options._IGNORED, *(f"{name}=" for name in fuse_options._IGNORED_VALUES)}
    for name in known - {"x-", "X-"}:
        told = f"{name}x" if name.endswith("=") else name
        assert fuse_options.translate([told], by_mount=True) == fuse_options.Translated((), ())


def test_options_of_the_helper() -> None:
    told = options_in(roff.sections(HELPER)["COMMAND LINE"])
    for option in told:
        value = ["jigdofs"] if option == "-t" else ["1"] if option in ("-N", "-o") else []
        mount8.parse(["source", "directory", option, *value])
    assert told == set(re.findall(r"-[a-zA-Z]", "-s -f -n -v -N -t -o"))


def codes_in(page: str) -> set[int]:
    return {int(code) for code in re.findall(r"(?m)^\.B (\d+)$", roff.sections(page)["EXIT STATUS"])}


def test_exit_codes() -> None:
    """Both pages list the codes that there are."""
    assert codes_in(MAIN) == {getattr(errors, name) for name in vars(errors) if name.startswith("EXIT_")}
    helpers = {getattr(mount8, name) for name in vars(mount8) if name.startswith("EXIT_")}
    assert codes_in(HELPER) == {code for code in helpers if code != errors.EXIT_INTERRUPTED}


def test_settings() -> None:
    """jigdofs.toml(5) tells of each key, in the order of the program, and of no other."""
    text = roff.sections(SETTINGS)["SETTINGS"]
    assert roff.tags(text) == set(keys.KEYS)
    live = {name for name, key in keys.KEYS.items() if key.live}
    entries = {
        roff.plain(name): rest
        for name, rest in re.findall(r"(?s)\\fB(.*?)\\fR\n(.*?)(?=^\.TP|\Z)", text + "\n", re.MULTILINE)
    }
    assert {name for name, rest in entries.items() if ".I Live." in rest} == live


def test_extended_attributes() -> None:
    """All that a mount tells are documented, and no others."""
    told = roff.tags(roff.sections(MAIN)["EXTENDED ATTRIBUTES"])
    known = {*xattrs._OF_MOUNT, *xattrs._OF_READS, *xattrs._OF_IMAGES}
    known |= {"state", "jigdo", "checksum.md5", "checksum.sha256"}
    assert told == {f"user.jigdofs.{name}" for name in known}


def test_metrics() -> None:
    """The names of the metrics are those in the program."""
    source = (REPOSITORY / "jigdofs" / "control" / "metrics.py").read_text("utf-8")
    known = set(re.findall(r'_gauge\(\s*"(\w+)"', source))
    known |= {f"{name}_total" for name in re.findall(r'_counter\(\s*"(\w+)"', source)}
    told = {name.removeprefix("jigdofs_") for name in roff.tags(roff.sections(MAIN)["METRICS"])}
    assert told == known | {"build_info", "read_duration_seconds"}
