"""From a URL or a path to bytes, unverified: the only way in for anything from outside."""
