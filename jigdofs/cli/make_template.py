"""`jigdofs make-template`: write the .jigdo and .template of an image, given the files that are in it."""

from __future__ import annotations

import argparse
import importlib

from jigdofs.cli import jigdo_file
from jigdofs.cli.parser import Parser
from jigdofs.errors import InputError, UsageError

_EPILOG = """\
FILES are files and directories; whatever of them is in the image, at any offset, becomes a part. In the
.jigdo a part has a label, which stands for a server, and the path of its file below a directory. With one
directory and one --uri, the label means that directory:

  jigdofs make-template -i DVD.iso --uri Centosmirrors=http://mirror.example.org/centos/ /srv/centos/

With more of them, say what each label means. Several --uri of one label are mirrors of each other:

  jigdofs make-template -i DVD.iso --label Debian=/srv/debian --label Ours=/srv/ours \\
      --uri Debian=http://deb.debian.org/debian/ --uri Ours=http://one/ours/ --uri Ours=http://two/ours/ \\
      /srv/debian/pool /srv/ours

Without --uri the .jigdo says where the files are on this machine. All options of jigdo-file are taken; a
`//' in a name ends the directory, as there. --cache is only told the checksums of parts, for make-image.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    shown = (
        *("image", "jigdo", "template", "files_from", "report", "force", "label", "uri", "cache", "merge"),
        *("match_exec", "checksum_algorithm", "min_length", "image_section", "servers_section"),
        *("bzip2", "level"),
    )
    jigdo_file.add_arguments(parser, shown=shown, files_help="files and directories that may be in the image")
    parser.add_argument("--json", action="store_true", help="print the account as JSON on stdout")
    parser.add_argument(
        "--check-urls",
        action="store_true",
        help="then ask every location for its part and list the dead ones; exit code 1 if there are any",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make a template."""
    try:
        making = importlib.import_module("jigdofs.cli.template_making")
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise InputError(
            "make-template needs numpy: pip install 'jigdofs[create]', or apt install python3-numpy"
        ) from None
    for option in ("label", "uri"):
        for value in getattr(arguments, option):
            if "=" not in value:
                meant = "LABEL=DIR" if option == "label" else "LABEL=URL"
                raise UsageError(f"--{option} {value}: write it as {meant}")
    wanted = making.Wanted(
        jigdo_file.options(arguments), json=arguments.json, check_urls=arguments.check_urls
    )
    code: int = making.make_template(wanted)
    return code
