"""`jigdofs serve`: images and the files in them over HTTP, without FUSE."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import urllib.parse

from jigdofs import logs
from jigdofs.cli import options
from jigdofs.cli.parser import Parser
from jigdofs.config import SourceOptions
from jigdofs.errors import EXIT_OK

_EPILOG = """\
Serves each image under its name, and the files inside an ISO in a directory called as it is without its
ending, with ranges, HEAD, ETag and Last-Modified; directories are pages of links. As with a mount, parts are
fetched, verified and cached when somebody asks for their bytes. A part that cannot be had is a 502, or
breaks the connection where an answer had begun. Stays in the foreground; Ctrl-C or SIGTERM ends it.

It listens on this machine alone unless told otherwise; elsewhere, everybody who reaches the address may
read all of it. Needs hypercorn: pip install 'jigdofs[serve]'.

examples:
  jigdofs serve dvd.jigdo
  debootstrap bookworm /srv/chroot http://127.0.0.1:8080/dvd/
  jigdofs serve dvd-1.jigdo dvd-2.jigdo --listen 192.0.2.1:80     # iPXE: sanboot http://192.0.2.1/dvd-1.iso
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "sources", nargs="+", metavar="JIGDO", help="path or URL of a .jigdo file, or path of a plain .iso"
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        default="127.0.0.1:8080",
        help="where to listen; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log more; twice for everything")
    options.add_config(parser)
    options.add_input(parser)
    options.add_scan(parser)
    options.add_cache(parser)
    options.add_fetch(parser)
    options.add_read(parser)
    options.add_background(parser)


def run(arguments: argparse.Namespace) -> int:
    """Load the images and serve them until told to end."""
    import trio

    from jigdofs.serve.listening import check_installed, listen

    logs.to_stderr((logging.WARNING, logging.INFO, logging.DEBUG)[min(arguments.verbose, 2)])
    check_installed()
    with listen(arguments.listen) as bound:  # before anything is fetched for it
        trio.run(_serve, arguments, bound, strict_exception_groups=True)
    return EXIT_OK


async def _serve(arguments: argparse.Namespace, bound: socket.socket) -> None:
    import trio

    from jigdofs.cli.progress import template_progress
    from jigdofs.prefetch.from_the_start import fill_from_the_start, initial_request
    from jigdofs.serve.application import Application
    from jigdofs.serve.connections import serve_connections
    from jigdofs.serve.listening import url_of
    from jigdofs.wiring.images import open_images

    background = options.background_options(arguments)
    first = initial_request(background)
    with template_progress() as progress:
        async with open_images(
            options.input_options(arguments, arguments.sources),
            options.cache_options(arguments),
            options.fetch_options(arguments),
            options.read_options(arguments),
            source_options=SourceOptions(options.scan_paths(arguments)),
            background_options=background,
            progress=progress,
        ) as images:
            progress.end()
            namespace = await images.namespace(contents=True)
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

                async def end() -> None:
                    async for _ in signals:
                        images.stop()
                        return

                print(f"serving {' and '.join(_urls(namespace.names, url_of(bound)))}", flush=True)
                images.tend()
                images.start_soon(fill_from_the_start, images, first)
                await serve_connections(Application(namespace), bound, end)


def _urls(names: list[bytes], origin: str) -> list[str]:
    return [origin + urllib.parse.quote(name) for name in names]
