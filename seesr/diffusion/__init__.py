"""The diffusion: image attention, noise schedule, samplers, kernel density steering, tiled prediction."""
