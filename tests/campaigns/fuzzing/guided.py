"""Feed one target under libFuzzer (this module, as a program of its own): `guided TARGET ARGUMENT...`.

The process ends with what libFuzzer ends it with; the program `tests.campaigns.fuzz` starts it.
"""

import sys

import atheris


def main() -> None:
    """Instrument what the target is about, and never return."""
    name, *arguments = sys.argv[1:]
    prefixes = ["jigdofs", "pycdlib", "email", "json"]
    with atheris.instrument_imports(include=prefixes):
        from tests.campaigns.fuzz_targets import TARGETS
        from tests.campaigns.fuzzing.running import run_one
    target = TARGETS[name]

    def feed(data: bytes) -> None:
        run_one(target, data)

    atheris.Setup([sys.argv[0], *arguments], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
