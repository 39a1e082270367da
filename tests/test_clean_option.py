"""`--clean`: how much of the cleaner's work is taken; and the digest of the weights in a file's settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import Run, photograph
from PIL import Image

import seesr.networks
from seesr import OptionError, Upscaler
from seesr.notes import Notes
from seesr.weights.manifest import beside_package
from seesr.weights.resolve import CLEANER, END_BYTES, MAX_HASHED_BYTES, TINY, WeightsFolder, resolve_weights


@pytest.fixture(scope="module")
def grainy() -> Image.Image:
    photo = photograph("chelsea.png", (100, 60, 164, 108))
    noise = np.random.default_rng(0).normal(0, 12, (photo.height, photo.width, 3))
    return Image.fromarray((np.asarray(photo) + noise).round().clip(0, 255).astype(np.uint8))


def cleaned(upscaler: Upscaler, picture: Image.Image, strength: float) -> np.ndarray:
    (image,) = upscaler.networks.clean([picture], strength, picture.size, lambda *_: None, [Notes()])
    return np.asarray(image, dtype=float)


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.75])
def test_a_share_lies_between_the_input_and_the_cleaned_picture(
    upscaler: Upscaler, grainy: Image.Image, strength: float
) -> None:
    whole, before = cleaned(upscaler, grainy, 1), np.asarray(grainy, dtype=float)
    assert np.abs(whole - before).max() > 10
    # Rounded once each; where the whole was clipped, the share may be nearer to the input than half.
    inside = (whole > 0) & (whole < 255)
    expected = before + strength * (whole - before)
    assert np.abs(cleaned(upscaler, grainy, strength) - expected)[inside].max() <= 1


def test_at_0_the_cleaner_does_not_run(
    upscaler: Upscaler, grainy: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(seesr.networks, "clean", lambda *_: pytest.fail("it ran"))
        raw = upscaler.upscale(grainy, scale=2, steps=1, seed=0, clean=0)
    assert "clean" not in raw.seconds
    assert raw.notes == []
    assert raw.settings()["clean"] == 0
    folder = tmp_path / "weights"
    shutil.copytree(beside_package(TINY), folder, ignore=shutil.ignore_patterns(CLEANER))
    without = Upscaler.load(folder, device="cpu", dtype="float32")
    results = [without.upscale(grainy, scale=2, steps=1, seed=0, clean=share) for share in (0, 0.5, 1)]
    assert all(result.image.tobytes() == raw.image.tobytes() for result in results)
    assert [result.notes for result in results] == [
        [],
        ["clean 0.5 changes nothing: the weights weights have no cleaner"],
        [],
    ]


def test_grain_stays_with_less_of_it(upscaler: Upscaler, grainy: Image.Image) -> None:
    results = [upscaler.upscale(grainy, scale=2, steps=1, seed=0, clean=share).image for share in (0, 0.5, 1)]
    rough = [np.abs(np.diff(np.asarray(image, dtype=float), axis=0)).mean() for image in results]
    assert rough[0] > 1.05 * rough[1] > 1.05**2 * rough[2]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_0_to_1_is_refused(upscaler: Upscaler, grainy: Image.Image, share: float) -> None:
    with pytest.raises(OptionError, match=f"clean is {share}"):
        upscaler.upscale(grainy, clean=share)


def test_the_command_writes_share_and_digest_into_the_file(seesr: Run, grainy: Image.Image, tmp_path: Path) -> None:
    grainy.save(tmp_path / "in.png")
    arguments = ["--clean", 0.5, "--scale", 1, "--steps", 1, "--seed", 0, "--weights", TINY]
    outcome = seesr("upscale", tmp_path / "in.png", "-o", tmp_path / "out.png", *arguments)
    assert outcome.code == 0, outcome.err
    written = json.loads(Image.open(tmp_path / "out.png").text["seesr"])
    assert written["clean"] == 0.5
    assert written["weights_digest"] == resolve_weights(TINY).digest


@pytest.fixture
def weights(tmp_path: Path) -> WeightsFolder:
    """Files of weights that only a digest reads."""
    for name in ("sd-turbo/unet/model.safetensors", "seesr/unet/config.json", "ram/config.json", "cleaner/config.json"):
        path = tmp_path / "first" / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    return WeightsFolder(tmp_path / "first", "first")


def test_a_copy_of_weights_has_the_same_digest(weights: WeightsFolder, tmp_path: Path) -> None:
    shutil.copytree(weights.root, tmp_path / "second")
    (tmp_path / "second" / "README.md").write_text("not read by any network")
    (tmp_path / "second" / "ram" / ".DS_Store").write_text("nor is this")
    copy = WeightsFolder(tmp_path / "second", "second")
    assert copy.digest == weights.digest
    assert len(copy.digest) == 12


def test_any_change_of_a_small_file_changes_it(weights: WeightsFolder) -> None:
    digests = {WeightsFolder(weights.root, weights.name).digest}
    (weights.root / "cleaner" / "config.json").write_text("cleaner/confib.json")
    digests.add(WeightsFolder(weights.root, weights.name).digest)
    (weights.root / "ram" / "config.json").rename(weights.root / "ram" / "other.json")
    digests.add(WeightsFolder(weights.root, weights.name).digest)
    (weights.root / "seesr.json").write_text("{}")
    digests.add(WeightsFolder(weights.root, weights.name).digest)
    assert len(digests) == 4


def test_of_a_large_file_beginning_end_and_size_count(weights: WeightsFolder) -> None:
    path, size = weights.root / "sd-turbo" / "unet" / "model.safetensors", MAX_HASHED_BYTES + 1

    def digest_with(position: int) -> str:
        with path.open("wb") as file:
            file.truncate(size)
            file.seek(position)
            file.write(b"1")
        return WeightsFolder(weights.root, weights.name).digest

    first, last, middle, elsewhere = (digest_with(place) for place in (0, size - 1, 2 * END_BYTES, 3 * END_BYTES))
    assert len({first, last, middle}) == 3
    assert middle == elsewhere, "gigabytes are not read"
    size += 1
    assert digest_with(2 * END_BYTES) != middle
