"""Several daemons on one cache directory, each with a reader, while one after the other is killed."""

import contextlib
import random
import threading
from dataclasses import dataclass, field
from functools import partial

from tests.campaigns.cache_image import MountedImage
from tests.kit.mounts import Mounted
from tests.kit.scenes import wait_until

_QUOTA_BYTES = 6_000_000
_READS_BEFORE_A_KILL = 5


@dataclass
class _Daemon:
    """One of them: it may be killed and mounted again, which its reader is told."""

    number: int
    generation: int = 0
    reads: int = 0
    up: threading.Event = field(default_factory=threading.Event)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    mounted: Mounted | None = None

    @property
    def point(self) -> str:
        return f"mnt-{self.number}"


def share(image: MountedImage, seed: str, *, daemons: int, kills: int) -> None:
    """Read through daemons on one cache whose quota is too small for all, killing one again and again."""
    source = random.Random(f"{seed} sharing {daemons}")
    cache = image.directory / f"shared-{daemons}"
    stop = threading.Event()
    all_of_them = [_Daemon(number) for number in range(daemons)]

    def begin(daemon: _Daemon) -> None:
        daemon.mounted = image.mounted(cache, f"--cache-max-size={_QUOTA_BYTES}", point=daemon.point)
        daemon.stack.enter_context(daemon.mounted)
        daemon.up.set()

    def read_on(daemon: _Daemon) -> None:
        choices = random.Random(f"{seed} reader {daemon.number}")
        while not stop.is_set():
            if not daemon.up.wait(0.1):
                continue
            generation = daemon.generation

            def was_killed(daemon: _Daemon = daemon, generation: int = generation) -> bool:
                return daemon.generation != generation

            what = f"{daemons} daemons, {daemon.number} after {generation} kills"
            image.read_somewhere(choices, what, daemon.point, was_killed)
            daemon.reads += 1

    threads = [threading.Thread(target=read_on, args=(daemon,)) for daemon in all_of_them]
    try:
        for daemon in all_of_them:
            begin(daemon)
        for thread in threads:
            thread.start()
        for _ in range(kills):
            victim = source.choice(all_of_them)
            wait_until(partial(_has_read, victim, victim.reads + _READS_BEFORE_A_KILL), "its reads", 60)
            victim.generation += 1
            victim.up.clear()
            assert victim.mounted is not None
            victim.mounted.process.kill()
            victim.mounted.process.wait()
            victim.stack.close()
            begin(victim)
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        for daemon in all_of_them:
            _tell_traceback(image, daemon)
            daemon.stack.close()
    kept = sum(path.stat().st_size for path in (cache / "objects").rglob("*") if path.is_file())
    if kept > _QUOTA_BYTES:
        image.found.ended.append(f"{daemons} daemons: {kept} bytes are kept, with a quota of {_QUOTA_BYTES}")


def _has_read(daemon: _Daemon, count: int) -> bool:
    return daemon.reads >= count


def _tell_traceback(image: MountedImage, daemon: _Daemon) -> None:
    lines = [] if daemon.mounted is None else daemon.mounted.stderr()
    if any("Traceback" in line or "internal error" in line for line in lines):
        image.found.ended.append(f"{daemon.point}: {lines[-20:]}")


def fetched_at_once(image: MountedImage, *, daemons: int) -> float:
    """Have daemons read the whole image at once into one empty cache; return how often it was fetched."""
    cache = image.directory / "at-once"
    points = [f"at-once-{number}" for number in range(daemons)]
    with contextlib.ExitStack() as stack:
        for point in points:
            stack.enter_context(image.mounted(cache, point=point))
        image.server.forget_requests()
        gate = threading.Barrier(daemons)

        def read(point: str) -> None:
            gate.wait(30)
            image.read_whole(f"{daemons} at once", point)

        threads = [threading.Thread(target=read, args=(point,)) for point in points]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fetched = sum(request.body_bytes for request in image.server.requests)
    return fetched / image.parts_bytes
