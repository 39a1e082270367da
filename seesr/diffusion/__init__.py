"""The denoiser's own mathematics: image attention, noise schedule, samplers, steering, tiled prediction."""
