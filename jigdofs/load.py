"""From what the user names to images that can be read: .jigdo, its includes, its templates.

Invariants of this file:
* A .jigdo from the net leads to the net only: no local include, template or part.
* A template is used after its checksum matched, where the .jigdo gives one; without one a warning
  says so, as nobody can then tell a damaged template from a sound one.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import trio

from jigdofs.documents import Documents
from jigdofs.errors import FormatError, InputError, UsageError, printable
from jigdofs.fetch import url as urls
from jigdofs.format import jigdo, jigdo_limits, jigdo_reader
from jigdofs.format.label_growth import check_labels
from jigdofs.format.template import Chunk, ImageInfo, Template
from jigdofs.format.template_reader import read_template
from jigdofs.image.layout import Layout
from jigdofs.image.raw_data import TemplateFile
from jigdofs.names import leaf_name, unique_name
from jigdofs.templates import Templates, TemplateSource

_log = logging.getLogger(__name__)

MAX_INCLUDE_DEPTH = 16
MAX_INCLUDES = 256


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that is known completely, though perhaps no part of it is here yet.

    Attributes:
        name: its leaf name, safe to show in a directory.
        source: the .jigdo it came from: absolute path or URL.
        description: that .jigdo with its includes.
        section: its [Image].
        template_file: open, verified.
        template_version: of the format.
        chunks: of the template.
        layout: where every byte comes from.
        infos: length and checksums of the image, from the template.
        mtime_s: when the .jigdo was last changed, seconds since 1970; 0 if nobody says.
    """

    name: str
    source: str
    description: jigdo.JigdoFile
    section: jigdo.ImageSection
    template_file: TemplateFile
    template_version: str
    chunks: tuple[Chunk, ...]
    layout: Layout
    infos: tuple[ImageInfo, ...]
    mtime_s: float

    @property
    def directory(self) -> str | None:
        """What relative `file:` names of this .jigdo are relative to; None forbids them."""
        return None if urls.is_http(self.source) else os.getcwd()


@dataclass(frozen=True, slots=True)
class Selection:
    """Some images of one .jigdo.

    Attributes:
        source: absolute path or URL of the .jigdo.
        description: the .jigdo with its includes.
        sections: the images that were selected, in its order.
        mtime_s: when the .jigdo was last changed, seconds since 1970; 0 if nobody says.
    """

    source: str
    description: jigdo.JigdoFile
    sections: tuple[jigdo.ImageSection, ...]
    mtime_s: float


@dataclass(slots=True)
class _Seen:
    """Count what includes add up to."""

    includes: int = 0
    budget: jigdo_limits.Budget = dataclasses.field(default_factory=jigdo_limits.Budget)


class Loader:
    """Load .jigdo files and their templates.

    Args:
        documents: how .jigdo files are had.
        templates: how templates are had.
    """

    def __init__(self, documents: Documents, templates: Templates) -> None:
        self._documents = documents
        self._templates = templates

    async def load(self, source: str, image: str = "first") -> list[LoadedImage]:
        """Return the images of one .jigdo that `image` selects (see `InputOptions.image`).

        Raises:
            InputError: the .jigdo or the template cannot be had, or the template is another one.
            FormatError: one of them is malformed.
            UsageError: there is no such image.
        """
        selection = await self.select(source, image)
        loaded: list[LoadedImage] = []
        try:
            for section in selection.sections:
                loaded += [await self.open(selection, section)]
        except BaseException:
            for done in loaded:
                os.close(done.template_file.fd)
            raise
        return loaded

    async def select(self, source: str, image: str) -> Selection:
        """Read a .jigdo and select images; their templates are not asked for. Raises as `load` does."""
        source = normalise(source)
        pieces, mtime_s = await self._pieces(source, (), _Seen())
        description = jigdo.merge(pieces)
        await trio.to_thread.run_sync(check_labels, description.servers)
        if len(description.images) > jigdo_limits.MAX_IMAGES:
            raise FormatError(f"more than {jigdo_limits.MAX_IMAGES} images", source=source)
        if not description.images:
            raise InputError(f"{source}: has no [Image] section, so it says nothing about an image")
        return Selection(source, description, tuple(_select(description, image)), mtime_s)

    async def _pieces(
        self, source: str, within: tuple[str, ...], seen: _Seen
    ) -> tuple[list[jigdo.JigdoFile], float]:
        """Return the pieces of a .jigdo, includes in their places, and its date."""
        document = await self._documents.read(source, jigdo_limits.MAX_BYTES)
        pieces: list[jigdo.JigdoFile] = []
        for piece in await trio.to_thread.run_sync(jigdo_reader.parse, document.data, source, seen.budget):
            if isinstance(piece, jigdo.JigdoFile):
                pieces.append(piece)
                continue
            target = _include_target(source, piece)
            seen.includes += 1
            if target in (*within, source):
                raise FormatError(
                    f"[Include {piece.url}] leads back to itself", source=source, line=piece.line
                )
            if len(within) >= MAX_INCLUDE_DEPTH or seen.includes > MAX_INCLUDES:
                raise FormatError("too many includes", source=source, line=piece.line)
            pieces += (await self._pieces(target, (*within, source), seen))[0]
        return pieces, document.mtime_s

    async def open(self, selection: Selection, section: jigdo.ImageSection) -> LoadedImage:
        """Get the template of a selected image; the caller closes it. Raises as `load` does."""
        source = selection.source
        checksums = section.template_checksums
        if not checksums:
            shown = urls.without_credentials(source)
            _log.warning("%s: gives no checksum for its template, which can thus not be verified", shown)
        template_file = await self._templates.open(
            TemplateSource(_template_candidates(section), checksums, f"{section.base}:{section.line}")
        )
        try:
            template, layout = await trio.to_thread.run_sync(_read_layout, template_file)
        except BaseException:
            os.close(template_file.fd)
            raise
        return LoadedImage(
            name=image_name(selection, section),
            source=source,
            description=selection.description,
            section=section,
            template_file=template_file,
            template_version=template.version,
            chunks=template.chunks,
            layout=layout,
            infos=template.images,
            mtime_s=selection.mtime_s,
        )


def _read_layout(template_file: TemplateFile) -> tuple[Template, Layout]:
    """Read the template once; its packed entries are dropped, as the layout holds the same."""
    try:
        with open(os.dup(template_file.fd), "rb") as file:
            template = read_template(file, template_file.name)
    except OSError as error:
        raise InputError(f"{template_file.name}: {error.strerror}") from error
    layout = Layout.of(template.columns)
    return dataclasses.replace(template, desc=b""), layout


def normalise(source: str) -> str:
    """Return an absolute path or an http(s) URL; raise `UsageError` for anything else."""
    if urls.is_http(source):
        return source
    if source.startswith("file:"):
        source = urllib.parse.unquote(
            source.removeprefix("file:").removeprefix("//"), errors="surrogateescape"
        )
    elif urls.is_absolute(source):
        raise UsageError(f"{source}: only http:, https: and local files can be read")
    return os.path.abspath(source)


def image_name(selection: Selection, section: jigdo.ImageSection) -> str:
    """Return the leaf name of an image; not yet told apart from others of that name.

    No dot is left in front: whoever downloads into his home is not to have a `.bashrc` from a .jigdo.
    """
    names = (leaf_name(section.filename), leaf_name(Path(selection.source).stem))
    return next(filter(None, (name.lstrip(". ") for name in names)), "image")


def unique_names(images: list[LoadedImage], taken: Iterable[str] = ()) -> dict[str, LoadedImage]:
    """Give every image a name of its own that is not taken: `a.iso`, `a~2.iso`, …."""
    named: dict[str, LoadedImage] = {}
    used = set(taken)
    for image in images:
        name = unique_name(image.name, used)
        used.add(name)
        named[name] = image
    return named


def _select(description: jigdo.JigdoFile, image: str) -> list[jigdo.ImageSection]:
    images = description.images
    if image == "all":
        return list(images)
    if image == "first":
        return [images[0]]
    if image.isascii() and image.isdigit() and 1 <= int(image) <= len(images):
        return [images[int(image) - 1]]
    chosen = [section for section in images if leaf_name(section.filename) == image]
    if not chosen:
        names = ", ".join(printable(leaf_name(section.filename)) for section in images)
        raise UsageError(f"{description.source}: has no image `{image}'; it has {names}")
    return chosen


def _include_target(source: str, include: jigdo.Include) -> str:
    if urls.is_http(source) or urls.is_http(include.url):
        target = urls.join(source, include.url)
        if not urls.is_http(target):
            raise FormatError(
                f"[Include {include.url}]: a .jigdo from the net cannot include a local file",
                source=source,
                line=include.line,
            )
        return target
    path = urllib.parse.unquote(include.url, errors="surrogateescape").removeprefix("file:")
    return os.path.abspath(os.path.join(os.path.dirname(source), path))


def _template_candidates(section: jigdo.ImageSection) -> tuple[str, ...]:
    """Return where the template may be, best first.

    libjte writes `http://localhost/…` until somebody edits it (format.md 2.5), and a .jigdo may
    have been saved beside its template under another name: so the .jigdo's own place is asked too.
    """
    base = section.base
    beside: list[str] = []
    candidates: list[str] = []
    for template in section.templates:
        useless = template.lower().startswith(("http://localhost/", "https://localhost/"))
        if not useless or "://localhost" in base.lower():
            candidates.append(template)
        beside.append(template.rsplit("/", 1)[-1])
    stem = base.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".jigdo")
    resolved = [_resolve(base, candidate) for candidate in [*candidates, *beside, f"{stem}.template"]]
    return tuple(dict.fromkeys(candidate for candidate in resolved if candidate))


def _resolve(base: str, reference: str) -> str:
    """Resolve a reference against the .jigdo it stands in; "" if it may not be followed."""
    if not reference:
        return ""
    if urls.is_http(base) or urls.is_http(reference):
        target = urls.join(base, reference)
        return urls.escape(target)[0] if urls.is_http(target) else ""
    return os.path.abspath(os.path.join(os.path.dirname(base), reference.removeprefix("file:")))
