"""The rules of the house (design.md 3), read from the imports; and what a start of the program may load."""

import ast
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from jigdofs.cli import VERBS
from jigdofs.demo import build
from tests.kit.mounts import REPOSITORY, Mounted

PACKAGE = REPOSITORY / "jigdofs"
HEAVY = (
    "trio",
    "httpx",
    "diskcache",
    "pycdlib",
    "rich",
    "pyfuse3",
    "numpy",
    "hypercorn",
    "prometheus_client",
)
# one gate per third party: what may import it
GATES = {
    "httpcore": "jigdofs.fetch.http",
    "httpx": "jigdofs.fetch.http",
    "diskcache": "jigdofs.parts.index",
    "pycdlib": "jigdofs.iso9660.volume",
    "pyfuse3": "jigdofs.fuse",
    "numpy": "jigdofs.create",
    "hypercorn": "jigdofs.serve.connections",
    "prometheus_client": "jigdofs.control.metrics",
}


@dataclass(frozen=True)
class Import:
    """One import of one module by another; `late` ones stand in a function or for the type checker only."""

    importer: str
    imported: str
    line: int
    late: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(name: str, path: Path) -> Iterator[Import]:
    """Yield every import of a module; of `from package import module` the module is meant."""
    tree = ast.parse(path.read_bytes(), str(path))
    early = {id(node) for statement in tree.body for node in at_import(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide where they lead"
            assert node.module is not None
            found = [
                submodule if (submodule := f"{node.module}.{alias.name}") in MODULES else node.module
                for alias in node.names
            ]
        else:
            continue
        for imported in dict.fromkeys(found):
            yield Import(name, imported, node.lineno, late=id(node) not in early)


def at_import(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield what of a statement is executed when the module is imported."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
        return
    yield statement
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            yield from at_import(child)


IMPORTS = [found for name, path in MODULES.items() for found in imports_of(name, path)]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def ours() -> list[Import]:
    return [found for found in IMPORTS if within(found.imported, "jigdofs")]


def offences(importers: str, imported: str, *allowed: str) -> list[str]:
    """Return the imports of `imported` from within `importers` that are not allowed."""
    return [
        f"{MODULES[found.importer].relative_to(REPOSITORY)}:{found.line} imports {found.imported}"
        for found in IMPORTS
        if within(found.importer, importers)
        and within(found.imported, imported)
        and not any(within(found.imported, name) for name in allowed)
    ]


def test_the_package_was_found() -> None:
    """The rules below are about something: the rooms of the house are there, and they do import."""
    assert {"jigdofs.errors", "jigdofs.cli.mount", "jigdofs.fuse.operations"} <= MODULES.keys()
    for third_party, gate in GATES.items():
        gates = [found for found in IMPORTS if within(found.imported, third_party)]
        assert any(within(found.importer, gate) for found in gates), third_party
    assert any(found.late for found in ours())
    assert any(not found.late for found in ours())


def test_format_is_pure() -> None:
    """`format` imports nothing of ours but the errors, and nothing that reads or fetches."""
    assert offences("jigdofs.format", "jigdofs", "jigdofs.format", "jigdofs.errors") == []
    third_party = {
        found.imported.partition(".")[0] for found in IMPORTS if within(found.importer, "jigdofs.format")
    }
    assert third_party <= sys.stdlib_module_names | {"jigdofs"}
    assert not third_party & {"pathlib", "socket", "subprocess", "tempfile", "threading", "urllib"}


def test_errors_and_config_stand_alone() -> None:
    """Everybody imports them, so they import nobody."""
    assert offences("jigdofs.errors", "jigdofs") == []
    assert offences("jigdofs.config", "jigdofs") == []


def test_image_and_parts_do_not_know_each_other() -> None:
    """They meet in a protocol and in the wiring."""
    assert offences("jigdofs.image", "jigdofs.parts") == []
    assert offences("jigdofs.parts", "jigdofs.image") == []


def test_image_knows_no_http_cache_or_fuse() -> None:
    """The virtual image is arithmetic and reading: how bytes are had is not its business."""
    for room in ("jigdofs.fetch", "jigdofs.fuse", "jigdofs.cli", "jigdofs.wiring", "httpx", "diskcache"):
        assert offences("jigdofs.image", room) == []


def test_sources_know_files_only() -> None:
    """Local files and old images are read by blocking code that knows no loop, cache, mirror or mount."""
    rooms = ("jigdofs.sources", "jigdofs.errors", "jigdofs.format", "jigdofs.iso9660")
    assert offences("jigdofs.sources", "jigdofs", *rooms, "jigdofs.parts.open_file") == []
    assert offences("jigdofs.iso9660", "jigdofs", "jigdofs.iso9660", "jigdofs.errors") == []
    assert offences("jigdofs.sources", "trio") == []


def test_lower_rooms_do_not_import_higher_ones() -> None:
    """Imports point down only."""
    floors = [
        (
            "jigdofs.errors",
            "jigdofs.config",
            "jigdofs.rate",
            "jigdofs.size_text",
            "jigdofs.completion",
            "jigdofs.settings",
            "jigdofs.in_thread",
        ),
        ("jigdofs.format", "jigdofs.names"),
        ("jigdofs.fetch", "jigdofs.image", "jigdofs.hashing", "jigdofs.named_files", "jigdofs.iso9660"),
        ("jigdofs.parts",),
        ("jigdofs.sources",),
        ("jigdofs.build", "jigdofs.create", "jigdofs.contents"),
        ("jigdofs.documents", "jigdofs.templates", "jigdofs.load"),
        ("jigdofs.check_urls", "jigdofs.download", "jigdofs.local_parts", "jigdofs.plain_image"),
        ("jigdofs.prefetch",),
        ("jigdofs.wiring",),
        ("jigdofs.batch",),
        ("jigdofs.fuse", "jigdofs.control", "jigdofs.serve", "jigdofs.service_manager"),
        ("jigdofs.cli",),
    ]
    for height, floor in enumerate(floors):
        above = [room for higher in floors[height + 1 :] for room in higher]
        # the kernel's face reads images, it does not put them together; the wiring shows no face
        assert [offence for room in floor for upper in above for offence in offences(room, upper)] == []
    assert offences("jigdofs.fuse", "jigdofs.wiring") == []


@pytest.mark.parametrize("third_party", GATES)
def test_one_gate_per_third_party(third_party: str) -> None:
    """One place imports httpx and httpcore, one diskcache, one pycdlib; `fuse` pyfuse3, `create` numpy."""
    gate = GATES[third_party]
    importers = {found.importer for found in IMPORTS if within(found.imported, third_party)}
    assert {importer for importer in importers if not within(importer, gate)} == set()


def test_no_cycles() -> None:
    """No two modules import each other, not even by a detour or late."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in ours():
        if found.imported != found.importer:
            graph[found.importer].add(found.imported)
    graph["jigdofs.cli"] -= {name for name in MODULES if within(name, "jigdofs.cli")}  # it loads the verbs
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a cycle: {' -> '.join(error.args[1])}")
    assert len(order) >= len(MODULES)


def test_no_module_without_a_subject() -> None:
    """Nothing is called utils, helpers, common or misc."""
    words = {word for path in PACKAGE.rglob("*") for word in path.stem.lower().split("_")}
    assert not words & {"util", "utils", "helper", "helpers", "common", "misc", "stuff", "base"}


def run(code: str, *arguments: str) -> str:
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORT_ALL = """
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pyfuse3":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name == "pyfuse3", error
        print(name)
"""


def test_everything_but_fuse_works_without_pyfuse3() -> None:
    """On a machine without libfuse all modules can be imported, save those of the kernel's face."""
    names = [name for name in MODULES if name != "jigdofs.__main__"]
    refused = run(IMPORT_ALL, *names).split()
    assert "jigdofs.fuse.operations" in refused
    assert [name for name in refused if not within(name, "jigdofs.fuse")] == []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["mount", "--help"], ["ls", "--help"]], ids=str
)
def test_help_is_quick(arguments: list[str]) -> None:
    """To say what it can do the program loads none of the heavy libraries."""
    code = f"""
import sys
from jigdofs.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert end.code == 0
print("loaded:", *({HEAVY!r} & sys.modules.keys()))
""".replace(repr(HEAVY), repr(set(HEAVY)))
    assert run(code).splitlines()[-1] == "loaded:"


# what a mount of local files has no use for, whoever would import it
IDLE = ("httpx", "httpcore", "h11", "anyio", "asyncio", "certifi", "pycdlib", "rich", "numpy", "hypercorn")
IDLE_ROOMS = (
    "batch",
    "build",
    "check_urls",
    "create",
    "demo",
    "download",
    "fetch.http",
    "iso9660.volume",
    "serve",
)
NEEDED = {"trio", "pyfuse3", "diskcache", "jigdofs.fuse.operations", "jigdofs.wiring.images"}


def loaded_by_mount(directory: Path, *options: str) -> set[str]:
    """Mount an image whose parts are local, read it, and return the names of all modules this took."""
    site = directory / "site"
    site.mkdir()
    image = build(site, 2)
    options = ("--mirror", f"Demo={site}/", "--cache-dir", str(directory / "cache"), *options)
    program = (sys.executable, "-X", "importtime", "-m", "jigdofs")
    with Mounted(site / "demo.jigdo", directory / "mnt", options, program=program) as mounted:
        content = (directory / "mnt" / image.name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == image.sha256
    lines = (line.rpartition("|") for line in mounted.stderr() if line.startswith("import time:"))
    return {name.strip() for _, _, name in lines}


def test_a_mount_loads_what_it_uses(tmp_path: Path) -> None:
    """No HTTP, no ISO reader, nothing of other verbs: a mount of local files starts without them."""
    loaded = loaded_by_mount(tmp_path)
    assert loaded >= NEEDED
    assert {name for name in loaded for idle in IDLE if within(name, idle)} == set()
    assert {name for name in loaded for room in IDLE_ROOMS if within(name, f"jigdofs.{room}")} == set()
    # the verb itself is loaded by name, which -X importtime does not tell
    assert {verb for verb in VERBS if f"jigdofs.cli.{verb.replace('-', '_')}" in loaded} == set()
