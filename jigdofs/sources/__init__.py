"""Local files, directories and old images that may hold parts of an image the user wants now."""
