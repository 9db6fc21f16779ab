"""Make .jigdo and .template from an image and its files."""
