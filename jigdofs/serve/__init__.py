"""HTTP's face of the namespace: images and the files in them, without FUSE. The only room with hypercorn."""
