"""The command line as a user meets it: help, errors, exit codes, listings, the demo."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jigdofs import __version__
from jigdofs.cli import ALIASES, VERBS
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.template import ImageInfo
from jigdofs.format.template_writer import header, pack_desc
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, Mounted
from tests.kit.requirements import as_user, require_fuse, require_root, tool
from tests.kit.scenes import Program, lonely, occurrences, pool_files, read_direct, wait_until


@pytest.fixture
def program(tmp_path: Path) -> Program:
    home = tmp_path / "home"
    home.mkdir()
    return Program(home)


# -- help --------------------------------------------------------------------------------------------


def test_help_lists_every_verb(program: Program) -> None:
    """`jigdofs --help` explains itself: every verb, an example, the exit codes."""
    done = program("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: jigdofs VERB")
    for verb, text in VERBS.items():
        assert re.search(rf"\n  {verb}(, ls)? +{re.escape(text)}\n", done.stdout)
    assert "exit codes:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert program("help").stdout == program("-h").stdout == done.stdout


@pytest.mark.parametrize("verb", [*VERBS, *ALIASES])
def test_help_of_each_verb(program: Program, verb: str) -> None:
    """`jigdofs VERB --help` names the verb, tells what it does and explains every option."""
    done = program(verb, "--help")
    verb = ALIASES.get(verb, verb)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: jigdofs {verb}")
    assert VERBS[verb].lower() in done.stdout.lower()
    lines = done.stdout.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("  -"):
            explained = "  " in line.strip() or following.startswith(" " * 20)
            assert explained, f"an option without a word: {line}"


def test_help_does_not_depend_on_the_terminal(program: Program) -> None:
    """A narrow terminal or none at all is no reason to fail."""
    for columns in ("20", "0", "1000"):
        narrow = Program(program.home, environ={"COLUMNS": columns, "TERM": "dumb"})
        assert narrow("mount", "--help").returncode == 0


def test_version(program: Program) -> None:
    """--version prints name and version, and the console script is the same program."""
    assert program("--version").stdout == f"jigdofs {__version__}\n"
    script = Path(sys.executable).with_name("jigdofs")
    done = subprocess.run(
        [script, "--version"], env=program.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"jigdofs {__version__}\n"


# -- errors ------------------------------------------------------------------------------------------


def test_nothing_typed(program: Program) -> None:
    """Without a verb the help goes to stderr, and the exit code tells that nothing was done."""
    done = program()
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == program("--help").stdout


@pytest.mark.parametrize(
    ("typed", "meant"), [("mout", "mount"), ("unmont", "unmount"), ("list-templates", "list-template")]
)
def test_unknown_verb_suggests(program: Program, typed: str, meant: str) -> None:
    """A slip of the finger is answered with the verb that was meant."""
    assert f"did you mean `{meant}'?" in program.fails(typed, code=3)


def test_unknown_verb_without_a_likeness(program: Program) -> None:
    """What resembles nothing gets no suggestion, but a way on."""
    line = program.fails("xyzzy", code=3)
    assert "`xyzzy'" in line
    assert "--help" in line
    assert "mean" not in line


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("mount",), 3, "JIGDO"),
        (("mount", "--no-such"), 3, "see `jigdofs mount --help'"),
        (("mount", "a.jigdo", "mnt", "--cache-d", "x"), 3, "--cache-d"),
        (("mount", "a.jigdo", "mnt", "--umask", "8"), 3, "octal"),
        (("mount", "a.jigdo", "mnt", "--connections", "0"), 3, "at least 1"),
        (("mount", "a.jigdo", "mnt", "--read-timeout", "-1s"), 3, "--read-timeout"),
        (("umount",), 3, "MOUNTPOINT"),
        (("info",), 3, "JIGDO"),
        (("info", "nowhere.jigdo"), 3, "nowhere.jigdo: No such file or directory"),
        (("info", "."), 3, "is a directory"),
        (("info", "line\nfeed.jigdo"), 3, "line\\nfeed.jigdo"),
        (("info", "raw-\udcfc.jigdo"), 3, "raw-\\xfc.jigdo"),
        (("info", "ftp://127.0.0.1/x.jigdo"), 3, "only http:, https:"),
        (("list-template",), 3, "which template"),
        (("list-template", "nowhere.template"), 3, "nowhere.template: No such file or directory"),
        (("list-template", "."), 3, ".: Is a directory"),
        (("demo", "--loudly"), 3, "see `jigdofs demo --help'"),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode() if isinstance(value, tuple) else "",
)
def test_errors_are_one_line(program: Program, arguments: tuple[str, ...], code: int, said: str) -> None:
    """Whatever a user gets wrong: one line on stderr, nothing on stdout, the documented code."""
    line = program.fails(*arguments, code=code)
    assert said in line
    assert "Traceback" not in line


def test_malformed_files_name_the_place(program: Program, iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A malformed .jigdo names its line, a malformed template its byte."""
    jigdo = tmp_path / "bad.jigdo"
    jigdo.write_bytes(b"[Jigdo]\nVersion=1.1\n\n[Image\nFilename=x.iso\n")
    assert f"{jigdo}:4: " in program.fails("info", jigdo, code=3)
    template = tmp_path / "bad.template"
    template.write_bytes(iso_md5.template.read_bytes()[:-10])
    assert f"{template}, byte " in program.fails("ls", template, code=3)


def broken_pipe() -> int:
    """Return the writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_broken_pipe(program: Program, iso_md5: BuiltImage) -> None:
    """When the reader of our output has gone, that is no error and no reason for a traceback."""
    for arguments in (["ls", str(iso_md5.template)], ["info", str(iso_md5.jigdo)], ["--help"], ["--version"]):
        pipe = broken_pipe()
        try:
            done = subprocess.run(
                [*PROGRAM, *arguments], env=program.environ, stdout=pipe, stderr=subprocess.PIPE, check=False
            )
        finally:
            os.close(pipe)
        assert (done.returncode, done.stderr) == (0, b""), arguments


@pytest.mark.parametrize("arguments", [["--version"], ["ls"]])
def test_closed_and_full_stdout(program: Program, iso_md5: BuiltImage, arguments: list[str]) -> None:
    """`>&-` and a full disk behind stdout end without a traceback; the full disk is an error, in one line."""
    words = [*PROGRAM, *arguments, *([str(iso_md5.template)] if arguments == ["ls"] else [])]
    for redirection, code in ((">&-", 0), (">/dev/full", 1)):
        command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *words]
        done = subprocess.run(command, env=program.environ, capture_output=True, text=True, check=False)
        assert done.returncode == code, (redirection, done)
        assert len(done.stderr.splitlines()) == code, (redirection, done)


def test_interrupted(program: Program, faulty_server: FaultyServer) -> None:
    """Ctrl-C while something is fetched: exit code 130 and silence."""
    from tests.kit.faults import Stall

    faulty_server.always("/*", Stall())
    command = [*PROGRAM, "info", faulty_server.url("/x.jigdo")]
    process = subprocess.Popen(command, env=program.environ, stderr=subprocess.PIPE, cwd=program.home)
    try:
        faulty_server.wait_stalled()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (130, b"")
    finally:
        process.kill()
        process.wait()


# -- list-template -----------------------------------------------------------------------------------


def jigdo_file(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    environ = os.environ | {"LC_ALL": "C.UTF-8"}
    command = [tool("jigdo-file"), *map(str, arguments)]
    return subprocess.run(command, env=environ, capture_output=True, check=False)


def our(program: Program, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, env=program.environ, capture_output=True, check=False)


@pytest.mark.parametrize("options", [(), ("--hex",), ("--no-hex",)], ids=str)
def test_list_template_equals_jigdo_file(
    program: Program, any_image: BuiltImage, options: tuple[str, ...]
) -> None:
    """Byte for byte what jigdo-file prints, for templates of every maker."""
    template = f"--template={any_image.template}"
    theirs = jigdo_file("list-template", *options, template)
    assert theirs.returncode == 0
    assert theirs.stdout.count(b"need-file-") >= 30
    for verb in ("list-template", "ls"):
        done = our(program, verb, *options, template)
        assert (done.returncode, done.stdout, done.stderr) == (0, theirs.stdout, b"")
    assert our(program, "ls", *options, any_image.template).stdout == theirs.stdout


def test_list_template_deduces_the_name(program: Program, iso_md5: BuiltImage) -> None:
    """`--jigdo` and `--image` lead to the template beside them, as in jigdo-file."""
    expected = jigdo_file("list-template", f"--template={iso_md5.template}").stdout
    for option in (f"--jigdo={iso_md5.jigdo}", f"--image={iso_md5.image}", f"-i{iso_md5.image}"):
        theirs = jigdo_file("list-template", option)
        done = our(program, "list-template", option)
        assert (done.returncode, done.stdout) == (theirs.returncode, theirs.stdout) == (0, expected), option


def test_list_template_of_what_is_none(program: Program, tmp_path: Path, iso_md5: BuiltImage) -> None:
    """Where jigdo-file fails, we fail with the same code."""
    cut = tmp_path / "cut.template"
    cut.write_bytes(iso_md5.template.read_bytes()[:-10])
    (tmp_path / "empty.template").touch()
    for path in (cut, tmp_path / "empty.template", iso_md5.jigdo, tmp_path / "none.template"):
        theirs = jigdo_file("list-template", f"--template={path}")
        done = our(program, "list-template", f"--template={path}")
        assert done.returncode == theirs.returncode != 0, (path, theirs, done)
        assert done.stdout == b""
        assert b"Traceback" not in done.stderr


# -- info --------------------------------------------------------------------------------------------


def info(program: Program, *arguments: str | Path) -> list[dict[str, object]]:
    done = program("info", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_info_tells_what_is_in_a_jigdo(program: Program, any_image: BuiltImage) -> None:
    """Size, checksum and parts are those of the reference, whoever wrote the .jigdo."""
    (found,) = info(program, any_image.jigdo)
    assert found["name"] == any_image.image.name
    assert found["size"] == any_image.image.stat().st_size
    assert found["distinct_parts"] == len(any_image.parts)
    assert found["template_size"] == any_image.template.stat().st_size
    assert (found["cached_parts"], found["cached_bytes"], found["parts_without_location"]) == (0, 0, 0)
    command = [tool(f"{any_image.algorithm}sum"), str(any_image.image)]
    digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    checksums = found["checksums"]
    assert isinstance(checksums, dict)
    assert checksums[any_image.algorithm] == digest
    text = program("info", any_image.jigdo)
    assert (text.returncode, text.stderr) == (0, "")
    for word in (any_image.image.name, digest, str(any_image.image.stat().st_size)):
        assert word in text.stdout


def test_info_tells_the_share_in_parts(program: Program, any_image: BuiltImage) -> None:
    """How much of the image lies in parts is told in percent, and in JSON as a number of 1."""
    in_parts = sum(one.length for one in occurrences(any_image))
    share = in_parts / any_image.image.stat().st_size
    (found,) = info(program, any_image.jigdo)
    assert found["bytes_in_parts"] == in_parts
    assert found["share_in_parts"] == round(share, 4)
    (line,) = [line for line in program("info", any_image.jigdo).stdout.splitlines() if "parts:" in line]
    assert line.endswith(f"of the image ({100 * round(share, 4):.2f} %)")


EMPTY = Checksum.of(Algorithm.MD5, b"")


def test_info_of_an_empty_image(program: Program, tmp_path: Path) -> None:
    """Of an image of no bytes no share is in parts."""
    template = header(Algorithm.MD5, "test", "") + pack_desc([ImageInfo(0, EMPTY, 1024)])
    (tmp_path / "x.template").write_bytes(template)
    digest = Checksum.of(Algorithm.MD5, template).base64
    text = f"[Jigdo]\nVersion=1.1\n[Image]\nFilename=x\nTemplate=x.template\nTemplate-MD5Sum={digest}\n"
    (tmp_path / "x.jigdo").write_text(text)
    (found,) = info(program, tmp_path / "x.jigdo")
    assert (found["size"], found["share_in_parts"]) == (0, 0)
    assert "(0.00 %)" in program("info", tmp_path / "x.jigdo").stdout


def test_info_fetches_no_part_and_counts_the_cached(
    program: Program, iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """It asks for .jigdo and template only, and knows what a mount has left in the cache."""
    require_fuse()
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    files = pool_files(iso_md5)
    files |= {f"/in/{path.name}": path.read_bytes() for path in (built.jigdo, built.template)}
    faulty_server.files = files
    url, cache = faulty_server.url("/in/kit.jigdo"), f"--cache-dir={tmp_path}/cache"
    (found,) = info(program, url, cache)
    assert faulty_server.paths() == ["/in/kit.jigdo", "/in/kit.template"]
    mirrors = found["mirrors"]
    assert isinstance(mirrors, dict)
    ((mirror, count),) = mirrors.items()
    assert faulty_server.url("/pool/").startswith(mirror)
    assert count == len(built.parts)
    part = lonely(built)[0]
    with Mounted(url, tmp_path / "mnt", [cache]) as mounted:
        read_direct(mounted.mountpoint / "kit.iso", part.offset, part.length)
        (found,) = info(program, url, cache)
        assert (found["cached_parts"], found["cached_bytes"]) == (1, part.length)
    assert faulty_server.count("/in/kit.template") == 1


def test_info_warns_as_a_mount_does(program: Program, iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A .jigdo without a checksum for its template is worth a warning, marked as one."""
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": f"file:{iso_md5.pool}/"})
    lines = built.jigdo.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(b"Template-")]
    assert len(kept) < len(lines)
    built.jigdo.write_bytes(b"".join(kept))
    done = program("info", built.jigdo)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("WARNING "), line
    assert "cannot be verified" in line or "not be verified" in line


def test_info_of_several_and_of_raw_names(program: Program, iso_md5: BuiltImage, tmp_path: Path) -> None:
    """Names that are no text or have line feeds in them are shown escaped; JSON stays JSON."""
    built = iso_md5.with_servers(tmp_path / "r\udcfcw\nname", {"Debian": f"file:{iso_md5.pool}/"})
    text = built.jigdo.read_bytes()
    built.jigdo.write_bytes(text.replace(b"Filename=kit.iso", b"Filename=d\xfc\x1b[31m.iso"))
    found = info(program, built.jigdo, iso_md5.jigdo)
    assert [image["name"] for image in found] == ["d\\xfc[31m.iso", "kit.iso"]
    assert "r\\xfcw\\nname" in str(found[0]["jigdo"])
    done = program("info", built.jigdo)
    assert done.returncode == 0
    assert done.stdout.replace("\n", "").isprintable()
    assert "d\\xfc[31m.iso" in done.stdout


def test_raw_names_in_a_plain_locale(program: Program, iso_md5: BuiltImage, tmp_path: Path) -> None:
    """In the C locale and under an ASCII stdout nothing fails to be printed."""
    built = iso_md5.with_servers(tmp_path / "caf\u00e9-\u96ea", {"Debian": f"file:{iso_md5.pool}/"})
    plain = Program(program.home, environ={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    for option in ((), ("--json",)):
        done = plain("info", *option, built.jigdo)
        assert (done.returncode, done.stderr) == (0, ""), done
    assert plain.fails("info", tmp_path / "caf\u00e9.jigdo", code=3)


# -- demo --------------------------------------------------------------------------------------------


class Traces:
    """Whatever a demo could leave behind, looked for by the name of its own temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.tmp = directory / "tmp"
        self.home = directory / "home"
        for path in (self.tmp, self.home):
            path.mkdir()
            path.chmod(0o777 | stat.S_ISVTX)

    def program(self, user: str | None = None) -> Program:
        return Program(self.home, user, {"TMPDIR": str(self.tmp), "PYTHONUNBUFFERED": "1"})

    def left(self) -> list[str]:
        """Return the files, mounts and processes that are there."""
        found = [str(path) for directory in (self.tmp, self.home) for path in directory.iterdir()]
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
        found += [line for line in mounts if str(self.tmp) in line]
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    line = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                except OSError:
                    continue
                if os.fsencode(self.tmp) in line:
                    found.append(f"{process.name}: {os.fsdecode(line)}")
        return found


@pytest.fixture
def traces(public_dir: Path) -> Traces:
    return Traces(public_dir)


@pytest.mark.parametrize("user", [None, "nobody"], ids=["this user", "nobody"])
def test_demo_proves_itself_and_leaves_nothing_behind(traces: Traces, user: str | None) -> None:
    """The demo ends well as root and as an ordinary user; no file, mount or process of it remains."""
    require_fuse(user)
    done = traces.program(user)("demo")
    assert (done.returncode, done.stderr) == (0, ""), done
    lines = done.stdout.splitlines()
    assert any(line.startswith("mounted") and "parts fetched so far: 0 of" in line for line in lines)
    assert any("parts fetched: 1 of" in line for line in lines)
    assert any(line.startswith("proved") for line in lines)
    assert traces.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_leaves_nothing_behind(traces: Traces, number: signal.Signals) -> None:
    """Ctrl-C, or the end of the session, in the middle of the demo: it cleans up all the same."""
    require_fuse()
    program = traces.program()
    process = subprocess.Popen(
        [*PROGRAM, "demo"],
        cwd=program.home,
        env=program.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and not line.startswith("mounted"):
            pass
        assert line, "the demo has mounted"
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=30)
        assert "Traceback" not in errors
        wait_until(lambda: traces.left() == [], "everything is removed", 5)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for mount in [text.split()[4] for text in traces.left() if " - fuse" in text]:
            subprocess.run([tool("fusermount3"), "-u", "-z", mount], check=False)


def test_demo_without_fuse_says_what_is_missing(traces: Traces) -> None:
    """Where mounting is not possible the demo says so, fails, and leaves nothing behind."""
    require_root()
    require_fuse("nobody")
    # fusermount3 gains nothing from being setuid there
    command = [tool("setpriv"), "--no-new-privs", "--", *PROGRAM, "demo"]
    environ = traces.program().environ
    done = subprocess.run(
        as_user("nobody", command), cwd=traces.home, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done
    assert "FUSE" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert traces.left() == []
