"""What `sr` is taught by beside its perceptual network: detail, grids, directions. Of images `(B, 3, H, W)` in -1..1."""

from __future__ import annotations

import torch
from torch import Tensor

LATENT_SIDE = 4
"""Pixels a side for each latent."""
GRID_PERIODS = {LATENT_SIDE: 28, 16: 112}
"""Pixels after which a grid may repeat, a latent and a step of the deepest level, and the window it is looked for in."""
Lines = tuple[tuple[int, int, float], ...]
LINES: Lines = ((2, 16, 1.0), (4, 16, 1.0), (2, 112, 3.0))
"""The same for lines, each row or column of pixels by itself, and how much they count: an enlargement may leave every second
or fourth one apart, weakly and all over the picture, which only a long window tells from detail."""
LAST_LINES: Lines = ((2, 16, 3.0), (4, 16, 2.0), (2, 112, 12.0), (4, 112, 6.0))
"""For the last steps: what the others leave of it."""
LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue in brightness (ITU-R BT.601)."""
DIRECTION_WINDOW, DIRECTIONS, BANDS = 32, 12, (0.1, 0.2, 0.3, 0.75)
"""Side of the windows in which the directions of fine structure are compared, how many there are, and the limits of the
bands, in cycles a pixel."""
QUIET = 2e-3
"""Energy of a band, of values in -1..1, that nobody sees: that of lines a quarter of a grey level strong."""


def detail_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of pixels plus L1 of their Fourier coefficients: the second keeps fine structure and punishes any grid."""
    spectrum = (torch.fft.rfft2(output, norm="ortho") - torch.fft.rfft2(target, norm="ortho")).abs().mean()
    return (output - target).abs().mean() + 0.1 * spectrum


def grid_loss(output: Tensor, target: Tensor, lines: Lines) -> Tensor:
    """How much of the error repeats every few pixels: what its local mean at each phase is beyond the mean of all.

    Of images `(B, 3, H, W)` whose sides are multiples of all windows of `GRID_PERIODS` and `lines`; in windows, so that a
    grid over a smooth part counts like one over detail.
    """
    error, total = output - target, output.new_zeros(())
    for period, window in GRID_PERIODS.items():
        repeats = window // period
        phases = error.unflatten(3, (-1, repeats, period)).unflatten(2, (-1, repeats, period)).mean(dim=(3, 6))
        total = total + (phases - phases.mean(dim=(3, 5), keepdim=True)).abs().mean()
    for period, window, weight in lines:
        for turned in (error, error.transpose(2, 3)):
            phases = turned.unflatten(3, (-1, window // period, period)).mean(dim=4)
            total = total + weight * (phases - phases.mean(dim=4, keepdim=True)).abs().mean()
    return total


def luma(images: Tensor) -> Tensor:
    """Brightness `(B, 1, H, W)` of images `(B, 3, H, W)`."""
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)


def direction_loss(output: Tensor, target: Tensor) -> Tensor:
    """How far fine structure runs in other directions than the target's: a weave or a hatching, of any period or of none.

    Of images `(B, 3, H, W)` in -1..1: the Kullback-Leibler divergence of how a band's energy spreads over directions, in
    overlapping windows. How much energy there is, is left to the other losses.
    """
    shares, expected = (_direction_shares(luma(images)[:, 0]) for images in (output, target))
    return (shares * (shares / expected).log()).sum(dim=0).mean()


def _direction_shares(brightness: Tensor) -> Tensor:
    """Each direction's share in the energy of a band, of brightness `(B, H, W)`: `(directions, bands, B, rows, columns)`."""
    side, device = DIRECTION_WINDOW, brightness.device
    window = torch.hann_window(side, periodic=False, device=device)
    parts = brightness.unfold(1, side, side // 2).unfold(2, side, side // 2)
    parts = (parts - parts.mean(dim=(-2, -1), keepdim=True)) * window[:, None] * window
    energy = torch.fft.fft2(parts).abs() ** 2 / (window @ window) ** 2
    frequency = torch.fft.fftfreq(side, device=device)
    radius = torch.hypot(frequency[:, None], frequency)
    turn = torch.atan2(frequency[:, None].expand_as(radius), frequency.expand_as(radius)) / torch.pi
    direction = (turn * DIRECTIONS).round() % DIRECTIONS
    limits = torch.tensor(BANDS, device=device)
    is_of = direction == torch.arange(DIRECTIONS, device=device)[:, None, None, None]
    is_in = (radius >= limits[:-1, None, None]) & (radius < limits[1:, None, None])
    energy = torch.einsum("bijyx,dkyx->dkbij", energy, (is_of & is_in).to(energy)) + QUIET / DIRECTIONS
    return energy / energy.sum(dim=0)
