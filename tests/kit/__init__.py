"""Hold what the tests share: servers, images made by the real tools, mounts and requirements."""
