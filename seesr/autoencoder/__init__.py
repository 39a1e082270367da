"""The base model's VAE: whole, in exact tiles, or in tiles with estimated statistics."""
