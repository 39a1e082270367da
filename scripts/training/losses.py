"""What `sr` is taught by, and how much each loss counts. Of images `(B, 3, H, W)` in -1..1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scripts.training.device import autocast

RAW_WEIGHT = 0.03
"""Of the loss before the colour fix. Brightness and tint are one direction that all weights share: were they to weigh as
much as detail, Adam would hardly learn anything else."""
VAE_WEIGHT = 0.5
"""Of the loss of the autoencoder alone."""
WINDOW = 64
"""Side of the part of a crop that the perceptual loss looks at."""
LATENT_SIDE = 4
"""Pixels a side for each latent."""
GRID_PERIODS = {LATENT_SIDE: 28, 16: 112}
"""Pixels after which a grid may repeat, a latent and a step of the deepest level, and the window it is looked for in."""
LINES = ((2, 16, 1.0), (4, 16, 1.0), (2, 112, 3.0))
"""The same for lines, each row or column of pixels by itself, and how much they count: an enlargement may leave every second
or fourth one apart, weakly and all over the picture, which only a long window tells from detail."""
SPECTRUM_WINDOW = 32
"""Side of the windows in which the losses on directions and on sharpness compare energies."""
DIRECTIONS, DIRECTION_BANDS = 12, (0.1, 0.2, 0.3, 0.75)
"""How many directions of fine structure are compared, and the limits of the bands, in cycles a pixel."""
SHARPNESS_BAND = (0.07, 0.17)
"""Cycles a pixel between which a picture looks sharp or soft: around the finest that an input of a quarter the size tells,
0.125 along rows and columns and 0.177 along diagonals."""
FINISH_JOINS = 0.25
"""Share of the steps over which the losses on directions and on sharpness join."""
QUIET = 8e-3
"""Energy of a band in such a window, of values in -1..1, that nobody sees: of lines half a grey level strong."""


@dataclass(frozen=True)
class Balance:
    """How much each loss counts, and in which part of the run the perceptual one joins; those on directions and sharpness
    follow it."""

    perceptual_from: float
    perceptual_full: float
    """Shares of the steps."""
    perceptual_weight: float
    grid_weight: float
    direction_weight: float
    sharpness_weight: float

    def perceptual_growth(self, progress: float) -> float:
        """How far the perceptual loss has joined, 0 to 1, after a share of the steps."""
        return _growth(progress, self.perceptual_from, self.perceptual_full)

    def finish_growth(self, progress: float) -> float:
        """The same of the losses on directions and sharpness. From the start, that on directions would leave no strokes to
        mend; that on sharpness was tried only late."""
        return _growth(progress, self.perceptual_full, self.perceptual_full + FINISH_JOINS)

    def total(self, parts: Mapping[str, Tensor], progress: float) -> Tensor:
        """The loss to be made small, after a share of the steps."""
        growth = self.perceptual_growth(progress)
        loss = parts["detail"] + VAE_WEIGHT * parts["vae"] + RAW_WEIGHT * parts["raw"]
        loss = loss + self.grid_weight * (0.1 + 0.9 * growth) * parts["grid"]
        finish = self.direction_weight * parts["direction"] + self.sharpness_weight * parts["sharpness"]
        loss = loss + self.finish_growth(progress) * finish
        return loss + self.perceptual_weight * growth * parts["perceptual"]


def _growth(progress: float, begin: float, full: float) -> float:
    return max(0.0, min(1.0, (progress - begin) / (full - begin)))


def detail_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of pixels plus L1 of their Fourier coefficients: the second keeps fine structure and punishes any grid."""
    spectrum = (torch.fft.rfft2(output, norm="ortho") - torch.fft.rfft2(target, norm="ortho")).abs().mean()
    return (output - target).abs().mean() + 0.1 * spectrum


def grid_loss(output: Tensor, target: Tensor) -> Tensor:
    """How much of the error repeats every few pixels: what its local mean at each phase is beyond the mean of all.

    Of images `(B, 3, H, W)` whose sides are multiples of all windows of `GRID_PERIODS` and `LINES`; in windows, so that a
    grid over a smooth part counts like one over detail.
    """
    error, total = output - target, output.new_zeros(())
    for period, window in GRID_PERIODS.items():
        repeats = window // period
        phases = error.unflatten(3, (-1, repeats, period)).unflatten(2, (-1, repeats, period)).mean(dim=(3, 6))
        total = total + (phases - phases.mean(dim=(3, 5), keepdim=True)).abs().mean()
    for period, window, weight in LINES:
        for turned in (error, error.transpose(2, 3)):
            phases = turned.unflatten(3, (-1, window // period, period)).mean(dim=4)
            total = total + weight * (phases - phases.mean(dim=4, keepdim=True)).abs().mean()
    return total


def brightness(images: Tensor) -> Tensor:
    """`(B, 1, H, W)` of images `(B, 3, H, W)`: the mean of red, green and blue.

    Not luma, of which most is green: a loss that looks at it tints as it goes, what it makes brighter green, what it makes
    darker purple.
    """
    return images.mean(dim=1, keepdim=True)


def direction_loss(output: Tensor, target: Tensor) -> Tensor:
    """How far fine structure runs in other directions than the target's: a weave or a hatching, of any period or of none.

    Of images `(B, 3, H, W)` in -1..1: the Kullback-Leibler divergence of how a band's energy spreads over directions, in
    overlapping windows. How much energy there is, is left to the other losses.
    """
    energies = _energies(torch.cat([output, target]), DIRECTION_BANDS)
    shares, expected = (energies / energies.sum(dim=0)).chunk(2, dim=2)
    return (shares * (shares / expected).log()).sum(dim=0).mean()


def sharpness_loss(output: Tensor, target: Tensor) -> Tensor:
    """How far the energy of edges and texture, between `SHARPNESS_BAND`, is from the target's.

    Of images `(B, 3, H, W)` in -1..1: the amount of the logarithm of their ratio, in overlapping windows. Pixels' own errors
    ask for less of whatever is not certain, and the perceptual loss makes up for it with what is finer.
    """
    energy, expected = _energies(torch.cat([output, target]), SHARPNESS_BAND).sum(dim=0).chunk(2, dim=1)
    return (energy / expected).log().abs().mean()


def _energies(images: Tensor, limits: tuple[float, ...]) -> Tensor:
    """The brightness's energy in bands between such limits, in each direction and window, of images `(B, 3, H, W)`:
    `(directions, bands, B, rows, columns)`."""
    side, device = SPECTRUM_WINDOW, images.device
    window = torch.hann_window(side, periodic=False, device=device)
    # A quarter of a window apart, where squares of Hann windows add up to nearly the same at every place.
    parts = brightness(images)[:, 0].unfold(1, side, side // 4).unfold(2, side, side // 4)
    parts = (parts - parts.mean(dim=(-2, -1), keepdim=True)) * window[:, None] * window
    energy = torch.view_as_real(torch.fft.fft2(parts)).square().sum(dim=-1) / (window @ window) ** 2
    frequency = torch.fft.fftfreq(side, device=device)
    radius = torch.hypot(frequency[:, None], frequency)
    turn = torch.atan2(frequency[:, None].expand_as(radius), frequency.expand_as(radius)) / torch.pi
    direction = (turn * DIRECTIONS).round() % DIRECTIONS
    edges = torch.tensor(limits, device=device)
    is_of = direction == torch.arange(DIRECTIONS, device=device)[:, None, None, None]
    is_in = (radius >= edges[:-1, None, None]) & (radius < edges[1:, None, None])
    return torch.einsum("bijyx,dkyx->dkbij", energy, (is_of & is_in).to(energy)) + QUIET / DIRECTIONS


def perceptual_loss(
    network: Callable[[Tensor, Tensor], Tensor],
    output: Tensor,
    target: Tensor,
    factors: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """The mean of the network's distances `(B,)` of a window at a random place, each picture's times its factor `(B,)`.

    At a random place, for the network's own strides must not meet the model's. Of the output only the brightness, in the
    target's colours: left to itself it fills fine structure with colours that nothing in the input tells.
    """
    top, left = (int(offset) for offset in rng.integers(0, target.shape[-1] - WINDOW + 1, 2))
    window = (..., slice(top, top + WINDOW), slice(left, left + WINDOW))
    seen = target + brightness(output - target)
    pair = (images[window].contiguous(memory_format=torch.channels_last) for images in (seen, target))
    with autocast(target.device):
        distances = network(*pair).flatten()
    return (distances * factors).mean()
