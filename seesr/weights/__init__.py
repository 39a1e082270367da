"""Weight files: the manifest, the hub, the cache, the choice of the weights folder, and state dicts."""
