"""Upscaling and generation on one set of networks, and a checkpoint that the embedded one stands for."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import loras
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from helpers import hooked, photograph
from PIL import Image

from seesr import Upscaler, WeightsError
from seesr.generation.generator import Generator
from seesr.generation.options import GenerationOptions
from seesr.weights.config import read_config
from seesr.weights.manifest import beside_package

PHOTO = photograph("chelsea.png", (150, 80, 182, 104))
QUICK: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "seed": 3}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for upscaling whose base may be asked for pictures, whatever it learnt."""
    return Path(shutil.copytree(beside_package("tiny"), tmp_path_factory.mktemp("weights") / "full"))


def assert_same(first: Image.Image, second: Image.Image) -> None:
    """But for float32's rounding: the upscaler's VAE and transformers are modules of ours, with sums in another order than
    diffusers', which a base by itself is made of. Seldom, a value is one level off."""
    difference = np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_one_base_serves_both(weights: Path) -> None:
    upscaler = Upscaler.load(weights, device="cpu", dtype="float32")
    before = upscaler.upscale(PHOTO, scale=2, seed=1).image
    generator = Generator.sharing(upscaler)
    alone = Generator.load(weights / "sd-turbo", device="cpu", dtype="float32")
    assert generator.engine.components is upscaler.engine.components
    calls = list[str]()
    networks = upscaler.engine.components.networks
    with hooked(networks["controlnet"], lambda *_: calls.append("controlnet")):
        (shared,) = generator.text_to_image("a cat", **QUICK)
    assert not calls, "generation needs no ControlNet"
    assert_same(shared.image, alone.text_to_image("a cat", **QUICK)[0].image)
    assert shared.steps == 1
    assert shared.guidance_scale == 1
    assert upscaler.upscale(PHOTO, scale=2, seed=1).image.tobytes() == before.tobytes()


def test_a_lora_never_reaches_upscaling(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler.load(weights, device="cpu", dtype="float32")
    components = upscaler.engine.components
    networks = components["unet"], components["prompt_encoder"].text_encoder
    tensors = loras.kohya(*(loras.factors(network, 1, ("attn", "conv1")) for network in networks))
    used = {name: tensor for name, tensor in tensors.items() if "image_attentions" not in name}
    unused = {name: tensor for name, tensor in tensors.items() if name not in used and "attn1" in name}
    loras.write(tmp_path / "models" / "loras" / "strong.safetensors", used)
    loras.write(tmp_path / "models" / "loras" / "of seesr.safetensors", unused)
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    generator, waiting = Generator.sharing(upscaler), list[Future[bytes]]()

    def upscaled() -> bytes:
        return upscaler.upscale(PHOTO, scale=2, seed=1).image.tobytes()

    before, plain = upscaled(), generator.text_to_image("a cat", **QUICK)[0].image.tobytes()
    with ThreadPoolExecutor(1) as thread:

        def begin(stage: str, done: int, total: int) -> None:
            if stage == "denoise" and not waiting:
                waiting.append(thread.submit(upscaled))

        options = GenerationOptions(prompt="a cat <lora:strong>", batch_count=2, **QUICK)
        stream = generator.stream(options, progress=begin)
        assert next(stream).image.tobytes() != plain
        assert upscaled() == before, "between two pictures of a job with a LoRA"
        assert len(list(stream)) == 1
        assert waiting[0].result() == before, "asked for while the LoRA was in use"
    assert upscaled() == before
    assert generator.text_to_image("a cat", **QUICK)[0].image.tobytes() == plain
    with pytest.raises(WeightsError, match=rf"does not fit sd-turbo: 0 of its {len(unused)} tensors"):
        generator.text_to_image("a cat <lora:of seesr>", **QUICK)


def test_the_base_is_never_loaded_twice(weights: Path) -> None:
    generator = Generator.load(weights / "sd-turbo", device="cpu", dtype="float32")
    first, before = generator.text_to_image("a cat", **QUICK)[0].image, generator.engine.components
    unet = before["unet"]
    larger = generator.text_to_image("a cat", upscale=2, **QUICK)[0].image
    assert larger.size == (128, 128)
    assert generator.engine is generator.upscaler.engine
    assert {weight.device.type for weight in unet.parameters()} == {"meta"}, "let go of before the upscaler was loaded"
    assert_same(generator.text_to_image("a cat", **QUICK)[0].image, first)

    generator.unload()
    assert not generator.engine.components.networks
    with pytest.raises(RuntimeError, match="were unloaded; load them again"):
        generator.text_to_image("a cat", **QUICK)


def test_stock_diffusers_loads_the_embedded_checkpoint_and_draws_the_same() -> None:
    folder = beside_package("pictograms")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    generator = Generator.load("pictograms", device="cpu")
    embedded = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert embedded <= 6_000_000
    (ours,) = generator.text_to_image("red apple, 3d", steps=4, seed=5)
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(5))
    made = pipeline("red apple, 3d", num_inference_steps=4, guidance_scale=5.0, latents=noise, output_type="np").images[0]
    assert abs(np.asarray(ours.image, dtype=float) - 255 * made).max() < 2
    assert read_config(folder / "seesr.json")["largest_side"] == 128


def test_a_unet_for_another_task_is_refused(weights: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(weights / "sd-turbo", tmp_path / "inpainting"))
    config = base / "unet" / "config.json"
    config.write_text(config.read_text().replace('"in_channels": 16', '"in_channels": 33'))
    with pytest.raises(WeightsError, match="takes 33 channels, and latents have 16: it is for another task"):
        Generator.load(base)
