"""The targets of the fuzzer: each takes any bytes, and raises nothing where all promises are kept."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.campaigns.fuzzing import isos, jigdos, serving, templates, texts

CORPUS = Path(__file__).parent.parent / "corpus"
HANG_S = 1.0
"""Processor time that one input may take. The clock on the wall would tell what else the machine does."""
MEMORY_MIB = 256


@dataclass(frozen=True, slots=True)
class Target:
    """What is fed with inputs.

    Attributes:
        name: also of the directory of its corpus.
        check: raises `AssertionError` for a broken promise, or whatever the product should not have raised.
        max_bytes: of an input.
        modules: where an input that goes a new way is worth keeping.
        hang_s: processor time that one input may take.
        memory_mib: what the process may take.
        words: what mutations put in, as in a dictionary.
    """

    name: str
    check: Callable[[bytes], None]
    max_bytes: int
    modules: tuple[str, ...]
    hang_s: float = HANG_S
    memory_mib: int = MEMORY_MIB
    words: tuple[bytes, ...] = ()

    def corpus(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of the inputs that are kept with the sources."""
        for path in sorted((CORPUS / self.name).glob("*")):
            yield path.name, path.read_bytes()


_FORMAT = ("jigdofs.format", "jigdofs.names")
_JIGDO_WORDS = (
    b"[Jigdo]\n",
    b"[Image]\n",
    b"[Parts]\n",
    b"[Servers]\n",
    b"[Include b]\n",
    b"[Include file:c%20c]\n",
    b"Generator=libjte-1\n",
    b"Version=1.2\n",
    b"Filename=",
    b"Template=",
    b"Template-MD5Sum=",
    b"# Image Hex MD5Sum ",
    b"# Image size 5 bytes\n",
    b"AAAAAAAAAAAAAAAAAAAAAA=A:x\n",
    b"A" * 43 + b"=A:x\n",
    b"A=http://h/\n",
    b" --try-first=2",
    b" --try-last",
    b"''",
    b'""',
    b"\r\n",
    b"\\",
)
_HTTP_WORDS = (b"bytes=", b"bytes ", b"0-", b"-1", b",", b"*/", b'"abc"', b"W/", b"GMT", b"Mon, ", b"99999")
_TARGETS = (
    Target("jigdo", jigdos.jigdo, 4096, _FORMAT, words=_JIGDO_WORDS),
    Target("gzip", jigdos.gz, 1024, _FORMAT),
    Target("include", jigdos.include, 1600, (*_FORMAT, "jigdofs.load"), words=_JIGDO_WORDS),
    Target("merging", jigdos.merging, 2048, _FORMAT, words=_JIGDO_WORDS),
    Target("words", jigdos.a_word, 512, _FORMAT, words=(b'"', b"'", b"\\", b"#", b".iso", b"/")),
    Target(
        "parts", texts.parts, 2048, _FORMAT, words=(b"md5:" + b"0" * 32, b"sha256:" + b"0" * 64, b" 5 x\n")
    ),
    Target("template", templates.template, 4096, _FORMAT, words=(b"DATA", b"BZIP", b"DESC", b"\r\n")),
    Target("written", templates.written, 512, (*_FORMAT, "jigdofs.image")),
    Target("layout", templates.layout, 512, ("jigdofs.image",)),
    Target("chunk", templates.chunk, 512, ("jigdofs.image",)),
    Target("raw-slices", templates.raw_slices, 256, ("jigdofs.image",)),
    # the process around it bounds what pycdlib takes: 60 s of processor time, 2 GiB
    Target("iso", isos.iso, 512, ("jigdofs.iso9660", "pycdlib"), hang_s=60.0, memory_mib=2048),
    Target("tree", isos.kept, 4096, ("jigdofs.iso9660", "jigdofs.contents")),
    Target(
        "fuse-options",
        texts.fuse_options,
        512,
        ("jigdofs.cli",),
        words=(b",", b"\\,", b"mirror=A=http://h/", b"cache_dir=", b"allow_other", b"rw", b"uid=0", b"x-a=b"),
    ),
    Target(
        "values", texts.option_values, 512, ("jigdofs.cli",), words=(b"GiB", b"ms", b"off", b"file:", b"://")
    ),
    Target(
        "getopt", texts.getopt, 512, ("jigdofs.cli",), words=(b"\n--image=", b"\n-fi", b"\n--\n", b"--report")
    ),
    Target(
        "url", texts.url, 512, ("jigdofs.fetch",), words=(b"http://", b"../", b"%2e", b"?", b"#", b"@", b"//")
    ),
    Target("http-answer", texts.http_answer, 512, ("jigdofs.fetch", "email"), words=_HTTP_WORDS),
    Target("ranges", serving.ranges, 512, ("jigdofs.serve", "email"), words=_HTTP_WORDS),
    Target("page", serving.page, 512, ("jigdofs.serve",), words=(b"<", b'"', b"&lt;", b"javascript:", b"//")),
    Target(
        "answer", serving.answer, 512, ("jigdofs.serve", "jigdofs.contents"), words=(b"%2e", b"/", b"bytes=")
    ),
    Target(
        "control",
        texts.control_request,
        4096,
        ("jigdofs.control", "json"),
        words=(
            b'"do":',
            b'"prefetch"',
            b'"globs":[]',
            b'"range":[0,1]',
            b"1e999",
            b"null",
            b"\\ud800",
            b"[[[[",
        ),
    ),
)
TARGETS: Mapping[str, Target] = {target.name: target for target in _TARGETS}
