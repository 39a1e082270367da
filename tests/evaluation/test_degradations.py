"""Each kind of degraded input is what the protocol says, and the command makes it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import Run, photograph
from PIL import Image

from seesr.evaluation.degradation import KINDS, degrade, degraded_pair, downscale_bicubic, fade, grain
from seesr.evaluation.evaluate import pairs_from_truths


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photograph("coffee.png", (60, 0, 448, 388))


GREY = Image.new("RGB", (800, 800), (128, 128, 128))


def low_of(truth: Image.Image, kind: str, seed: int = 0) -> np.ndarray:
    return np.asarray(degraded_pair(truth, kind, np.random.default_rng(seed))[0], dtype=float)


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_a_quarter_as_large_and_decided_by_its_seed(photo: Image.Image, kind: str) -> None:
    first, again, other = (low_of(photo, kind, seed) for seed in (3, 3, 4))
    assert first.shape == (97, 97, 3)
    assert (first == again).all()
    assert (first == other).all() == (kind == "jpeg"), "nothing of it is left to chance"


@pytest.mark.parametrize("kind", ["jpeg", "noise", "mixed", "old"])
def test_brightness_and_colours_are_those_of_the_truth_it_is_compared_with(photo: Image.Image, kind: str) -> None:
    low, truth = degraded_pair(photo, kind, np.random.default_rng(0))
    means = [np.asarray(image, dtype=float).mean(axis=(0, 1)) for image in (low, truth)]
    assert np.abs(means[0] - means[1]).max() < 2
    assert truth == (fade(photo) if kind == "old" else photo)


def test_jpeg_has_quality_35_and_half_the_colours(photo: Image.Image) -> None:
    file = io.BytesIO()
    downscale_bicubic(photo).save(file, "JPEG", quality=35, subsampling=2)
    assert (low_of(photo, "jpeg") == np.asarray(Image.open(file), dtype=float)).all()


def test_noise_is_white_and_has_15_levels() -> None:
    noise = low_of(GREY, "noise") - 128
    assert noise.std(axis=(0, 1)) == pytest.approx([15] * 3, rel=0.03)
    neighbours = [(noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])]
    for first, second in neighbours:
        assert abs((first * second).mean()) < 0.02 * 15**2


def test_grain_reaches_over_two_pixels() -> None:
    noise = grain((400, 300, 1), np.random.default_rng(0))[..., 0]
    assert noise.std() == pytest.approx(1)
    for distance, correlation in ((1, np.exp(-1 / 4)), (2, np.exp(-1)), (6, 0)):
        for first, second in ((noise[distance:], noise[:-distance]), (noise[:, distance:], noise[:, :-distance])):
            assert (first * second).mean() == pytest.approx(correlation, abs=0.03)


def test_mixed_has_less_detail_and_more_noise_than_bicubic(photo: Image.Image) -> None:
    assert 2 < low_of(GREY, "mixed").std() < 8
    plain, mixed = (np.asarray(image, dtype=float) for image in (downscale_bicubic(photo), low_of(photo, "mixed")))
    assert 4 < np.abs(mixed - plain).mean() < 20


@pytest.fixture
def truths(tmp_path: Path, photo: Image.Image) -> Path:
    folder = tmp_path / "truths"
    folder.mkdir()
    for number, left in enumerate((0, 200)):
        photo.crop((left, 0, left + 98, 98)).save(folder / f"{number}.png")
    return folder


def test_each_picture_has_its_own_generator(truths: Path) -> None:
    for number, pair in enumerate(pairs_from_truths(truths, 7, "noise")):
        truth = Image.open(truths / f"{number}.png").crop((0, 0, 96, 96))
        assert pair.low == degraded_pair(truth, "noise", np.random.default_rng([7, number]))[0]
    for number, pair in enumerate(pairs_from_truths(truths, 7)):
        assert pair.low == degrade(pair.truth, np.random.default_rng([7, number])), "as before there were kinds"


def test_a_number_is_camera_by_that_seed(seesr: Run, truths: Path) -> None:
    (truths / "1.png").unlink()
    records = []
    for arguments in (["5"], ["camera", "--degrade-seed", 5], ["camera"], ["old"]):
        outcome = seesr("evaluate", "--truth", truths, "--steps", 1, "--json", "--degrade", *arguments)
        assert outcome.code == 0, outcome.err
        records.append(json.loads(outcome.out))
    assert [record["settings"]["degradation"] for record in records] == [
        "camera, seed 5",
        "camera, seed 5",
        "camera, seed 0",
        "old, seed 0",
    ]
    by_number, by_kind, other, _ = (record["mean"]["bicubic"] for record in records)
    assert by_number == by_kind
    assert by_number["psnr_y"] != other["psnr_y"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--degrade", "fog"], "--degrade is 'fog'; give jpeg, noise, mixed, old, camera, or a number"),
        (["--degrade", "-1"], "--degrade is '-1'; give jpeg"),
        (["--degrade", "5", "--degrade-seed", "3"], "--degrade is 5, a seed, and --degrade-seed is 3"),
        (["--degrade-seed", "3"], "--degrade-seed is 3, and there is no --degrade"),
    ],
)
def test_a_wrong_degradation_is_one_sentence(seesr: Run, truths: Path, arguments: list[str], words: str) -> None:
    outcome = seesr("evaluate", "--truth", truths, *arguments)
    assert outcome.code == 2
    assert words in outcome.err
