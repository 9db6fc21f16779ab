"""`jigdofs cache ls` and `du`: look at a cache without touching it."""

from __future__ import annotations

import argparse
import time

from jigdofs.cli import cache_report as report
from jigdofs.cli.cache_images import find
from jigdofs.cli.json_text import json_text
from jigdofs.config import CacheOptions
from jigdofs.errors import EXIT_OK
from jigdofs.parts.holdings import Holdings, count
from jigdofs.parts.shelf import Shelf, looking_at


def count_all(shelf: Shelf | None) -> Holdings:
    """Count what a cache holds; nothing where there is none."""
    return count(shelf.files(), shelf.manifests.all()) if shelf is not None else count((), ())


def list_images(arguments: argparse.Namespace, options: CacheOptions) -> int:
    """List the images, or the parts of some."""
    with looking_at(options.directory) as shelf:
        holdings = count_all(shelf)
        known = [*(one.image for one in holdings.images), *holdings.lost]
        wanted = {image.id for name in arguments.images for image in find(name, known, options.directory)}
        chosen = [one for one in holdings.images if not arguments.images or one.image.id in wanted]
        lost = [image for image in holdings.lost if not arguments.images or image.id in wanted]
        if arguments.json:
            values = [report.image_values(one, holdings) for one in chosen]
            if arguments.images:
                for value, one in zip(values, chosen, strict=True):
                    value["part_list"] = list(report.part_values(one, holdings))
            print(json_text(values + [report.lost_values(image) for image in lost]))
        elif arguments.images:
            print("\n\n".join(report.details(one, holdings) for one in chosen))
        elif shelf is None:
            print(f"there is no cache {options.directory} yet")
        else:
            print(report.listing(holdings, time.time()))
    return EXIT_OK


def show_usage(arguments: argparse.Namespace, options: CacheOptions) -> int:
    """Say what takes how much."""
    with looking_at(options.directory) as shelf:
        if shelf is None:
            empty = {"directory": str(options.directory), "total_bytes": 0, "files": 0, "images": []}
            print(json_text(empty) if arguments.json else f"there is no cache {options.directory} yet")
            return EXIT_OK
        values = report.usage_values(shelf, count_all(shelf), options)
        print(json_text(values) if arguments.json else report.usage(values))
    return EXIT_OK
