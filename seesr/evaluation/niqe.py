"""NIQE, a no-reference image quality metric (Mittal, Soundararajan and Bovik, IEEE SPL 2013); lower is more natural.

The pristine model holds mean and covariance of 36 features of natural images; evaluation uses the published one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import convolve
from scipy.special import gamma

BLOCK_SIDE = 96
"""Pixels at full size; at half size the blocks have half the side."""
NEIGHBOUR_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
SHAPE_PARAMETERS = np.arange(0.2, 10.001, 0.001)
"""Grid on which the shape parameter of the generalised Gaussian is searched."""


@dataclass(frozen=True, eq=False)
class NIQE:
    """The metric, with its pristine model."""

    mean: np.ndarray
    """`(36,)`"""
    covariance: np.ndarray
    """`(36, 36)`"""
    window: np.ndarray
    """`(7, 7)` Gaussian window of local mean and standard deviation."""

    @classmethod
    def load(cls, path: Path) -> NIQE:
        """Loads a pristine model in the published format, `niqe_pris_params.npz`.

        Raises:
            OSError, EOFError, BadZipFile: the file cannot be read.
            KeyError, ValueError: the file has other contents.
        """
        content = np.load(path)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        model = cls(content["mu_pris_param"].ravel(), content["cov_pris_param"], content["gaussian_window"])
        shapes = model.mean.shape, model.covariance.shape, model.window.shape
        if shapes != ((36,), (36, 36), (7, 7)):
            raise ValueError(f"arrays of shapes {shapes}")
        return model

    @classmethod
    def fit(cls, pictures: list[np.ndarray]) -> NIQE:
        """Fits a pristine model to the luma `(H, W)` of pictures, which must have at least two blocks in total."""
        offset = np.arange(-3, 4)
        window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * (7 / 6) ** 2))
        window /= window.sum()
        features = np.concatenate([block_features(luma, window) for luma in pictures])
        return cls(features.mean(axis=0), np.cov(features, rowvar=False), window)

    def __call__(self, luma: np.ndarray) -> float:
        """NIQE of `luma` `(H, W)` in 0..255; NaN where a side is below 96 pixels."""
        if min(luma.shape) < BLOCK_SIDE:
            return float("nan")
        features = block_features(luma, self.window)
        finite = features[~np.isnan(features).any(axis=1)]
        covariance = np.cov(finite, rowvar=False) if len(finite) > 1 else np.zeros_like(self.covariance)
        difference = self.mean - np.nanmean(features, axis=0)
        return float(np.sqrt(difference @ np.linalg.pinv((self.covariance + covariance) / 2) @ difference))


def block_features(luma: np.ndarray, window: np.ndarray) -> np.ndarray:
    """`(blocks, 36)`: 18 features at full size and 18 at half size of each whole block, row by row."""
    rows, columns = (side // BLOCK_SIDE for side in luma.shape)
    luma = luma[: rows * BLOCK_SIDE, : columns * BLOCK_SIDE].round()
    features = []
    for factor in (1, 2):
        normalised, side = _normalise(luma, window), BLOCK_SIDE // factor
        blocks = normalised.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(-1, side, side)
        features.append(np.array([_features(block) for block in blocks]))
        half = Image.fromarray((luma / 255).astype(np.float32)).resize(
            (luma.shape[1] // 2, luma.shape[0] // 2), Image.Resampling.BICUBIC
        )
        luma = np.asarray(half, dtype=np.float64) * 255
    return np.concatenate(features, axis=1)


def _normalise(luma: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Mean-subtracted contrast-normalised coefficients: (luma - local mean) / (local standard deviation + 1)."""
    mean = convolve(luma, window, mode="nearest")
    deviation = np.sqrt(np.abs(convolve(luma**2, window, mode="nearest") - mean**2))
    return (luma - mean) / (deviation + 1)


def _features(block: np.ndarray) -> list[float]:
    """18 features of a block: the fit to its values, and the fits to the products with four neighbours."""
    shape, left, right = _asymmetric_gaussian(block)
    features = [shape, (left + right) / 2]
    for shift in NEIGHBOUR_SHIFTS:
        shape, left, right = _asymmetric_gaussian(block * np.roll(block, shift, axis=(0, 1)))
        features += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return features


def _asymmetric_gaussian(values: np.ndarray) -> tuple[float, float, float]:
    """(shape, left scale, right scale) of an asymmetric generalised Gaussian, by moments (Lasmar et al., ICIP 2009)."""
    values = values.ravel()
    left, right = (np.sqrt(np.mean(side**2)) if len(side) else 0.0 for side in (values[values < 0], values[values > 0]))
    if left == 0 or right == 0:
        return float("nan"), float("nan"), float("nan")
    ratio = left / right
    moments = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    moments *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    expected = gamma(2 / SHAPE_PARAMETERS) ** 2 / (gamma(1 / SHAPE_PARAMETERS) * gamma(3 / SHAPE_PARAMETERS))
    shape = SHAPE_PARAMETERS[np.argmin((expected - moments) ** 2)]
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return float(shape), float(left * scale), float(right * scale)
