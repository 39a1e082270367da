"""Images on the CPU: reading, sizes, colours, transparency, metadata, saving."""
