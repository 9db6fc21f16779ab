"""The state as Prometheus metrics. The only file that imports prometheus_client.

Units are bytes and seconds, counters end in `_total`. Each series has the label `mountpoint`: several mounts
may write into one directory of node_exporter's.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from jigdofs.errors import printable
from jigdofs.image.read_account import DURATIONS_S, ReadAccount

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from jigdofs.control.state import ImageState, MirrorState, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(state: State) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(state))
    text: bytes = generate_latest(registry)
    return text


class _Collected(Collector):
    """Collect from one state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """Need not be asked: there is one collector in the registry."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        state = self._state
        yield from _daemon(state)
        yield from _images(state, state.images())
        yield _durations(state, state.reads)
        yield from _mirrors(state, state.mirrors())
        yield from _cache(state)


def _gauge(name: str, text: str, labels: Iterable[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"jigdofs_{name}", text, labels=["mountpoint", *labels])


def _counter(name: str, text: str, labels: Iterable[str] = ()) -> CounterMetricFamily:
    return CounterMetricFamily(f"jigdofs_{name}", text, labels=["mountpoint", *labels])


def _daemon(state: State) -> Iterator[Metric]:
    mount = _mount(state)
    build = InfoMetricFamily(
        "jigdofs_build", "The version of jigdofs that serves the mount.", labels=["mountpoint"]
    )
    build.add_metric([mount], {"version": state.version})
    yield build
    started = _gauge("start_time_seconds", "When the mount could be used, in seconds since 1970.")
    started.add_metric([mount], time.time() - state.uptime_s)
    yield started
    flying = _gauge("inflight_files", "Parts and pieces of templates that are on their way.")
    flying.add_metric([mount], state.in_flight)
    yield flying
    waiting = _gauge("waiting_readers", "How many wait for something that is on its way.")
    waiting.add_metric([mount], state.waiting)
    yield waiting
    running = _gauge("prefetch_running", "1 while parts are fetched ahead, else 0.")
    running.add_metric([mount], 1 if state.prefetching else 0)
    yield running


def _images(state: State, images: list[ImageState]) -> Iterator[Metric]:
    label = ("image",)
    size = _gauge("image_size_bytes", "Size of an image.", label)
    present = _gauge("image_present_bytes", "Bytes of an image that can be read without fetching.", label)
    parts = _gauge("image_parts", "Different parts of an image.", label)
    here = _gauge("image_parts_present", "Parts of an image that are here.", label)
    coming = _gauge("image_inflight_bytes", "Bytes of the parts of an image that are on their way.", label)
    read = _counter("read_bytes", "Bytes that readers of an image were given.", label)
    waited = _counter("read_waited_bytes", "Those of them that waited for a mirror.", label)
    reads = _counter(
        "reads",
        "Reads of an image: hit without waiting for a mirror, miss after waiting, eio failed.",
        ("image", "result"),
    )
    failed = _gauge("last_read_error_time_seconds", "When a read failed last, 0 if none did.", label)
    for image in images:
        labels, account = [_mount(state), printable(image.name)], image.reads
        size.add_metric(labels, image.size)
        present.add_metric(labels, image.present)
        coming.add_metric(labels, image.in_flight)
        if image.parts is not None and image.parts_present is not None:
            parts.add_metric(labels, image.parts)
            here.add_metric(labels, image.parts_present)
        read.add_metric(labels, account.bytes)
        waited.add_metric(labels, account.waited_bytes)
        reads.add_metric([*labels, "hit"], account.reads - account.waited_reads)
        reads.add_metric([*labels, "miss"], account.waited_reads)
        reads.add_metric([*labels, "eio"], account.errors)
        failed.add_metric(labels, account.last_error_s)
    yield from (size, present, parts, here, coming, read, waited, reads, failed)


def _durations(state: State, account: ReadAccount) -> Metric:
    family = HistogramMetricFamily(
        "jigdofs_read_duration_seconds", "How long reads took, those that failed too.", labels=["mountpoint"]
    )
    counts = itertools.accumulate(account.durations)
    bounds = [*map(str, DURATIONS_S), "+Inf"]
    family.add_metric([_mount(state)], list(zip(bounds, counts, strict=True)), account.duration_s)
    return family


def _mirrors(state: State, mirrors: list[MirrorState]) -> Iterator[Metric]:
    total = _counter("received_bytes", "Bytes that came from all mirrors together.")
    total.add_metric([_mount(state)], state.received)
    yield total
    label = ("mirror",)
    received = _counter("fetch_bytes", "Bytes that came from a mirror, of no use included.", label)
    parts = _counter("fetch_parts", "Parts that a mirror gave.", label)
    failures = _counter("fetch_errors", "Transfers from a mirror that failed.", label)
    wrong = _counter("verify_failures", "Answers of a mirror with wrong content.", label)
    avoided = _gauge("mirror_avoided_seconds", "For so long a mirror is asked after all others.", label)
    for mirror in mirrors:
        labels = [_mount(state), mirror.mirror]
        received.add_metric(labels, mirror.received)
        parts.add_metric(labels, mirror.parts)
        failures.add_metric(labels, mirror.failures_ever)
        wrong.add_metric(labels, mirror.wrong)
        avoided.add_metric(labels, max(mirror.avoided_s, mirror.asked_s))
    yield from (received, parts, failures, wrong, avoided)


def _cache(state: State) -> Iterator[Metric]:
    cache = state.cache
    if cache is None:
        return
    mount, stock = [_mount(state)], cache.stock
    if stock is not None:
        if stock.used is not None:
            used = _gauge("cache_bytes", "Bytes that the cache holds, of all mounts that share it.")
            used.add_metric(mount, stock.used)
            yield used
        if stock.limit is not None:
            limit = _gauge("cache_limit_bytes", "Bytes that the cache may hold.")
            limit.add_metric(mount, stock.limit)
            yield limit
        free = _gauge("cache_free_bytes", "Bytes that are free on the cache's filesystem.")
        free.add_metric(mount, stock.free)
        yield free
    files, count = cache.evicted
    evicted = _counter("cache_evictions", "Files that this mount removed from the cache to make room.")
    evicted.add_metric(mount, files)
    yield evicted
    freed = _counter("cache_evicted_bytes", "Their bytes.")
    freed.add_metric(mount, count)
    yield freed


def _mount(state: State) -> str:
    return printable(state.mountpoint)
