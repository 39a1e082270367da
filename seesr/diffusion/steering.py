"""Kernel density steering, KDS (Hu et al., NeurIPS 2025): several particles of one picture are pulled to where most agree.

Before each DDIM step every patch of each particle's predicted x0 moves along its mean shift over the same patch of all
particles. Detail that the particles agree on is kept; detail that only one of them invents is pulled back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seesr.diffusion.schedule import NoiseSchedule

PATCHES_PER_CHUNK = 1 << 16
"""Patches that are processed at once: each needs a matrix of all pairs of particles."""


@dataclass(frozen=True)
class Steering:
    """How `particles` particles of each picture are steered, in patches of `patch` latent pixels a side.

    `bandwidth` is the width of the kernel; None is, for each patch, the median distance between two particles. A large one
    keeps what all particles agree on; with a small one groups of particles keep their own detail.
    """

    particles: int
    bandwidth: float | None = None
    patch: int = 2
    strength: float = 0.3
    """Share of the mean shift by which a patch moves in a step."""

    def step(
        self, schedule: NoiseSchedule, prediction: Tensor, latents: Tensor, timestep: int, next_timestep: int | None
    ) -> Tensor:
        """A DDIM step (eta 0) of `(B * particles, C, h, w)` from the steered x0, with the predicted noise.

        The first of several steps is not steered: its x0 is still too uncertain.
        """
        x0, noise = schedule.x0_and_noise(prediction, latents, timestep)
        is_first_of_several = next_timestep is not None and timestep == len(schedule.alphas_cumprod) - 1
        if not is_first_of_several:
            x0 = torch.cat([self.steer(particles) for particles in x0.split(self.particles)])
        alpha = schedule.alpha_cumprod(next_timestep)
        return alpha**0.5 * x0 + (1 - alpha) ** 0.5 * noise

    def steer(self, particles: Tensor) -> Tensor:
        """The particles `(N, C, h, w)` of one picture, each patch moved by `strength` times its mean shift."""
        height, width = particles.shape[2:]
        padding = (0, -width % self.patch, 0, -height % self.patch)
        padded = F.pad(particles, padding, mode="replicate") if any(padding) else particles
        # (patches, particles, values of a patch)
        patches = F.unfold(padded, self.patch, stride=self.patch).permute(2, 0, 1)
        chunks = patches.split(PATCHES_PER_CHUNK)
        moved = torch.cat([chunk + self.strength * mean_shift(chunk, self.bandwidth) for chunk in chunks])
        return F.fold(moved.permute(1, 2, 0), padded.shape[2:], self.patch, stride=self.patch)[:, :, :height, :width]


def mean_shift(points: Tensor, bandwidth: float | None) -> Tensor:
    """Vector from each point to the kernel-weighted mean of the N points of its patch: `(patches, N, D)`, like `points`.

    The kernel is exp(-d^2 / (2 h^2)) of the distance d; h is `bandwidth` or the median distance between two points.
    """
    count = points.shape[1]
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    if bandwidth is None:
        first, second = torch.triu_indices(count, count, offset=1)
        pairs = distances[:, first, second] if count > 1 else distances[:, 0]
        width = pairs.median(dim=1).values[:, None, None]
    else:
        width = distances.new_tensor(bandwidth)
    # Where most points are equal the width is zero, so only equal points get a weight.
    weights = torch.exp(-0.5 * (distances / width.clamp(min=torch.finfo(points.dtype).tiny)) ** 2)
    return weights @ points / weights.sum(dim=2, keepdim=True) - points


def nearest_to_mean(particles: Tensor, count: int) -> Tensor:
    """The particle nearest to the mean of each picture's `count` particles: `(B, C, h, w)` from `(B * count, C, h, w)`."""
    by_picture = particles.unflatten(0, (-1, count))
    distances = (by_picture - by_picture.mean(dim=1, keepdim=True)).flatten(2).norm(dim=2)
    return torch.stack([picture[index] for picture, index in zip(by_picture, distances.argmin(dim=1), strict=True)])
