"""The command line of jigdo-file: getopt's ways, the name of the program, deduced names."""

import argparse
import io
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.cli import as_jigdo_file, getopt_long, jigdo_file
from jigdofs.cli.getopt_long import Option, Takes, Word
from jigdofs.cli.jigdo_file import Names
from jigdofs.cli.parser import Parser
from jigdofs.errors import UsageError
from jigdofs.format.checksum import Algorithm
from tests.test_jigdo_file_verbs import Pair, pair

__all__ = ["pair"]  # a fixture


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--hex", "--", "md5sum", "a"), ("-r", "quiet", "md5sum", "a"), ("a", "md5sum"), ("foo",), ()),
        *(("--bad",), ("-h", "--bad"), ("md5sum", "-z")),
        *(("MD5SUM", "a"), ("md5su", "a"), ("md5sum", "--r", "quiet")),
        *(("md5sum", "--no-he", "a"), ("md5sum", "--he", "a")),
        *(("md5sum", "--no-c", "a"), ("md5sum", "--hex=1")),
        *(("md5sum", "-09", "a"), ("md5sum", "-rquiet", "a")),
        *(("md5sum", "-fr", "quiet", "a"), ("md5sum", "-r=quiet")),
        *(("md5sum", "-r", "xx"), ("md5sum", "-r")),
        *(("md5sum", "--merge"), ("md5sum", "--rep", "grep", "a"), ("-i",)),
        *(("md5sum", "--min-length=12K", "a"), ("md5sum", "--min-length=1.5k"), ("md5sum", "--readbuffer=x")),
        *(("md5sum", "--min-length=", "a"), ("md5sum", "--md5-block-size=12", "a")),
        ("md5sum", "--readbuffer=5T"),
        *(("md5sum", "--cache-expiry=5x"), ("md5sum", "--cache-expiry=5W", "a")),
        ("md5sum", "--cache-exp=off", "a"),
        *(("md5sum", "-C", "sha1"), ("md5sum", "-C", "sha256", "a"), ("md5sum", "--checksum", "md5", "a")),
        *(("md5sum", "--debug", "a"), ("md5sum", "--debug=all", "a")),
        *(("md5sum", "--no-debug", "a"), ("md5sum", "-H=")),
        *(("md5sum", "--forc", "--no-f", "--gz", "--bz", "--image-s", "--no-image-s", "--no-se", "a"),),
        *(("--cache", "c.db", "--no-cache", "md5sum", "-c", "x.db", "--match-exec", "--hex", "a"),),
    ],
    ids=" ".join,
)  # fmt: skip
def test_getopt(pair: Pair, arguments: tuple[str, ...]) -> None:
    """Order, short forms, values and mistakes: the same exit code and stdout as the real one."""
    (pair.directory / "a").write_bytes(b"some bytes")
    theirs, ours = pair.theirs(*arguments), pair.ours(*arguments)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (theirs, ours)
    if ours.returncode:
        (line,) = ours.stderr.splitlines()
        assert line.startswith(b"jigdo-file: ")


@pytest.mark.parametrize(
    "arguments",
    [
        *(("-h",), ("-H",), ("--help-all",), ("foo", "-h")),
        *(("-i", "x", "-h"), ("md5sum", "--help"), ("pm", "-hf", "a")),
    ],
    ids=" ".join,
)  # fmt: skip
def test_help(pair: Pair, arguments: tuple[str, ...]) -> None:
    """Help is asked for anywhere on a correct command line, and goes to stdout."""
    assert pair.theirs(*arguments).returncode == 0
    done = pair.ours(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"usage: jigdo-file ")


def test_version(pair: Pair) -> None:
    """The version is told as the real one tells its own: jigdo-lite reads the third word."""
    for option in ("-v", "--version", "--vers"):
        theirs, ours = pair.theirs(option), pair.ours(option)
        assert (ours.returncode, ours.stderr) == (theirs.returncode, b"") == (0, b"")
        assert ours.stdout.split()[:2] == theirs.stdout.split()[:2] == [b"jigdo-file", b"version"]
        assert re.fullmatch(rb"0\.8\.[0-9]+", ours.stdout.split()[2])


def test_any_name_that_begins_so(pair: Pair) -> None:
    """`jigdo-file-0.8` is jigdo-file; `jigdofs` is not."""
    other = pair.link.with_name("jigdo-file-0.8")
    other.symlink_to(pair.link.readlink())
    assert Pair(pair.directory, other).ours("-v").stdout.startswith(b"jigdo-file version")
    own = pair.link.with_name("jigdofs")
    own.symlink_to(pair.link.readlink())
    assert Pair(pair.directory, own).ours("-v").stdout.startswith(b"jigdofs ")


@pytest.mark.parametrize(
    "names",
    [
        *(Names("x.iso", None, None), Names("x", None, None)),
        *(Names("a.b/x", None, None), Names("a.b/", None, None)),
        *(Names(".hid", None, None), Names("d/.hid", None, None)),
        *(Names("x.", None, None), Names("./x.y.z", None, None)),
        *(Names(None, "x.jigdo", None), Names(None, "x", None), Names(None, "x.jigdo.gz", None)),
        *(Names(None, None, "x.template"), Names(None, None, "x"), Names(None, None, ".template")),
        *(Names(None, "x.jigdo", "y.template"), Names("x.iso", "y.jigdo", None)),
        Names("-", None, "x.template"),
        *(Names("-", None, None), Names("", None, ""), Names(None, "-", None)),
    ],
    ids=str,
)  # fmt: skip
def test_deduced_names(pair: Pair, names: Names) -> None:
    """The same file is missed first, or the same names: told by the message of the real one."""
    options = [f"--{kind}={name}" for kind, name in names._asdict().items() if name is not None]
    found = jigdo_file.deduce(Names(*(name or None for name in names)))
    theirs = pair.theirs("verify", *options).stderr
    if found.image is None or found.template is None or found.image == "-" == found.template:
        assert b"Not both" in theirs
    elif found.image == "-":
        assert f"`{found.template}'".encode() in theirs
    else:
        assert f"`{found.image}'".encode() in theirs
        Path(pair.directory / found.image).parent.mkdir(parents=True, exist_ok=True)
        if not found.image.endswith("/"):
            (pair.directory / found.image).touch()
            assert f"`{found.template}'".encode() in pair.theirs("verify", *options).stderr
    theirs = pair.theirs("list-template", *options).stderr
    assert (b"not specified" if found.template is None else f"`{found.template}'".encode()) in theirs


@pytest.mark.parametrize(
    ("argv", "files"),
    [
        (["a", "--files-from=-", "b"], ["a", "b", "1", "2"]),
        (["-T", "-"], ["1", "2"]),
        (["-T", "none", "a"], ["a"]),
        ([], []),
    ],
)
def test_files(argv: list[str], files: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Operands come first, then the list up to its first empty line; the rest of stdin is left unread."""
    monkeypatch.chdir(tmp_path)
    stdin = io.BytesIO(b"1\n2\n\nrest")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
    assert list(jigdo_file.files(read(argv))) == files
    if "-T" in argv and "-" in argv:
        assert sys.stdin.buffer.read() == b"rest"


def read(argv: list[str]) -> jigdo_file.JigdoFileOptions:
    parser = Parser("jigdofs test", "A test.")
    jigdo_file.add_arguments(parser)
    arguments = parser.parse_args(as_jigdo_file.permuted(parser, argv, abbreviate=False))
    assert isinstance(arguments, argparse.Namespace)
    return jigdo_file.options(arguments)


def test_defaults() -> None:
    """Without options everything is as jigdo-file's manual has it."""
    options = read([])
    assert options.names == options.given == Names(None, None, None)
    assert (options.operands, options.files_from, options.labels, options.uris) == ((), (), (), ())
    assert (options.report, options.algorithm) == (jigdo_file.Report.DEFAULT, Algorithm.MD5)
    assert (options.level, options.bzip2, options.min_length) == (9, False, 1024)
    assert (options.checksum_block_bytes, options.read_buffer_bytes) == (131017, 131072)
    assert (options.cache_file, options.cache_expiry_s) == (None, 30 * 86400)
    assert (options.check_files, options.greedy_matching) == (True, True)
    assert (options.image_section, options.servers_section) == (True, True)
    assert (options.force, options.hex, options.scan_whole_file) == (False, False, False)
    assert (options.merge, options.match_exec) == (None, None)


def test_options() -> None:
    """Every option ends where it belongs; of contrary ones the last counts."""
    text = (
        "-i x -j y.jigdo -f --no-force -r quiet --label A=/a --label B=/b//c --uri A=u=v -c x --no-cache -c z"
    )
    text += " --cache-expiry 2h --no-check-files --scan-whole-file --no-greedy-matching --no-image-section"
    text += " --no-servers-section --merge m --match-exec --hex -C sha256 --bzip2 -3 --min-length 1 a -T l b"
    options = read([*text.split(), "--checksum-block-size=2k", "--image="])
    assert options.given == Names(None, "y.jigdo", None)
    assert options.names == Names("y", "y.jigdo", "y.template")
    assert (options.force, options.hex, options.report) == (False, False, jigdo_file.Report.QUIET)
    assert options.labels == (("A", "/a"), ("B", "/b//c"))
    assert options.uris == (("A", "u=v"),)
    assert (options.cache_file, options.cache_expiry_s, options.check_files) == ("z", 7200, False)
    assert (options.scan_whole_file, options.greedy_matching) == (True, False)
    assert (options.image_section, options.servers_section) == (False, False)
    assert (options.merge, options.match_exec) == ("m", "--hex")
    assert (options.algorithm, options.bzip2, options.level) == (Algorithm.SHA256, True, 3)
    assert (options.min_length, options.checksum_block_bytes) == (256, 2048)
    assert (options.operands, options.files_from) == (("a", "b"), ("l",))


_KNOWN = {
    **dict.fromkeys(("-i", "--image"), Option("--image", Takes.A_VALUE)),
    **dict.fromkeys(("-f", "--force"), Option("--force", Takes.NOTHING)),
    "--debug": Option("--debug", Takes.PERHAPS_A_VALUE),
    "-0": Option("-0", Takes.NOTHING),
}


@given(
    st.lists(
        st.sampled_from(["-i", "--image", "--image=", "--im=x", "-f0i", "--", "-", "a", "--debug=", "--f"])
    )
)
def test_joined_words_are_read_again(argv: list[str]) -> None:
    """Put into argparse's order and read again, a command line still says the same."""
    try:
        words = getopt_long.read(argv, _KNOWN, abbreviate=True)
    except UsageError:
        return
    again = getopt_long.read(getopt_long.joined(words), _KNOWN, abbreviate=False)
    assert again == sorted(words, key=lambda word: not word.name)
    assert all(word.name or word.value is not None for word in words)


def test_words() -> None:
    """A value is whatever follows, and nothing after `--` is an option."""
    argv = ["-i", "--force", "--image=", "a", "-fi-", "-", "--", "-f", "--"]
    assert getopt_long.read(argv, _KNOWN, abbreviate=False) == [
        *(Word("--image", "--force"), Word("--image", ""), Word("", "a"), Word("--force", None)),
        *(Word("--image", "-"), Word("", "-"), Word("", "-f"), Word("", "--")),
    ]
