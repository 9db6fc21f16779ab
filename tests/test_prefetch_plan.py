"""What to fetch ahead: the order of wishes, what an installer reads first, globs and ranges."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jigdofs.config import BackgroundOptions
from jigdofs.errors import FormatError, InputError, JigdofsError, NoSuchFile, SourceChanged, UsageError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.format.part_list import FIRST_LINE, line
from jigdofs.format.template import Entry as TemplateEntry
from jigdofs.format.template import MatchedFile, UnmatchedData
from jigdofs.image.layout import Layout
from jigdofs.image.reader import ImageReader
from jigdofs.iso9660.tree import Entry, Extent, Tree, pack
from jigdofs.parts.store import PartStore
from jigdofs.plain_image import NoParts, PlainImage
from jigdofs.prefetch.from_the_start import initial_request
from jigdofs.prefetch.plan import FillRequest, plan

PART_BYTES = 4096
GAP_BYTES = 2048
HEAD_BYTES = 40_960

FILES = (
    "README.txt",
    "pool/main/l/linux.deb",
    "pool/main/l/less.deb",
    "EFI/boot/grubx64.efi",
    "Install.amd/vmlinuz",
    "dists/bookworm/Release",
    "dists/bookworm/main/binary-amd64/Packages",
    ".disk/info",
    "doc/boot/manual.txt",
    "isolinux/isolinux.bin",
    "installers.txt/really a directory",
    "boot/grub/grub.cfg",
    "pool/main/[odd]*.deb",
)
"""In the order in which they lie in the image; each is a part of its own."""


def part_of(path: str, size: int = PART_BYTES) -> Part:
    return Part(Checksum.of(Algorithm.SHA256, path.encode()), size)


@dataclass
class Files:
    """The files inside an image, known already."""

    known: Tree | None

    async def tree(self) -> Tree:
        """Return them."""
        assert self.known is not None
        return self.known


@dataclass
class Image:
    """An image whose parts could be fetched."""

    name: str
    layout: Layout
    reader: ImageReader
    contents: Files
    store: PartStore | None = field(default_factory=lambda: PartStore.__new__(PartStore))


def directory(name: bytes, children: Sequence[Entry]) -> Entry:
    return Entry(name, stat.S_IFDIR | 0o555, 0, 0, 0, children=children)


def tree_of(places: dict[str, list[Extent]]) -> Tree:
    """Pack a tree of these files."""

    def below(prefix: str) -> Iterator[Entry]:
        paths = [path.removeprefix(prefix) for path in places if path.startswith(prefix)]
        for name in dict.fromkeys(path.partition("/")[0] for path in paths):
            if name in paths:
                extents = tuple(places[prefix + name])
                yield Entry(os.fsencode(name), stat.S_IFREG | 0o444, 0, 0, 0, extents=extents)
            else:
                yield directory(os.fsencode(name), list(below(f"{prefix}{name}/")))

    empty = directory(b"empty", [])
    return Tree(pack(directory(b"", [*below(""), empty])), "test")


def image_of(
    files: Sequence[str], reader: ImageReader, name: str = "one.iso", size: int = PART_BYTES
) -> Image:
    """Make an image in which each of these files is a part, with a gap behind it."""
    entries: list[TemplateEntry] = [UnmatchedData(HEAD_BYTES)]
    places: dict[str, list[Extent]] = {}
    position = HEAD_BYTES
    for path in files:
        part = part_of(path, size)
        entries += [MatchedFile(part.length, part.checksum), UnmatchedData(GAP_BYTES)]
        places[path] = [Extent(position, part.length)]
        position += part.length + GAP_BYTES
    return Image(name, Layout(entries), reader, Files(tree_of(places)))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[ImageReader]:
    """A reader of a file that is no ISO."""
    path = tmp_path / "zeros.img"
    path.write_bytes(bytes(HEAD_BYTES))
    plain = PlainImage(str(path), os.open(path, os.O_RDONLY))
    yield ImageReader(plain.layout, plain, NoParts(), timeout_s=10, readahead_bytes=0)
    plain.close()


@pytest.fixture
def image(reader: ImageReader) -> Image:
    return image_of(FILES, reader)


async def planned(request: FillRequest, *images: Image) -> list[str]:
    """Return the paths of what is to be fetched, checked to be had of the right image."""
    names = {part_of(path, size): path for path in FILES for size in (PART_BYTES, 2 << 20)}
    wanted = await plan(request, images)
    for store, part, _ in wanted:
        (owner,) = [image for image in images if image.store is store]
        assert owner.layout.distinct_parts()[part.checksum] == part
    return [names[part] for _, part, _ in wanted]


METADATA = [
    ".disk/info",
    "dists/bookworm/Release",
    "dists/bookworm/main/binary-amd64/Packages",
    "boot/grub/grub.cfg",
    "isolinux/isolinux.bin",
    "EFI/boot/grubx64.efi",
    "Install.amd/vmlinuz",
    "installers.txt/really a directory",
    "README.txt",
]


async def test_metadata(image: Image) -> None:
    """What an installer reads first, in its order, whatever the case of the names; small files last."""
    assert await planned(FillRequest(metadata=True), image) == METADATA


async def test_large_files_at_the_top(reader: ImageReader) -> None:
    """A file at the top is read early only if it costs little."""
    large = image_of(["README.txt", ".disk/info"], reader, size=2 << 20)
    assert await planned(FillRequest(metadata=True), large) == [".disk/info"]


async def test_the_order_of_wishes(image: Image) -> None:
    """A list goes first, then metadata, globs, the range and all the rest; repeated parts are no matter."""
    layout = image.layout
    begin = next(at for at, part in layout.parts() if part == part_of("doc/boot/manual.txt"))
    request = FillRequest(
        parts=(part_of("pool/main/l/less.deb"), part_of("nowhere"), part_of("README.txt", 5)),
        metadata=True,
        globs=("pool/main/l/linux*", "README*"),
        range=(begin, begin + 1),
        everything=True,
    )
    expected = [
        "pool/main/l/less.deb",
        *METADATA,
        "pool/main/l/linux.deb",
        "README.txt",
        "doc/boot/manual.txt",
    ]
    assert await planned(request, image) == [*expected, *FILES]


async def test_a_list_goes_by_its_own_order(image: Image) -> None:
    """The order of a list is that of the run that wrote it, not that of the image."""
    listed = [FILES[number] for number in (5, 0, 12, 3)]
    request = FillRequest(parts=tuple(map(part_of, listed)))
    assert await planned(request, image) == listed


async def test_several_images(reader: ImageReader) -> None:
    """Wishes go before images: what is urgent of the second comes before the rest of the first."""
    one, two = image_of(FILES[:4], reader), image_of(FILES[4:], reader, "two.iso")
    listed = (FILES[11], FILES[1], FILES[6])
    request = FillRequest(parts=tuple(map(part_of, listed)), metadata=True, globs=("doc",), everything=True)
    metadata = [
        *[path for path in METADATA if path in FILES[:4]],
        *[path for path in METADATA if path in FILES[4:]],
    ]
    assert await planned(request, one, two) == [*listed, *metadata, "doc/boot/manual.txt", *FILES]


async def test_one_of_several_images(reader: ImageReader) -> None:
    """An image can be named; a name that none has is told together with those that there are."""
    one, two = image_of(FILES[:4], reader), image_of(FILES[4:], reader, "two.iso")
    assert await planned(FillRequest(everything=True, image="two.iso"), one, two) == [*FILES[4:]]
    with pytest.raises(NoSuchFile, match=r"no image `three'; there is one.iso, two.iso"):
        await plan(FillRequest(everything=True, image="three"), [one, two])


async def test_a_part_of_two_images(reader: ImageReader) -> None:
    """A listed part that two images have is wanted once."""
    one, two = image_of(FILES, reader), image_of(FILES, reader, "two.iso")
    assert await planned(FillRequest(parts=(part_of(FILES[2]),)), one, two) == [FILES[2]]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("pool/main/l/linux.deb", ["pool/main/l/linux.deb"]),
        ("/pool/main/l/linux.deb", ["pool/main/l/linux.deb"]),
        ("pool/main/l", ["pool/main/l/linux.deb", "pool/main/l/less.deb"]),
        ("pool/main/l/", ["pool/main/l/linux.deb", "pool/main/l/less.deb"]),
        ("dists", ["dists/bookworm/Release", "dists/bookworm/main/binary-amd64/Packages"]),
        ("pool/*.deb", ["pool/main/l/linux.deb", "pool/main/l/less.deb", "pool/main/[odd]*.deb"]),
        ("*/Packages", ["dists/bookworm/main/binary-amd64/Packages"]),
        ("*boot", ["EFI/boot/grubx64.efi", "doc/boot/manual.txt", "boot/grub/grub.cfg"]),
        ("pool/main/[[]odd]*", ["pool/main/[odd]*.deb"]),
        ("p??l/main/l/l[ai]*", ["pool/main/l/linux.deb"]),
        ("empty", []),
        ("/", [*FILES]),
        ("*", [*FILES]),
    ],
)
async def test_globs(image: Image, glob: str, expected: list[str]) -> None:
    """`*` matches slashes, too; a directory means all in it, each file once, in the order of the image."""
    assert await planned(FillRequest(globs=(glob,)), image) == expected


@pytest.mark.parametrize("glob", ["nowhere", "main", "POOL", "pool/main/l/linux.deb/x", "pool//main"])
async def test_a_glob_that_nothing_matches(image: Image, glob: str) -> None:
    """Most probably it is a typing error, so nothing is fetched at all."""
    with pytest.raises(NoSuchFile, match=r"nothing in one\.iso matches"):
        await plan(FillRequest(globs=("pool", glob)), [image])


async def test_a_glob_that_matches_in_one_of_several_images(reader: ImageReader) -> None:
    """A set of DVDs has each package on one of them: it is enough that one image has it."""
    one, two = image_of(FILES[:4], reader), image_of(FILES[4:], reader, "two.iso")
    assert await planned(FillRequest(globs=("doc", "README.txt")), one, two) == [
        "README.txt",
        "doc/boot/manual.txt",
    ]
    with pytest.raises(NoSuchFile, match=r"nothing in one.iso, two.iso matches `nowhere'"):
        await plan(FillRequest(globs=("doc", "nowhere")), [one, two])


async def test_ranges(image: Image) -> None:
    """A range touches the parts that have a byte in it, and none for a byte more."""
    step, length = PART_BYTES + GAP_BYTES, image.layout.length
    cases: list[tuple[int, int, Sequence[str]]] = [
        (0, HEAD_BYTES, []),
        (0, HEAD_BYTES + 1, FILES[:1]),
        (HEAD_BYTES + PART_BYTES - 1, HEAD_BYTES + step, FILES[:1]),
        (HEAD_BYTES + PART_BYTES, HEAD_BYTES + step, []),
        (HEAD_BYTES + step - 1, HEAD_BYTES + 2 * step + 1, FILES[1:3]),
        (0, length, FILES),
    ]
    for begin, end, expected in cases:
        assert await planned(FillRequest(range=(begin, end)), image) == [*expected], (begin, end)


@pytest.mark.parametrize("span", [(0, 0), (5, 4), (-1, 4), (0, 1 << 40)])
async def test_a_range_that_is_none(image: Image, span: tuple[int, int]) -> None:
    """What does not lie in the image is an error that tells how long the image is."""
    with pytest.raises(UsageError, match=f"{image.layout.length} bytes"):
        await plan(FillRequest(range=span), [image])


async def test_a_range_of_several_images(reader: ImageReader, image: Image) -> None:
    """A range means nothing where there are several images."""
    with pytest.raises(UsageError, match="of one image"):
        await plan(FillRequest(range=(0, 5)), [image, image_of(FILES, reader, "two.iso")])


async def test_a_part_that_occurs_twice(reader: ImageReader) -> None:
    """Of everything a repeated part is wanted once, in its first place."""
    one, two = part_of(FILES[0]), part_of(FILES[1])
    layout = Layout([MatchedFile(part.length, part.checksum) for part in (one, two, one)])
    image = Image("one.iso", layout, reader, Files(None))
    assert await planned(FillRequest(everything=True), image) == [*FILES[:2]]


async def test_an_image_that_is_no_iso(reader: ImageReader, image: Image) -> None:
    """It has no metadata, which is no error beside other wishes; a glob in it is one, and told as such."""
    other = Image("two.tar", image.layout, reader, Files(None))
    assert await planned(FillRequest(metadata=True, everything=True), other) == [*FILES]
    with pytest.raises(FormatError, match=r"two.tar: is no ISO 9660 image"):
        await plan(FillRequest(globs=("*",)), [other])
    assert await planned(FillRequest(globs=("doc",)), image, other) == ["doc/boot/manual.txt"]
    assert await planned(FillRequest(metadata=True), other) == []
    assert await planned(FillRequest(metadata=True), other, image) == METADATA


async def test_directories_that_cannot_be_read(tmp_path: Path) -> None:
    """What installers read first is a matter of order: everything is fetched all the same."""
    path = tmp_path / "changed.iso"
    path.write_bytes(bytes(HEAD_BYTES))
    plain = PlainImage(str(path), os.open(path, os.O_RDONLY))
    path.write_bytes(bytes(HEAD_BYTES + 1))
    reader = ImageReader(plain.layout, plain, NoParts(), timeout_s=10, readahead_bytes=0)
    image = image_of(FILES[:2], reader)
    image.contents.known = None
    assert await planned(FillRequest(metadata=True, everything=True), image) == [*FILES[:2]]
    assert await planned(FillRequest(parts=(part_of(FILES[1]),), metadata=True), image) == [FILES[1]]
    other = image_of(FILES[7:8], reader, "two.iso")
    assert await planned(FillRequest(metadata=True), image, other) == [FILES[7]]
    for request in (FillRequest(metadata=True), FillRequest(globs=("*",))):
        with pytest.raises(SourceChanged):
            await plan(request, [image])
    plain.close()


async def test_a_plain_image(reader: ImageReader, image: Image) -> None:
    """Of an image that lies here as a whole nothing is fetched, and a glob may match in it alone."""
    plain = Image("plain.iso", Layout([UnmatchedData(1 << 20)]), reader, image.contents, store=None)
    for request in (
        FillRequest(everything=True),
        FillRequest(metadata=True),
        FillRequest(globs=("pool/*",)),
        FillRequest(range=(0, 1 << 20)),
        FillRequest(parts=(part_of(FILES[0]),)),
    ):
        assert await planned(request, plain) == []
    other = image_of(FILES[:2], reader, "two.iso")
    assert await planned(FillRequest(globs=("doc", "README*")), plain, other) == ["README.txt"]
    with pytest.raises(UsageError):
        await plan(FillRequest(range=(0, (1 << 20) + 1)), [plain])


# -- what is asked for from the start ----------------------------------------------------------------


def test_the_first_request(tmp_path: Path) -> None:
    """The options become wishes; without any there is no request."""
    path = tmp_path / "list"
    path.write_text(FIRST_LINE + line(part_of("x"), "x"))
    listed = (part_of("x"),)
    assert initial_request(BackgroundOptions()) is None
    assert initial_request(BackgroundOptions(first=path)) == FillRequest(listed)
    assert initial_request(BackgroundOptions("metadata")) == FillRequest(metadata=True)
    assert initial_request(BackgroundOptions("all", path)) == FillRequest(
        listed, metadata=True, everything=True
    )
    path.write_text(FIRST_LINE)
    assert initial_request(BackgroundOptions(first=path)) is None


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "garbage", "device"])
def test_a_list_that_is_none(tmp_path: Path, kind: str) -> None:
    """What cannot be read, or is something else, is an error that names it, in bounded time and memory."""
    path = tmp_path / "list"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "garbage":
        path.write_bytes(bytes(range(256)))
    elif kind == "device":
        path = Path("/dev/zero")
    with pytest.raises((InputError, FormatError), match=str(path)) as caught:
        initial_request(BackgroundOptions(first=path))
    assert isinstance(caught.value, JigdofsError)
    assert caught.value.exit_code == 3
