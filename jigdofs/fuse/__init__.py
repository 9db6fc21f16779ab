"""The kernel's face: the only files that import pyfuse3."""
