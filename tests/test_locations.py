"""Where parts may be had: order, labels, and what a .jigdo from the net may not reach."""

import itertools
import os
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.fetch.url import is_http
from jigdofs.format import jigdo, jigdo_reader
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.locations import MAX_LOCATIONS, Location, Locator

A = Checksum.of(Algorithm.MD5, b"a")
S = Checksum.of(Algorithm.SHA256, b"s")
NET = "http://net/dir/x.jigdo"
LOCAL = "/home/u/x.jigdo"
NO_MIRRORS: Mapping[str, tuple[str, ...]] = {}


def locator(
    values: list[str],
    servers: str = "",
    mirrors: Mapping[str, tuple[str, ...]] = NO_MIRRORS,
    directory: str | None = None,
    source: str | None = None,
) -> Locator:
    """Return the locator of a .jigdo with these values for part A; local if `directory` is given."""
    text = "[Parts]\n" + "".join(f"{A.base64}={value}\n" for value in values) + f"[Servers]\n{servers}\n"
    pieces = jigdo_reader.parse(os.fsencode(text), source or (LOCAL if directory else NET))
    (description,) = (piece for piece in pieces if isinstance(piece, jigdo.JigdoFile))
    return Locator(description, mirrors, directory)


def found(locator: Locator, checksum: Checksum = A) -> list[str]:
    return [location.url for location in locator.locations(checksum)]


TWO = "L=http://one/\nL=http://two/"


@pytest.mark.parametrize(
    ("values", "servers", "mirrors", "expected"),
    [
        (["L:x", "http://three/y"], TWO, {}, ["http://one/x", "http://two/x", "http://three/y"]),
        (["L:x"], "L=http://one/ --try-last\nL=http://two/", {}, ["http://two/x", "http://one/x"]),
        (["L:x"], "L=http://one/\nL=http://two/ --try-first", {}, ["http://two/x", "http://one/x"]),
        (["L:x --try-last", "M:x"], TWO + "\nM=http://m/", {}, ["http://m/x", "http://one/x", "http://two/x"]),
        # mean over the chain: (2 + 0) / 2 beats (0 + 0.9) / 2, and (2 + 0 + 0) / 3 does not beat (1 + 1) / 2
        (
            ["L:x --try-first=2", "M:x"],
            "L=http://one/\nM=http://m/ --try-first=.9",
            {},
            ["http://one/x", "http://m/x"],
        ),
        (
            ["N:x --try-first=2", "M:x --try-first"],
            "N=L:n/\nL=http://one/\nM=http://m/ --try-first",
            {},
            ["http://m/x", "http://one/n/x"],
        ),
        # the user's come first, in his order, whatever the weights; the slash he forgot is put in
        (
            ["L:x"],
            "L=http://one/ --try-first=9",
            {"L": ("http://u1", "http://u2/d/")},
            ["http://u1/x", "http://u2/d/x", "http://one/x"],
        ),
        (["L:x"], "", {"L": ("http://u/",)}, ["http://u/x"]),
        (["N:x"], "N=L:n/", {"L": ("http://u/",)}, ["http://u/n/x"]),
        (["N:x"], TWO, {"N": ("L:sub/",)}, ["http://one/sub/x", "http://two/sub/x"]),
        # expansion is concatenation
        (["L:x"], "L=http://one", {}, ["http://onex/"]),
        (["L:/x"], "L=http://one/", {}, ["http://one//x"]),
        # pseudo-labels come last, also where [Parts] is silent
        (["L:x"], "MD5Sum=http://sums/\nL=http://one/", {}, ["http://one/x", f"http://sums/{A.base64}"]),
        ([], "MD5Sum=http://sums/\nSHA256Sum=http://no/", {}, [f"http://sums/{A.base64}"]),
        ([], "", {"MD5Sum": ("http://u/",)}, [f"http://u/{A.base64}"]),
        ([], TWO, {}, []),
        # ambiguous names: the literal form follows the kept one
        (
            ["L:a%41?", "http://three/b"],
            TWO,
            {},
            [
                *("http://one/a%41?", "http://one/a%2541%3F"),
                *("http://two/a%41?", "http://two/a%2541%3F", "http://three/b"),
            ],
        ),
        (["L:latin-\udcfc b#c"], "L=http://one/", {}, ["http://one/latin-%FC"]),
        (["'L:latin-\udcfc b#c'"], "L=http://one/", {}, ["http://one/latin-%FC%20b%23c"]),
        # each URL once
        (["L:x", "http://one/x", "L:x"], TWO, {}, ["http://one/x", "http://two/x"]),
        # without a label, or with one that nobody defines: relative to the .jigdo
        (["pool/x", "/x", "../x", "No:x"], "", {}, [
            "http://net/dir/pool/x", "http://net/x", "http://net/dir/No:x"]),
        (["L:x"], "L=sub/\nL=", {}, ["http://net/dir/sub/x", "http://net/dir/x"]),
        # loops lead nowhere, and are no reason to miss what else there is
        (["L:x"], "L=L:y/\nL=http://one/", {}, ["http://one/x"]),
        (["L:x"], "L=M:y/\nM=L:z/\nM=http://m/", {}, ["http://m/y/x"]),
        (["L:x"], "L=M:\nM=N:\nN=L:", {}, []),
    ],
)  # fmt: skip
def test_order(
    values: list[str], servers: str, mirrors: dict[str, tuple[str, ...]], expected: list[str]
) -> None:
    """Labels are expanded, weights averaged and equals kept in file order."""
    assert found(locator(values, servers, mirrors)) == expected


def test_sha256_pseudo_label() -> None:
    """The pseudo-label is that of the checksum's own algorithm."""
    here = locator([], "MD5Sum=http://no/\nSHA256Sum=http://sums/")
    assert found(here, S) == [f"http://sums/{S.base64}"]


def test_mirror_and_host() -> None:
    """Each location names the prefix it came from and the host it needs."""
    here = locator(["L:a/x", "http://two:81/y"], "L=http://one/d/")
    assert here.locations(A) == [
        Location("http://one/d/a/x", "http://one/d/"),
        Location("http://two:81/y", "http://two:81"),
    ]
    assert [location.host for location in here.locations(A)] == ["http://one", "http://two:81"]


@pytest.mark.parametrize(
    "servers",
    [
        "\n".join(f"L{n}=L{n + 1}:a/\nL{n}=L{n + 1}:b/" for n in range(40)) + "\nL40=http://h/",
        "\n".join(f"L{n}=L{m}:" for n, m in itertools.product(range(20), repeat=2)),
        "\n".join(f"L0=http://h/{n}/" for n in range(5000)),
        "\n".join(f"L{n}=L{n + 1}:" for n in range(5000)),
    ],
    ids=["doubling", "everything to everything", "many", "deep"],
)
def test_labels_that_explode(servers: str) -> None:
    """However labels multiply, a part has at most MAX_LOCATIONS, and asking comes to an end."""
    here = locator(["L0:x"], servers)
    urls = found(here)
    assert len(urls) == (MAX_LOCATIONS if "http" in servers else 0)
    assert len(set(urls)) == len(urls)


@pytest.mark.parametrize(
    ("values", "servers", "mirrors", "expected"),
    [
        (["L:a/x"], "L=file:", {}, ["/cwd/a/x", "/home/u/a/x"]),
        (["L:x"], "L=file:sub/", {}, ["/cwd/sub/x", "/home/u/sub/x"]),
        (["L:x"], "L=file:/abs/", {}, ["/abs/x"]),
        (["L:x"], "L=file:///abs/", {}, ["/abs/x"]),
        (["file:/abs/a%41 b"], "", {}, ["/abs/a%41"]),
        (["'file:/abs/a%41 b#c'"], "", {}, ["/abs/a%41 b#c"]),
        (["rel/x"], "", {}, ["/cwd/rel/x", "/home/u/rel/x"]),
        (["L:x"], "L=http://one/", {"L": ("/srv/mirror",)}, ["/srv/mirror/x", "http://one/x"]),
        (["ftp://h/x", "gopher:x"], "L=ftp://h/", {}, ["/cwd/gopher:x", "/home/u/gopher:x"]),
    ],
)
def test_local(
    values: list[str], servers: str, mirrors: dict[str, tuple[str, ...]], expected: list[str]
) -> None:
    """A local .jigdo may name local files, relative to the current directory and to itself, not unescaped."""
    assert found(locator(values, servers, mirrors, directory="/cwd")) == expected


@pytest.mark.parametrize("rest", ["../x", "a/../../x", "a/..", "..", "../../../../etc/passwd"])
@pytest.mark.parametrize("prefix", ["/srv/mirror", "/srv/mirror/"])
def test_a_directory_is_never_left(prefix: str, rest: str) -> None:
    """No name of a part leads out of a directory that the user gave as mirror."""
    assert found(locator([f"L:{rest}"], "", {"L": (prefix,)})) == []
    assert found(locator(["N:x"], f"N=L:{rest}/", {"L": (prefix,)})) == []


TARGETS = [
    "L:x",
    "M:x",
    "file:/etc/passwd",
    "file:x",
    "FILE:///etc/passwd",
    "/etc/passwd",
    "../../x",
    "ftp://h/x",
]
TARGETS += ["//h/x", "\\/x", "file://h/x", "N:", "U:x", "No:/etc/passwd", "http://h/x", "HTTP://h/x", ":/x"]


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(TARGETS), max_size=3),
    st.lists(
        st.tuples(st.sampled_from(["L", "M", "N", "U", "file", "http"]), st.sampled_from(TARGETS)), max_size=5
    ),
)
def test_the_net_leads_to_the_net(values: list[str], servers: list[tuple[str, str]]) -> None:
    """A .jigdo from the net leads to http(s) URLs and to the user's own directory, to nothing else."""
    text = "\n".join(f"{label}={target}" for label, target in servers)
    for url in found(locator(values, text, {"U": ("/srv/mirror",)})):
        assert is_http(url) or url.startswith("/srv/mirror/")


def test_a_label_of_the_net_behind_a_mirror_of_the_user() -> None:
    """A user's mirror that names a label of a .jigdo from the net does not open local files to it."""
    assert found(locator(["L:passwd"], "N=/etc/\nN=http://h/", {"L": ("N:",)})) == [
        "http://net/etc/passwd",
        "http://h/passwd",
    ]


def test_an_include_from_the_net() -> None:
    """What a local .jigdo includes from the net names no local file of its own, but may use local labels."""
    outer = jigdo_reader.parse(b"[Servers]\nL=file:/srv/\n", LOCAL)
    inner = jigdo_reader.parse(f"[Parts]\n{A.base64}=file:/etc/passwd\n{A.base64}=L:x\n".encode(), NET)
    whole = jigdo.merge(piece for piece in (*outer, *inner) if isinstance(piece, jigdo.JigdoFile))
    assert [location.url for location in Locator(whole, {}, "/cwd").locations(A)] == ["/srv/x"]
