"""The denoising loop over latents, in tiles, with one or several particles of each picture."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from seesr.diffusion.denoiser import Denoiser
from seesr.diffusion.sampler import ddim_step, sample
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.steering import Steering
from seesr.diffusion.tiled import predict_tiled
from seesr.machine.device import to_device_of
from seesr.stages import Progress
from seesr.tiling import Tiles

ConditionsForTiles = Callable[[list[int]], tuple[Tensor, Tensor]]
"""From indices of tiles to prompt embeddings and image tokens, ordered by tile, then by picture."""


def initial_latents(schedule: NoiseSchedule, latents: Tensor, seeds: list[int], particles: int = 1) -> Tensor:
    """`latents` of the pictures `(B, C, h, w)`, float32, with the noise of the last timestep: `(B * particles, C, h, w)`.

    SeeSR calls this start "start from LR". The noise of each picture comes from a CPU generator with the picture's seed.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = [torch.randn(latents.shape[1:], generator=generator) for generator in generators for _ in range(particles)]
    latents = latents.repeat_interleave(particles, dim=0)
    return schedule.add_noise(latents, torch.stack(noise).to(latents), len(schedule.alphas_cumprod) - 1)


def denoise(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    latents: Tensor,
    image: Tensor,
    conditions: ConditionsForTiles,
    tiles: Tiles,
    steps: int,
    conditioning_scale: float,
    steering: Steering,
    report: Progress,
) -> Tensor:
    """Denoised latents `(B * particles, C, h, w)`; `image` `(B, 3, H, W)` in 0..1 is the input of the ControlNet."""
    particles = steering.particles

    def predict_tiles(noisy: Tensor, timestep: int, pixels: Tensor, indices: list[int]) -> Tensor:
        # Ordered by tile, then by picture, then by particle.
        count = len(noisy) // (len(indices) * len(image))
        repeated = (tensor.repeat_interleave(count, dim=0) for tensor in conditions(indices))
        noisy, pixels, embeds, tokens = (to_device_of(tensor, denoiser) for tensor in (noisy, pixels, *repeated))
        return denoiser(noisy, timestep, pixels, embeds, tokens, conditioning_scale).float()

    def predict(noisy: Tensor, timestep: int) -> Tensor:
        passes, predictions = math.ceil(particles / tiles.particles_per_pass), []
        for chunk in noisy.unflatten(0, (-1, particles)).chunk(passes, dim=1):
            pixels = image[:, None].expand(-1, chunk.shape[1], -1, -1, -1).flatten(0, 1)
            prediction = predict_tiled(predict_tiles, chunk.flatten(0, 1), timestep, pixels, tiles)
            predictions.append(prediction.unflatten(0, chunk.shape[:2]))
        return torch.cat(predictions, dim=1).flatten(0, 1)

    return sample(predict, schedule, latents, steps, steering.step if particles > 1 else ddim_step, report)
