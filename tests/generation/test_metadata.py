"""What made a picture stands in its file, where other programs read it, and makes it again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from sd_parsers import ParserManager

from seesr.generation.generator import Generator
from seesr.generation.infotext import Infotext
from seesr.generation.like import values_from_infotext, values_from_settings
from seesr.generation.options import GenerationOptions
from seesr.generation.result import GenerationResult
from seesr.images.metadata import read_infotext, read_settings
from seesr.options import SaveOptions

PROMPT, NEGATIVE = 'a "red" cat, (sitting:1.2)\nقطة 😀', "dogs, blurry"
FORMATS = ("png", "jpg", "webp", "tiff", "avif")


@pytest.fixture(scope="module")
def made(generator: Generator) -> GenerationResult:
    return generator.text_to_image(PROMPT, negative_prompt=NEGATIVE, steps=2, seed=5, sampler="DPM++ 2M Karras")[0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_holds_what_made_it(made: GenerationResult, tmp_path: Path, suffix: str) -> None:
    made.save(tmp_path / f"cat.{suffix}")
    with Image.open(tmp_path / f"cat.{suffix}") as image:
        image.load()
        infotext, settings = read_infotext(image), read_settings(image)
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or image.getexif()[ExifTags.Base.XMLPacket]
    assert infotext == made.infotext()
    assert settings == json.loads(json.dumps(made.settings()))
    assert "trainedAlgorithmicMedia" in (packet if isinstance(packet, str) else bytes(packet).decode())
    parsed = Infotext.parse(infotext or "")
    assert (parsed.prompt, parsed.negative_prompt) == (PROMPT, NEGATIVE)
    assert parsed.parameters["Sampler"] == "DPM++ 2M"
    assert list(parsed.parameters)[:7] == ["Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_sd_parsers_reads_it(made: GenerationResult, tmp_path: Path, suffix: str) -> None:
    made.save(tmp_path / f"cat.{suffix}")
    info = ParserManager().parse(tmp_path / f"cat.{suffix}")
    assert info is not None
    assert [prompt.value for prompt in info.prompts] == [PROMPT]
    assert [prompt.value for prompt in info.negative_prompts] == [NEGATIVE]
    (sampler,) = info.samplers
    assert (sampler.name, sampler.parameters["seed"], sampler.parameters["steps"]) == ("DPM++ 2M", "5", "2")


def test_without_metadata_nothing_stands_in_it_and_never_a_path(
    made: GenerationResult, checkpoint: Path, tmp_path: Path
) -> None:
    made.save(tmp_path / "cat.png")
    content = (tmp_path / "cat.png").read_bytes()
    assert checkpoint.name.encode() in content
    assert str(checkpoint.parent).encode() not in content
    assert str(tmp_path).encode() not in content
    hidden = tmp_path / "hidden.png"
    made.save(hidden, SaveOptions(metadata=False))
    with Image.open(hidden) as image:
        assert not image.info


def test_settings_and_infotext_make_the_picture_again(generator: Generator, made: GenerationResult) -> None:
    for values in (values_from_settings(made.settings()), values_from_infotext(made.infotext() or "")):
        (again,) = generator.text_to_image(options=GenerationOptions.make(**values))
        assert again.image.tobytes() == made.image.tobytes()


@pytest.mark.parametrize("prompt", ["a " * 9_999, "é" * 11_000])
def test_a_prompt_that_a_jpeg_cannot_hold_costs_no_picture(made: GenerationResult, tmp_path: Path, prompt: str) -> None:
    replace(made, prompt=prompt, negative_prompt=prompt).save(tmp_path / "cat.jpg")
    assert np.abs(np.asarray(Image.open(tmp_path / "cat.jpg"), float) - np.asarray(made.image, float)).mean() < 20


def test_infotext_of_other_programs_is_taken_as_far_as_it_goes() -> None:
    values = values_from_infotext(
        "a cat\nNegative prompt: dogs\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 1, Size: 500x99999, "
        "Mask mode: Inpaint not masked, Inpaint area: Only masked, Hires upscaler: Latent (nearest), Schedule type: Odd, "
        'Model: other, Lora hashes: "x: 1, y: 2", Hires upscale: 2, Denoising strength: 0.3, Clip skip: many, ENSD: 31337'
    )
    assert values == {
        "prompt": "a cat",
        "negative_prompt": "dogs",
        "steps": 20,
        "sampler": "Euler a",
        "guidance_scale": 7.5,
        "seed": 1,
        "width": 496,
        "height": 2048,
        "mask_invert": True,
        "inpaint_area": "masked",
        "second_pass_upscaler": "latent",
        "second_pass": 2.0,
        "second_pass_strength": 0.3,
    }
