"""Give the tests their servers and images, and fail a test whose log has a warning it did not announce."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kit import images
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.nginx import Nginx

_EXPECTED = pytest.StashKey[list[str]]()
_SEEN = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "logs(*substrings): 'jigdofs' logs a WARNING or worse with each of these texts, and no other",
    )


class _Collector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


def _announced(item: pytest.Item) -> list[str]:
    return item.stash.get(_EXPECTED, []) + [text for mark in item.iter_markers("logs") for text in mark.args]


@contextmanager
def _checked_log(item: pytest.Item) -> Iterator[None]:
    """Collect what 'jigdofs' logs meanwhile, and fail where it was not announced."""
    handler = _Collector([])
    logger = logging.getLogger("jigdofs")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        item.stash.setdefault(_SEEN, []).extend(handler.lines)
    unexpected = [line for line in handler.lines if not any(text in line for text in _announced(item))]
    if unexpected:
        pytest.fail("unexpected in the log:\n" + "\n".join(unexpected), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    with _checked_log(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    with _checked_log(item):
        yield
    missing = [text for text in _announced(item) if not any(text in line for line in item.stash[_SEEN])]
    if missing:
        pytest.fail(f"announced, but not in the log: {missing}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    with _checked_log(item):
        yield


@pytest.fixture
def expected_log(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that announces a log message, as the mark `logs` does, while the test runs."""
    texts: list[str] = request.node.stash.setdefault(_EXPECTED, [])
    return texts.append


@pytest.fixture
def faulty_server() -> Iterator[FaultyServer]:
    """A server without files: set `faulty_server.files`."""
    with FaultyServer() as server:
        yield server


@pytest.fixture
def nginx() -> Iterator[Callable[..., Nginx]]:
    """Start nginx on a directory: `nginx(root)` or `nginx(root, "limit_rate 1m;")`, as often as needed."""
    with ExitStack() as stack:
        yield lambda root, directives="": stack.enter_context(Nginx(root, directives))


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A directory that other users can enter, as `tmp_path` is not."""
    path = Path(tempfile.mkdtemp(prefix="kit-public-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


# Images are made once and not to be written to: BuiltImage.with_servers() makes a .jigdo for a test's server.


def _built_once(build: Callable[[Path], BuiltImage], name: str) -> Callable[..., BuiltImage]:
    @pytest.fixture(scope="session", name=name)
    def fixture(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
        return build(tmp_path_factory.mktemp(name))

    return fixture


iso_md5 = _built_once(images.iso_by_jigdo_file, "iso_md5")
iso_sha256 = _built_once(lambda tmp: images.iso_by_jigdo_file(tmp, "sha256"), "iso_sha256")
iso_bzip2 = _built_once(lambda tmp: images.iso_by_jigdo_file(tmp, bzip2=True), "iso_bzip2")
iso_jte_md5 = _built_once(images.iso_by_xorriso, "iso_jte_md5")
iso_jte_sha256 = _built_once(lambda tmp: images.iso_by_xorriso(tmp, "sha256"), "iso_jte_sha256")
squashfs_md5 = _built_once(images.squashfs, "squashfs_md5")
ext4_sha256 = _built_once(lambda tmp: images.ext4(tmp, "sha256"), "ext4_sha256")
tar_md5 = _built_once(images.tar, "tar_md5")

ALL_IMAGES = (
    "iso_md5",
    "iso_sha256",
    "iso_bzip2",
    "iso_jte_md5",
    "iso_jte_sha256",
    "squashfs_md5",
    "ext4_sha256",
    "tar_md5",
)


@pytest.fixture(params=ALL_IMAGES)
def any_image(request: pytest.FixtureRequest) -> BuiltImage:
    """Each of the images in turn."""
    built = request.getfixturevalue(request.param)
    assert isinstance(built, BuiltImage)
    return built
