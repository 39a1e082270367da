"""What the cleaner is taught on: bad pictures and drawings; and how it begins with the weights of a smaller one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import typer
from helpers import photograph
from PIL import Image

from scripts.training.cleaner import grow
from scripts.training.degradations import SHARES, blur_kernel, gaussian, low_quality, sinc_kernel, tone
from scripts.training.drawings import drawing
from scripts.training.sr import BAD
from seesr.cleaner import Cleaner
from seesr.evaluation.degradation import downscale_bicubic


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photograph("coffee.png", (60, 0, 380, 320))


def error(first: Image.Image, second: Image.Image) -> float:
    return float(np.sqrt(np.square(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).mean()))


def test_bad_pictures_range_from_untouched_to_very_bad(photo: Image.Image) -> None:
    plain = downscale_bicubic(photo)
    lows = [low_quality(photo, np.random.default_rng(seed)) for seed in range(150)]
    assert {low.size for low in lows} == {(80, 80)}
    errors = np.array([error(low, plain) for low in lows])
    assert (errors == 0).mean() == pytest.approx(SHARES["plain"], abs=0.1)
    assert np.quantile(errors, 0.95) > 15
    shifts = [(np.asarray(low, dtype=float) - np.asarray(plain)).mean(axis=(0, 1)) for low in lows]
    assert np.abs(shifts).max() < 8, "brightness and colours stay nearly as they are: the cleaner does not change them"
    assert lows[3].tobytes() == low_quality(photo, np.random.default_rng(3)).tobytes()


def test_bad_manners_leave_no_picture_good(photo: Image.Image) -> None:
    plain = downscale_bicubic(photo)
    errors = [error(low_quality(photo, np.random.default_rng(seed), BAD), plain) for seed in range(60)]
    assert min(errors) > 0.5
    assert np.median(errors) > 6


def test_an_old_tone_is_rare_and_loses_contrast_or_colour(photo: Image.Image) -> None:
    toned = [tone(photo, np.random.default_rng(seed)) for seed in range(200)]
    changed = [image for image in toned if image is not photo]
    assert len(changed) == pytest.approx(200 / 6, abs=15)
    spread = [np.ptp(np.asarray(image), axis=(0, 1)).max() for image in (photo, *changed)]
    assert max(spread[1:]) <= spread[0]


@pytest.mark.parametrize(("along", "across", "angle"), [(2.0, 2.0, 0.0), (2.5, 1.0, np.pi / 2)])
def test_a_gaussian_kernel_has_its_deviations(along: float, across: float, angle: float) -> None:
    kernel = blur_kernel(gaussian, along, across, angle)
    offsets = np.arange(-10, 11)
    assert kernel.sum() == pytest.approx(1)
    turned = (along, across) if angle == 0 else (across, along)
    for axis, deviation in zip((0, 1), turned, strict=True):
        assert np.sqrt((kernel.sum(axis=axis) * offsets**2).sum()) == pytest.approx(deviation, rel=0.02)


def test_a_sinc_kernel_cuts_off_sharply_and_rings() -> None:
    kernel = sinc_kernel(0.5)
    spectrum = np.abs(np.fft.fft2(kernel, (64, 64)))
    frequency = np.fft.fftfreq(64) * 2
    radius = np.hypot(frequency[:, None], frequency)
    assert kernel.sum() == pytest.approx(1)
    assert spectrum[radius < 0.35] == pytest.approx(1, abs=0.25)
    assert spectrum[radius > 0.65] == pytest.approx(0, abs=0.25)
    assert kernel.min() < -0.005


def test_drawings_differ_and_have_flat_areas_and_hard_edges() -> None:
    drawings = [np.asarray(drawing(160, np.random.default_rng(seed)), dtype=float) for seed in range(30)]
    assert len({picture.tobytes() for picture in drawings}) == 30
    steps = np.stack([np.abs(np.diff(picture, axis=1)).max(axis=2) for picture in drawings])
    assert (steps <= 3).mean() > 0.7
    assert (steps > 60).mean() > 0.005


@pytest.mark.parametrize("widths", [[4, 6, 8], [4, 6, 8, 8]])
def test_a_cleaner_with_further_levels_begins_as_the_smaller_one(widths: list[int]) -> None:
    torch.manual_seed(0)
    smaller, model = Cleaner([4, 6, 8], 2), Cleaner(widths, 2)
    grow(model, smaller)
    image = torch.rand(2, 3, 32, 48)
    assert torch.equal(model(image), smaller(image))
    model(image).square().mean().backward()
    gradients = [parameter.grad.abs().sum() for name, parameter in model.named_parameters() if name.startswith("enlarge")]
    assert all(gradients), "what begins at zero learns"


def test_a_cleaner_with_other_widths_is_no_beginning() -> None:
    with pytest.raises(typer.BadParameter, match="other widths"):
        grow(Cleaner([4, 8], 2), Cleaner([4, 6], 2))
