"""Weight files: the manifest, the hub, the cache, which folder is used, state dicts."""
