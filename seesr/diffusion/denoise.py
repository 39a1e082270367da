"""The denoising loop over latents: step by step, in tiles, with one or several particles of each picture."""

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
"""Numbers of tiles to prompt embeddings and image tokens, tile by tile, in it picture by picture."""


def initial_latents(schedule: NoiseSchedule, latents: Tensor, seeds: list[int], particles: int = 1) -> Tensor:
    """The pictures' own latents `(B, C, h, w)`, float32, under full noise ("start from LR"): `(B * particles, C, h, w)`.

    Each picture's noise comes from a generator of its own on the CPU, seeded with its seed.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = [torch.randn(latents.shape[1:], generator=one) for one in generators for _ in range(particles)]
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
    """Latents `(B * particles, C, h, w)` without noise; `image` `(B, 3, H, W)` in 0..1 is what the ControlNet sees."""
    particles = steering.particles

    def predict_tiles(noisy: Tensor, timestep: int, pixels: Tensor, numbers: list[int]) -> Tensor:
        # Tile by tile, in it picture by picture, in it particle by particle.
        count = len(noisy) // (len(numbers) * len(image))
        of_pictures = (tensor.repeat_interleave(count, dim=0) for tensor in conditions(numbers))
        noisy, pixels, embeds, tokens = (to_device_of(tensor, denoiser) for tensor in (noisy, pixels, *of_pictures))
        return denoiser(noisy, timestep, pixels, embeds, tokens, conditioning_scale).float()

    def predict(noisy: Tensor, timestep: int) -> Tensor:
        passes, predictions = math.ceil(particles / tiles.copies_at_once), []
        for part in noisy.unflatten(0, (-1, particles)).chunk(passes, dim=1):
            pixels = image[:, None].expand(-1, part.shape[1], -1, -1, -1).flatten(0, 1)
            prediction = predict_tiled(predict_tiles, part.flatten(0, 1), timestep, pixels, tiles)
            predictions.append(prediction.unflatten(0, part.shape[:2]))
        return torch.cat(predictions, dim=1).flatten(0, 1)

    return sample(predict, schedule, latents, steps, steering.step if particles > 1 else ddim_step, report)
