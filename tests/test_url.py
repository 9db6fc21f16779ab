"""URLs out of raw names: what goes on the wire, and how references are resolved."""

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.fetch import url as urls

H = "http://h:8080"


@pytest.mark.parametrize(
    ("raw", "forms"),
    [
        ("/a/b.deb", ["/a/b.deb"]),
        ("", ["/"]),
        ("/a b", ["/a%20b"]),
        ("/a%zz%", ["/a%25zz%25"]),
        ("/a%20b", ["/a%20b", "/a%2520b"]),
        ("/%6108c%zz", ["/%6108c%25zz", "/%256108c%25zz"]),
        ("/a#b", ["/a%23b"]),
        ("/a?b", ["/a?b", "/a%3Fb"]),
        ("/a?b%41#c", ["/a?b%41%23c", "/a%3Fb%2541%23c"]),
        ("/back\\slash", ["/back%5Cslash"]),
        ("/caf\u00e9-\u96ea", ["/caf%C3%A9-%E9%9B%AA"]),
        ("/latin-\udcfc\udc82", ["/latin-%FC%82"]),
        ("/a+~;=&$,!'()*:@-._", ["/a+~;=&$,!'()*:@-._"]),
        ('/a\tb\r"<>^`{|}', ["/a%09b%0D%22%3C%3E%5E%60%7B%7C%7D"]),
        ("/epoch_1:2.0-1%2bb1.deb", ["/epoch_1:2.0-1%2bb1.deb", "/epoch_1:2.0-1%252bb1.deb"]),
    ],
)
def test_escape(raw: str, forms: list[str]) -> None:
    """The first form is what wget sends, the second, where there is one, takes every character literally."""
    assert urls.escape(H + raw) == tuple(H + form for form in forms)


@pytest.mark.parametrize("raw", ["", "?q", "#f", "?a%41#b", "/?#"])
def test_the_host_stays_the_host(raw: str) -> None:
    """No form of a URL moves anything of its path into the host."""
    assert {urllib.parse.urlsplit(form).netloc for form in urls.escape(H + raw)} == {"h:8080"}


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("%?#/\udcff41 "), max_size=30))
def test_any_name(name: str) -> None:
    """Any name becomes pure ASCII without blanks or a fragment, and the literal form is the name itself."""
    forms = urls.escape(f"{H}/{name}")
    assert all(form.isascii() and form.isprintable() and not set(" #") & set(form) for form in forms)
    assert urllib.parse.unquote(forms[-1], errors="surrogateescape") == f"{H}/{name}"
    assert len(set(forms)) == len(forms) <= 2


@pytest.mark.parametrize("text", ["", "a/b", "/a", "file:a", "http:/a", "1a://b", "//h/a"])
def test_relative_is_not_escaped(text: str) -> None:
    """Only an absolute URL can be put on the wire."""
    assert not urls.is_absolute(text)
    with pytest.raises(ValueError, match="absolute"):
        urls.escape(text)


BASES = ["http://h/a/b/c.jigdo", "http://h/", "http://h", "http://u:p@h:81/a/b?x=/y/z", "http://h/a/b/"]
REFERENCES = [
    "x",
    "x/y.template",
    "./x",
    "../x",
    "../../x",
    "../../../../x",
    "x/../y",
    "x/./y",
    "/x",
    "/",
    ".",
]
REFERENCES += ["..", "x/", "/../x", "/a/../b/./c", "http://other/x", "https://other/x?y", "a;b=c", "x/.."]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("reference", REFERENCES)
def test_join_like_rfc_3986(base: str, reference: str) -> None:
    """For usual references the result is that of the standard library."""
    assert urls.join(base, reference) == urllib.parse.urljoin(base, reference)


@pytest.mark.parametrize(
    ("base", "reference", "joined"),
    [
        ("http://h/d/x.jigdo", "OS X 10.5 - Leopard.template", "http://h/d/OS X 10.5 - Leopard.template"),
        ("http://h/d\udcfc/x.jigdo", "\udce9%41", "http://h/d\udcfc/\udce9%41"),
        ("http://h/d/x.jigdo?token=/1/2", "y", "http://h/d/y"),
        ("http://h/d/x#y/z", "y", "http://h/d/y"),
        ("http://h/d//x", "y", "http://h/d//y"),
        ("http://h/d/x", "Debian:pool/y", "http://h/d/Debian:pool/y"),
        ("http://h/d/x", "a/../../../../etc/passwd", "http://h/etc/passwd"),
    ],
)
def test_join_of_raw_names(base: str, reference: str, joined: str) -> None:
    """Names are joined as they are, and nothing climbs above the host."""
    assert urls.join(base, reference) == joined


@pytest.mark.parametrize(
    ("url", "http", "origin", "shown"),
    [
        ("http://h/x", True, "http://h", "http://h/x"),
        ("HTTPS://H:1/x", True, "HTTPS://H:1", "HTTPS://H:1/x"),
        ("http://u:p@h/x@y", True, "http://u:p@h", "http://h/x@y"),
        ("http://u:p@ss@h/x", True, "http://u:p@ss@h", "http://h/x"),
        ("http://h/u:p@x", True, "http://h", "http://h/u:p@x"),
        ("http://h?u@x", True, "http://h", "http://h?u@x"),
        ("ftp://u@h/x", False, "ftp://u@h", "ftp://h/x"),
        ("/srv/u:p@x", False, "", "/srv/u:p@x"),
        ("file:/x", False, "", "file:/x"),
    ],
)
def test_kinds(url: str, http: bool, origin: str, shown: str) -> None:
    """Scheme and origin are told, and passwords never shown."""
    assert (urls.is_http(url), urls.origin(url), urls.without_credentials(url)) == (http, origin, shown)
