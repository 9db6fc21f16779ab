"""Every option as a frozen value; units stand in the names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How transfers behave.

    Attributes:
        connections: to one host at a time; mirrors are shared property.
        connect_timeout_s: to get a connection.
        stall_timeout_s: without a byte, a transfer is given up.
        min_speed_bytes_per_s: below it over a stall timeout, a transfer is given up; 0 for no limit.
        patience_s: a transfer that would take longer is given up while other locations are left.
        rounds: how often every location of a part is tried.
        backoff_s: pause after the first round; doubles after each further one.
        max_redirects: followed for one request.
        user_agent: sent with each request.
    """

    connections: int = 8
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 15.0
    min_speed_bytes_per_s: int = 1024
    patience_s: float = 60.0
    rounds: int = 3
    backoff_s: float = 0.5
    max_redirects: int = 8
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """Where verified files are kept.

    Attributes:
        directory: shared by all images and by several processes.
        max_bytes: the quota, None for none.
        min_free_bytes: kept free on its filesystem; None for 1 GiB or 5 % of it, whichever is less.
    """

    directory: Path
    max_bytes: int | None = 20 << 30
    min_free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How reads behave.

    Attributes:
        timeout_s: a read fails after this long; lowered to stay below the kernel's own limit.
        readahead_bytes: fetched ahead of a sequential reader at most; 0 never.
    """

    timeout_s: float = 120.0
    readahead_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class BackgroundOptions:
    """What is fetched that nobody reads yet, and what is learnt from reading.

    Attributes:
        prefetch: `none`, `metadata` (what an installer reads first) or `all`.
        first: a list that --record wrote; its parts are fetched before anything else. None for none.
        max_bytes_per_s: of all background transfers together; None for no limit.
        record: where the parts that readers touch are written down; None for nowhere.
    """

    prefetch: str = "none"
    first: Path | None = None
    max_bytes_per_s: int | None = None
    record: Path | None = None


@dataclass(frozen=True, slots=True)
class InputOptions:
    """Which images, and from where.

    Attributes:
        sources: paths or URLs of .jigdo files; a mount or server takes paths of ISO files as well.
        mirrors: label -> URL prefixes or directories that the user prefers, best first.
        image: which [Image] of each .jigdo: a number from 1, a file name, `first` or `all`.
        labels: those of the mirrors that are meant for these images, so that an unknown one is a mistake.
    """

    sources: tuple[str, ...]
    mirrors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    image: str = "first"
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Local files that may hold parts.

    Attributes:
        paths: directories, files and old images.
        avoid: places that are not entered: where this process itself mounts.
    """

    paths: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()


LAZY_READ_AHEAD_KB = 256
"""Twice the kernel's default. More makes sequential reads faster, but each step may touch more parts that
nobody asked for: extracting a package of 1.5 MB touched 2 parts beside it with 128, 3 with 256."""
COMPLETE_READ_AHEAD_KB = 1024
"""Nothing can be fetched in vain any more: 3.5 GB/s from the cache, where 256 reach 2.7."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How the mount looks to the kernel and to its users.

    Attributes:
        mountpoint: a directory, or a regular file that becomes the image.
        allow_other: other users may see it.
        uid: owner shown.
        gid: group shown.
        umask: taken from 0555 and 0444.
        fuse: further options, passed to FUSE as they are.
        max_background: reads the kernel may have on their way; those beyond wait, whatever they are for (M1).
        read_ahead_kb: the kernel's own readahead, set where permitted; None for `LAZY_READ_AHEAD_KB` as
            long as parts are missing, and then `COMPLETE_READ_AHEAD_KB`.
    """

    mountpoint: Path
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int = 0
    fuse: tuple[str, ...] = ()
    max_background: int = 1024
    read_ahead_kb: int | None = None


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What may change while a mount runs.

    Attributes:
        mirrors: as in `InputOptions`.
        fetch: how transfers behave.
        read: how reads behave.
        max_bytes_per_s: of all background transfers together; None for no limit.
        cache_max_bytes: the cache's quota, None for none.
        cache_min_free_bytes: kept free on its filesystem; None as in `CacheOptions`.
        log_level: what is logged, as `logging` counts it.
    """

    mirrors: dict[str, tuple[str, ...]]
    fetch: FetchOptions
    read: ReadOptions
    max_bytes_per_s: int | None
    cache_max_bytes: int | None
    cache_min_free_bytes: int | None
    log_level: int


@dataclass(frozen=True, slots=True)
class Change:
    """What settings say that were read again.

    Attributes:
        options: to be followed from now on.
        changed: the settings among these that differ from before.
        later: those that differ, but are followed from the next start on.
    """

    options: LiveOptions
    changed: frozenset[str]
    later: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """All that the daemon of a mount is told.

    Attributes:
        inputs: which images, and from where.
        source: what mount(8) and findmnt show: the first of them, or the file of an image set.
        sources: local files that may hold parts.
        cache: where verified files are kept; None for no cache.
        fetch: how transfers behave.
        read: how reads behave.
        background: what is fetched that nobody reads yet.
        mount: how the mount looks.
        contents: show the files inside ISO images, too.
        foreground: it stays with whoever started it.
        hand_over: somebody with more rights makes the mount for it, as in a service.
        log_target: an absolute path, `syslog`, or None for what is usual.
        log_level: what is logged, as `logging` counts it.
        metrics: where Prometheus metrics are to be had: `HOST:PORT`, `unix:PATH` or a file; None for nowhere.
        reread: reads the settings again, and raises what is wrong with them; None if that cannot be.
    """

    inputs: InputOptions
    source: str
    sources: SourceOptions
    cache: CacheOptions | None
    fetch: FetchOptions
    read: ReadOptions
    background: BackgroundOptions
    mount: MountOptions
    contents: bool = False
    foreground: bool = False
    hand_over: bool = False
    log_target: str | None = None
    log_level: int = 30
    metrics: str | None = None
    reread: Callable[[], Change] | None = field(default=None, compare=False, repr=False)
