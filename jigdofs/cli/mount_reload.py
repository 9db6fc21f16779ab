"""Read the settings of a mount again, and let it follow them without unmounting."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from jigdofs.cli import options
from jigdofs.config import Change, LiveOptions, ReadOptions
from jigdofs.errors import JigdofsError
from jigdofs.settings.keys import KEYS

if TYPE_CHECKING:
    from jigdofs.config import DaemonOptions
    from jigdofs.service_manager import Notifier
    from jigdofs.wiring.images import Images

_log = logging.getLogger(__name__)


class Rereader:
    """Read the files again, under the command line and environment as they were.

    Args:
        arguments: of the mount, as `configured.parse` made them.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._start = self._now = arguments

    def __call__(self) -> Change:
        """Return what is to be followed, and how that differs; raise what is wrong with it. Blocks."""
        new = self._now.configured.resolve()
        live = live_options(new)
        changed = {
            key.name
            for key in KEYS.values()
            if key.live and _value(new, key.name) != _value(self._now, key.name)
        }
        later = [
            key.name
            for key in KEYS.values()
            if not key.live and _value(new, key.name) != _value(self._start, key.name)
        ]
        self._now = new
        return Change(live, frozenset(changed), tuple(later))


def _value(arguments: argparse.Namespace, name: str) -> object:
    """Return what a setting is; of the image set, what was not given on the command line."""
    if not KEYS[name].image_set:
        return getattr(arguments, name.replace("-", "_"), None)
    given = arguments.sources if name == "mountpoint" else arguments.sources[:-1]
    setting = arguments.settings.get(name)
    return None if given or setting is None else setting.texts


def live_options(arguments: argparse.Namespace) -> LiveOptions:
    """Build the value; raise `UsageError` for a mirror that cannot be one."""
    return LiveOptions(
        mirrors=options.input_options(arguments, []).mirrors,
        fetch=options.fetch_options(arguments),
        read=options.read_options(arguments),
        max_bytes_per_s=arguments.bwlimit or None,
        cache_max_bytes=arguments.cache_max_size,
        cache_min_free_bytes=arguments.cache_min_free,
        log_level=options.log_level(arguments),
    )


async def reload(daemon: DaemonOptions, images: Images, notifier: Notifier) -> None:
    """Follow the settings as they are now; where they are wrong, all stays as it was."""
    import trio

    from jigdofs import logs
    from jigdofs.fuse import kernel

    assert daemon.reread is not None
    notifier.reloading()
    try:
        change = await trio.to_thread.run_sync(daemon.reread)
        live = change.options
        read = ReadOptions(kernel.read_timeout_s(live.read.timeout_s), live.read.readahead_bytes)
        await images.adjust(replace(live, read=read), change.changed)
        logs.set_level(live.log_level)
        if change.changed:
            _log.info("settings read again; changed: %s", ", ".join(sorted(change.changed)))
        else:
            _log.info("settings read again; nothing changed")
        if change.later:
            verb = "changes" if len(change.later) == 1 else "change"
            _log.warning("%s %s with the next start only", ", ".join(change.later), verb)
    except (JigdofsError, OSError) as error:
        _log.error("settings are left as they were: %s", error)
    finally:
        notifier.ready()
