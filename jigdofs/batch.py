"""Download images one after the other: decide for each what is to be done, and say how it went.

Rules of this file:
* An image that is there and whole is left alone. A damaged copy of it is replaced by a whole one. Anything
  else of its name is replaced only when the user said so (`force`, `update`).
* What goes wrong with one image is said, and the next one is begun.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from jigdofs.build import account as origins
from jigdofs.build.account import Account
from jigdofs.build.blueprint import Blueprint, ImageSum, read_blueprint
from jigdofs.build.builder import Builder
from jigdofs.build.from_sources import fill_from_copy
from jigdofs.build.unfinished import Replace
from jigdofs.build.whole import wrong_sums_of
from jigdofs.download import Download, interruptible
from jigdofs.errors import InputError, JigdofsError, leaf_of
from jigdofs.format.checksum import Checksum
from jigdofs.format.jigdo import ImageSection, JigdoFile
from jigdofs.in_thread import GIVE_UP
from jigdofs.load import LoadedImage, Selection, image_name
from jigdofs.names import unique_name
from jigdofs.parts.open_file import Fingerprint
from jigdofs.sources.piece import Piece, fingerprint_of
from jigdofs.sources.sources import Sources
from jigdofs.wiring.foundation import check_labels
from jigdofs.wiring.workshop import Workshop


@dataclass(frozen=True, slots=True)
class Order:
    """One .jigdo, and where its images are to be.

    Attributes:
        source: path or URL of the .jigdo.
        directory: where its images go, under their own names; made if need be.
        file: the name of its one image instead, or None.
    """

    source: str
    directory: str
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How all orders of a batch are carried out.

    Attributes:
        image: which [Image] of each .jigdo (`InputOptions.image`).
        scan: local directories, files and old images that may hold parts.
        force: replace whatever is in the way.
        update: replace images that are no longer what their .jigdo describes, and take from them what
            is still right; believe that an image is whole if it was when it was last looked at.
    """

    image: str = "all"
    scan: tuple[str, ...] = ()
    force: bool = False
    update: bool = False


class Outcome(enum.Enum):
    """What became of an image."""

    BUILT = "built"
    MENDED = "mended"
    THERE = "there already"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Result:
    """How it went with one image.

    Attributes:
        path: of the image.
        outcome: what was done.
        sums: every checksum it was found to have.
        account: what came from where.
        seconds: how long it took.
    """

    path: str
    outcome: Outcome
    sums: tuple[ImageSum, ...]
    account: Account
    seconds: float


class Reporter(Protocol):
    """Who tells the user."""

    interval_s: float | None
    """How often `update` is wanted; None for never."""

    def begin(self, path: str, account: Account) -> None:
        """Say that work on an image begins."""

    def update(self) -> None:
        """Say how far it is."""

    def end(self, result: Result) -> None:
        """Say that an image is whole."""

    def fail(self, what: str, error: JigdofsError) -> None:
        """Say that an image, or all of a .jigdo, failed."""

    def leave(self) -> None:
        """Say nothing more of how far the image is."""

    def remark(self, text: str) -> None:
        """Say something that is no failure."""


class Batch:
    """Carry out orders.

    Args:
        workshop: what downloads need.
        manner: how.
        reporter: who tells the user.
    """

    def __init__(self, workshop: Workshop, manner: Manner, reporter: Reporter) -> None:
        self._workshop = workshop
        self._manner = manner
        self._reporter = reporter
        self._descriptions: list[JigdoFile] = []
        self._claimed: set[str] = set()

    async def run(self, orders: Sequence[Order]) -> int:
        """Carry out all orders; return the exit code of what went worst."""
        code = 0
        self._claimed = _inputs(orders)
        for order in orders:
            code = max(code, await self._guarded(order.source, self._order(order)))
        if self._descriptions:
            check_labels(self._workshop.labels, self._descriptions)
        return code

    async def _guarded(self, what: str, work: Awaitable[int]) -> int:
        """Do some work; report what goes wrong, and return its exit code."""
        try:
            return await work
        except (JigdofsError, BaseExceptionGroup) as error:
            leaf = leaf_of(error)
            if not isinstance(leaf, JigdofsError):
                raise
            self._reporter.fail(what, leaf)
            return leaf.exit_code

    async def _order(self, order: Order) -> int:
        selection = await self._workshop.loader.select(order.source, self._manner.image)
        if self._workshop.labels:
            self._descriptions.append(selection.description)
        if order.file is not None and len(selection.sections) > 1:
            raise InputError(
                f"{order.source}: describes {len(selection.sections)} images, which cannot all be"
                f" {order.file}; choose one with --image"
            )
        code = 0
        taken: set[str] = set()
        for section in selection.sections:
            name = unique_name(image_name(selection, section), taken)
            taken.add(name)
            path = _place(order, name)
            code = max(code, await self._guarded(order.source, self._section(path, selection, section)))
        return code

    async def _section(self, path: str, selection: Selection, section: ImageSection) -> int:
        """Have one image of a .jigdo."""
        self._claim(path)
        image = await self._workshop.loader.open(selection, section)
        try:
            if image.template_file.name in _both(path):
                raise InputError(f"{path}: would replace the template it is made from; name another output")
            return await self._guarded(path, self._image(path, image))
        finally:
            os.close(image.template_file.fd)

    def _claim(self, path: str) -> None:
        """Note that an image is to be at a path; refuse it where that would harm another file of this run."""
        taken = self._claimed & _both(path)
        if taken:
            raise InputError(
                f"{path}: is also the name of something else in this run ({min(taken)}); it is left alone"
            )
        self._claimed |= _both(path)

    async def _image(self, path: str, image: LoadedImage) -> int:
        """Have one image at its path."""
        began = time.monotonic()
        blueprint = await trio.to_thread.run_sync(
            read_blueprint, image.template_file, image.section.image_sums, image.source
        )
        _make_directory(path)
        account = Account(blueprint.layout.length)
        async with self._watched(path, account):
            outcome = await self._have(path, image, blueprint, account)
        self._remember(path, blueprint)
        self._reporter.end(Result(path, outcome, blueprint.sums, account, time.monotonic() - began))
        return 0

    async def _have(self, path: str, image: LoadedImage, blueprint: Blueprint, account: Account) -> Outcome:
        # left behind when the user wants to leave: it only reads
        found = await trio.to_thread.run_sync(self._look_at, path, blueprint, account, **GIVE_UP)
        if found in (_Found.WHOLE, _Found.UNCHANGED):
            account.add(origins.BEFORE, account.length)
            return Outcome.THERE if found is _Found.WHOLE else Outcome.UNCHANGED
        if found is _Found.OTHER and not self._may_replace:
            raise InputError(
                f"{path}: is there already, with {os.stat(path).st_size} bytes instead of {account.length}:"
                " something else; --force replaces it, and takes from it what is right"
            )
        builder = await trio.to_thread.run_sync(
            lambda: Builder(blueprint, path, account, replace=self._replaces)
        )
        try:
            async with interruptible(builder):
                await self._build(builder, image, found)
        finally:
            builder.close()
        mended = found is _Found.SAME_LENGTH and not self._may_replace
        return Outcome.MENDED if mended else Outcome.BUILT

    async def _build(self, builder: Builder, image: LoadedImage, found: _Found) -> None:
        if found is _Found.SAME_LENGTH:
            await trio.to_thread.run_sync(self._take_from_copy, builder)
        sources = self._sources(builder.path, found)
        if sources is not None:
            lengths = {part.length for _, part in builder.layout.parts()}
            await trio.to_thread.run_sync(sources.scan, lengths, **GIVE_UP)
        await trio.to_thread.run_sync(self._workshop.note, image)
        await Download(builder, self._workshop.supply(image, sources, builder.account)).run()

    @property
    def _replaces(self) -> Replace:
        if self._manner.force:
            return Replace.ANY
        return Replace.OLD if self._manner.update else Replace.NOTHING

    @property
    def _may_replace(self) -> bool:
        return self._manner.force or self._manner.update

    def _look_at(self, path: str, blueprint: Blueprint, account: Account) -> _Found:
        """Tell what lies where the image is to be."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return _Found.NOTHING
        except OSError as error:
            raise InputError(f"{path}: is in the way: {error.strerror}") from error
        try:
            fingerprint = fingerprint_of(os.fstat(fd))
            if not os.path.isfile(path):
                raise InputError(f"{path}: is in the way, and is no regular file")
            if fingerprint.size != blueprint.layout.length:
                return _Found.OTHER
            if self._manner.update and self._is_remembered(path, fingerprint, blueprint):
                return _Found.UNCHANGED
            if wrong_sums_of(fd, blueprint.sums, account):
                return _Found.SAME_LENGTH
        finally:
            os.close(fd)
        return _Found.WHOLE

    def _is_remembered(self, path: str, fingerprint: Fingerprint, blueprint: Blueprint) -> bool:
        remembered = self._workshop.remembered
        if remembered is None:
            return False
        piece = Piece(os.path.abspath(path), 0, fingerprint.size, fingerprint)
        known = {(known.algorithm.short_name, known.hex) for known in remembered.checksums(piece)}
        # only these can be remembered; a template gives one of them
        wanted = {(one.algorithm, one.hex) for one in blueprint.sums if one.algorithm in ("md5", "sha256")}
        return wanted <= known

    def _remember(self, path: str, blueprint: Blueprint) -> None:
        """Note that an image was found whole, so that the next update need not read it."""
        remembered = self._workshop.remembered
        if remembered is None:
            return
        try:
            fingerprint = fingerprint_of(os.stat(path))
        except OSError:
            return  # somebody took it away already
        piece = Piece(os.path.abspath(path), 0, fingerprint.size, fingerprint)
        for known in blueprint.sums:
            if known.algorithm in ("md5", "sha256"):
                remembered.note(piece, Checksum(bytes.fromhex(known.hex)))

    def _take_from_copy(self, builder: Builder) -> None:
        """Take what is right in a damaged copy; leave a file alone that is no copy at all."""
        fd = os.open(builder.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            missing = builder.missing()
            left = fill_from_copy(builder, missing, fd)
        finally:
            os.close(fd)
        nothing_right = builder.unfinished.created and len(left) == len(missing)
        if nothing_right and not self._may_replace:
            builder.unfinished.discard()
            raise InputError(f"{builder.path}: is there already, and is something else; --force replaces it")

    def _sources(self, path: str, found: _Found) -> Sources | None:
        paths = list(self._manner.scan)
        if found in (_Found.OTHER, _Found.SAME_LENGTH):
            paths.append(path)  # yesterday's image: most of its parts are today's
        if not paths:
            return None
        return Sources(
            paths,
            remembered=self._workshop.remembered,
            report=self._reporter.remark,
            besides=[f"{path}.tmp"],
        )

    @asynccontextmanager
    async def _watched(self, path: str, account: Account) -> AsyncIterator[None]:
        """Have the reporter tell how far an image is."""
        self._reporter.begin(path, account)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self._reporter.leave()

    async def _tell(self) -> None:
        while self._reporter.interval_s is not None:
            await trio.sleep(self._reporter.interval_s)
            self._reporter.update()


class _Found(enum.Enum):
    """What lies where an image is to be."""

    NOTHING = enum.auto()
    WHOLE = enum.auto()
    UNCHANGED = enum.auto()
    SAME_LENGTH = enum.auto()
    OTHER = enum.auto()


def _place(order: Order, name: str) -> str:
    """Return where an image is to be; the file that a link leads to is replaced, not the link.

    Raises:
        InputError: the link is another user's, who could have us write anywhere.
    """
    path = os.path.normpath(order.file or os.path.join(order.directory, name))
    if not os.path.islink(path):
        return path
    owner = os.lstat(path).st_uid
    if owner not in (0, os.geteuid()):
        raise InputError(f"{path}: is a link of another user (uid {owner}), so it is not followed")
    return os.path.realpath(path)


def _inputs(orders: Sequence[Order]) -> set[str]:
    """Return the names of all .jigdo files, which no image may take."""
    return {os.path.abspath(order.source) for order in orders}


def _both(path: str) -> set[str]:
    """Return the names that building an image takes."""
    return {os.path.abspath(path), f"{os.path.abspath(path)}.tmp"}


def _make_directory(path: str) -> None:
    directory = os.path.dirname(path) or "."
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise InputError(f"{directory}: cannot be made: {error.strerror}") from error
