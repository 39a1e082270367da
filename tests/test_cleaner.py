"""The cleaner: exact in tiles, at any size, and what it does to good and to bad pictures."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PHOTOS, hooked, photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from seesr.cleaner import Cleaner, clean, load_cleaner
from seesr.errors import WeightsError
from seesr.images.resize import to_tensor
from seesr.upscaler import Upscaler
from seesr.weights.manifest import beside_package
from seesr.weights.resolve import CLEANER, TINY

NAMES = ("astronaut", "chelsea", "coffee")


@pytest.fixture(scope="module")
def cleaner() -> Cleaner:
    return load_cleaner(beside_package(TINY) / CLEANER)


@pytest.fixture(scope="module")
def good() -> list[Image.Image]:
    """Pictures as sharp as their pixels allow."""
    pictures = (Image.open(PHOTOS / f"{name}.png").convert("RGB") for name in NAMES)
    return [picture.resize((picture.width // 4, picture.height // 4), Image.Resampling.BICUBIC) for picture in pictures]


def error(cleaner: Cleaner, bad: Image.Image, good: Image.Image) -> tuple[float, float]:
    """Mean squared difference from `good` in 0..1, before and after cleaning."""
    truth, before = to_tensor(good), to_tensor(bad)
    with torch.inference_mode():
        return tuple((image - truth).square().mean().item() for image in (before, clean(cleaner, before)))


@settings(deadline=None, max_examples=8)
@given(width=st.integers(1, 150), height=st.integers(1, 150), tile=st.sampled_from([64, 100]))
def test_tiles_change_nothing_at_any_size(width: int, height: int, tile: int) -> None:
    torch.manual_seed(0)
    small, image = Cleaner([4, 6, 8], 1), torch.rand(1, 3, height, width)
    with torch.inference_mode():
        whole, tiled = clean(small, image), clean(small, image, tile)
    assert whole.shape == image.shape
    assert (whole - tiled).abs().max() < 1e-5


@pytest.mark.parametrize(("levels", "layers"), [(1, 2), (2, 1), (3, 2)])
def test_nothing_further_away_than_reach_counts(levels: int, layers: int) -> None:
    torch.manual_seed(0)
    small = Cleaner([4, 6, 8][:levels], layers).double()
    image = torch.rand(1, 3, 128, 128, dtype=torch.float64, requires_grad=True)
    result = small(image)
    for row, column in ((64, 64), (65, 66), (67, 65)):
        (gradient,) = torch.autograd.grad(result[..., row, column].sum(), image, retain_graph=True)
        seen = gradient[0].abs().sum(dim=0).nonzero()
        assert (seen - torch.tensor([row, column])).abs().max() <= small.receptive_radius


def saved_as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


DAMAGE: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(0.8)),
    "noise": lambda image: Image.fromarray(
        np.clip(np.asarray(image) + 12 * np.random.default_rng(0).standard_normal((image.height, image.width, 3)), 0, 255)
        .round()
        .astype(np.uint8)
    ),
    "JPEG": saved_as_jpeg,
}


@pytest.mark.parametrize(("kind", "share"), [("blur", 0.8), ("noise", 0.5), ("JPEG", 0.95)])
def test_a_bad_picture_gets_nearer_to_the_good_one(
    cleaner: Cleaner, good: list[Image.Image], kind: str, share: float
) -> None:
    for picture in good:
        before, after = error(cleaner, DAMAGE[kind](picture), picture)
        assert after < share * before


def test_a_good_picture_stays_nearly_as_it_is(cleaner: Cleaner, good: list[Image.Image]) -> None:
    for picture in good:
        assert error(cleaner, picture, picture)[1] < (3 / 255) ** 2


def test_colours_stay(cleaner: Cleaner, good: list[Image.Image]) -> None:
    for picture in good:
        image = to_tensor(picture)
        with torch.inference_mode():
            change = (clean(cleaner, image) - image).mean(dim=(2, 3))
        assert change.abs().max() < 0.2 / 255


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_changes_less_than_a_grey_level(
    cleaner: Cleaner, good: list[Image.Image], dtype: torch.dtype
) -> None:
    half, image = load_cleaner(beside_package(TINY) / CLEANER, dtype), to_tensor(good[0])[..., :64, :64]
    with torch.inference_mode():
        assert (clean(half, image) - clean(cleaner, image)).abs().mean() < 1 / 255


def test_a_picture_that_becomes_smaller_is_cleaned_small(upscaler: Upscaler) -> None:
    sizes, photo = list[torch.Size](), photograph("coffee.png")
    with hooked(upscaler.engine.components["cleaner"], lambda _, given: sizes.append(given[0].shape)):
        assert upscaler.upscale(photo, max_side=160, seed=0, steps=1).image.width == 160
    assert max(sizes[0]) <= 256 < photo.width


def test_weights_without_a_cleaner_clean_nothing(tmp_path: Path, small_photo: Image.Image) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(beside_package(TINY), folder, ignore=shutil.ignore_patterns(CLEANER))
    assert "clean" not in Upscaler.load(folder, device="cpu").upscale(small_photo, scale=2, seed=0).seconds


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ('{"channels": [8, 16], "layers": 1}', "does not fit Cleaner"),
        ('{"channels": [], "layers": 1}', "must hold `channels`"),
        ('{"channels": [8, 16]}', "must hold `channels`"),
        ('{"channels": "32", "layers": 0}', "must hold `channels`"),
    ],
)
def test_a_cleaner_that_cannot_be_is_a_sentence(tmp_path: Path, config: str, sentence: str) -> None:
    folder = tmp_path / CLEANER
    shutil.copytree(beside_package(TINY) / CLEANER, folder)
    (folder / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=sentence):
        load_cleaner(folder)
