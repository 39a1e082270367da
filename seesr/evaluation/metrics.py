"""Metrics: the distance of an output to its ground truth, and the strength of grids and of texture where there is none.

`docs/evaluation.md` defines each."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, minimum_filter, uniform_filter
from skimage.metrics import structural_similarity

from seesr.evaluation.niqe import NIQE
from seesr.evaluation.stlpips import STLPIPS

BORDER = 4
"""Pixels at each border that PSNR, SSIM and the grid energy ignore."""
GRID_STRIDES = (2, 4, 8, 16)
"""Pixels: the strides of the autoencoder."""
NEIGHBOURS = (-3, -2, 2, 3)
"""Offsets, in frequency bins, of the lines with which a grid's frequency is compared."""


SMOOTH_WINDOW, SMOOTH_DEVIATION = 9, 2.0
"""A pixel is smooth if the luma in a square of this side around it has a smaller standard deviation than this, in levels."""
SMOOTH_MARGIN = 9
"""Pixels around a smooth place that must be smooth too, so that no edge reaches into it."""
MIN_SMOOTH_PIXELS = 2000
TEXTURE_DEVIATION = 4.0
"""Of the Gaussian, in pixels: what is finer counts as texture."""


class Metrics:
    """Computes all metrics of an output; ST-LPIPS and NIQE are left out where their models are None."""

    def __init__(self, perceptual: STLPIPS | None, niqe: NIQE | None) -> None:
        self.perceptual = perceptual
        self.niqe = niqe

    def __call__(self, output: Image.Image, truth: Image.Image) -> dict[str, float]:
        """Values by metric, for two RGB images of one size."""
        y, y_truth = (luma(image)[BORDER:-BORDER, BORDER:-BORDER] for image in (output, truth))
        grid, truth_grid = grid_energy(y), grid_energy(y_truth)
        values = {"psnr_y": psnr(y, y_truth), "ssim_y": ssim(y, y_truth)}
        if self.perceptual is not None:
            with torch.inference_mode():
                values["st_lpips"] = self.perceptual(_tensor(output), _tensor(truth)).item()
        if self.niqe is not None:
            values["niqe"] = self.niqe(luma(output))
        values |= {"grid": grid, "grid_to_truth": grid / truth_grid}
        texture, truth_texture = (smooth_texture(image, y_truth) for image in (y, y_truth))
        return values | {"smooth_texture": texture, "smooth_texture_truth": truth_texture}


def luma(image: Image.Image) -> np.ndarray:
    """BT.601 luma `(H, W)` in 16..235 of an RGB image."""
    return np.asarray(image, dtype=np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16


def psnr(y: np.ndarray, y_truth: np.ndarray) -> float:
    """PSNR in dB for a range of 255; infinite for equal images."""
    mse = ((y - y_truth) ** 2).mean()
    return float(10 * np.log10(255**2 / mse)) if mse else float("inf")


def ssim(y: np.ndarray, y_truth: np.ndarray) -> float:
    """SSIM with the Gaussian window of Wang et al. (IEEE TIP 2004)."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    similarity: Any = structural_similarity(y, y_truth, data_range=255, **settings)
    return float(similarity)


def grid_energy(y: np.ndarray) -> float:
    """Mean ratio of the spectral energy at the frequencies 1/stride of `GRID_STRIDES` to that 2 and 3 bins away.

    About 1 without a grid. Computed on the largest top-left square whose side is a multiple of 16, with a Hann window.
    """
    side = min(y.shape) // 16 * 16
    window = np.hanning(side)
    spectrum = np.abs(np.fft.fft2((y[:side, :side] - y.mean()) * window[:, None] * window)) ** 2
    ratios = []
    for lines in (spectrum.mean(axis=0), spectrum.mean(axis=1)):
        for stride in GRID_STRIDES:
            centre = side // stride
            neighbours = statistics.fmean(lines[(centre + offset) % side] for offset in NEIGHBOURS)
            ratios.append(lines[centre] / neighbours if neighbours else 1.0)
    return statistics.fmean(ratios)


def smooth_texture(y: np.ndarray, y_truth: np.ndarray) -> float:
    """Root mean square of the fine structure of `y`, in levels, where the truth is smooth.

    That is the embroidery on skin, sky and paper that distances to the truth forgive; noise that was left counts too. NaN
    where less than `MIN_SMOOTH_PIXELS` are smooth.
    """
    smooth = smooth_places(y_truth)
    if smooth.sum() < MIN_SMOOTH_PIXELS:
        return float("nan")
    return float(np.sqrt(np.square(y - gaussian_filter(y, TEXTURE_DEVIATION))[smooth].mean()))


def smooth_places(y: np.ndarray) -> np.ndarray:
    """Where `y` `(H, W)` is smooth, and so `SMOOTH_MARGIN` pixels around: boolean `(H, W)`.

    Of what lies beyond the border nothing is known, so nowhere near it: networks that pad with zeros draw lines there.
    """
    y = y - y.mean()
    mean, square = (uniform_filter(values, SMOOTH_WINDOW) for values in (y, y**2))
    smooth = (square - mean**2 < SMOOTH_DEVIATION**2).astype(np.uint8)
    reach = SMOOTH_MARGIN + SMOOTH_WINDOW // 2
    inner = np.zeros_like(smooth, dtype=bool)
    inner[reach:-reach, reach:-reach] = True
    return inner & minimum_filter(smooth, 2 * SMOOTH_MARGIN + 1).astype(bool)


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
