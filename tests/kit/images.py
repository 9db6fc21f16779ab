"""Make small images and their .jigdo and .template with the real tools, the same bytes on every run.

A builder fills its directory with `pool/` (where parts come from), `site/` (what belongs to no part) and the
results. Some names in the pool are meant to hurt. One pool file has a copy in `site/`, so that its part
occurs twice, except under libjte, which wants the same name too.
"""

import gzip
import hashlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tests.kit.requirements import tool

Algorithm = Literal["md5", "sha256"]
Servers = Mapping[str, str | Iterable[str]]

_EPOCH = 1_690_000_000
_MIN_PART = 1024
_ODD_NAMES = (
    b"with blank.bin",
    b'it\'s "quoted".bin',
    b"per%41cent%.bin",
    b"ha#sh?query.bin",
    "caf\u00e9-\u96ea.bin".encode(),
    b"latin-\xfc.bin",
    b"back\\slash.bin",
    b"semi;colon:=+&~$.bin",
    b"[Parts].bin",
    b"--try-last",
)
_EDGE_SIZES = (_MIN_PART - 1, _MIN_PART, _MIN_PART + 1, 2047, 2048, 2049, 131062, 131063, 131064, 262144)


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """Name an image, its .jigdo and .template, and the pool that holds its parts.

    `parts` maps the hexadecimal checksum of each part in the template to its path below `pool`.
    """

    image: Path
    jigdo: Path
    template: Path
    pool: Path
    algorithm: Algorithm
    parts: Mapping[str, str]

    def with_servers(self, directory: Path, servers: Servers) -> "BuiltImage":
        """Return it with a .jigdo in `directory` that names other servers, and the template beside it."""
        directory.mkdir(parents=True, exist_ok=True)
        jigdo, template = directory / self.jigdo.name, directory / self.template.name
        jigdo.write_bytes(_set_servers(self.jigdo.read_bytes(), servers))
        shutil.copyfile(self.template, template)
        return replace(self, jigdo=jigdo, template=template)


def make_pool(directory: Path, seed: int = 1) -> Path:
    """Write the pool: thirty files of 1 KB to 300 KB and one of 3 MB, reproducibly."""
    source = random.Random(seed)
    pool = directory / "pool"
    folders = [pool / "main" / "a", pool / "main" / "sub dir"]
    names = [
        *_ODD_NAMES,
        *(b"size-%06d.bin" % size for size in _EDGE_SIZES),
        *(b"plain-%02d.deb" % n for n in range(10)),
    ]
    sizes = [source.randint(1500, 60_000) for _ in _ODD_NAMES]
    sizes += [*_EDGE_SIZES, *(source.randint(10_000, 300_000) for _ in range(10))]
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        folder = folders[number % len(folders)]
        _write(folder / os.fsdecode(name), source.randbytes(size))
    _write(folders[0] / "large.deb", source.randbytes(3_000_000))
    return pool


def iso_by_jigdo_file(
    tmp: Path, algorithm: Algorithm = "md5", *, bzip2: bool = False, servers: Servers | None = None
) -> BuiltImage:
    """Make an ISO with xorriso and let jigdo-file find the parts in it."""
    pool, site = _prepare(tmp)
    image = tmp / "kit.iso"
    _run([*_xorriso(), "-o", image.name, "-graft-points", f"/pool={pool.name}", f"/={site.name}"], tmp)
    return _make_template(image, pool, algorithm, servers, bzip2=bzip2)


def roomy_iso(tmp: Path, algorithm: Algorithm = "md5") -> BuiltImage:
    """Make an ISO with so much unmatched data around every part that no reader reaches two at a time.

    xorriso reads tiles of 64 KiB, and the kernel reads some hundred KiB ahead of it: in a small image that
    is several parts, which says nothing about how lazy a mount is.
    """
    pool, site = tmp / "pool", tmp / "site"
    source = random.Random(3)
    _write(site / "a-first.bin", source.randbytes(1_200_000))
    for number, size in enumerate((100_000, 250_000, 1_000_000, 250_001)):
        _write(pool / "main" / f"roomy-{number}.deb", source.randbytes(size))
        _write(site / "pool" / "main" / f"roomy-{number}.gap", source.randbytes(1_200_000))
    _write(site / "z-last.bin", source.randbytes(1_200_000))
    image = tmp / "roomy.iso"
    _run([*_xorriso(), "-o", image.name, "-graft-points", f"/pool={pool.name}", f"/={site.name}"], tmp)
    return _make_template(image, pool, algorithm, None)


def iso_by_xorriso(tmp: Path, algorithm: Algorithm = "md5", *, servers: Servers | None = None) -> BuiltImage:
    """Make ISO, .jigdo and .template with xorriso alone (libjte), the .jigdo gzipped as Debian's are.

    libjte quotes nothing in `[Parts]` and writes `Filename=stdio:...`; only its useless Template is mended.
    """
    pool, site = _prepare(tmp)
    image, template = tmp / "kit.iso", tmp / "kit.template"
    listed = [
        b"%s  %12d  %s\n" % (hashlib.new(algorithm, data).hexdigest().encode(), len(data), os.fsencode(file))
        for file in _files(pool)
        for data in [file.read_bytes()]
    ]
    (tmp / "checksums").write_bytes(b"".join(listed))
    jte = [
        "-jigdo-jigdo",
        "raw.jigdo",
        "-jigdo-template",
        template.name,
        "-jigdo-min-file-size",
        str(_MIN_PART),
    ]
    jte += [
        "-jigdo-checksum-algorithm",
        algorithm,
        "-checksum-list",
        "checksums",
        "-jigdo-map",
        f"Debian={pool}/",
    ]
    jte += ["-checksum_algorithm_iso", "md5,sha1,sha256,sha512", "-checksum_algorithm_template", "md5,sha256"]
    _run([*_xorriso(), *jte, "-o", image.name, "-graft-points", f"/pool={pool.name}", f"/={site.name}"], tmp)
    raw = (tmp / "raw.jigdo").read_bytes()
    jigdo = tmp / "kit.jigdo"
    jigdo.write_bytes(gzip.compress(raw.replace(b"Template=http://localhost/", b"Template="), mtime=0))
    return _built(image, pool, algorithm, servers)


def squashfs(tmp: Path, algorithm: Algorithm = "md5", *, servers: Servers | None = None) -> BuiltImage:
    """Make a squashfs that stores files as they are."""
    pool, tree = _prepare_tree(tmp)
    image = tmp / "kit.squashfs"
    plain = ["-noI", "-noD", "-noF", "-noX", "-no-fragments", "-no-duplicates", "-no-exports", "-all-root"]
    _run([tool("mksquashfs"), tree.name, image.name, *plain, "-quiet", "-no-progress"], tmp)
    return _make_template(image, pool, algorithm, servers)


def ext4(tmp: Path, algorithm: Algorithm = "md5", *, servers: Servers | None = None) -> BuiltImage:
    """Make an ext4 file system."""
    pool, tree = _prepare_tree(tmp)
    image = tmp / "kit.ext4"
    fixed = "6a696764-6f66-7300-0000-000000000001"
    form = [
        "-b",
        "4096",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-U",
        fixed,
        "-E",
        f"hash_seed={fixed},root_owner=0:0",
    ]
    _run([tool("mke2fs"), "-q", "-F", "-t", "ext4", *form, "-d", tree.name, image.name, "24M"], tmp)
    return _make_template(image, pool, algorithm, servers)


def tar(tmp: Path, algorithm: Algorithm = "md5", *, servers: Servers | None = None) -> BuiltImage:
    """Make an uncompressed tar archive."""
    pool, tree = _prepare_tree(tmp)
    image = tmp / "kit.tar"
    owner = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", f"--mtime=@{_EPOCH}"]
    _run([tool("tar"), "-C", tree.name, *owner, "-cf", image.name, "."], tmp)
    return _make_template(image, pool, algorithm, servers)


def _prepare(tmp: Path) -> tuple[Path, Path]:
    """Write pool and site; site has text, zeros that deflate to nothing, and noise for several chunks."""
    tmp.mkdir(parents=True, exist_ok=True)
    pool, site = make_pool(tmp), tmp / "site"
    source = random.Random(2)
    _write(site / "README.txt", b"".join(b"line %d of the image's own text\n" % n for n in range(300)))
    _write(site / "zeros.bin", bytes(1_500_000))
    _write(site / "noise.bin", source.randbytes(900_001))
    _write(site / "empty", b"")
    _write(site / "copy.bin", (pool / "main" / "a" / "plain-00.deb").read_bytes())
    for folder, _, _ in os.walk(tmp, topdown=False):
        os.utime(folder, (_EPOCH, _EPOCH))
    return pool, site


def _prepare_tree(tmp: Path) -> tuple[Path, Path]:
    pool, site = _prepare(tmp)
    tree = tmp / "tree"
    for root, target in ((pool, tree / "pool"), (site, tree)):
        shutil.copytree(root, target, dirs_exist_ok=True)  # keeps the times
    return pool, tree


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (_EPOCH, _EPOCH))


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*"), key=os.fsencode) if path.is_file())


def _xorriso() -> list[str]:
    return [tool("xorriso"), "-as", "mkisofs", "-quiet", "-r", "-V", "JIGDOFS_KIT"]


def _run(command: list[str], cwd: Path) -> bytes:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("LC_")}
    environ |= {"LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(_EPOCH), "TZ": "UTC"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, check=False)
    assert done.returncode == 0, (
        f"{command} returned {done.returncode}: {done.stderr.decode(errors='replace')}"
    )
    return done.stdout


def _make_template(
    image: Path, pool: Path, algorithm: Algorithm, servers: Servers | None, *, bzip2: bool = False
) -> BuiltImage:
    name = image.stem
    command = [tool("jigdo-file"), "make-template", "--no-cache", "--report=quiet", f"--image={image.name}"]
    command += [f"--jigdo={name}.jigdo", f"--template={name}.template", f"--checksum-algorithm={algorithm}"]
    command += ["--bzip2"] if bzip2 else []
    _run([*command, "--label", f"Debian={pool.name}", f"{pool.name}//main"], image.parent)
    return _built(image, pool, algorithm, servers)


def _built(image: Path, pool: Path, algorithm: Algorithm, servers: Servers | None) -> BuiltImage:
    jigdo, template = image.with_suffix(".jigdo"), image.with_suffix(".template")
    jigdo.write_bytes(_set_servers(jigdo.read_bytes(), servers or {"Debian": f"file:{pool}/"}))
    listing = _run([tool("jigdo-file"), "list-template", "--hex", f"--template={template}"], image.parent)
    needed = {line.split()[3].decode() for line in listing.splitlines() if line.startswith(b"need-file-")}
    paths = {hashlib.new(algorithm, file.read_bytes()).hexdigest(): file for file in _files(pool)}
    parts = {checksum: str(paths[checksum].relative_to(pool)) for checksum in sorted(needed)}
    return BuiltImage(image, jigdo, template, pool, algorithm, parts)


def _set_servers(jigdo: bytes, servers: Servers) -> bytes:
    """Return the .jigdo with these servers instead of its own, gzipped if it was."""
    zipped = jigdo.startswith(b"\x1f\x8b")
    text = gzip.decompress(jigdo) if zipped else jigdo
    text = re.sub(rb"(?ms)^\[Servers\].*?(?=^\[|\Z)", b"", text).rstrip(b"\n") + b"\n\n[Servers]\n"
    for label, urls in servers.items():
        for url in [urls] if isinstance(urls, str) else urls:
            text += os.fsencode(f"{label}={url}\n")
    return gzip.compress(text, mtime=0) if zipped else text
