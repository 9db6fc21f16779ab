"""JSON for scripts: names are made fit for it, since those of files need not be text."""

from __future__ import annotations

import json
from typing import Any

from jigdofs.errors import printable


def json_text(value: Any) -> str:
    """Return a value of lists, dicts, texts and numbers as indented JSON."""
    return json.dumps(_fit(value), indent=2)


def _fit(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {_fit(key): _fit(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_fit(inner) for inner in value]
    return value
