"""The safety checker: what it flags is blurred and says so, in previews too, and one that is not whole is never used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from helpers import difference, photograph
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor

from seesr import WeightsError
from seesr.generation.generator import Generator
from seesr.generation.safety import SAFETY_CHECKER_VARIABLE, SafetyChecker, blurred

VALUES: dict[str, Any] = {"steps": 2, "seed": 5}
PHOTO = photograph("chelsea.png", (150, 80, 250, 144))


def save_checker(folder: Path, threshold: float) -> Path:
    """A random one, which flags what is nearer to a concept than the threshold: all pictures with -2, none with 2."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(vision_config=small | {"image_size": 32, "patch_size": 8}, text_config=small, projection_dim=16)
    )
    torch.nn.init.normal_(checker.concept_embeds)
    torch.nn.init.normal_(checker.special_care_embeds)
    checker.concept_embeds_weights.fill_(threshold)
    checker.special_care_embeds_weights.fill_(2.0)
    checker.save_pretrained(folder)
    return folder


@pytest.fixture
def strict(tmp_path: Path) -> Path:
    return save_checker(tmp_path / "strict", -2.0)


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    return save_checker(tmp_path / "lenient", 2.0)


def checked(generator: Generator, folder: Path | None) -> Generator:
    return Generator(generator.engine, generator.checkpoint, safety_checker=folder)


def test_what_is_flagged_is_blurred_and_says_so(generator: Generator, strict: Path, lenient: Path, tmp_path: Path) -> None:
    (plain,) = generator.text_to_image("a cat", **VALUES)
    assert plain.nsfw_content_detected is None
    (passed,) = checked(generator, lenient).text_to_image("a cat", **VALUES)
    assert passed.nsfw_content_detected is False
    assert passed.image.tobytes() == plain.image.tobytes()
    for values in ({}, {"second_pass": 1.5, "second_pass_upscaler": "Lanczos"}):
        (hit,) = checked(generator, strict).text_to_image("a cat", **VALUES | values)
        (clear,) = generator.text_to_image("a cat", **VALUES | values)
        assert hit.nsfw_content_detected is True
        assert hit.settings()["nsfw_content_detected"] is hit.record()["nsfw_content_detected"] is True
        assert "the safety checker flagged the picture: it is blurred" in hit.notes
        assert hit.image.tobytes() == blurred(clear.image).tobytes()
    (unchanged,) = checked(generator, strict).image_to_image(PHOTO, "a cat", strength=0, seed=1)
    assert unchanged.image.tobytes() == blurred(PHOTO).tobytes()


def test_a_blurred_picture_keeps_its_colours_but_no_detail() -> None:
    image = blurred(PHOTO)
    assert image.size == PHOTO.size
    before, after = (np.asarray(one, float) for one in (PHOTO, image))
    assert np.abs(before.mean(axis=(0, 1)) - after.mean(axis=(0, 1))).max() < 4
    steps = [np.abs(np.diff(one, axis=1)).mean() for one in (before, after)]
    assert steps[1] < steps[0] / 5


def test_previews_are_blurred_before_it_is_known(generator: Generator, lenient: Path) -> None:
    plain, shown = list[Image.Image](), list[Image.Image]()
    generator.text_to_image("a cat", preview=plain.extend, **VALUES)
    checked(generator, lenient).text_to_image("a cat", preview=shown.extend, **VALUES)
    assert len(shown) == 2
    assert [one.tobytes() for one in shown] == [blurred(one).tobytes() for one in plain]
    assert difference(shown[0], plain[0]) > 5


def test_it_flags_what_the_stock_checker_flags(strict: Path, tmp_path: Path) -> None:
    """At a threshold between those of pictures."""
    stock = StableDiffusionSafetyChecker.from_pretrained(strict)
    pictures = [PHOTO.crop((left, 0, left + 64, 64)) for left in range(0, 36, 4)] + [Image.new("RGB", (40, 40), "red")]
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    inputs = processor(images=pictures, return_tensors="pt").pixel_values
    with torch.inference_mode():
        embeds = torch.nn.functional.normalize(stock.visual_projection(stock.vision_model(inputs)[1]))
        nearest = (embeds @ torch.nn.functional.normalize(stock.concept_embeds).T).amax(dim=1).sort().values
        tensors = load_file(strict / "model.safetensors")
        middle = float(nearest[4] + nearest[5]) / 2
        tensors["concept_embeds_weights"] = torch.full_like(tensors["concept_embeds_weights"], middle)
        save_file(tensors, strict / "model.safetensors")
        stock.concept_embeds_weights.fill_(middle)
        _, expected = stock(clip_input=inputs, images=np.zeros((len(pictures), 1)))
    checker = SafetyChecker(strict)
    assert 0 < sum(expected) < len(pictures)
    assert [checker.flags(picture) for picture in pictures] == expected


def test_the_names_of_the_published_file_are_read(strict: Path) -> None:
    tensors = load_file(strict / "model.safetensors")
    path = strict / "model.safetensors"
    published = {key.replace("vision_model.", "vision_model.vision_model.", 1): tensor for key, tensor in tensors.items()}
    save_file(published | {"vision_model.vision_model.embeddings.position_ids": torch.arange(17)[None]}, path)
    assert SafetyChecker(strict).flags(PHOTO)


def test_the_environment_asks_for_it_wherever_pictures_are_made(
    generator: Generator, strict: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SAFETY_CHECKER_VARIABLE, str(strict))
    assert checked(generator, None).text_to_image("a cat", **VALUES)[0].nsfw_content_detected is True
    monkeypatch.setenv(SAFETY_CHECKER_VARIABLE, "")
    assert checked(generator, None).safety_checker is None


@pytest.mark.parametrize("damage", ["missing", "pickle", "tensor", "folder"])
def test_one_that_is_not_whole_is_refused_when_it_is_loaded(generator: Generator, strict: Path, damage: str) -> None:
    path = strict / "model.safetensors"
    tensors = load_file(path)
    if damage == "tensor":
        del tensors["vision_model.post_layernorm.weight"]
        save_file(tensors, path)
    elif damage == "folder":
        strict = strict / "none"
    else:
        path.unlink()
    if damage == "pickle":
        torch.save(tensors, strict / "pytorch_model.bin")
    with pytest.raises(
        WeightsError, match=r"has no model\.safetensors|does not fit StableDiffusionSafetyChecker: 1 missing"
    ):
        checked(generator, strict)
