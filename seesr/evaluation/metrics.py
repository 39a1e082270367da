"""The scales: how near an output is to its ground truth, and whether it carries a grid (`docs/evaluation.md`)."""

from __future__ import annotations

import statistics

import numpy as np
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from seesr.evaluation.niqe import NIQE
from seesr.evaluation.stlpips import STLPIPS

BORDER = 4
"""Pixels at the border that PSNR, SSIM and the grid measure leave out."""
GRID_STRIDES = (2, 4, 8, 16)
NEIGHBOURS = (-3, -2, 2, 3)


class Scales:
    """Every figure of one output; a scale whose model is missing gives no figure."""

    def __init__(self, perceptual: STLPIPS | None, niqe: NIQE | None) -> None:
        self.perceptual = perceptual
        self.niqe = niqe

    def __call__(self, output: Image.Image, truth: Image.Image) -> dict[str, float]:
        """Of two RGB images of one size."""
        y, expected = (luma(image)[BORDER:-BORDER, BORDER:-BORDER] for image in (output, truth))
        grid, truth_grid = grid_energy(y), grid_energy(expected)
        figures = {"psnr_y": psnr(y, expected), "ssim_y": ssim(y, expected)}
        if self.perceptual is not None:
            with torch.inference_mode():
                figures["st_lpips"] = self.perceptual(_tensor(output), _tensor(truth)).item()
        if self.niqe is not None:
            figures["niqe"] = self.niqe(luma(output))
        return figures | {"grid": grid, "grid_to_truth": grid / truth_grid}


def luma(image: Image.Image) -> np.ndarray:
    """BT.601 luma `(H, W)` in 16..235 of an RGB image."""
    return np.asarray(image, dtype=np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16


def psnr(y: np.ndarray, expected: np.ndarray) -> float:
    """Decibels, of a range of 255; infinite for equal pictures."""
    mse = ((y - expected) ** 2).mean()
    return float(10 * np.log10(255**2 / mse)) if mse else float("inf")


def ssim(y: np.ndarray, expected: np.ndarray) -> float:
    """With the Gaussian window of Wang et al. (IEEE TIP 2004)."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(y, expected, data_range=255, **settings))


def grid_energy(y: np.ndarray) -> float:
    """Mean ratio of the spectrum's energy on the lines of the stride frequencies to that of lines 2 and 3 bins away.

    1 for a picture without a grid; of the largest square from the top left, under a Hann window.
    """
    side = min(y.shape) // 16 * 16
    window = np.hanning(side)
    spectrum = np.abs(np.fft.fft2((y[:side, :side] - y.mean()) * window[:, None] * window)) ** 2
    ratios = []
    for lines in (spectrum.mean(axis=0), spectrum.mean(axis=1)):
        for stride in GRID_STRIDES:
            centre = side // stride
            around = statistics.fmean(lines[(centre + offset) % side] for offset in NEIGHBOURS)
            ratios.append(lines[centre] / around if around else 1.0)
    return statistics.fmean(ratios)


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
