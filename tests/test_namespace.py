"""The nodes that a mount or a server shows: names, paths, links, and what they are told apart by."""

import errno
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from jigdofs.config import FetchOptions, InputOptions, ReadOptions
from jigdofs.contents.namespace import ROOT, Namespace, walk
from jigdofs.errors import FormatError, NoSuchFile, WrongKind
from jigdofs.wiring.images import open_images
from tests.kit.isos import both, make_iso, records, tree_of

LINKS = {
    "to-dir": "dir",
    "to-file": "dir/file",
    "absolute": "/dir/file",
    "top": "/",
    "up": "../../../other",
    "dir/up": "../other",
    "dir/sub/far": "../../../../../../../dir/file",
    "chain": "dir/sub/to-chain",
    "dir/sub/to-chain": "../../to-file",
    "deep": "dir/sub",
    "over": "deep/../file",  # of dir, not of the top
    "out": "deep/../../../../kit.iso",
    "back": "top/../../kit.iso",
    "one": "two",
    "two": "one",
    "self": "self",
    "dangling": "nowhere",
    "through": "other/x",
}


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("namespace") / "tree"
    (top / "dir" / "sub").mkdir(parents=True)
    (top / "dir" / "file").write_bytes(b"f" * 5000)
    (top / "other").write_bytes(b"o")
    (top / "empty").write_bytes(b"")
    for name, target in LINKS.items():
        (top / name).symlink_to(target)
    return make_iso(top, "xorriso", "-R").rename(top.parent / "kit.iso")


@asynccontextmanager
async def shown(*images: Path, contents: bool = True, single: bool = False) -> AsyncIterator[Namespace]:
    inputs = InputOptions(tuple(str(image) for image in images))
    read = ReadOptions(timeout_s=20, readahead_bytes=0)
    with trio.fail_after(60):
        async with open_images(inputs, None, FetchOptions(), read) as opened:
            yield await opened.namespace(contents=contents, single=single)


@pytest.mark.parametrize(
    ("path", "same"),
    [
        ("", ""),
        ("/", ""),
        ("kit.iso", "kit.iso"),
        ("//kit/./dir//file", "kit/dir/file"),
        ("kit/to-dir", "kit/dir"),
        ("kit/to-dir/file", "kit/dir/file"),
        ("kit/to-file", "kit/dir/file"),
        ("kit/absolute", "kit/dir/file"),
        ("kit/top", "kit"),
        ("kit/top/dir", "kit/dir"),
        ("kit/up", "kit/other"),
        ("kit/dir/up", "kit/other"),
        ("kit/dir/sub/far", "kit/dir/file"),
        ("kit/chain", "kit/dir/file"),
        ("kit/over", "kit/dir/file"),
        ("kit/dir/..", "kit"),
        ("kit/dir/../..", ""),
        ("..", ""),
        ("../../kit", "kit"),
        ("kit/../kit.iso", "kit.iso"),
        ("kit/to-dir/../../kit.iso", "kit.iso"),  # what a user types may leave the tree
        ("kit/deep/../file", "kit/dir/file"),
        ("kit/top/top/top/dir", "kit/dir"),
    ],
)
async def test_paths_and_links(iso: Path, path: str, same: str) -> None:
    """A path leads where it does on a disk whose root is that of the image's files."""
    async with shown(iso) as namespace:
        node = ROOT
        for name in same.split("/"):
            node = await namespace.lookup(node, name.encode()) if name else node
        assert await namespace.resolve(path.encode()) == node


@pytest.mark.parametrize(
    "path", ["kit/out", "kit/back", "kit/dangling", "kit/nothing", "other", "kit/kit.iso"]
)
async def test_links_lead_nowhere_outside(iso: Path, path: str) -> None:
    """However many `..` a link has, and whatever it goes through, it stays in its tree."""
    async with shown(iso) as namespace:
        with pytest.raises(NoSuchFile):
            await namespace.resolve(path.encode())


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("kit/one", errno.ELOOP),
        ("kit/self", errno.ELOOP),
        ("kit/self/x", errno.ELOOP),
        ("kit/through", errno.ENOTDIR),
        ("kit/other/x", errno.ENOTDIR),
        ("kit/other/..", errno.ENOTDIR),
        ("kit.iso/x", errno.ENOTDIR),
        ("kit.iso/..", errno.ENOTDIR),
    ],
)
async def test_what_is_no_directory(iso: Path, path: str, number: int) -> None:
    """Links in circles, and files used as directories, are errors of their own."""
    async with shown(iso) as namespace:
        with pytest.raises(WrongKind) as caught:
            await namespace.resolve(path.encode())
        assert caught.value.errno == number


@pytest.fixture(scope="module")
def twin(iso: Path) -> Path:
    """The same image under another name."""
    twin = iso.with_name("twin.iso")
    twin.write_bytes(iso.read_bytes())
    return twin


async def test_every_node_is_found_by_number(iso: Path, twin: Path) -> None:
    """Listing, look-up, parent and attributes agree for every entry of two trees."""
    tree = tree_of(iso)
    async with shown(iso, twin) as namespace:
        assert [name for name, _ in await namespace.directory(ROOT)] == [
            b"kit.iso",
            b"kit",
            b"twin.iso",
            b"twin",
        ]
        nodes: set[int] = {ROOT}
        pending = [ROOT]
        while pending:
            parent = pending.pop()
            for name, node in await namespace.directory(parent):
                assert node not in nodes
                nodes.add(node)
                assert await namespace.lookup(parent, name) == node
                attributes = await namespace.attributes(node)
                if stat.S_ISDIR(attributes.mode):
                    assert await namespace.lookup(node, b"..") == parent
                    assert await namespace.lookup(node, b".") == node
                    pending.append(node)
        assert len(nodes) == 3 + 2 * (1 + len(list(walk(tree))))
        for wrong in (0, 4, max(nodes) + 1, 1 << 42, 1 << 63):
            with pytest.raises(NoSuchFile):
                await namespace.attributes(wrong)


async def test_reading(iso: Path) -> None:
    """A file is read from any offset, and ends where it ends."""
    async with shown(iso) as namespace:
        opened = await namespace.open(await namespace.resolve(b"kit/to-file"))
        assert opened.size == 5000
        for offset, size, length in (
            (0, 5000, 5000),
            (0, 9000, 5000),
            (4999, 9, 1),
            (5000, 9, 0),
            (7000, 9, 0),
        ):
            assert await opened.read(offset, size) == b"f" * length
        empty = await namespace.open(await namespace.resolve(b"kit/empty"))
        assert (empty.size, bytes(await empty.read(0, 4096))) == (0, b"")


async def test_wrong_kinds(iso: Path) -> None:
    """A directory cannot be read, a file not listed, and only a link leads somewhere."""
    async with shown(iso) as namespace:
        directory, file, link = [
            await namespace.lookup(await namespace.resolve(b"kit"), name)
            for name in (b"dir", b"other", b"dangling")
        ]
        for ask, number in (
            (namespace.open(directory), errno.EISDIR),
            (namespace.open(link), errno.EINVAL),
            (namespace.identity(directory), errno.EISDIR),
            (namespace.directory(file), errno.ENOTDIR),
            (namespace.directory(2), errno.ENOTDIR),
            (namespace.target(file), errno.EINVAL),
        ):
            with pytest.raises(WrongKind) as caught:
                await ask
            assert caught.value.errno == number
        assert await namespace.target(link) == b"nowhere"


async def test_identities(iso: Path) -> None:
    """Files that lie elsewhere differ, and the same file is the same each time."""
    async with shown(iso) as namespace:
        paths = (b"kit.iso", b"kit/other", b"kit/dir/file")
        nodes = [await namespace.resolve(path) for path in paths]
        first = [await namespace.identity(node) for node in nodes]
        assert first == [await namespace.identity(node) for node in nodes]
        assert len(set(first)) == len(first)


@pytest.fixture
def outside(iso: Path, tmp_path: Path) -> Path:
    """An image with a file that claims to lie outside of it."""
    data = bytearray(iso.read_bytes())
    at = next(records(data, b"OTHER.;1"))
    data[at + 2 : at + 10] = both(2**31)
    image = tmp_path / "kit.iso"
    image.write_bytes(data)
    return image


async def test_a_file_outside_of_the_image(outside: Path) -> None:
    """It is described, and cannot be opened."""
    async with shown(outside) as namespace:
        node = await namespace.resolve(b"kit/other")
        assert (await namespace.attributes(node)).size == 1
        with pytest.raises(FormatError, match=r"other in kit\.iso: claims to lie outside of the image"):
            await namespace.open(node)


async def test_one_image_as_the_root(iso: Path) -> None:
    """Where the mount point is a file, the root is the image, and no directory."""
    async with shown(iso, contents=False, single=True) as namespace:
        assert stat.S_ISREG((await namespace.attributes(ROOT)).mode)
        assert (await namespace.open(ROOT)).size == namespace.total_bytes > 5000
        with pytest.raises(WrongKind):
            await namespace.directory(ROOT)
        with pytest.raises(WrongKind):
            await namespace.lookup(ROOT, b"kit.iso")
