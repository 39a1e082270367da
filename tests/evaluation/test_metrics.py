"""The metrics measure what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import photograph
from PIL import Image, ImageFilter

from seesr.evaluation import stlpips
from seesr.evaluation.degradation import degrade
from seesr.evaluation.evaluate import PictureMetrics, mean_metrics, pairs_from_truths
from seesr.evaluation.metrics import grid_energy, luma, psnr, ssim
from seesr.evaluation.niqe import NIQE
from seesr.images.resize import to_tensor


def square(name: str, size: int = 288) -> Image.Image:
    return photograph(name, (60, 0, 60 + size, size))


def test_luma_and_psnr_by_hand() -> None:
    white, black = (luma(Image.new("RGB", (20, 20), colour)) for colour in ("white", "black"))
    assert white[0, 0] == pytest.approx(235, abs=0.01)
    assert black[0, 0] == pytest.approx(16)
    assert psnr(black, black + 25.5) == pytest.approx(20)
    assert psnr(black, black) == float("inf")


def test_ssim_is_one_for_equal_pictures_and_falls_with_blur() -> None:
    sharp = square("chelsea.png")
    values = [ssim(luma(sharp.filter(ImageFilter.GaussianBlur(radius))), luma(sharp)) for radius in (0, 1, 3)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_a_grid_is_seen(stride: int) -> None:
    y = luma(square("coffee.png"))
    lines = (np.arange(y.shape[1]) % stride == 0) * 12.0
    assert grid_energy(y) == pytest.approx(1, abs=0.35)
    assert grid_energy(y + lines) > 1.5 * grid_energy(y)


@pytest.fixture(scope="module")
def pristine() -> NIQE:
    return NIQE.fit([luma(square(name)) for name in ("astronaut.png", "chelsea.png", "coffee.png")])


def test_niqe_rises_with_noise_blur_and_blocks(pristine: NIQE) -> None:
    sharp = square("astronaut.png").crop((96, 0, 288, 192))
    noise = np.random.default_rng(0).normal(0, 25, (192, 192))
    clean = pristine(luma(sharp))
    assert clean < pristine(luma(sharp) + noise)
    assert clean < pristine(luma(sharp.filter(ImageFilter.GaussianBlur(3))))
    assert clean < pristine(luma(sharp.resize((48, 48)).resize((192, 192), Image.Resampling.NEAREST)))


def test_niqe_of_flat_and_small_pictures(pristine: NIQE) -> None:
    assert np.isnan(pristine(np.zeros((95, 200))))
    half = luma(square("chelsea.png", 192))
    half[:96] = 100.0
    assert np.isfinite(pristine(half)), "a flat block has no features and does not count"


ALEX_SHAPES = {
    "slice1.0": (64, 3, 11, 11),
    "slice2.5": (192, 64, 5, 5),
    "slice3.9": (384, 192, 3, 3),
    "slice4.11": (256, 384, 3, 3),
    "slice5.13": (256, 256, 3, 3),
}


@pytest.fixture
def perceptual(monkeypatch: pytest.MonkeyPatch) -> stlpips.STLPIPS:
    """The network with weights of chance in place of those that are fetched."""
    torch.manual_seed(0)
    weights = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    for level, (name, shape) in enumerate(ALEX_SHAPES.items()):
        weights[f"net.{name}.weight"] = torch.randn(shape) / np.prod(shape[1:]) ** 0.5
        weights[f"net.{name}.bias"] = torch.zeros(shape[0])
        weights[f"lin{level}.model.1.weight"] = torch.ones(1, shape[0], 1, 1)
    for name, channels in (("slice1.1", 64), ("slice2.4", 64), ("slice3.8", 192)):
        weights[f"net.{name}.filt"] = torch.full((channels, 1, 3, 3), 1 / 9)
    monkeypatch.setattr(stlpips, "_published_weights", lambda net: weights)
    return stlpips.STLPIPS("alex")


def test_the_perceptual_distance_grows_with_blur(perceptual: stlpips.STLPIPS) -> None:
    sharp = square("chelsea.png", 64)
    blurred = [sharp.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 1, 3)]
    images, truth = (torch.cat([to_tensor(one) for one in many]) * 2 - 1 for many in (blurred, [sharp] * 3))
    distances = perceptual(images, truth)
    assert distances.shape == (3,)
    assert distances[0] == 0
    assert 0 < distances[1] < distances[2]
    assert torch.allclose(distances[1:2], perceptual(images[1:2], truth[:1])), "of a batch each for itself"
    assert torch.allclose(distances, perceptual(truth, images), atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert perceptual(images, truth).dtype == torch.float32, "also where it is a loss in half precision"


def test_a_degradation_is_decided_by_its_seed() -> None:
    sharp = square("rocket.jpg")
    made = [degrade(sharp, np.random.default_rng([seed, 3])).tobytes() for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


def test_inputs_are_degraded_as_the_protocol_says(truths: Path) -> None:
    for number, case in enumerate(pairs_from_truths(truths, 5)):
        expected = degrade(case.truth, np.random.default_rng([5, number]))
        assert case.low.tobytes() == expected.tobytes()
        assert case.low.size == (24, 24)
    plain = [case.low.tobytes() for case in pairs_from_truths(truths)]
    assert plain == [case.truth.resize((24, 24), Image.Resampling.BICUBIC).tobytes() for case in pairs_from_truths(truths)]


def row(**figures: tuple[float, float]) -> PictureMetrics:
    return PictureMetrics("", {method: {"psnr_y": psnr, "niqe": niqe} for method, (psnr, niqe) in figures.items()}, {})


def test_a_mean_is_over_the_same_pictures_for_all_methods() -> None:
    none, best = float("nan"), float("inf")
    found = mean_metrics([row(bicubic=(20, 4), seesr=(best, 3)), row(bicubic=(30, none), seesr=(40, 9))])
    assert found == {"bicubic": {"psnr_y": 30, "niqe": 4}, "seesr": {"psnr_y": 40, "niqe": 3}}
    assert np.isnan(mean_metrics([row(bicubic=(20, none), seesr=(30, none))])["seesr"]["niqe"])


@pytest.fixture
def truths(tmp_path: Path) -> Path:
    folder = tmp_path / "truth"
    folder.mkdir()
    for name in ("chelsea.png", "coffee.png"):
        square(name, 98).save(folder / name)
    return folder
