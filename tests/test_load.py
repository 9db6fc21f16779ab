"""Loader: from what the user names to images, by [Include], relative names and choice of [Image]."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from jigdofs.config import FetchOptions
from jigdofs.documents import Documents
from jigdofs.errors import FormatError, InputError, UsageError
from jigdofs.fetch.fetcher import SchemeFetcher
from jigdofs.fetch.file import FileFetcher
from jigdofs.fetch.http import HttpFetcher
from jigdofs.format import jigdo, jigdo_reader
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.load import (
    MAX_INCLUDE_DEPTH,
    MAX_INCLUDES,
    LoadedImage,
    Loader,
    Selection,
    image_name,
    normalise,
    unique_names,
)
from jigdofs.names import leaf_name
from jigdofs.parts.locations import Locator
from jigdofs.parts.spool import MemoryPlace
from jigdofs.templates import Templates
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage

FAST = FetchOptions(connect_timeout_s=2, stall_timeout_s=2, rounds=1)
PART = Checksum.of(Algorithm.MD5, b"part")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def template(iso_md5: BuiltImage) -> bytes:
    return iso_md5.template.read_bytes()


def image(
    template: bytes, url: str = "kit.template", filename: str = "kit.iso", *, checksum: bool = True
) -> str:
    lines = ["[Image]", f"Filename={filename}", f"Template={url}"]
    if checksum:
        lines.append(f"Template-MD5Sum={Checksum.of(Algorithm.MD5, template).base64}")
    return "\n".join([*lines, ""])


@asynccontextmanager
async def loader() -> AsyncIterator[Loader]:
    http = HttpFetcher(FAST)
    fetcher = SchemeFetcher(http, FileFetcher())
    try:
        with trio.fail_after(20):
            templates = Templates(fetcher, None, (MemoryPlace(64 << 20),), FAST)
            yield Loader(Documents(fetcher, None, FAST), templates)
    finally:
        await http.close()


async def loaded(source: str | Path, which: str = "first") -> list[LoadedImage]:
    """Return the images; their templates are closed."""
    async with loader() as one:
        images = await one.load(str(source), which)
    for each in images:
        os.close(each.template_file.fd)
    return images


async def test_kit_images(any_image: BuiltImage) -> None:
    """What the real tools made is loaded, with name, length and date."""
    (one,) = await loaded(any_image.jigdo)
    assert one.name == any_image.image.name
    assert one.layout.length == any_image.image.stat().st_size
    assert one.mtime_s == any_image.jigdo.stat().st_mtime
    assert one.directory == os.getcwd()
    assert {part.checksum.hex for _, part in one.layout.parts()} == set(any_image.parts)


async def test_by_url(template: bytes, faulty_server: FaultyServer) -> None:
    """A .jigdo by URL finds its template beside it, and has no directory for local files."""
    faulty_server.files = {"/a/kit.jigdo": image(template).encode(), "/a/kit.template": template}
    (one,) = await loaded(faulty_server.url("/a/kit.jigdo"))
    assert faulty_server.paths() == ["/a/kit.jigdo", "/a/kit.template"]
    assert one.directory is None
    assert one.mtime_s == 1_700_000_000


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("kit.template", "/a/b/kit.template"),
        ("../kit.template", "/a/kit.template"),
        ("/kit.template", "/kit.template"),
        ("../../../../kit.template", "/kit.template"),
        ("sub dir/k%41#?.template", "/a/b/sub dir/kA#"),
        ("caf\u00e9.template", "/a/b/caf\u00e9.template"),
    ],
)
async def test_relative_template(template: bytes, faulty_server: FaultyServer, url: str, asked: str) -> None:
    """A template is named relative to its .jigdo, and never above the server."""
    faulty_server.files = {"/a/b/kit.jigdo": image(template, url).encode(), asked: template}
    await loaded(faulty_server.url("/a/b/kit.jigdo"))
    assert faulty_server.paths() == ["/a/b/kit.jigdo", asked]


async def test_template_on_another_server(
    template: bytes, faulty_server: FaultyServer, tmp_path: Path
) -> None:
    """A local .jigdo may name a template on the net."""
    faulty_server.files = {"/t": template}
    (tmp_path / "a.jigdo").write_text(image(template, faulty_server.url("/t")))
    await loaded(tmp_path / "a.jigdo")
    assert faulty_server.paths() == ["/t"]


async def test_localhost_of_libjte(template: bytes, faulty_server: FaultyServer, tmp_path: Path) -> None:
    """The useless `http://localhost/` of libjte is replaced by the .jigdo's own place, local or not."""
    text = image(template, "http://localhost/kit.template")
    (tmp_path / "a.jigdo").write_text(text)
    (tmp_path / "kit.template").write_bytes(template)
    await loaded(tmp_path / "a.jigdo")
    faulty_server.files = {"/d/a.jigdo": text.encode(), "/d/kit.template": template}
    await loaded(faulty_server.url("/d/a.jigdo"))
    assert faulty_server.paths() == ["/d/a.jigdo", "/d/kit.template"]


async def test_saved_under_another_name(template: bytes, tmp_path: Path) -> None:
    """A template that was saved beside the .jigdo under its name is found."""
    (tmp_path / "mine.jigdo").write_text(image(template, "gone/kit.template"))
    (tmp_path / "mine.template").write_bytes(template)
    await loaded(tmp_path / "mine.jigdo")


async def test_wrong_template(template: bytes, tmp_path: Path) -> None:
    """A template that is not the right one is refused, with the line of the .jigdo that asks for it."""
    (tmp_path / "kit.jigdo").write_text("\n" + image(template))
    (tmp_path / "kit.template").write_bytes(template[:-1] + b"x")
    with pytest.raises(InputError, match=r"kit\.jigdo:2: its template cannot be had"):
        await loaded(tmp_path / "kit.jigdo")


@pytest.mark.logs("gives no checksum for its template")
async def test_without_checksum(template: bytes, tmp_path: Path) -> None:
    """A .jigdo that gives no checksum for its template is used with a warning."""
    (tmp_path / "kit.jigdo").write_text(image(template, checksum=False))
    (tmp_path / "kit.template").write_bytes(template)
    await loaded(tmp_path / "kit.jigdo")


@pytest.mark.logs("gives no checksum for its template")
@pytest.mark.parametrize("cut", [0, 10, 100, -1])
async def test_damaged_template(template: bytes, tmp_path: Path, cut: int) -> None:
    """A template that is none is an error of its format, and its descriptor is closed."""
    (tmp_path / "kit.jigdo").write_text(image(template, checksum=False))
    (tmp_path / "kit.template").write_bytes(template[:cut])
    with pytest.raises(FormatError):
        await loaded(tmp_path / "kit.jigdo")
    assert str(tmp_path / "kit.template") not in {
        os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)
    }


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


async def test_nothing_open_after_a_second_image_fails(template: bytes, tmp_path: Path) -> None:
    """When the second image cannot be loaded the first one's template is closed."""
    (tmp_path / "kit.jigdo").write_text(image(template) + image(b"another", "none.template", "other.iso"))
    (tmp_path / "kit.template").write_bytes(template)
    with pytest.raises(InputError):
        await loaded(tmp_path / "kit.jigdo", "all")
    assert str(tmp_path / "kit.template") not in {
        os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)
    }


# -- which image -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("first", ["a.iso"]),
        ("1", ["a.iso"]),
        ("3", ["c.iso"]),
        ("c.iso", ["c.iso"]),
        ("all", ["a.iso", "b.iso", "c.iso"]),
        ("0", None),
        ("4", None),
        ("-1", None),
        ("d.iso", None),
        ("\u0662", None),
    ],
)
async def test_selection(template: bytes, tmp_path: Path, which: str, names: list[str] | None) -> None:
    """An image is chosen by number, by name, or all are; a wrong choice lists what there is."""
    sections = [image(template, filename=f"x/{name}.iso") for name in "abc"]
    (tmp_path / "kit.jigdo").write_text("".join(sections))
    (tmp_path / "kit.template").write_bytes(template)
    if names is None:
        with pytest.raises(UsageError, match=r"it has a\.iso, b\.iso, c\.iso"):
            await loaded(tmp_path / "kit.jigdo", which)
    else:
        assert [one.name for one in await loaded(tmp_path / "kit.jigdo", which)] == names


async def test_no_image(tmp_path: Path) -> None:
    """A .jigdo without an image is none."""
    (tmp_path / "kit.jigdo").write_text("[Parts]\n")
    with pytest.raises(InputError, match=r"no \[Image\]"):
        await loaded(tmp_path / "kit.jigdo")


async def test_equal_names(template: bytes, tmp_path: Path) -> None:
    """Images of one name get names of their own."""
    (tmp_path / "kit.jigdo").write_text(image(template) * 3)
    (tmp_path / "kit.template").write_bytes(template)
    assert list(unique_names(await loaded(tmp_path / "kit.jigdo", "all"))) == [
        "kit.iso",
        "kit~2.iso",
        "kit~3.iso",
    ]


@pytest.mark.parametrize(
    ("name", "leaf"),
    [
        ("kit.iso", "kit.iso"),
        ("/etc/passwd", "passwd"),
        ("../../x", "x"),
        ("..", ""),
        (".", ""),
        ("a/", ""),
        ("a\x1b[31m\n.iso", "a[31m.iso"),
        ("x" * 300 + ".iso", "x" * 247 + ".iso"),
        (" a ", "a"),
        ("\udcff.iso", "\udcff.iso"),
    ],
)
def test_leaf_name(name: str, leaf: str) -> None:
    """A name from inside a .jigdo is reduced to what may stand in a directory."""
    assert leaf_name(name) == leaf


@pytest.mark.parametrize("source", ["ftp://127.0.0.1/a", "httpx://127.0.0.1/a", "jigdo://x"])
def test_other_schemes(source: str) -> None:
    """What is neither a path nor HTTP is wrong usage."""
    with pytest.raises(UsageError):
        normalise(source)


def test_file_url(tmp_path: Path) -> None:
    """A file: URL is the path it names."""
    assert normalise("file:///a%20b") == normalise("/a b") == "/a b"


# -- includes ----------------------------------------------------------------------------------------


def place(directory: Path, template: bytes, **texts: str) -> Path:
    """Write .jigdo files and the template; return the .jigdo `main`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "kit.template").write_bytes(template)
    for name, text in texts.items():
        (directory / f"{name}.jigdo").write_text(text)
    return directory / "main.jigdo"


async def test_include(template: bytes, tmp_path: Path) -> None:
    """An include stands for the file it names, where it stands; the first [Image] counts."""
    main = place(
        tmp_path,
        template,
        main=f"[Include sub.jigdo]\n{image(template)}[Parts]\n{PART.base64}=L:1\n",
        sub=f"[Parts]\n{PART.base64}=L:0\n[Servers]\nL=http://127.0.0.1:1/\n",
    )
    (one,) = await loaded(main)
    urls = [place.url for place in Locator(one.description, {}, one.directory).locations(PART)]
    assert urls == ["http://127.0.0.1:1/0", "http://127.0.0.1:1/1"]


async def test_include_by_url(template: bytes, faulty_server: FaultyServer) -> None:
    """Names in an included file are relative to that file."""
    faulty_server.files = {
        "/a/main.jigdo": b"[Include ../b/c/sub.jigdo]\n",
        "/b/c/sub.jigdo": image(template, "t").encode(),
        "/b/c/t": template,
    }
    (one,) = await loaded(faulty_server.url("/a/main.jigdo"))
    assert faulty_server.paths() == ["/a/main.jigdo", "/b/c/sub.jigdo", "/b/c/t"]
    assert one.source == faulty_server.url("/a/main.jigdo")


@pytest.mark.parametrize(
    "texts",
    [
        {"main": "[Include main.jigdo]\n"},
        {"main": "[Include ./x/../main.jigdo]\n"},
        {"main": "[Include b.jigdo]\n", "b": "[Include c.jigdo]\n", "c": "[Include b.jigdo]\n"},
    ],
    ids=["itself", "detour", "circle"],
)
async def test_include_loop(template: bytes, tmp_path: Path, texts: dict[str, str]) -> None:
    """A circle of includes is an error that names the line."""
    with pytest.raises(FormatError, match="leads back to itself") as caught:
        await loaded(place(tmp_path, template, **texts))
    assert caught.value.line == 1


async def test_include_loop_by_url(faulty_server: FaultyServer) -> None:
    """The same on the net, however the URL is written."""
    faulty_server.files = {"/a": b"[Include b]\n", "/b": b"[Include ./a]\n"}
    with pytest.raises(FormatError, match="leads back to itself"):
        await loaded(faulty_server.url("/a"))


async def test_include_depth(template: bytes, tmp_path: Path) -> None:
    """Includes within includes end at a limit."""
    texts = {f"n{n}": f"[Include n{n + 1}.jigdo]\n" for n in range(MAX_INCLUDE_DEPTH)}
    deepest = f"n{MAX_INCLUDE_DEPTH}"
    main = place(tmp_path, template, main="[Include n1.jigdo]\n", **texts, **{deepest: image(template)})
    await loaded(main)
    texts["main"] = "[Include n0.jigdo]\n"
    with pytest.raises(FormatError, match="too many includes"):
        await loaded(place(tmp_path, template, **texts))


async def test_many_includes(template: bytes, tmp_path: Path) -> None:
    """Files that include each next one twice do not take exponential time."""
    texts = {f"n{n}": f"[Include n{n + 1}.jigdo]\n" * 2 for n in range(12)}
    main = place(tmp_path, template, main="[Include n0.jigdo]\n", n12="[Parts]\n", **texts)
    with pytest.raises(FormatError, match="too many includes"):
        await loaded(main)
    many = "[Include n12.jigdo]\n" * MAX_INCLUDES + image(template)
    assert len(await loaded(place(tmp_path, template, main=many))) == 1


@pytest.mark.parametrize("target", ["file:///etc/hostname", "file:sub.jigdo", "ftp://127.0.0.1/x"])
async def test_include_from_the_net(faulty_server: FaultyServer, target: str) -> None:
    """A .jigdo from the net cannot include a local file."""
    faulty_server.files = {"/main.jigdo": f"[Include {target}]\n".encode()}
    with pytest.raises((FormatError, InputError)):
        await loaded(faulty_server.url("/main.jigdo"))


async def test_path_from_the_net(template: bytes, faulty_server: FaultyServer, tmp_path: Path) -> None:
    """An absolute path in a .jigdo from the net is one on its server, for includes and templates."""
    (tmp_path / "t").write_bytes(template)
    (tmp_path / "sub.jigdo").write_text(image(template))
    for text in (
        f"[Include {tmp_path}/sub.jigdo]\n",
        image(template, f"{tmp_path}/t"),
        image(template, f"file:{tmp_path}/t"),
    ):
        faulty_server.files = {"/main.jigdo": text.encode()}
        with pytest.raises(InputError):
            await loaded(faulty_server.url("/main.jigdo"))


@pytest.mark.parametrize("where", ["parts", "servers"])
async def test_included_from_the_net(
    template: bytes, faulty_server: FaultyServer, tmp_path: Path, where: str
) -> None:
    """What a local .jigdo includes from the net leads to no local part; what it says itself does."""
    remote = f"[Parts]\n{PART.base64}=file:/etc/hostname\n"
    if where == "servers":
        remote = f"[Parts]\n{PART.base64}=L:hostname\n[Servers]\nL=file:/etc/\n"
    faulty_server.files = {"/sub.jigdo": remote.encode()}
    own = f"[Parts]\n{PART.base64}=file:/own\n"
    main = place(
        tmp_path, template, main=f"[Include {faulty_server.url('/sub.jigdo')}]\n{image(template)}{own}"
    )
    (one,) = await loaded(main)
    urls = [location.url for location in Locator(one.description, {}, one.directory).locations(PART)]
    assert urls == ["/own"]


@pytest.mark.parametrize(
    "text",
    ["[Include a\0b]\n", "[Include /]\n", "[Include %00]\n", "[Include http://[]\n", "[Include \udcff]\n"],
    ids=ascii,
)
async def test_hostile_include(template: bytes, tmp_path: Path, text: str) -> None:
    """An include that nothing can have is an error of the input."""
    main = place(tmp_path, template)
    main.write_bytes(os.fsencode(text + image(template)))
    with pytest.raises((InputError, FormatError)):
        await loaded(main)


@pytest.mark.parametrize(
    "url", ["a\0b", "http://[", "http://127.0.0.1:99999999999999999999/", "\udcff", "file:\0"], ids=ascii
)
async def test_hostile_template_name(template: bytes, tmp_path: Path, url: str) -> None:
    """A template name that nothing can have is an error of the input."""
    (tmp_path / "main.jigdo").write_bytes(os.fsencode(image(template, url)))
    with pytest.raises(InputError):
        await loaded(tmp_path / "main.jigdo")


@pytest.mark.parametrize(
    ("filename", "name"),
    [(".bashrc", "bashrc"), ("dir/. .x", "x"), ("...", "of-the-jigdo"), (".", "of-the-jigdo")],
)
def test_images_are_not_hidden(filename: str, name: str) -> None:
    """No image is called as a file that a shell or a program reads at its start."""
    (piece,) = jigdo_reader.parse(f"[Image]\nFilename={filename}\n".encode(), "of-the-jigdo.jigdo")
    assert isinstance(piece, jigdo.JigdoFile)
    selection = Selection(".of-the-jigdo.jigdo", piece, piece.images, 0)
    assert image_name(selection, piece.images[0]) == name
