"""Kernel Density Steering (Hu et al., NeurIPS 2025): several particles of one picture, drawn to where most of them agree.

Before each DDIM step every patch of each particle's predicted x0 moves a part of the way along the mean shift of the
same patch in all particles. What they agree on is kept, what only one invents is pulled back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seesr.diffusion.schedule import NoiseSchedule

PIECE = 1 << 16
"""Places that are worked on at a time: each holds a matrix of all pairs of particles."""


@dataclass(frozen=True)
class Steering:
    """How `particles` of each picture are steered: patches of `patch` latent pixels a side, kernels of width `bandwidth`.

    Without a bandwidth it is at each place the median distance between two particles. A large one holds to what all
    agree on, a small one lets groups of particles keep their own detail.
    """

    particles: int
    bandwidth: float | None = None
    patch: int = 2
    strength: float = 0.3
    """Share of the mean shift that is gone at a step."""

    def step(
        self, schedule: NoiseSchedule, prediction: Tensor, latents: Tensor, timestep: int, following: int | None
    ) -> Tensor:
        """A DDIM step (eta 0) of `(B * particles, C, h, w)` from the steered x0, with the noise as predicted.

        At the first of several steps nothing is known yet, and nothing is steered.
        """
        x0, noise = schedule.split(prediction, latents, timestep)
        is_first_of_several = following is not None and timestep == len(schedule.alphas_cumprod) - 1
        if not is_first_of_several:
            x0 = torch.cat([self.move(one) for one in x0.split(self.particles)])
        alpha = schedule.signal(following)
        return alpha**0.5 * x0 + (1 - alpha) ** 0.5 * noise

    def move(self, particles: Tensor) -> Tensor:
        """`(N, C, h, w)` of one picture, each patch moved by its share of the mean shift."""
        height, width = particles.shape[2:]
        margin = (0, -width % self.patch, 0, -height % self.patch)
        padded = F.pad(particles, margin, mode="replicate") if any(margin) else particles
        # (places, particles, numbers of a patch)
        patches = F.unfold(padded, self.patch, stride=self.patch).permute(2, 0, 1)
        moved = torch.cat([part + self.strength * mean_shift(part, self.bandwidth) for part in patches.split(PIECE)])
        return F.fold(moved.permute(1, 2, 0), padded.shape[2:], self.patch, stride=self.patch)[:, :, :height, :width]


def mean_shift(points: Tensor, bandwidth: float | None) -> Tensor:
    """From each of N points to the kernel-weighted mean of all at its place: `(places, N, D)` for `(places, N, D)`.

    The kernel is exp(-d^2 / (2 h^2)) of the distance d, with h `bandwidth` or the median distance between two points.
    """
    count = points.shape[1]
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    if bandwidth is None:
        first, second = torch.triu_indices(count, count, offset=1)
        pairs = distances[:, first, second] if count > 1 else distances[:, 0]
        width = pairs.median(dim=1).values[:, None, None]
    else:
        width = distances.new_tensor(bandwidth)
    # Where most points are the same the width is zero: only those count as near.
    weights = torch.exp(-0.5 * (distances / width.clamp(min=torch.finfo(points.dtype).tiny)) ** 2)
    return weights @ points / weights.sum(dim=2, keepdim=True) - points


def nearest_to_mean(particles: Tensor, count: int) -> Tensor:
    """Of each picture's `count` particles `(B * count, C, h, w)` the one nearest to their mean: `(B, C, h, w)`."""
    by_picture = particles.unflatten(0, (-1, count))
    distances = (by_picture - by_picture.mean(dim=1, keepdim=True)).flatten(2).norm(dim=2)
    return torch.stack([one[index] for one, index in zip(by_picture, distances.argmin(dim=1), strict=True)])
