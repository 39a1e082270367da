"""NIQE, a distance from natural pictures that needs no ground truth (Mittal, Soundararajan and Bovik, IEEE SPL 2013).

Lower is more natural. The pristine model is the published one: mean and covariance of 36 features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import convolve
from scipy.special import gamma

BLOCK = 96
"""Side of the blocks at full size; at half size they are half as large."""
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
SHAPES = np.arange(0.2, 10.001, 0.001)
"""Shape parameters among which that of the generalised Gaussian is looked up."""


@dataclass(frozen=True, eq=False)
class NIQE:
    """The pristine model."""

    mean: np.ndarray
    """`(36,)`"""
    covariance: np.ndarray
    """`(36, 36)`"""
    window: np.ndarray
    """`(7, 7)` Gaussian of local mean and deviation."""

    @classmethod
    def load(cls, path: Path) -> NIQE:
        """From `niqe_pris_params.npz`.

        Raises:
            OSError, EOFError, BadZipFile: it cannot be read.
            KeyError, ValueError: it is something else.
        """
        content = np.load(path)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise ValueError("one array, not several")
        model = cls(content["mu_pris_param"].ravel(), content["cov_pris_param"], content["gaussian_window"])
        shapes = model.mean.shape, model.covariance.shape, model.window.shape
        if shapes != ((36,), (36, 36), (7, 7)):
            raise ValueError(f"arrays of shapes {shapes}")
        return model

    @classmethod
    def fit(cls, pictures: list[np.ndarray]) -> NIQE:
        """A model of one's own, from luma `(H, W)` of at least two blocks in all."""
        place = np.arange(-3, 4)
        window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * (7 / 6) ** 2))
        window /= window.sum()
        features = np.concatenate([block_features(luma, window) for luma in pictures])
        return cls(features.mean(axis=0), np.cov(features, rowvar=False), window)

    def __call__(self, luma: np.ndarray) -> float:
        """Distance of a picture's `luma` `(H, W)` in 0..255, sides at least 96; NaN for a smaller one."""
        if min(luma.shape) < BLOCK:
            return float("nan")
        features = block_features(luma, self.window)
        whole = features[~np.isnan(features).any(axis=1)]
        covariance = np.cov(whole, rowvar=False) if len(whole) > 1 else np.zeros_like(self.covariance)
        difference = self.mean - np.nanmean(features, axis=0)
        return float(np.sqrt(difference @ np.linalg.pinv((self.covariance + covariance) / 2) @ difference))


def block_features(luma: np.ndarray, window: np.ndarray) -> np.ndarray:
    """`(blocks, 36)`: 18 features at full size and 18 at half of it, of whole blocks from the top left."""
    rows, columns = (side // BLOCK for side in luma.shape)
    luma = luma[: rows * BLOCK, : columns * BLOCK].round()
    scales = []
    for factor in (1, 2):
        normalised, side = _normalise(luma, window), BLOCK // factor
        blocks = normalised.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(-1, side, side)
        scales.append(np.array([_features(block) for block in blocks]))
        half = Image.fromarray((luma / 255).astype(np.float32)).resize(
            (luma.shape[1] // 2, luma.shape[0] // 2), Image.Resampling.BICUBIC
        )
        luma = np.asarray(half, dtype=np.float64) * 255
    return np.concatenate(scales, axis=1)


def _normalise(luma: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Each pixel less its local mean, over its local deviation plus one."""
    mean = convolve(luma, window, mode="nearest")
    deviation = np.sqrt(np.abs(convolve(luma**2, window, mode="nearest") - mean**2))
    return (luma - mean) / (deviation + 1)


def _features(block: np.ndarray) -> list[float]:
    """Shape and spread of the block's values, and shape, mean and spreads of products with four neighbours."""
    shape, left, right = _asymmetric_gaussian(block)
    features = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = _asymmetric_gaussian(block * np.roll(block, shift, axis=(0, 1)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return features


def _asymmetric_gaussian(values: np.ndarray) -> tuple[float, float, float]:
    """Shape and the two scales of an asymmetric generalised Gaussian, by moments (Lasmar et al., ICIP 2009)."""
    values = values.ravel()
    left, right = (np.sqrt(np.mean(side**2)) if len(side) else 0.0 for side in (values[values < 0], values[values > 0]))
    if left == 0 or right == 0:
        return float("nan"), float("nan"), float("nan")
    ratio = left / right
    moments = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    moments *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    expected = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))
    shape = SHAPES[np.argmin((expected - moments) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return float(shape), float(left * scale), float(right * scale)
