"""Labels: what jigdo-file makes of paths, --label and --uri, and where we do better."""

import os
import string
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.create.labels import Labels
from jigdofs.errors import InputError, UsageError
from jigdofs.format import jigdo, jigdo_reader, words
from tests.kit.requirements import tool

URL = "http://h/CentOS/"


def _labels(
    labels: tuple[tuple[str, str], ...] = (),
    uris: tuple[tuple[str, str], ...] = (),
    operands: tuple[str, ...] = (),
    taken: tuple[str, ...] = (),
) -> Labels:
    return Labels(labels, uris, operands, taken)


@pytest.mark.parametrize(
    ("path", "location", "server"),
    [
        ("tree/a", "A:tree/a", "file:"),
        ("/srv/tree/a", "A:srv/tree/a", "file:/"),
        ("//srv/tree/a", "A:srv/tree/a", "file:/"),
        ("tree//sub/a", "A:sub/a", "file:tree/"),
        ("x//tree//a", "A:a", "file:x/tree/"),
        ("tree///sub/a", "A:sub/a", "file:tree/"),
        ("./tree//a", "A:a", "file:./tree/"),
        ("../tree//a", "A:a", "file:../tree/"),
        ("/srv/tree//a", "A:a", "file:/srv/tree/"),
        ("we ird//a b", "A:a b", "'file:we ird/'"),
        ("caf\udce9//\udcfc", "A:\udcfc", "file:caf\udce9/"),
    ],
)
def test_automatic_labels(path: str, location: str, server: str) -> None:
    """A label stands for what is before the last `//`, else for the root or the current directory."""
    labels = _labels()
    assert labels.location(path) == location
    assert labels.servers() == (("A", server),)


def test_labels_in_the_order_of_use() -> None:
    """Each base gets the next letter, and keeps it however it is spelled."""
    labels = _labels()
    paths = ["b//x", "a//x", "./b//y", f"{os.getcwd()}/a//z"]
    assert [labels.location(path) for path in paths] == ["A:x", "B:x", "A:y", "B:z"]
    assert labels.servers() == (("A", "file:b/"), ("B", "file:a/"))


def test_after_z_comes_aa() -> None:
    """The alphabet is not the end."""
    labels = _labels()
    found = [labels.location(f"{number}//x")[:-2] for number in range(26 + 26 * 26 + 1)]
    assert found[:26] == list(string.ascii_uppercase)
    assert (found[26], found[27], found[52], found[-1]) == ("AA", "AB", "BA", "AAA")


def test_automatic_labels_avoid_all_others() -> None:
    """No automatic label is one of --label or of a merged .jigdo, nor a --uri that a --label needs."""
    labels = _labels((("A", "other"),), (("A", "B:x/"), ("B", URL), ("D", URL)), ("tree",), ("C",))
    assert labels.location("tree//x") == "D:x"
    assert labels.location("other//x") == "A:x"


def test_a_uri_of_an_automatic_label() -> None:
    """A --uri for a label that was handed out in a run before is used where it is handed out again."""
    trees = ("one", "two")
    labels = _labels((), (("A", URL), ("B", "http://b/")), trees)
    assert [labels.location(f"{tree}//x") for tree in trees] == ["A:x", "B:x"]
    assert labels.servers() == (("A", URL), ("B", "http://b/"))
    assert labels.unused() == ()


@pytest.mark.parametrize(
    "directory", ["tree", "tree/", "./tree", "../{here}/tree", "{cwd}/tree", "{cwd}/tree//"]
)
@pytest.mark.parametrize("path", ["tree//sub/a", "tree/sub/a", "./tree//sub/a", "{cwd}/tree/sub/a"])
def test_a_label_of_a_directory(directory: str, path: str) -> None:
    """--label counts however its directory and the path are spelled, with `//` or without."""
    cwd = os.getcwd()
    directory, path = (text.format(cwd=cwd, here=os.path.basename(cwd)) for text in (directory, path))
    labels = _labels((("My", directory),))
    assert labels.location(path) == "My:sub/a"
    ((label, server),) = labels.servers()
    assert label == "My"
    assert os.path.abspath(server.removeprefix("file:")) == os.path.abspath("tree")
    assert server.endswith("tree/")


def test_the_first_label_and_the_deepest_directory_win() -> None:
    """Of two labels for a directory the first counts; of two directories the nearer one."""
    labels = _labels((("One", "t"), ("Two", "t"), ("Deep", "t/d"), ("One", "u")))
    paths = ["t/x", "t//x", "t/d/x", "t/dd/x", "u//x"]
    assert [labels.location(path) for path in paths] == ["One:x", "One:x", "Deep:x", "One:dd/x", "One:x"]
    assert labels.servers() == (("Deep", "file:t/d/"), ("One", "file:t/"), ("One", "file:u/"))
    assert labels.unused() == ("Two",)


def test_a_base_of_its_own_needs_no_label() -> None:
    """Who writes `//` says where the label ends, even below a directory that has one."""
    labels = _labels((("My", "tree"),))
    assert labels.location("tree/sub//x") == "A:x"
    assert labels.unused() == ("My",)


@pytest.mark.parametrize(
    ("operand", "path", "location"),
    [
        ("/var/www/CentOS/tree/", "/var/www/CentOS/tree/Packages/x.rpm", "Packages/x.rpm"),
        ("/var/www/CentOS/tree", "/var/www/CentOS/tree/Packages/x.rpm", "Packages/x.rpm"),
        ("/var/www//CentOS/", "/var/www//CentOS/x.rpm", "CentOS/x.rpm"),
        ("tree//", "tree//x.rpm", "x.rpm"),
        ("tree", "tree/x.rpm", "x.rpm"),
        (".", "./tree/x.rpm", "tree/x.rpm"),
        ("/", "/tree/x.rpm", "tree/x.rpm"),
    ],
)
def test_one_tree_and_one_url(operand: str, path: str, location: str) -> None:
    """The only URL without a directory belongs to the only tree, and no `file:` is left to be edited."""
    labels = _labels((), (("Centosmirrors", URL), ("Centosmirrors", "http://b/ --try-last")), (operand,))
    assert labels.location(path) == f"Centosmirrors:{location}"
    assert labels.servers() == (("Centosmirrors", URL), ("Centosmirrors", "http://b/ --try-last"))
    assert labels.unused() == ()
    assert labels.environment(path)["LABEL"] == "Centosmirrors"
    assert os.path.abspath(labels.environment(path)["FILE"]) == os.path.abspath(path)


@pytest.mark.parametrize(
    ("given", "uris", "operands"),
    [
        ((), (("L", URL), ("M", URL)), ("tree",)),
        ((), (("L", URL),), ("tree", "other")),
        ((), (("L", URL),), ()),
        ((("T", "tree"),), (("L", URL),), ("tree",)),
        ((("T", "."),), (("L", URL),), ("tree",)),
        ((("L", "elsewhere"),), (("L", URL),), ("tree",)),
    ],
)
def test_no_guessing(
    given: tuple[tuple[str, str], ...], uris: tuple[tuple[str, str], ...], operands: tuple[str, ...]
) -> None:
    """With several trees or URLs, or a tree that has a label, a URL without a directory stays unused."""
    labels = _labels(given, uris, operands)
    assert not labels.location("tree/x").startswith("L:")
    assert "L" in labels.unused()


def test_a_tree_inside_the_tree() -> None:
    """A labelled directory inside the tree keeps its label; the tree takes the URL."""
    labels = _labels((("Sub", "tree/sub"),), (("Main", URL),), ("tree",))
    assert [labels.location(path) for path in ("tree/x", "tree/sub/x")] == ["Main:x", "Sub:x"]
    assert labels.servers() == (("Main", URL), ("Sub", "file:tree/sub/"))


def test_urls_that_name_labels() -> None:
    """A label that another one's URL begins with is in use, and belongs to no tree."""
    labels = _labels((), (("Centos", "Mirror:centos/"), ("Mirror", URL), ("Mirror", "ftp://h/")), ("tree",))
    assert labels.location("tree/x") == "Centos:x"
    servers = (("Centos", "Mirror:centos/"), ("Mirror", URL), ("Mirror", "ftp://h/"))
    assert (labels.servers(), labels.unused()) == (servers, ())


def test_a_single_file_is_no_tree() -> None:
    """A label never stands for a whole file."""
    labels = _labels((("My", "tree/y"),), (("L", URL),), ("tree/x",))
    assert [labels.location(path) for path in ("tree/x", "tree/y")] == ["A:tree/x", "A:tree/y"]
    assert labels.unused() == ("My", "L")


def test_unused_says_nothing_of_labels_in_use() -> None:
    """Labels are unused until a file has them."""
    labels = _labels((("My", "tree"),), (("My", URL),))
    assert (labels.unused(), labels.servers()) == (("My",), ())
    labels.location("tree/x")
    assert labels.unused() == ()


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a\tb", "[", "]", "#", "a=b", "a:b", "\x01", "a\nb", "http", "https", "ftp", "file", "HTTP"],
)
def test_impossible_labels(name: str) -> None:
    """A label that no line of [Servers] can hold, or that is a scheme, is refused."""
    with pytest.raises(UsageError, match="cannot be a label"):
        _labels(((name, "tree"),))
    with pytest.raises(UsageError, match="cannot be a label"):
        _labels((), ((name, URL),))


@pytest.mark.parametrize("path", ["a\nb", "x//a\nb", "a\nb//x", "tree/a\nb"])
def test_line_feeds(path: str) -> None:
    """A name that cannot be written is an error that names it, before anything was written."""
    with pytest.raises(InputError, match=r"a\\nb.*line feed"):
        _labels((("My", "tree"),)).location(path)
    with pytest.raises(UsageError, match="several lines"):
        _labels((), (("L", "http://h/\n[Parts]"),))


def test_a_line_feed_above_a_tree_with_a_url() -> None:
    """What is not written may be called anything."""
    assert _labels((), (("L", URL),), ("/a\nb/tree",)).location("/a\nb/tree/x") == "L:x"


@pytest.mark.parametrize(
    ("value", "warns"),
    [
        (URL, False),
        ("Other:", False),
        ("http://h/get?file=", False),
        ("", False),
        ("http://h/ --try-last", False),
        ("'http://h/a b/' --try-last", False),
        ("http://h/tree", True),
        ("http://h/tree --try-last", True),
        ("http://h/it's/", True),
        ("http://h/#x/", True),
        ("#", True),
    ],
)
def test_warnings(value: str, warns: bool) -> None:
    """A prefix that does not end where a name begins, or reads as another than it seems, is told."""
    assert bool(_labels((), (("L", value),)).warnings()) is warns


PIECES = st.sampled_from(["a", "b", "tree", "sub", ".", "..", "/", "//", "/x", " ", "\udcfc", "'", "-"])
PATHS = st.lists(PIECES, max_size=6).map(lambda pieces: "/".join(pieces) + "/leaf")


@given(st.lists(PATHS, min_size=1, max_size=6), PATHS, st.sampled_from([(), ("tree",), ("/",), ("a//b",)]))
def test_every_location_leads_to_its_file(
    paths: list[str], directory: str, operands: tuple[str, ...]
) -> None:
    """What stands for a label, put before the rest, is the file; --match-exec hears the same."""
    labels = _labels((("My", os.path.dirname(directory)),), (("T", "file:unused/"),), operands)
    for path in paths:
        label, _, rest = labels.location(path).partition(":")
        environment = labels.environment(path)
        assert (
            environment["FILE"] == environment["LABELPATH"] + environment["MATCHPATH"] + environment["LEAF"]
        )
        assert environment["LABEL"] in ("", label)
        assert os.path.abspath(environment["FILE"]) == _plain(path)
        prefixes = [words.split(value)[0] for name, value in labels.servers() if name == label]
        assert label == "T" or _plain(path) in [
            _plain(prefix.removeprefix("file:") + rest) for prefix in prefixes
        ]


def _plain(path: str) -> str:
    return os.path.abspath(path).replace("//", "/", 1) if path.startswith("//") else os.path.abspath(path)


def test_like_jigdo_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where jigdo-file knows what to do, its locations, servers and --match-exec are ours."""
    monkeypatch.chdir(tmp_path)
    names = ["tree/a", "tree/sub/b c", "other/it's", "other/d", "we ird/e"]
    image = b""
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        data = bytes((number + 1) * (place * place % 251) & 255 for place in range(3000 + number))
        (tmp_path / name).write_bytes(data)
        image += data + bytes(100)
    (tmp_path / "img").write_bytes(image)
    paths = ["tree//a", "tree//sub/b c", f"{tmp_path}/other/it's", f"{tmp_path}//other/d", "we ird//e"]
    show = 'printf "%s|" "$LABEL" "$LABELPATH" "$MATCHPATH" "$LEAF" "$FILE"; echo'
    command = [
        tool("jigdo-file"),
        "make-template",
        "--report=quiet",
        "--image=img",
        "--jigdo=x",
        "--template=t",
    ]
    given = ["--label=My=tree/", f"--match-exec={show}", "--uri=My='http://h/' --try-last", "--uri=No=x"]
    done = subprocess.run(
        [*command, *given, *paths], cwd=tmp_path, capture_output=True, check=True, text=True
    )
    labels = Labels((("My", "tree/"),), (("My", "'http://h/' --try-last"),), paths)
    theirs = (tmp_path / "x").read_bytes()
    (read,) = jigdo_reader.parse(theirs, "x")
    assert isinstance(read, jigdo.JigdoFile)
    locations = {mapping.target for lines in read.parts for key in lines for mapping in lines.mappings(key)}
    assert {labels.location(path) for path in paths} == locations
    servers = theirs.decode().partition("[Servers]\n")[2].partition("\n\n")[0].splitlines()
    assert [f"{label}={value}" for label, value in labels.servers()] == sorted(servers)
    assert len(done.stdout.splitlines()) == len(paths)
    ours = ["|".join(labels.environment(path).values()) + "|" for path in paths]
    assert sorted(ours) == sorted(done.stdout.splitlines())
