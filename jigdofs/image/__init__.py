"""The virtual image: where its bytes come from and how a read is put together. No HTTP, cache or FUSE."""
