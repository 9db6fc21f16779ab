"""Read settings from environment variables. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from jigdofs.settings.keys import KEYS, PREFIX, variable
from jigdofs.settings.layers import Origin, Problem, Setting
from jigdofs.settings.values import WrongValue, from_environment


def parse(environ: Mapping[str, str], directory: str) -> tuple[dict[str, Setting], list[Problem], list[str]]:
    """Return settings, what is wrong with variables, and those of our prefix that mean nothing.

    Args:
        environ: all variables; an empty one is none.
        directory: what relative paths are relative to.
    """
    layer: dict[str, Setting] = {}
    problems: list[Problem] = []
    known = {variable(key): key for key in KEYS.values() if not key.image_set}
    for name, key in known.items():
        if not environ.get(name):
            continue
        origin = Origin(name)
        try:
            said = from_environment(key, environ[name], directory)
        except WrongValue as error:
            problems.append(Problem(origin, str(error)))
            continue
        layer.update({full_name: Setting(texts, origin) for full_name, texts in said.items()})
    ignored = [name for name in environ if name.startswith(PREFIX) and name not in known]
    return layer, problems, sorted(ignored)
