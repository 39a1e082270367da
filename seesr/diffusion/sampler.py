"""Samplers as plain functions of latents: DDIM, which the product uses, and DDPM, which the published script used."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seesr.diffusion.schedule import NoiseSchedule
from seesr.stages import Progress

Model = Callable[[Tensor, int], Tensor]
"""Noisy latents and timestep to the UNet's prediction."""
Step = Callable[[NoiseSchedule, Tensor, Tensor, int, "int | None"], Tensor]


def ddim_step(schedule: NoiseSchedule, prediction: Tensor, latents: Tensor, timestep: int, following: int | None) -> Tensor:
    """One DDIM step with eta 0 (Song et al., ICLR 2021, equation 12) from `timestep` to `following` (None: the end)."""
    x0, noise = schedule.split(prediction, latents, timestep)
    alpha = schedule.signal(following)
    return alpha**0.5 * x0 + (1 - alpha) ** 0.5 * noise


def ddpm_step(generator: torch.Generator) -> Step:
    """A DDPM step (Ho et al., NeurIPS 2020, equations 6 and 7, posterior variance) that draws from `generator`."""

    def step(schedule: NoiseSchedule, prediction: Tensor, latents: Tensor, timestep: int, following: int | None) -> Tensor:
        x0, _ = schedule.split(prediction, latents, timestep)
        alpha = schedule.signal(timestep)
        # Unlike DDIM, the published DDPM ends at no noise at all.
        previous = 1.0 if following is None else schedule.signal(following)
        alpha_step = alpha / previous
        mean = previous**0.5 * (1 - alpha_step) * x0 + alpha_step**0.5 * (1 - previous) * latents
        variance = (1 - previous) * (1 - alpha_step) / (1 - alpha)
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
    """Denoises `latents` `(B, C, h, w)`, which are at the first timestep's noise level, in `steps` steps.

    `progress` is called after each step with `denoise`, its number (from 1) and `steps`.
    """
    timesteps = schedule.timesteps(steps)
    for number, (timestep, following) in enumerate(zip(timesteps, [*timesteps[1:], None], strict=True), start=1):
        latents = step(schedule, model(latents, timestep), latents, timestep, following)
        if progress is not None:
            progress("denoise", number, steps)
    return latents
