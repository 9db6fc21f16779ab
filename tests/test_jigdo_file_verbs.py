"""The verbs of jigdo-file under its name, side by side with the real one: stdout and exit codes agree."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.template import Entry, ImageInfo, MatchedFile, UnmatchedData
from jigdofs.format.template_writer import TemplateWriter
from tests.kit.images import BuiltImage
from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.requirements import tool

Done = subprocess.CompletedProcess[bytes]


@dataclass(frozen=True)
class Pair:
    """The real jigdo-file and a link of that name to our program, run in the same directory."""

    directory: Path
    link: Path

    def ours(self, *arguments: str | Path, stdin: bytes = b"") -> Done:
        return self._run([str(self.link)], arguments, stdin)

    def theirs(self, *arguments: str | Path, stdin: bytes = b"") -> Done:
        return self._run([tool("jigdo-file")], arguments, stdin)

    def _run(self, command: list[str], arguments: tuple[str | Path, ...], stdin: bytes) -> Done:
        done = subprocess.run(
            [*command, *map(str, arguments)],
            cwd=self.directory,
            env=clean_environ(self.link.parent),
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done
        return done

    def agree(self, *arguments: str | Path, code: int = 0, stdin: bytes = b"") -> Done:
        """Run both; they print the same and end with this code; return ours."""
        theirs = self.theirs(*arguments, stdin=stdin)
        ours = self.ours(*arguments, stdin=stdin)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (theirs, ours)
        assert ours.returncode == code, ours
        if code == 3:
            (line,) = ours.stderr.splitlines()
            assert line.startswith(b"jigdo-file: "), ours
        return ours


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    link = tmp_path / "bin" / "jigdo-file"
    link.parent.mkdir()
    link.symlink_to(Path(sys.executable).with_name("jigdofs"))
    directory = tmp_path / "here"
    directory.mkdir()
    return Pair(directory, link)


MakeImage = Callable[..., None]


@pytest.fixture
def small(pair: Pair) -> Path:
    """A small image `x.iso.done` of three parts, one of them twice, with x.jigdo and x.template."""
    here = pair.directory
    parts = {name: hashlib.shake_128(name.encode()).digest(size) for name, size in _SIZES.items()}
    for name, data in parts.items():
        (here / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "in" / name).write_bytes(data)
    a, b, c = parts.values()
    (here / "x.iso").write_bytes(b"n" * 700 + a + b + bytes(100) + c + a)
    options = ("--no-cache", "-rquiet", "--label", "L=in", "--uri", "L=http://h/d/", "-i", "x.iso")
    assert pair.theirs("make-template", *options, "in//").returncode == 0
    (here / "x.iso").rename(here / "x.iso.done")
    return here


_SIZES = {"a.bin": 5000, "sub/b.bin": 3000, "c.bin": 2000}
BOTH = pytest.mark.parametrize("verb", ["print-missing", "print-missing-all", "pm", "pma"])


# -- print-missing -----------------------------------------------------------------------------------


@BOTH
def test_print_missing_of_every_image(pair: Pair, any_image: BuiltImage, verb: str) -> None:
    """The same URLs in the same order, whoever made the template; libjte's names come whole."""
    jigdo = pair.directory / "kit.jigdo"  # the real one reads nothing out of a gzipped file
    data = any_image.jigdo.read_bytes()
    plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    jigdo.write_bytes(plain)
    options = ("-i", "none.iso", f"--template={any_image.template}")
    theirs = pair.theirs(verb, *options, "-j", jigdo)
    for source in (jigdo, any_image.jigdo):
        ours = pair.ours(verb, *options, "-j", source)
        assert (ours.returncode, ours.stderr) == (theirs.returncode, b"") == (0, b""), ours
        if b"Generator=libjte" not in plain:
            assert ours.stdout == theirs.stdout
        assert len(ours.stdout.splitlines()) == len(theirs.stdout.splitlines())
        printed = {line for line in ours.stdout.splitlines() if line.startswith(b"/")}
        if b"Generator=libjte" not in plain:
            printed = {line for line in printed if Path(os.fsdecode(line)).is_file()}
        assert len(printed) >= len(any_image.parts) - 3, "parts may be under labels only libjte knows"


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        *(("-i", "x.iso"), ("-j", "x.jigdo"), ("--template=x.template",), ("-i", "-", "-j", "x.jigdo")),
        *(("-i", "x.iso", "-j", "-"), ("-i", "y.iso", "-j", "x.jigdo", "-t", "x.template")),
        ("-i", "x.iso", "--uri", "L=http://u/", "--uri", "L=file:zz/", "--uri", "Other=foo"),
        *(("-i", "x.iso", "--uri", "L=file:z z/"), ("-i", "x.iso", "--uri", "L='file:z z/'#c")),
        *(("-i", "x.iso", "--label", "L=/d"), ("-i", "x.iso", "operand", "--hex", "-9")),
        *(("-i", "in", "-t", "x.template", "-j", "x.jigdo"), ("-ix.iso.done", "-jx.jigdo", "-tx.template")),
    ],
    ids=" ".join,
)
def test_print_missing_options(pair: Pair, small: Path, verb: str, options: tuple[str, ...]) -> None:
    """Names are deduced, stdin is read, --uri comes first, and an image that exists lacks nothing."""
    pair.agree(verb, *options, stdin=(small / "x.jigdo").read_bytes())


@BOTH
def test_print_missing_with_a_template_from_a_pipe(pair: Pair, small: Path, verb: str) -> None:
    """A template may come through a pipe, where the real one fails since it must seek."""
    stdin = (small / "x.template").read_bytes()
    done = pair.ours(verb, "-i", "x.iso", "-t", "-", stdin=stdin)
    assert (done.returncode, done.stdout) == (0, pair.theirs(verb, "-i", "x.iso").stdout)


@BOTH
def test_print_missing_after_make_image(pair: Pair, small: Path, verb: str) -> None:
    """What the unfinished image holds is left out, unless the .tmp belongs to something else."""
    assert pair.theirs("make-image", "-rquiet", "-i", "x.iso", "in/c.bin").returncode == 1
    whole = pair.theirs(verb, "-i", "y.iso", "-j", "x.jigdo", "-t", "x.template").stdout
    done = pair.agree(verb, "-i", "x.iso")
    assert b"c.bin" in whole
    assert b"c.bin" not in done.stdout
    for foreign in (b"", b"junk", (small / "x.iso.done").read_bytes()):
        (small / "x.iso.tmp").write_bytes(foreign)
        done = pair.agree(verb, "-i", "x.iso")
        assert done.stdout == whole
        assert done.stderr.count(b"\n") == 1
    (small / "x.iso.tmp").unlink()
    (small / "x.iso.tmp").mkdir()
    assert pair.agree(verb, "-i", "x.iso").stdout == whole


def test_print_missing_of_a_part_written_once(pair: Pair, small: Path) -> None:
    """A part that is needed twice and written once is still missing."""
    assert pair.theirs("make-image", "-rquiet", "-i", "x.iso", "in/a.bin").returncode == 1
    data = bytearray((small / "x.iso.tmp").read_bytes())
    at = data.rindex(b"DESC") + 10 + 7  # behind the first entry, which is unmatched data
    assert data[at] == 7
    data[at] = 6
    (small / "x.iso.tmp").write_bytes(data)
    assert b"a.bin" in pair.agree("pm", "-i", "x.iso").stdout


def test_print_missing_of_the_tmp_itself(pair: Pair, small: Path) -> None:
    """Named itself, an unfinished image tells what it lacks; the real one takes it for finished."""
    assert pair.theirs("make-image", "-rquiet", "-i", "x.iso", "in/c.bin").returncode == 1
    options = ("-i", "x.iso.tmp", "-j", "x.jigdo", "-t", "x.template")
    assert pair.theirs("pm", *options).stdout == b""
    assert pair.ours("pm", *options).stdout == pair.theirs("pm", "-i", "x.iso").stdout != b""


@pytest.mark.parametrize(
    ("jigdo", "uris"),
    [
        ("", ()),
        (("[Parts]\n{a}=L:a --try-first\n{a}=http://d/a b\n{a}=L:a\n{b}=rel/p\n{c}=file:///abs/c\n"
         "[Servers]\nL=M:m/ --try-last\nL=file:rel/\nL=\nL=file:\nM=http://m/\nMD5Sum=http://s/\n"), ()),
        ("[Parts]\n{a}=L:a\n{b}=L:\"b b\"'c'\n{c}=rel#x\n[Servers]\nL=M:m/\nL=Loop:x\nLoop=Loop:y\nL=h:/\n",
         ("M=file:x", "MD5Sum=N:", "N=q", "file=hij:")),
        ("[Parts]\n{a}=A:a\n{a}=B:a\n{a}=C:a\n{b}=D:a\n{b}=E:b\n{b}=F:b\n{b}=H:b\n{b}=:b\n",
         ("=M", "A= spaced", "B =e", "C=x#y", "D=it's", "E=a\\b", 'F="', "H=")),
        ("[Servers]\nM=b\n[Parts]\n{a}=M:a\n[Servers]\nM=c\n", ("M=new", "without")),
        ("[Jigdo]\nVersion=x\n[Other]\n{b}=no\n[Parts]\n{a}=a\n", ()),
        ("[Parts]\n{a}=X:a\n{b}=X:b\n[Servers]\nX=Y:1\nX=Y:2\nY=X:3\nY=Z:4\nZ=http://z/\n", ()),
    ],
)  # fmt: skip
def test_print_missing_expands_labels(pair: Pair, small: Path, jigdo: str, uris: tuple[str, ...]) -> None:
    """Labels, loops, quotes, pseudo-labels and --uri become what the real one makes of them."""
    (small / "p.jigdo").write_text(jigdo.format(**_keys(small)))
    options = [word for uri in uris for word in ("--uri", uri)]
    for verb in ("pm", "pma"):
        done = pair.agree(verb, "-i", "no.iso", "-j", "p.jigdo", "-t", "x.template", *options)
        assert (b"--uri without" in done.stderr) == ("without" in uris)


def _keys(small: Path) -> dict[str, str]:
    return {
        letter: Checksum.of(Algorithm.MD5, (small / "in" / name).read_bytes()).base64
        for letter, name in zip("abc", _SIZES, strict=True)
    }


def test_print_missing_keeps_bytes(pair: Pair, small: Path) -> None:
    """Names that are no UTF-8 come out as they are, from the .jigdo and from the command line."""
    text = b"[Parts]\n%s=L:\xff/\xc3\xbc\n[Servers]\nL=file:\xfe/" % _keys(small)["a"].encode()
    (small / "p\udcfc.jigdo").write_bytes(text)
    options = ("-i", "no.iso", "-j", "p\udcfc.jigdo", "-t", "x.template", "--uri", "L=\udcfb/")
    done = pair.agree("pma", *options)
    assert b"\xfb/\xff/\xc3\xbc\n\xfe/\xff/\xc3\xbc\n" in done.stdout


def test_print_missing_mixes_algorithms(pair: Pair, small: Path) -> None:
    """MD5 parts come before SHA-256 parts, each in the order of the digests; 1.0 templates are read, too."""
    write_template(small / "mixed.template", "5", "8")
    write_template(small / "old.template", "1")
    (small / "mixed.jigdo").write_text("")
    for template in ("mixed.template", "old.template"):
        done = pair.agree("pma", "-i", "no.iso", "-j", "mixed.jigdo", "-t", template)
        assert len(done.stdout.splitlines()) >= 12


def test_print_missing_bounds_doubling_labels(pair: Pair, small: Path) -> None:
    """Labels that double thirty times over are no reason to print for ever."""
    lines = [f"L{n}=L{n + 1}:\nL{n}=L{n + 1}:x\n" for n in range(30)]
    text = f"[Parts]\n{_keys(small)['a']}=L0:a\n[Servers]\n{''.join(lines)}L30=\nL30=\n"
    (small / "p.jigdo").write_text(text)
    done = pair.ours("pma", "-i", "no.iso", "-j", "p.jigdo", "-t", "x.template")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) < 10_000


@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("in",), ("-i", "-"), ("-i", ""), ("-j", "x"), ("-t", "x"), ("-i", "no.iso", "-j", "none")),
        ("-i", "no.iso", "-t", "none", "-j", "x.jigdo"),
        ("-i", "no.iso", "-t", "x.jigdo", "-j", "x.jigdo"),
        *(("-j", "newer.jigdo", "-t", "x.template"), ("-i", "no.iso", "-j", "x.jigdo", "-t", "cut.template")),
        ("-i", "in", "-t", "none", "-j", "none"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_print_missing_fails(pair: Pair, small: Path, arguments: tuple[str, ...]) -> None:
    """Exit code 3: no names, nothing to open, no template, a .jigdo for a newer jigdo."""
    (small / "newer.jigdo").write_text("[Jigdo]\nVersion=3.1\n")
    (small / "cut.template").write_bytes((small / "x.template").read_bytes()[:-5])
    pair.agree("print-missing", *arguments, code=3)
    pair.agree("print-missing-all", *arguments, code=3)


def test_print_missing_where_the_real_one_crashes(pair: Pair, small: Path) -> None:
    """An empty part value ends the real one with SIGSEGV; we name the line."""
    (small / "p.jigdo").write_text(f"[Parts]\n{_keys(small)['a']}=\n")
    options = ("-i", "no.iso", "-j", "p.jigdo", "-t", "x.template")
    assert pair.theirs("pm", *options).returncode < 0
    done = pair.ours("pm", *options)
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"p.jigdo:2: " in done.stderr


def test_print_missing_passes_over_includes(pair: Pair, small: Path) -> None:
    """[Include] is not followed, as in the real one, but not in silence."""
    text = (small / "x.jigdo").read_text()
    (small / "p.jigdo").write_text(f"[Include http://h/other.jigdo]\n{text}")
    done = pair.agree("pma", "-i", "no.iso", "-j", "p.jigdo", "-t", "x.template")
    assert b"http://h/d/a.bin" in done.stdout
    assert b"http://h/other.jigdo" in done.stderr


# -- verify ------------------------------------------------------------------------------------------


def write_template(path: Path, *infos: str, wrong: str = "") -> bytes:
    """Write a template of six parts with image-infos of these types; return its image."""
    parts = [hashlib.shake_128(b"part %d" % n).digest(1100) for n in range(6)]
    data = b"abc" + b"".join(parts)
    kinds = {"1": (Algorithm.MD5, 0), "5": (Algorithm.MD5, 1024), "8": (Algorithm.SHA256, 1024)}
    entries: list[Entry] = [UnmatchedData(3)]
    for n, part in enumerate(parts):
        algorithm = Algorithm.SHA256 if n % 2 and "8" in infos else Algorithm.MD5
        rsync64 = None if infos == ("1",) else b"12345678"
        entries.append(MatchedFile(len(part), Checksum.of(algorithm, part), rsync64))
    for info in infos:
        algorithm, block = kinds[info]
        entries.append(ImageInfo(len(data), Checksum.of(algorithm, b"" if info == wrong else data), block))
    with path.open("wb") as file:
        writer = TemplateWriter(file, Algorithm.MD5, creator="tests")
        writer.raw_data(b"abc")
        writer.finish(entries)
    return data


@pytest.mark.parametrize("fixture", ["iso_md5", "iso_sha256", "iso_jte_md5", "iso_jte_sha256"])
def test_verify(pair: Pair, fixture: str, request: pytest.FixtureRequest) -> None:
    """0 for the image, 2 for a changed byte, one byte more, one less or nothing; checksums are told."""
    built = request.getfixturevalue(fixture)
    assert isinstance(built, BuiltImage)
    good = built.image.read_bytes()
    option = f"--template={built.template}"
    theirs = pair.theirs("ver", "-rgrep", "-i", built.image, option).stderr
    done = pair.agree("verify", f"--image={built.image}", option)
    assert done.stderr.splitlines()[:2] == theirs.splitlines()[:2]
    assert done.stderr.splitlines()[2].startswith(b"OK")
    assert pair.agree("verify", f"--image={built.image}", option, "--report=quiet").stderr == b""
    for number, bad in enumerate((good[:-1] + b"x", good + b"x", good[:-1], b"")):
        (pair.directory / f"bad{number}").write_bytes(bad)
        done = pair.agree("ver", "-i", f"bad{number}", option, "--report=noprogress", code=2)
        assert b"ERROR" in done.stderr


@pytest.mark.parametrize(
    ("infos", "wrong", "code"),
    [
        *((("5", "8"), "", 0), (("8", "5"), "", 0), (("1",), "", 0)),
        *((("8", "5"), "8", 2), (("1",), "1", 2), (("5", "8"), "8", 2)),
    ],
)
def test_verify_prefers_sha256(
    pair: Pair, infos: tuple[str, ...], wrong: str, code: int
) -> None:  # fmt: skip
    """Of several image-infos the SHA-256 one is told, wherever it stands."""
    (pair.directory / "x.iso").write_bytes(write_template(pair.directory / "x.template", *infos, wrong=wrong))
    ours = pair.agree("verify", "-i", "x.iso", code=code)
    assert ours.stderr.startswith(b"SHA256 from template" if "8" in infos else b"MD5 from template")


def test_verify_checks_every_image_info(pair: Pair) -> None:
    """A wrong MD5 beside a right SHA-256 is a failure that the real one does not see."""
    (pair.directory / "x.iso").write_bytes(write_template(pair.directory / "x.template", "5", "8", wrong="5"))
    assert pair.theirs("verify", "-i", "x.iso").returncode == 0
    done = pair.ours("verify", "-i", "x.iso")
    assert done.returncode == 2
    assert b"MD5 from the template" in done.stderr.splitlines()[-1]


def test_verify_uses_the_sums_of_the_jigdo(pair: Pair, iso_jte_md5: BuiltImage) -> None:
    """What libjte wrote of the image counts, if the .jigdo belongs to the template; the bad sum is named."""
    here = pair.directory
    for path in (iso_jte_md5.image, iso_jte_md5.template):
        shutil.copy(path, here)
    text = gzip.decompress(iso_jte_md5.jigdo.read_bytes())
    sha512 = hashlib.sha512(iso_jte_md5.image.read_bytes()).hexdigest().encode()
    assert sha512 in text
    (here / "kit.jigdo").write_bytes(text)
    done = pair.agree("verify", "-i", "kit.iso")
    for name in (b"MD5", b"SHA1", b"SHA256", b"SHA512"):
        assert name in done.stderr.splitlines()[-1]
    forged = text.replace(sha512, bytes(reversed(sha512)))
    (here / "kit.jigdo").write_bytes(gzip.compress(forged))
    done = pair.ours("verify", "-i", "kit.iso")
    assert done.returncode == 2
    assert b"SHA512 from the .jigdo" in done.stderr
    (here / "kit.jigdo").write_bytes(forged.replace(b"Template Hex SHA256Sum ", b"Template Hex SHA256Sum 0"))
    assert pair.ours("verify", "-i", "kit.iso").returncode == 2  # a damaged comment is no other template
    (here / "other.jigdo").write_text("[Image]\n# Image Hex MD5Sum " + 32 * "0" + "\nTemplate=x\n")
    pair.agree("verify", "-i", "kit.iso", "-t", "kit.template", "-j", "other.jigdo")
    pair.agree("verify", "-i", "kit.iso", "-t", "kit.template", "-j", "none.jigdo")


def test_verify_reads_stdin(pair: Pair, small: Path) -> None:
    """Image or template may come through a pipe."""
    for code, data in ((0, b""), (2, b"x")):
        stdin = (small / "x.iso.done").read_bytes() + data
        pair.agree("verify", "-i", "-", "-t", "x.template", stdin=stdin, code=code)
    stdin = (small / "x.template").read_bytes()
    assert pair.ours("verify", "-i", "x.iso.done", "-t", "-", stdin=stdin).returncode == 0


@pytest.mark.parametrize(
    "options",
    [
        *((), ("x.iso.done", "-t", "x.template"), ("-i", "-"), ("-j", "x"), ("-t", "x")),
        *(("-i", "none", "-t", "x.template"), ("-i", "x.iso.done", "-t", "none")),
        *(("-i", "x.iso.done", "-t", "x.jigdo"), ("-i", "x.iso.done", "-t", "cut"), ("-t", "x.template")),
    ],
    ids=" ".join,
)  # fmt: skip
def test_verify_fails(pair: Pair, small: Path, options: tuple[str, ...]) -> None:
    """Exit code 3: no names, nothing to open, no template."""
    (small / "cut").write_bytes((small / "x.template").read_bytes()[:-5])
    theirs, ours = pair.theirs("verify", *options), pair.ours("verify", *options)
    assert (theirs.returncode, ours.returncode, ours.stdout) == (3, 3, b""), (theirs, ours)
    errors = [line for line in ours.stderr.splitlines() if b": warning: " not in line]
    assert len(errors) == 1
    assert errors[0].startswith(b"jigdo-file: ")


# -- md5sum, sha256sum -------------------------------------------------------------------------------


@pytest.fixture
def tree(pair: Pair) -> Path:
    """Directories, links, loops, hard links, odd names and what is no file at all."""
    here = pair.directory
    for name in (
        "w/x1",
        "w/d1/x2",
        "w/d1/e/x3",
        "w/d2/x4",
        "w2/out",
        "w/l\udcfctin",
        "w/with blank",
        "w/a//b",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(os.fsencode(name))
    (here / "w/large").write_bytes(bytes(3_000_001))
    (here / "w/empty").touch()
    os.link(here / "w/x1", here / "w/d2/hard")
    os.mkfifo(here / "w/fifo")
    for link, target in (("d2/l", "../d1"), ("loop", "."), ("l1", "x1"), ("out", "../w2"), ("gone", "no")):
        (here / "w" / link).symlink_to(target)
    (here / "list").write_bytes(b"w/x1\nw2\n\nw/large\n")
    (here / "raw").write_bytes(b"w/l\xfctin\nw/x1\r\n w/x1\nw/with blank")
    return here


@pytest.mark.parametrize("verb", ["md5sum", "md5", "sha256sum", "sha256"])
@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("w",), ("w//",), ("w/",), ("w///",)),
        *(("w//d1",), (".//w//d1/e",), ("--hex", "w"), ("//w",), ("",)),
        *(("w/l1", "w/x1"), ("w/d2/l", "w")),
        *(("w//l1", "w//d2", "w2"), ("w/x1", "./w/x1"), ("w/fifo", "w/empty")),
        *(("none", "w/x1"), ("w/gone",), ("w/l\udcfctin",), ("w/../w//x1",), ("/dev/null",), ("-",)),
        *(("-T", "list"), ("w/d1", "--files-from=list", "-T", "raw")),
        *(("-T", "none"), ("-T", "raw", "--no-hex")),
        *(("-T", "-"), ("--", "--hex", "w/x1"), ("--label", "X=w", "w//x1"), ("-fr", "grep", "w/x1")),
    ],
    ids=ascii,
)  # fmt: skip
def test_sums(pair: Pair, tree: Path, verb: str, arguments: tuple[str, ...]) -> None:
    """The same lines in the same order; what is not there is reported and no failure."""
    stdin = b"w/d1\nw2/out\n\nw/large"
    theirs = pair.theirs(verb, "--report=quiet", *arguments, stdin=stdin)
    ours = pair.ours(verb, "--report=quiet", *arguments, stdin=stdin)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.returncode == 0
    escaped = theirs.stderr.replace(b"\r", rb"\r")
    assert _skipped(ours.stderr) == _skipped(escaped)


def _skipped(stderr: bytes) -> list[bytes]:
    return [line for line in stderr.splitlines() if line.startswith(b"Skipping object")]


def test_sums_do_not_believe_the_cache(pair: Pair, tree: Path) -> None:
    """The real one prints garbage out of its cache; we compute."""
    right = hashlib.md5((tree / "w/x1").read_bytes()).hexdigest().encode() + b"  w/x1\n"
    command = ("md5sum", "--hex", "-rquiet", "--cache=c.db", "--no-check-files", "w/x1")
    for _ in range(2):
        assert pair.theirs(*command).returncode == 0
    for _ in range(2):
        done = pair.ours(*command)
        assert (done.returncode, done.stdout, done.stderr) == (0, right, b"")


def test_sums_as_jigdo_lite_asks_for_them(pair: Pair, small: Path) -> None:
    """The first word is the checksum that stands in the .jigdo."""
    done = pair.agree("md5sum", "--report=quiet", "x.template")
    assert f"\nTemplate-MD5Sum={done.stdout.split()[0].decode()}\n" in (small / "x.jigdo").read_text()
    assert done.stderr == b""


# -- list-template -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--hex",)], ids=str)
def test_list_template(pair: Pair, small: Path, options: tuple[str, ...]) -> None:
    """Templates of all formats and unfinished images are listed alike; operands mean nothing."""
    for name, infos in (("mixed", ("5", "8")), ("old", ("1",))):
        write_template(small / f"{name}.template", *infos)
    assert pair.theirs("make-image", "-rquiet", "-i", "x.iso", "in/c.bin").returncode == 1
    written = bytearray((small / "mixed.template").read_bytes())
    at = written.index(b"\x09", written.rindex(b"DESC") + 10 + 7 + 31)
    written[at] = 10
    (small / "sha256.tmp").write_bytes(written)
    for name in ("x.template", "mixed.template", "old.template", "x.iso.tmp", "sha256.tmp"):
        done = pair.agree("list-template", *options, "-t", name, "ignored", "operands")
        assert (b"have-file" in done.stdout) == name.endswith(".tmp")
    pair.agree("ls", *options, "-i", "x.iso")
    pair.agree("ls", *options, "-j", "dir/../x.jigdo".removeprefix("dir/../"))


@pytest.mark.parametrize(
    "options", [(), ("-t", "none"), ("-t", "in"), ("-t", "-"), ("-i", "x.iso.tmp")], ids=str
)
def test_list_template_fails(pair: Pair, small: Path, options: tuple[str, ...]) -> None:
    """Exit code 3: no name, nothing to open, stdin."""
    theirs, ours = pair.theirs("ls", *options), pair.ours("ls", *options)
    assert (theirs.returncode, ours.returncode, ours.stdout) == (3, 3, b""), (theirs, ours)


# -- as jigdofs --------------------------------------------------------------------------------------


def test_the_same_verbs_of_jigdofs(pair: Pair, small: Path) -> None:
    """`jigdofs VERB` prints the same; options are not abbreviated there, and the verb comes first."""
    environ = clean_environ(small.parent)
    for arguments in (
        ("pm", "-i", "x.iso"),
        ("ver", "x", "-ix.iso.done", "-tx.template"),
        ("md5", "in", "--hex"),
    ):
        done = subprocess.run(
            [*PROGRAM, *arguments], cwd=small, env=environ, capture_output=True, check=False
        )
        ours = pair.ours(*arguments)
        assert (done.returncode, done.stdout) == (ours.returncode, ours.stdout) == (0, ours.stdout)
    for wrong in (("md5sum", "--no-he", "in"), ("--hex", "md5sum", "in")):
        done = subprocess.run([*PROGRAM, *wrong], cwd=small, env=environ, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (3, b"")
        assert done.stderr.startswith(b"jigdofs: ")
