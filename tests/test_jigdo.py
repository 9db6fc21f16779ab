"""The .jigdo in every dialect seen in the wild, and what a hostile one may not do."""

import gzip
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.errors import FormatError
from jigdofs.format import jigdo_reader
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.jigdo import Include, JigdoFile, Mapping, merge
from jigdofs.format.jigdo_limits import (
    MAX_BYTES,
    MAX_GZIP_MEMBERS,
    MAX_OTHER_BYTES,
    MAX_OTHER_LINES,
    MAX_PART_LINES,
)
from jigdofs.format.jigdo_reader import gunzip, parse
from tests.kit.images import BuiltImage

SOURCE = "http://host/dir/x.jigdo"
A, B, C = (Checksum.of(Algorithm.MD5, name) for name in (b"a", b"b", b"c"))
S = Checksum.of(Algorithm.SHA256, b"s")


def read(text: str | bytes) -> JigdoFile:
    """Read a .jigdo without includes."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    (piece,) = parse(data, SOURCE)
    assert isinstance(piece, JigdoFile)
    return piece


def targets(description: JigdoFile, checksum: Checksum = A) -> list[str]:
    return [mapping.target for mapping in description.mappings(checksum)]


BY_JIGDO_FILE = f"""\
# JigsawDownload
# See <https://www.einval.com/~steve/software/jigdo/> for details about jigdo

[Jigdo]
Version=1.2
Generator=jigdo-file/0.8.0

[Image]
Filename=OS X 10.5 - Leopard (Server).iso
Template=OS X 10.5 - Leopard.template
Template-MD5Sum={C.base64}

[Servers]
Debian=http://ftp.example.org/debian/ --try-last
Debian=file:

[Parts]
{A.base64}="A:it's.bin"
{B.base64}='A:Disk 1/name with blanks'
"""

BY_LIBJTE = f"""\
# JigsawDownload
# See <http://atterer.org/jigdo/> for details about jigdo
# See <http://www.einval.com/~steve/software/CD/JTE/> for details about JTE

[Jigdo]
Version=1.1
Generator=libjte-2.0.0

[Image]
Filename=stdio:x.iso
Template=http://localhost/x.template
Template-MD5Sum={C.base64} 
# Template Hex  MD5Sum 00
# Template Hex MD5Sum {C.hex}
# Template Hex SHA1Sum {"1" * 40}
# Template Hex SHA256Sum {S.hex}
# Template size 4711 bytes
# Image Hex MD5Sum {A.hex.upper()}
# Image Hex SHA1Sum {"2" * 40}
# Image Hex SHA256Sum {S.hex}
# Image Hex SHA512Sum {"3" * 128}
# Image Hex SHA512Sum 33
# Image size 940345 bytes

[Parts]
{A.base64}=Debian:pool/b space.bin
{A.base64}=Debian:it's#a\\"quoted".deb
{B.base64}=/no label/at all 'x

[Servers]
"""  # noqa: W291  the blank behind the checksum is what libjte writes


def test_a_file_of_jigdo_file() -> None:
    """All that jigdo-file writes is read: names with blanks unquoted in [Image], quoted in [Parts]."""
    description = read(BY_JIGDO_FILE)
    assert (description.source, description.version) == (SOURCE, "1.2")
    assert description.generator == "jigdo-file/0.8.0"
    (image,) = description.images
    assert image.filename == "OS X 10.5 - Leopard (Server).iso"
    assert image.templates == ("OS X 10.5 - Leopard.template",)
    assert (image.template_checksums, image.base, image.line) == ((C,), SOURCE, 8)
    assert description.mappings(A) == [Mapping("A:it's.bin", 0, SOURCE)]
    assert targets(description, B) == ["A:Disk 1/name with blanks"]
    assert description.mappings(C) == []
    assert description.servers == {
        "Debian": (Mapping("http://ftp.example.org/debian/", -1, SOURCE), Mapping("file:", 0, SOURCE))
    }


def test_a_file_of_libjte() -> None:
    """Libjte's habits are understood: `stdio:`, a trailing blank, sums in comments, names never quoted."""
    description = read(BY_LIBJTE)
    (image,) = description.images
    assert (image.filename, image.templates) == ("x.iso", ("http://localhost/x.template",))
    assert image.template_checksums == (C, S)
    assert image.image_sums == {
        "md5": A.hex,
        "sha1": "2" * 40,
        "sha256": S.hex,
        "sha512": "3" * 128,
    }
    assert image.image_size == 940345
    assert targets(description) == ["Debian:pool/b space.bin", 'Debian:it\'s#a\\"quoted".deb']
    assert targets(description, B) == ["/no label/at all 'x"]
    assert description.servers == {}


def test_generator_after_the_parts() -> None:
    """Libjte's unquoted names are known as such wherever [Jigdo] stands."""
    parts = f"[Parts]\n{A.base64}=L:a b\n"
    assert targets(read(parts + "[Jigdo]\nGenerator=libjte-2.0.0\n")) == ["L:a b"]
    assert targets(read(parts + "[Jigdo]\nGenerator=jigdo-file/0.8.0\n")) == ["L:a"]


PLAIN = f"[Parts]\n{A.base64}=L:x\n".encode()
SECOND = f"{A.base64}=L:y\n".encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (PLAIN, ["L:x"]),
        (PLAIN[:-1], ["L:x"]),
        (PLAIN.replace(b"\n", b"\r\n"), ["L:x"]),
        (PLAIN.replace(b"\n", b"\r\n")[:-1], ["L:x"]),
        (b"\xef\xbb\xbf" + PLAIN, ["L:x"]),
        (b"\r\n\n  \r\n" + PLAIN, ["L:x"]),
        (gzip.compress(PLAIN, mtime=0), ["L:x"]),
        (gzip.compress(b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n"), mtime=0), ["L:x"]),
        (gzip.compress(PLAIN, mtime=0) + gzip.compress(SECOND, mtime=0), ["L:x", "L:y"]),
        (
            gzip.compress(PLAIN[:5], mtime=0)
            + gzip.compress(b"", mtime=0)
            + gzip.compress(PLAIN[5:] + SECOND, mtime=0),
            ["L:x", "L:y"],
        ),
        (gzip.compress(PLAIN, mtime=0) + SECOND, ["L:x", "L:y"]),
        (PLAIN.replace(b"L:x", b"'L:Date Preferences\r'"), ["L:Date Preferences\r"]),
        (PLAIN.replace(b"L:x", b"'L:Date\rPreferences\r'\r"), ["L:Date\rPreferences\r"]),
        (PLAIN.replace(b"L:x", b"L:a\rb\r\r"), ["L:a\rb\r"]),
        (PLAIN.replace(b"L:x", b"L:\xdc-\x82-\xc3\xbc-\xff"), ["L:\udcdc-\udc82-\u00fc-\udcff"]),
        (
            PLAIN.replace(b"L:x", b"L:a\x0bb\x0cc\x85d\x1ce\xe2\x80\xa8f"),
            ["L:a\x0bb\x0cc\udc85d\x1ce\u2028f"],
        ),
        (PLAIN.replace(b"L:x", b"\tL:a=b:c=d # note"), ["L:a=b:c=d"]),
        (b" \t[ Parts\t] # note\n\t" + PLAIN[8:].replace(b"=", b" \t= ", 1), ["L:x"]),
        (b"[Parts]#note\n" + PLAIN[8:], ["L:x"]),
        (PLAIN + b"[Servers]\nL=u\n [Parts] \n" + SECOND, ["L:x", "L:y"]),
        (b"before any section, even [ and ]\n" + PLAIN, ["L:x"]),
        (b"[Comment]\nno syntax = here\n=\nhere\n" + PLAIN, ["L:x"]),
        (b"[comment]\n;\n" + PLAIN + b"[parts]\n" + SECOND + b"[Unknown thing]\nwhatever\n", ["L:x"]),
        (PLAIN + b"#" + SECOND + b"  # " + SECOND, ["L:x"]),
        (b"", []),
        (gzip.compress(b"", mtime=0), []),
    ],
)
def test_envelopes_and_lines(data: bytes, expected: list[str]) -> None:
    """Gzip in pieces, BOM, CR, blanks, comments, raw bytes and sections in any order read as they should."""
    assert targets(read(data)) == expected


@given(st.binary(min_size=1, max_size=20).filter(lambda name: not {10, 13, 32, 9, 35, 34, 39, 92} & {*name}))
def test_names_keep_their_bytes(name: bytes) -> None:
    """A name of any bytes without blanks and quotes comes back to the byte."""
    (target,) = targets(read(b"[Parts]\n" + A.base64.encode() + b"=L:" + name + b"\n"))
    assert os.fsencode(target) == b"L:" + name


def test_alternatives_keep_their_order() -> None:
    """Repeated keys and labels are alternatives in file order; MD5 and SHA-256 keys live side by side."""
    text = (
        f"[Parts]\n{A.base64}=L:1\n{S.base64}=L:s\n{A.base64}=L:2 --try-first=2 --other --try-last=0.5\n"
        f"[Servers]\nL=u1\nM=\nL=u2 --try-first\n[Parts]\n{A.base64}=L:3\n[Servers]\nL= 'u 3' # note\nN=L:n\n"
    )
    description = read(text)
    assert [(mapping.target, mapping.weight) for mapping in description.mappings(A)] == [
        ("L:1", 0),
        ("L:2", 1.5),
        ("L:3", 0),
    ]
    assert targets(description, S) == ["L:s"]
    assert {label: [(m.target, m.weight) for m in found] for label, found in description.servers.items()} == {
        "L": [("u1", 0), ("u2", 1), ("u 3", 0)],
        "M": [("", 0)],
        "N": [("L:n", 0)],
    }
    (lines,) = description.parts
    assert (set(lines), len(lines), lines.lines) == ({A, S}, 2, 4)


VALUES = st.one_of(
    st.sampled_from(
        ["L:a", "'a b' --try-first", '"x"', "a\r", "a\r\r", "=", "a=b", "L:\udcff", "L:é", "a\x85b", "a # b"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1).map("L:".__add__),
    st.just("L:" + "x" * 5000),
)
PART_LINES = st.lists(st.tuples(st.sampled_from([A, B, C, S]), VALUES), max_size=12)


@settings(deadline=None)
@given(
    PART_LINES,
    st.lists(st.sampled_from(["", " ", "\t"]), min_size=12, max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_lines_are_read_alike_however_they_are_written(
    lines: list[tuple[Checksum, str]], before: list[str], crlf: bool, libjte: bool
) -> None:
    """A line that could be taken as it is means what it means with blanks and comments around it."""
    end = "\r\n" if crlf else "\n"
    head = "[Jigdo]\nGenerator=libjte-1\n[Parts]\n" if libjte else "[Parts]\n"
    # what ends in CR is a name only where another CR is dropped
    plain = head + "".join(
        f"{key.base64}={value}\r\n" if value.endswith("\r") else f"{key.base64}={value}{end}"
        for key, value in lines
    )
    blank = head + "".join(
        f"{blank}# note\n{blank or ' '}{key.base64}{blank}={blank}{value}\r\n"
        for blank, (key, value) in zip(before, lines, strict=False)
    )
    first, second = read(plain), read(blank)
    for key in (A, B, C, S):
        values = [value for other, value in lines if other == key]
        assert first.mappings(key) == second.mappings(key)
        assert len(first.mappings(key)) == len(values)
        if libjte:
            assert targets(first, key) == values
    assert first.labels() == second.labels()
    assert (
        [set(parts) for parts in first.parts]
        == [set(parts) for parts in second.parts]
        == [{key for key, _ in lines}] * bool(lines)
    )


@pytest.mark.parametrize(
    "bad", ["no line", f"{A.base64}=", f"{A.base64[:-1]}B=L:x", f"{A.base64}=#", f"{A.base64}=''\r"]
)
def test_the_line_of_a_mistake(bad: str) -> None:
    """A mistake among many good lines is told with its number, whatever the lines around it look like."""
    good = f"{A.base64}=L:x\n{S.base64}=L:y\n"
    with pytest.raises(FormatError) as caught:
        read(f"\n[Parts]\n{good * 50}\n {good}# x\n{good}{bad}\n{good}")
    assert caught.value.line == 109


def test_several_images() -> None:
    """Every [Image] is kept, in order, with its alternatives; unknown keys are passed over."""
    text = (
        f"[Image]\nFilename=a.iso\nTemplate=a1\nTemplate=\nTemplate='a 2' x\nTemplate-SHA256Sum={S.base64}\n"
        f"Template-MD5Sum='{A.base64}' x\nInfo= <b>it's</b> # all \"verbatim\" \nShortInfo=s\nNew=1\n"
        "[Other]\nFilename=no\n[Image]\nFilename = b c.iso \n# Image size 12 bytes\n[Image]\n"
    )
    first, second, third = read(text).images
    assert (first.filename, first.templates, first.template_checksums) == ("a.iso", ("a1", "a 2"), (S, A))
    assert (first.info, first.short_info) == ('<b>it\'s</b> # all "verbatim" ', "s")
    assert (second.filename, second.image_size, second.templates) == ("b c.iso", 12, ())
    assert (third.filename, third.line, third.image_sums) == ("", 16, {})


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "2.0", "2", "2.9-beta", "x", "", "0"])
def test_versions_that_are_read(version: str) -> None:
    """Everything up to major version 2 is read."""
    assert read(f"[Jigdo]\nVersion={version}\n").version == version


def test_includes_split_the_file() -> None:
    """[Include] stands between what is before and after it; a new section must follow."""
    text = (
        f"[Jigdo]\nGenerator=libjte-2\nVersion=1.1\n[Image]\nFilename=a\n[Include http://h/b.jigdo]\n"
        f"[ Include\tc%20d.jigdo ]\n# note\n\n[Parts]\n{A.base64}=L:x y\n[Servers]\nL=u\n"
    )
    before, first, between, second, after = parse(text.encode(), SOURCE)
    assert (first, second) == (Include("http://h/b.jigdo", 6), Include("c%20d.jigdo", 7))
    assert isinstance(before, JigdoFile)
    assert isinstance(between, JigdoFile)
    assert isinstance(after, JigdoFile)
    assert [len(piece.images) for piece in (before, between, after)] == [1, 0, 0]
    assert targets(after) == ["L:x y"], "the generator holds for the whole file"
    whole = merge([before, read(f"[Parts]\n{A.base64}=L:z\n[Image]\nFilename=b\n[Servers]\nL=v\n"), after])
    assert (whole.version, whole.generator, whole.source) == ("1.1", "libjte-2", SOURCE)
    assert [image.filename for image in whole.images] == ["a", "b"]
    assert targets(whole) == ["L:z", "L:x y"]
    assert [mapping.target for mapping in whole.servers["L"]] == ["v", "u"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[Parts\n", 1, "no section header"),
        ("\n\n[Parts] x\n", 3, "no section header"),
        ("[Pa]rts]\n", 1, "no section header"),
        ("[Parts]\n\nword\n", 3, "neither"),
        (f"[Parts]\n{A.base64}=\n", 2, "without a location"),
        (f"[Parts]\n{A.base64} =  # x\n", 2, "without a location"),
        (f"[Parts]\r\n{A.base64}=''\r\n", 2, "without a location"),
        (f"[Parts]\n{A.base64}='\n", 2, "without a location"),
        (f'[Parts]\n{A.base64}="" --try-last\n', 2, "without a location"),
        (f"[Parts]\n{A.base64}=''#x\n", 2, "without a location"),
        (f"[Parts]\n{A.base64}==x\n{A.base64}x=L:x\n", 3, "checksum"),
        ("[Parts]\n=x\n", 2, "checksum"),
        (f"[Parts]\n{A.hex}=L:x\n", 2, "checksum"),
        (f"[Parts]\n{A.base64}===L:x\n{A.base64[:-1]}/=L:x\n", 3, "alphabet"),
        ("[Servers]\n=u\n", 2, "no label"),
        ("[Servers]\na#b=u\n", 2, "no label"),
        ("[Servers]\na]=u\n", 2, "no label"),
        ("[Image]\nTemplate-SHA256Sum=x\n", 2, "Template-SHA256Sum"),
        ("[Jigdo]\nVersion=3.0\n", 2, "upgrade"),
        ("[Jigdo]\nVersion=99999999999999999999\n", 2, "upgrade"),
        (f"[Jigdo]\nVersion={'9' * 5000}\n", 2, "upgrade"),
        ("[Include x]\na=b\n", 2, "only a new section"),
        ("[Include x]\n[Jigdo]\nVersion=3\n", 3, "upgrade"),
    ],
)
def test_malformed(text: str, line: int, words: str) -> None:
    """What jigdo-file passes over, or dies of, is an error that names file and line."""
    with pytest.raises(FormatError, match=words) as caught:
        parse(text.encode(), SOURCE)
    assert (caught.value.source, caught.value.line) == (SOURCE, line)
    assert str(caught.value).startswith(f"{SOURCE}:{line}: ")


def test_damaged_gzip() -> None:
    """Gzip data cut anywhere, or damaged, is an error and never half a file."""
    data = gzip.compress(BY_LIBJTE.encode(), mtime=0)
    for size in range(2, len(data)):
        with pytest.raises(FormatError, match="gzip"):
            parse(data[:size], SOURCE)
    for at in (3, 20, len(data) - 6, len(data) - 2):
        with pytest.raises(FormatError, match="gzip"):
            parse(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :], SOURCE)


TOKENS = st.sampled_from(
    [
        *("[Parts]", "[Servers]", "[Image]", "[Jigdo]", "[Include x]", "[Comment]", "[", "]", "=", "#", "\r"),
        *(
            "\n",
            " ",
            "\t",
            "'",
            '"',
            "\\",
            "\x00",
            "\ufeff",
            "\u2028",
            "\udcff",
            "\udc1f",
            ":",
            "--try-first=1e",
        ),
        *("Version", "Generator=libjte", "Template-MD5Sum", "Filename", "# Image size 9 bytes", "9" * 30),
        *(A.base64, S.base64, A.base64 + "=", "--try-last=", "http://h/", "L"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.binary(max_size=60).map(lambda data: b"\x1f\x8b" + data)
    | st.binary(max_size=60).map(lambda data: b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + data)
    | st.lists(TOKENS, max_size=40).map(lambda tokens: os.fsencode("".join(tokens).replace("\udc1f", "")))
    | st.lists(TOKENS, max_size=40).map(
        lambda tokens: gzip.compress("".join(tokens).encode("utf-8", "replace"))
    )
)
def test_whatever_comes_in(data: bytes) -> None:
    """Arbitrary bytes are read or refused with a FormatError, and all that was read can be asked for."""
    try:
        pieces = parse(data, SOURCE)
    except FormatError:
        return
    whole = merge(piece for piece in pieces if isinstance(piece, JigdoFile))
    for lines in whole.parts:
        assert all(mapping.base == SOURCE for checksum in lines for mapping in whole.mappings(checksum))


def _read_in_little_memory(tmp_path: Path, data: bytes) -> str:
    """Read it in a process of its own that may take 512 MiB: MAX_BYTES of text fit well."""
    (tmp_path / "bomb").write_bytes(data)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))\n"
        "from jigdofs.format.jigdo_reader import parse; from jigdofs.errors import FormatError\n"
        "try: parse(open(sys.argv[1], 'rb').read(), 'bomb'); print('read')\n"
        "except FormatError: print('refused')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "bomb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.strip()


def _one_member(size: int) -> bytes:
    """Return one gzip member of `size` zero bytes without its end, made in no time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = bytes(16 << 20)
    first = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * (size // len(piece) - 1)


@pytest.mark.parametrize(
    "bomb",
    [
        lambda: _one_member(10 << 30),
        lambda: gzip.compress(bytes(16 << 20)) * 640,
        lambda: gzip.compress(b"\n" * (MAX_BYTES + 1)),
        lambda: gzip.compress(b" " + b"x" * (MAX_BYTES - 10) + "\N{PILE OF POO}".encode()),
    ],
    ids=["one member of 10 GiB", "640 members of 16 MiB", "a byte too long", "one line"],
)
def test_gzip_bombs(tmp_path: Path, bomb: Callable[[], bytes]) -> None:
    """What inflates beyond MAX_BYTES, or to a line that long, is refused long before it fills the memory."""
    assert _read_in_little_memory(tmp_path, bomb()) == "refused"


@pytest.mark.parametrize(
    ("head", "line"), [(b"", b"[Image]\n"), (b"", b"[Include x]\n"), (b"[Servers]\n", b"a=\n")]
)
def test_bombs_of_lines(tmp_path: Path, head: bytes, line: bytes) -> None:
    """Text of the allowed size whose every line makes an object is refused instead of taking gigabytes."""
    bomb = head + line * ((MAX_BYTES - len(head)) // len(line))
    assert _read_in_little_memory(tmp_path, gzip.compress(bomb, 1)) == "refused"


@pytest.mark.parametrize(
    "between", [b"", b"[Include x]\n[Parts]\n"], ids=["in one piece", "around an include"]
)
def test_too_many_parts(between: bytes) -> None:
    """MAX_PART_LINES holds for the file as a whole."""
    keys = [Checksum.of(Algorithm.MD5, b"%d" % number).base64.encode() for number in range(10_000)]
    lines = b"".join(key + b"=x\n" for key in keys)
    allowed = b"[Parts]\n" + lines * (MAX_PART_LINES // len(keys) - 1)
    with pytest.raises(FormatError, match="parts"):
        parse(allowed + between + lines + lines[:25], SOURCE)


def _cpu_s(data: bytes, work: Callable[[bytes], object]) -> float:
    before = time.process_time()
    work(data)
    return time.process_time() - before


@pytest.mark.parametrize("line", [b"\n", b"#\n", b"\r\n", b"[Parts]\n\n", b"%b =A:x\n" % (b"A" * 22)])
def test_many_lines_that_say_nothing(line: bytes) -> None:
    """A line that is looked at by itself counts, blank or not: 60 KB of gzip hold 33 million."""
    text = b"[Parts]\n" + line * (MAX_OTHER_LINES + 1)
    with pytest.raises(FormatError, match="lines beside plain ones"):
        parse(text, SOURCE)


def test_long_lines_that_say_little() -> None:
    """Words are taken apart at 25 MB a second, so there is a bound on their bytes, too."""
    line = b"A=" + b"'' " * 20_000 + b"\n"
    with pytest.raises(FormatError, match="MiB beside plain lines"):
        parse(b"[Servers]\n" + line * (MAX_OTHER_BYTES // len(line) + 1), SOURCE)


def test_quoted_locations_are_plain_lines() -> None:
    """Names with blanks in them, as many as a .jigdo may have parts, take no time."""
    line = b"AAAAAAAAAAAAAAAAAAAAAA='A:x y'\n"
    (piece,) = parse(b"[Parts]\n" + line * (MAX_OTHER_LINES + 1), SOURCE)
    assert isinstance(piece, JigdoFile)
    assert piece.mappings(Checksum(bytes(16)))[0].target == "A:x y"


def test_too_many_members() -> None:
    """Pieces of gzip data that hold nothing come to an end."""
    member = gzip.compress(b"", mtime=0)
    with pytest.raises(FormatError, match="pieces of gzip data"):
        gunzip(member * (MAX_GZIP_MEMBERS + 1), SOURCE)


def test_one_key_many_times() -> None:
    """Many lines of one key take little more time than as many keys: reading is linear."""
    keys = [Checksum.of(Algorithm.MD5, b"%d" % number).base64.encode() for number in range(40_000)]
    distinct = b"[Parts]\n" + b"".join(key + b"=aa\n" for key in keys)
    same = b"[Parts]\n" + (keys[0] + b"=aa\n") * len(keys)
    time_same, time_distinct = (_cpu_s(data, lambda data: parse(data, SOURCE)) for data in (same, distinct))
    assert time_same < 6 * time_distinct


def test_many_small_members() -> None:
    """Gzip members are taken one after the other without copying the rest each time."""
    member = gzip.compress(b"", mtime=0)
    few = min(_cpu_s(member * 10_000, lambda data: gunzip(data, SOURCE)) for _ in range(3))
    many = _cpu_s(member * 120_000, lambda data: gunzip(data, SOURCE))
    assert many < 30 * few


@pytest.mark.parametrize("fixture", ["iso_md5", "iso_sha256", "iso_jte_md5", "iso_jte_sha256", "tar_md5"])
def test_real_files(fixture: str, request: pytest.FixtureRequest) -> None:
    """In what jigdo-file and xorriso write, every part of the template leads to its file in the pool."""
    built: BuiltImage = request.getfixturevalue(fixture)
    description = read(built.jigdo.read_bytes())
    (image,) = description.images
    assert (image.filename, image.templates) == (built.image.name, (built.template.name,))
    template = built.template.read_bytes()
    assert image.template_checksums
    assert all(sum_ == Checksum.of(sum_.algorithm, template) for sum_ in image.template_checksums)
    assert image.image_size in (None, built.image.stat().st_size)
    assert {
        checksum: targets(description, Checksum(bytes.fromhex(checksum))) for checksum in built.parts
    } == {checksum: [f"Debian:{path}"] for checksum, path in built.parts.items()}
    assert [mapping.target for mapping in description.servers["Debian"]] == [f"file:{built.pool}/"]
    assert int(description.version.partition(".")[0]) <= jigdo_reader.NEWEST_MAJOR_VERSION
