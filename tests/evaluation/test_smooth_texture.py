"""What is embroidered on smooth places is measured; what lies on texture and at edges, and smooth slopes, are not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from seesr.evaluation.metrics import Metrics, smooth_places, smooth_texture

SIDE = 160


@pytest.fixture(scope="module")
def half_smooth() -> np.ndarray:
    """A slope to the left, strong texture to the right."""
    y = np.linspace(80, 120, SIDE)[:, None].repeat(SIDE, axis=1)
    y[:, SIDE // 2 :] += np.random.default_rng(0).normal(0, 20, (SIDE, SIDE // 2))
    return y


def lattice(period: int, amplitude: float) -> np.ndarray:
    wave = np.cos(2 * np.pi * np.arange(SIDE) / period)
    return amplitude * wave[:, None] * wave


def test_a_lattice_is_found_at_its_strength(half_smooth: np.ndarray) -> None:
    assert smooth_texture(half_smooth, half_smooth) < 0.2
    for amplitude in (2, 6):
        found = smooth_texture(half_smooth + lattice(4, amplitude), half_smooth)
        assert found == pytest.approx(amplitude / 2, rel=0.1), "the root mean square of a product of two cosines"


def test_only_smooth_places_count(half_smooth: np.ndarray) -> None:
    on_texture = np.where(np.arange(SIDE) >= SIDE // 2, lattice(4, 10), 0)
    assert smooth_texture(half_smooth + on_texture, half_smooth) < 0.2
    places = smooth_places(half_smooth)
    assert places[13:-13, 13 : SIDE // 2 - 14].all()
    assert not places[:13].any(), "nor where the squares around a pixel leave the picture"
    assert not places[:, :13].any()
    assert not places[:, SIDE // 2 - 9 :].any(), "nor within 9 pixels of the texture"


def test_a_change_of_brightness_is_no_texture(half_smooth: np.ndarray) -> None:
    slow = 10 * np.sin(2 * np.pi * np.arange(SIDE) / SIDE)
    assert smooth_texture(half_smooth + slow, half_smooth) < 0.5


def test_without_enough_smooth_places_there_is_no_figure(half_smooth: np.ndarray) -> None:
    assert smooth_places(half_smooth).sum() > 2000
    part = half_smooth[:60]
    assert 0 < smooth_places(part).sum() < 2000
    assert math.isnan(smooth_texture(part, part))


def grey_picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")


def test_the_figures_of_a_picture_have_it_beside_the_truths(half_smooth: np.ndarray) -> None:
    noisy = half_smooth + np.random.default_rng(1).normal(0, 5, half_smooth.shape)
    truth, spoilt = (grey_picture(y) for y in (half_smooth, noisy))
    values, plain = (Metrics(None, None)(image, truth) for image in (spoilt, truth))
    assert plain["smooth_texture"] == plain["smooth_texture_truth"] == values["smooth_texture_truth"] < 0.5
    assert values["smooth_texture"] == pytest.approx(5 * 219 / 255, rel=0.05), "luma is in 16..235"
