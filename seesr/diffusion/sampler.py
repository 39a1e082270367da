"""Samplers as plain functions of latents: DDIM, which the pipeline uses, and DDPM, which the published script uses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seesr.diffusion.schedule import NoiseSchedule
from seesr.stages import Progress

Model = Callable[[Tensor, int], Tensor]
"""From noisy latents and a timestep to the UNet's prediction."""
Step = Callable[[NoiseSchedule, Tensor, Tensor, int, "int | None"], Tensor]
"""(schedule, prediction, latents, timestep, next timestep) to the next latents; at the end the next timestep is None."""


def ddim_step(
    schedule: NoiseSchedule, prediction: Tensor, latents: Tensor, timestep: int, next_timestep: int | None
) -> Tensor:
    """One DDIM step with eta 0 (Song et al., ICLR 2021, equation 12) from `timestep` to `next_timestep`."""
    x0, noise = schedule.x0_and_noise(prediction, latents, timestep)
    alpha = schedule.alpha_cumprod(next_timestep)
    return alpha**0.5 * x0 + (1 - alpha) ** 0.5 * noise


def ddpm_step(generator: torch.Generator) -> Step:
    """A DDPM step (Ho et al., NeurIPS 2020, equations 6 and 7, posterior variance) with noise from `generator`."""

    def step(
        schedule: NoiseSchedule, prediction: Tensor, latents: Tensor, timestep: int, next_timestep: int | None
    ) -> Tensor:
        x0, _ = schedule.x0_and_noise(prediction, latents, timestep)
        alpha = schedule.alpha_cumprod(timestep)
        # Unlike DDIM, the published DDPM ends without any noise.
        next_alpha = 1.0 if next_timestep is None else schedule.alpha_cumprod(next_timestep)
        alpha_step = alpha / next_alpha
        mean = next_alpha**0.5 * (1 - alpha_step) * x0 + alpha_step**0.5 * (1 - next_alpha) * latents
        variance = (1 - next_alpha) * (1 - alpha_step) / (1 - alpha)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        return mean / (1 - alpha) + variance**0.5 * noise

    return step


def sample(
    model: Model,
    schedule: NoiseSchedule,
    latents: Tensor,
    steps: int,
    step: Step = ddim_step,
    progress: Progress | None = None,
) -> Tensor:
    """Denoises `latents` `(B, C, h, w)`, which have the noise of the first timestep, in `steps` steps.

    `progress` is called after each step with `denoise`, the number of the step (from 1) and `steps`.
    """
    timesteps = schedule.timesteps(steps)
    for number, (timestep, next_timestep) in enumerate(zip(timesteps, [*timesteps[1:], None], strict=True), start=1):
        latents = step(schedule, model(latents, timestep), latents, timestep, next_timestep)
        if progress is not None:
            progress("denoise", number, steps)
    return latents
