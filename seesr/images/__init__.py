"""Pictures: reading, sizes, colours, transparency, metadata, saving."""
