"""A .jigdo to which an image is added: nothing of it is lost, and jigdo-file makes the same of it."""

import dataclasses
import gzip
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.errors import FormatError
from jigdofs.format import jigdo, jigdo_reader
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.jigdo_limits import MAX_OTHER_LINES
from jigdofs.format.jigdo_merge import labels_in, merge_jigdo
from jigdofs.format.jigdo_writer import Description, write_jigdo
from jigdofs.format.template import ImageInfo, MatchedFile
from jigdofs.format.template_writer import header, pack_desc
from tests.kit.requirements import tool

A, B, C, D = (Checksum.of(Algorithm.MD5, name) for name in (b"a", b"b", b"c", b"d"))
S, T = (Checksum.of(Algorithm.SHA256, name) for name in (b"s", b"t"))
NEW = Description(
    filename="new.iso",
    template="new.template",
    template_checksums=(A, S),
    parts=((B, "N:b b"), (C, "N:c")),
    servers=(("N", "file:tree/"), ("X", "file:unused/")),
    generator="tests",
    template_size=5,
    image_checksums=(D, T),
    image_size=9,
)
IMAGE = f"""[Image]
Filename=new.iso
Template=new.template
Template-MD5Sum={A.base64}
Template-SHA256Sum={S.base64}
# Template Hex MD5Sum {A.hex}
# Template Hex SHA256Sum {S.hex}
# Template size 5 bytes
# Image Hex MD5Sum {D.hex}
# Image Hex SHA256Sum {T.hex}
# Image size 9 bytes
"""
OLD = f"""# JigsawDownload
# mine

[Jigdo]
Version=1.1
Generator=old

[Image]
Filename=old.iso
Template=old.template
Template-MD5Sum={D.base64}
# Image size 3 bytes

[Servers]
O=http://o/
# end of servers

[Parts]
{D.base64}=O:d
{A.base64}='O:a a'
"""


def _merge(into: str | bytes, new: Description = NEW) -> str:
    data = into if isinstance(into, bytes) else into.encode("utf-8", "surrogateescape")
    return merge_jigdo(new, data, "m").decode("utf-8", "surrogateescape")


def _read(text: str) -> jigdo.JigdoFile:
    (read,) = jigdo_reader.parse(text.encode("utf-8", "surrogateescape"), "m")
    assert isinstance(read, jigdo.JigdoFile)
    return read


def _targets(text: str) -> dict[str, list[str]]:
    read = _read(text)
    return {
        key.base64: [mapping.target for mapping in read.mappings(key)]
        for lines in read.parts
        for key in lines
    }


@pytest.mark.parametrize("into", ["", "\n", " \n\r\n\t"])
def test_into_nothing(into: str) -> None:
    """An empty file is no merge, but for servers that no part needs."""
    alone = dataclasses.replace(NEW, servers=NEW.servers[:1])
    assert _merge(into) == write_jigdo(alone).decode()


def test_the_whole_text() -> None:
    """Lines stay, the image follows the last one, servers their like, and [Parts] comes sorted at the end."""
    assert (
        _merge(OLD)
        == f"""# JigsawDownload
# mine

[Jigdo]
Version=1.1
Generator=old

[Image]
Filename=old.iso
Template=old.template
Template-MD5Sum={D.base64}
# Image size 3 bytes

{IMAGE}
[Servers]
O=http://o/
N=file:tree/
# end of servers

[Parts]
{B.base64}='N:b b'
{A.base64}='O:a a'
{C.base64}=N:c
{D.base64}=O:d
"""
    )


def test_both_images_are_read() -> None:
    """Our reader sees both images with their sums, and all parts."""
    text = _merge(OLD)
    old, new = _read(text).images
    assert (old.filename, old.image_size, new.filename, new.image_size) == ("old.iso", 3, "new.iso", 9)
    assert set(new.template_checksums) == {A, S}
    assert _targets(text) == {
        A.base64: ["O:a a"],
        B.base64: ["N:b b"],
        C.base64: ["N:c"],
        D.base64: ["O:d"],
    }


@pytest.mark.parametrize(
    "into", ["", OLD, OLD.replace("Template-MD5Sum", "Template-MD5Sum=\n#"), "# x", "[Parts]"]
)
def test_twice_is_once(into: str) -> None:
    """To add what is there already changes nothing."""
    once = _merge(into)
    assert _merge(once) == once


@pytest.mark.parametrize(
    "into",
    [
        OLD.replace("\n", "\r\n"),
        "\ufeff" + OLD,
        OLD.removesuffix("\n"),
        OLD + "\n\n",
        gzip.compress(OLD.encode(), mtime=0),
        gzip.compress(OLD[:99].encode(), mtime=0) + OLD[99:].encode(),
    ],
    ids=["CR LF", "BOM", "no end", "empty lines", "gzip", "gzip and plain"],
)
def test_envelopes(into: str | bytes) -> None:
    """However a file is wrapped, the same comes out, plain."""
    assert _merge(into) == _merge(OLD)


def test_parts_that_are_listed() -> None:
    """A part is not added twice, nor a server that only it would need; other locations of it stay."""
    parts = f"{B.base64}=Z:2 --try-first\n{C.base64}=Z:c # note\n{B.base64} = Z:1\n"
    into = f"[Jigdo]\nVersion=1.2\n[Parts]\n{parts}"
    text = _merge(into)
    assert text.partition("[Parts]\n")[2] == (
        f"{B.base64}=Z:2 --try-first\n{B.base64}=Z:1\n{C.base64}=Z:c # note\n"
    )
    assert "[Servers]" not in text


@pytest.mark.parametrize(
    ("servers", "added"),
    [
        ("N=file:tree/", False),
        ("N = 'file:tree/'", False),
        ("N=file:tree", True),
        ("N=file:tree/ --try-last", True),
        ("O=file:tree/", True),
        ("#N=file:tree/", True),
    ],
)
def test_servers_that_are_there(servers: str, added: bool) -> None:
    """A line of [Servers] that says the same is not added again."""
    text = _merge(f"[Servers]\n{servers}\n")
    assert text.count("\nN=file:tree/\n") == ((servers == "N=file:tree/") or added)


def test_servers_by_way_of_another() -> None:
    """What stands for a part is added with all that it leads to."""
    servers = (("M", "http://m/"), ("N", "M:n/ --try-last"), ("X", "M:x/"))
    text = _merge(OLD, dataclasses.replace(NEW, servers=servers))
    assert "O=http://o/\nM=http://m/\nN=M:n/ --try-last\n# end" in text


@pytest.mark.parametrize(
    ("section", "filled"),
    [
        ("Template-MD5Sum=", True),
        ("Template-SHA256Sum=", True),
        ("Template-MD5Sum = \nTemplate-SHA256Sum=", True),
        ("Template-SHA256Sum=\t# todo", True),
        (f"Template-MD5Sum={A.base64}\nTemplate-SHA256Sum=", True),
        (f"Template-SHA256Sum={S.base64}\nTemplate-MD5Sum=", True),
        (f"Template-MD5Sum={B.base64}", False),
        ("Template=x", False),
        ("#Template-MD5Sum=", False),
    ],
)
def test_an_empty_checksum_is_filled(section: str, filled: bool) -> None:
    """An [Image] that waits for a checksum is taken, not added to; its names stay; old sums go."""
    old = f"# Image size 1 bytes\n# Image Hex SHA512Sum {'0' * 128}\n# note"
    into = f"[Image]\nFilename=mine\n{section}\n{old}\n[Servers]\n"
    text = _merge(into)
    images = _read(text).images
    assert [image.filename for image in images] == ["mine"] if filled else ["mine", "new.iso"]
    assert images[0].image_size == (9 if filled else 1)
    assert ("sha512" in images[0].image_sums) is not filled
    assert "# note\n" in text
    assert "todo" not in section or "# todo\n" in text
    assert (set(images[0].template_checksums) == {A, S}) is filled


def test_an_image_of_its_own_is_not_filled() -> None:
    """An [Image] that has another checksum already is another image, even if one is left empty."""
    into = f"[Image]\nTemplate-MD5Sum={B.base64}\nTemplate-SHA256Sum=\n"
    assert f"{into}\n{IMAGE}\n[Servers]\n" in _merge(into)


def test_only_the_first_is_filled() -> None:
    """Each merge fills one [Image]."""
    once = _merge("[Image]\nFilename=1\nTemplate-MD5Sum=\n[Image]\nFilename=2\nTemplate-MD5Sum=\n")
    twice = _merge(once, dataclasses.replace(NEW, template_checksums=(D,), template_size=None))
    assert [image.template_checksums[0] for image in _read(twice).images] == [A, D]


def test_without_sections() -> None:
    """[Image] and [Servers] are left alone where that is asked for."""
    into = OLD.replace(f"Template-MD5Sum={D.base64}", "Template-MD5Sum=")
    merged = merge_jigdo(NEW, into.encode(), "m", image_section=False, servers_section=False).decode()
    assert merged.partition("[Parts]")[0] == into.partition("[Parts]")[0]
    assert len(merged.partition("[Parts]\n")[2].splitlines()) == 4


def test_nothing_is_lost() -> None:
    """Comments in [Parts], and lines there that mean nothing, stay as comments; sections keep their order."""
    into = (
        f"# 1\n[Other] # 2\nx\n[Parts] # 3\n# 4\njunk 5\n{A.base64}=\n\n"
        f"{D.base64}=O:d\nshort=O:6\n[Servers]\nO=http://o/\n[Comment]\n7\n[ Parts ]\n# 8"
    )
    lines = _merge(into).splitlines()
    before = lines[: lines.index("[Parts]")]
    kept = ["# 1", "[Other] # 2", "x", "# 3", "# 4", "# junk 5", f"# {A.base64}=", "# short=O:6", "[Servers]"]
    kept += ["O=http://o/", "[Comment]", "7", "# 8"]
    assert [line for line in before if line in kept] == kept
    assert lines.count("[Parts]") == 1
    assert set(_targets(_merge(into))) == {B.base64, C.base64, D.base64}


def test_a_file_without_jigdo_section() -> None:
    """[Jigdo] is added where it is missing, behind the comment that jigit looks for."""
    assert _merge("# JigsawDownload\n\n[Servers]\n").startswith(
        "# JigsawDownload\n\n[Jigdo]\nVersion=1.2\nGenerator=tests\n\n[Servers]\n"
    )


def test_names_of_libjte() -> None:
    """What libjte wrote without quotes gets them, and the file is no longer said to be libjte's."""
    names = ["O:it's", "O:a b", "O:a#b", "O:back\\slash", "O:plain"]
    keys = [Checksum.of(Algorithm.MD5, name.encode()).base64 for name in names]
    parts = "".join(f"{key}={name}\n" for key, name in zip(keys, names, strict=True))
    text = _merge(f"[Jigdo]\nVersion=1.1\nGenerator=libjte-2.0.0\n[Parts]\n{parts}\n[Servers]\n")
    targets = _targets(text)
    assert [targets[key] for key in keys] == [[name] for name in names]
    assert targets[B.base64] == ["N:b b"]
    assert "Generator=tests\n" in text
    assert "libjte" not in text


@pytest.mark.parametrize(
    ("into", "message"),
    [
        (b"[Image]\n[Servers\n", "m:2: .*no section header"),
        (b"[Image] x\n", "m:1: .*no section header"),
        (b"\x1f\x8b\x08broken", "m: .*gzip"),
        (b"JigsawDownload template 1.2 x\r\n", "m: is a template"),
    ],
)
def test_files_that_are_none(into: bytes, message: str) -> None:
    """What no reader could make sense of is an error that says where."""
    with pytest.raises(FormatError, match=message):
        merge_jigdo(NEW, into, "m")
    with pytest.raises(FormatError, match=message):
        labels_in(into, "m")


def test_labels_in() -> None:
    """Labels are those of [Servers] and those that parts have, quoted or not."""
    assert labels_in(OLD.replace("=O:d", '="P:d"').encode(), "m") == {"O", "P"}
    assert labels_in(b"", "m") == frozenset()


LINES = st.sampled_from(
    [
        *("[Jigdo]", "[Image]", "[Servers]", "[Parts]", "[Other]", "[Include x.jigdo]"),
        *(
            "Filename=f",
            "Template-MD5Sum=",
            f"Template-MD5Sum={D.base64}",
            "Generator=libjte-1",
            "N=file:tree/",
        ),
        *(f"{D.base64}=O:d d", f"{B.base64}=O:b", f"{T.base64}='O:t'", "junk", "# comment", "", " \t", "a=b"),
    ]
)


@given(st.lists(LINES, max_size=20))
def test_any_file(lines: list[str]) -> None:
    """Whatever the file is, a second merge changes nothing, every line is somewhere, parts come last."""
    text = "\n".join(lines)
    once = _merge(text)
    assert _merge(once) == once
    for line in lines:
        fragile = (
            "[Parts]",
            "Template-MD5Sum=",
            "Generator=libjte-1",
            f"{D.base64}=O:d d",
            f"{T.base64}='O:t'",
        )
        assert line in fragile or line.strip(" \t") in once
    assert once.count("[Parts]\n") == 1
    assert "[" not in once.partition("[Parts]\n")[2]
    assert {B.base64, C.base64} <= {
        line.partition("=")[0] for line in once.partition("[Parts]\n")[2].split("\n")
    }


# -- jigdo-file as the judge ---------------------------------------------------------------------------

ORACLE = {
    "old": OLD,
    "fill": "[Jigdo]\nVersion=1.2\n[Image]\nFilename=f\nTemplate=t\nTemplate-MD5Sum=\n# x\n[Servers]\nO=u\n",
    "two servers": "[Servers]\nO=u\n\n[Other]\nx=y\n[Servers]\nP=v\n\n"
    f"[Parts]\n{A.base64}=P:x y\n# z\n[Z]\na=b\n",
    "comment": "# JigsawDownload\n",
    "empty": "",
    "listed": "[Jigdo]\nVersion=1.2\n[Parts]\n{key}=Z:other\n",
    "same server": "[Jigdo]\nVersion=1.2\n[Servers]\nMy=file:tree/\n\n[Parts]\n",
    "CR LF": OLD.replace("\n", "\r\n"),
}


def _sections(text: str) -> dict[str, list[list[str]]]:
    """Return the entries of the sections of each name, without what differs on purpose."""
    found: dict[str, list[list[str]]] = {}
    for paragraph in ("\n" + text).split("\n[")[1:]:
        name, _, rest = paragraph.partition("]")
        entries = [line for line in rest.split("\n") if "=" in line and not line.startswith("#")]
        ours = ("Generator=", "Template-SHA256Sum=")
        entries = [line for line in entries if not line.startswith(ours)]
        if entries:
            found.setdefault(name, []).append(entries)
    return found


@pytest.mark.parametrize("case", ORACLE)
def test_like_jigdo_file(tmp_path: Path, case: str) -> None:
    """Section by section jigdo-file has the same entries in the same order."""
    (tmp_path / "tree").mkdir()
    parts = []
    for name in ("b b", "c", "it's"):
        data = f"{name}\n".encode() * 1000
        (tmp_path / "tree" / name).write_bytes(data)
        parts.append((Checksum.of(Algorithm.MD5, data), f"My:{name}"))
    (tmp_path / "img").write_bytes(b"".join((tmp_path / "tree" / part[1][3:]).read_bytes() for part in parts))
    into = ORACLE[case].replace("{key}", parts[0][0].base64)
    (tmp_path / "m").write_bytes(into.encode())
    command = [
        tool("jigdo-file"),
        "make-template",
        "--report=quiet",
        "--image=img",
        "--jigdo=x",
        "--template=t",
    ]
    arguments = ["--merge=m", "--label=My=tree", "tree//"]
    subprocess.run([*command, *arguments], cwd=tmp_path, check=True)
    template = Checksum.of(Algorithm.MD5, (tmp_path / "t").read_bytes())
    new = Description("img", "t", (template, S), tuple(parts), (("My", "file:tree/"),), "tests")
    ours = merge_jigdo(new, into.encode(), "m").decode()
    assert _sections(ours) == _sections((tmp_path / "x").read_text())


def test_jigdo_file_reads_the_result(tmp_path: Path) -> None:
    """jigdo-file finds old and new parts of both algorithms in a merged file of version 1."""
    keys = (A, D, S, T)
    new = dataclasses.replace(NEW, template_checksums=(T, B), parts=((S, "N:s's"), (T, "N:t")))
    (tmp_path / "x.jigdo").write_text(_merge(OLD, new))
    found = []
    for algorithm in Algorithm:
        parts = [MatchedFile(2000, key, bytes(8)) for key in keys if key.algorithm is algorithm]
        info = ImageInfo(4000, Checksum(bytes(algorithm.digest_size)), 1024)
        (tmp_path / "x.template").write_bytes(header(algorithm, "tests", "") + pack_desc([*parts, info]))
        command = [tool("jigdo-file"), "print-missing", "--jigdo=x.jigdo", "--template=x.template"]
        done = subprocess.run(
            [*command, "--image=none"], cwd=tmp_path, capture_output=True, check=True, text=True
        )
        assert done.stderr == ""
        found += done.stdout.split("\n")
    assert sorted(filter(None, found)) == ["http://o/a a", "http://o/d", "tree/s's", "tree/t"]


@pytest.mark.parametrize("line", [b"\n", b"[Servers]\n", b"[Parts]\n\n"])
def test_files_of_too_many_lines(line: bytes) -> None:
    """What reading a .jigdo refuses is refused here too, before it takes seconds."""
    with pytest.raises(FormatError, match="lines beside plain ones"):
        _merge(line * (MAX_OTHER_LINES + 1))
