"""Mount a .jigdo at once: its image as a read-only file, parts fetched when they are read."""

__version__ = "0.1.0"
