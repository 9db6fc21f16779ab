"""Run the command line as `python -m jigdofs`."""

import sys

from jigdofs.cli import main

sys.exit(main())
