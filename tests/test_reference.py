"""What the published implementation computed from small random weights, computed again with the product's loaders.

`SEESR_REFERENCE` names another folder of the same layout to check against.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from helpers import REFERENCE
from safetensors.torch import load_file
from torch import Tensor

from seesr.autoencoder.vae import decode, encode, load_vae
from seesr.diffusion.denoiser import Denoiser, load_denoiser, load_unet
from seesr.diffusion.image_attention import IMAGE_TOKENS_KEY, build_controlnet, build_unet
from seesr.diffusion.sampler import Step, ddim_step, ddpm_step, sample
from seesr.diffusion.schedule import NoiseSchedule
from seesr.images.colour import adain_fix, wavelet_fix
from seesr.kernels.winograd import use_winograd
from seesr.machine.device import to_device
from seesr.tagging.dape import UNUSED_PREFIXES, merge_dape
from seesr.tagging.prompt import load_tag_list
from seesr.tagging.ram import RAM, RAMConfig, adapt_published, load_ram
from seesr.weights.config import read_config
from seesr.weights.manifest import beside_package
from seesr.weights.state_dict import read_state_dict

STEP_TIMESTEPS = (999, 499)
TOLERANCE, RAM_TOLERANCE = 1e-5, 1e-4


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(REFERENCE / "seesr_reference.safetensors")


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return load_denoiser(REFERENCE)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return load_vae(REFERENCE / "sd-turbo" / "vae")


@pytest.fixture(scope="module")
def schedule() -> NoiseSchedule:
    return NoiseSchedule.from_config(read_config(REFERENCE / "sd-turbo" / "scheduler" / "scheduler_config.json"))


def assert_close(name: str, actual: Tensor, wanted: Tensor, allowed: float | None = None) -> None:
    """Fails unless every difference is at most `allowed`, or 1e-5 of the largest value (at least 1); prints what it was."""
    assert actual.shape == wanted.shape
    assert actual.dtype == torch.float32
    difference = (actual - wanted).abs().max().item()
    allowed = allowed or TOLERANCE * max(1.0, wanted.abs().max().item())
    print(f"{name}: {difference:.1e} of {allowed:.1e}")
    assert difference <= allowed, f"{name}: {difference:.2e} > {allowed:.2e}"


def conditions(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"image": "image", "prompt_embeds": "prompt_embeds", "image_hidden_states": "ram_hidden_states"}
    return {ours: expected[theirs] for ours, theirs in names.items()}


@pytest.mark.parametrize("timestep", STEP_TIMESTEPS)
def test_controlnet_residuals(timestep: int, expected: dict[str, Tensor], denoiser: Denoiser) -> None:
    down, mid = denoiser.controlnet(
        expected[f"step{timestep}.sample"],
        timestep,
        encoder_hidden_states=expected["prompt_embeds"],
        controlnet_cond=expected["image"],
        cross_attention_kwargs={IMAGE_TOKENS_KEY: expected["ram_hidden_states"]},
        return_dict=False,
    )
    wanted = [key for key in expected if key.startswith(f"step{timestep}.controlnet_down")]
    assert len(down) == len(wanted)
    for number, residual in enumerate(down):
        name = f"step{timestep}.controlnet_down{number}"
        assert_close(name, residual, expected[name])
    assert_close(f"step{timestep}.controlnet_mid", mid, expected[f"step{timestep}.controlnet_mid"])


@pytest.mark.parametrize("timestep", STEP_TIMESTEPS)
def test_unet_prediction(timestep: int, expected: dict[str, Tensor], denoiser: Denoiser) -> None:
    prediction = denoiser(expected[f"step{timestep}.sample"], timestep, **conditions(expected))
    assert_close(f"step{timestep}.noise_pred", prediction, expected[f"step{timestep}.noise_pred"])


def test_maps_stay_channels_last_and_say_the_same(expected: dict[str, Tensor]) -> None:
    """As they are on a device; the tests above run in PyTorch's default layout."""
    denoiser, last = load_denoiser(REFERENCE), torch.channels_last
    to_device(denoiser, torch.device("cpu"))
    kept: list[bool] = []
    for name, module in denoiser.named_modules():
        if re.search(r"attentions\.\d+$", name):
            module.register_forward_hook(lambda _, args, made: kept.append(made[0].is_contiguous(memory_format=last)))
    prediction = denoiser(expected["step999.sample"], 999, **conditions(expected))
    assert_close("step999.noise_pred", prediction, expected["step999.noise_pred"])
    assert len(kept) > 4
    assert all(kept)


def test_vae(expected: dict[str, Tensor], vae: AutoencoderKL) -> None:
    assert_close("lr_latents", encode(vae, expected["image"]), expected["lr_latents"])
    decoded = 2 * decode(vae, expected["lr_latents"]) - 1
    assert_close("vae.decode_of_lr_latents", decoded, expected["vae.decode_of_lr_latents"])


@pytest.mark.parametrize(("name", "steps"), [("ddim1", 1), ("ddim2", 2), ("ddim4", 4), ("ddpm1", 1)])
def test_whole_loop(
    name: str, steps: int, expected: dict[str, Tensor], denoiser: Denoiser, vae: AutoencoderKL, schedule: NoiseSchedule
) -> None:
    assert schedule.timesteps(steps) == expected[f"{name}.timesteps"].tolist()
    step: Step = ddim_step if name.startswith("ddim") else ddpm_step(torch.Generator().manual_seed(0))
    start = schedule.add_noise(expected["lr_latents"], expected["noise"], 999)
    seen: list[Tensor] = []

    def recorded(*arguments: Any) -> Tensor:
        seen.append(step(*arguments))
        return seen[-1]

    final = sample(
        lambda latents, timestep: denoiser(latents, timestep, **conditions(expected)),
        schedule,
        start,
        steps,
        step=recorded,
    )
    assert len(seen) == steps
    for number, latents in enumerate(seen):
        assert_close(f"{name}.latents{number}", latents, expected[f"{name}.latents{number}"])
    image = (2 * decode(vae, final) - 1).clamp(-1, 1)
    assert_close(f"{name}.image", image, expected[f"{name}.image"])


@pytest.mark.parametrize(("name", "fix"), [("wavelet", wavelet_fix), ("adain", adain_fix)])
def test_colour_fix(name: str, fix: Callable[[Tensor, Tensor], Tensor], expected: dict[str, Tensor]) -> None:
    assert_close(name, fix(expected["colour.target"], expected["colour.source"]), expected[f"colour.{name}"])


@pytest.mark.parametrize(("name", "with_dape"), [("dape", True), ("ram", False)])
def test_ram(name: str, with_dape: bool) -> None:
    expected = load_file(REFERENCE / "ram_reference.safetensors")
    ram = load_ram(REFERENCE / "ram", with_dape)
    embeds = ram.encode(expected["pixels"].float() / 255)
    logits = ram.logits(embeds)
    assert_close(f"{name}.image_embeds", embeds, expected[f"{name}.image_embeds"], RAM_TOLERANCE)
    assert_close(f"{name}.logits", logits, expected[f"{name}.logits"], RAM_TOLERANCE)
    tag_list = load_tag_list(REFERENCE / "ram", ram.config.num_tags)
    assert torch.equal(tag_list.thresholds, expected["class_threshold"])
    wanted = json.loads((REFERENCE / "ram" / "expected_tags.json").read_text())
    found = [tag.name for tag in tag_list.choose(logits[0])]
    assert found == wanted["tags_with_dape" if with_dape else "tags_without_dape"]


FULL_SIZE = {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": [5, 10, 20, 20], "norm_num_groups": 32}
FULL_SIZE_CONFIG = FULL_SIZE | {"cross_attention_dim": 1024}


def full_size_keys(part: str) -> dict[str, list[int]]:
    return json.loads((REFERENCE / "full_size_keys.json").read_text())[part]


def test_full_size_unet_and_controlnet_have_the_published_parameters() -> None:
    unet_config = read_config(REFERENCE / "sd-turbo" / "unet" / "config.json") | FULL_SIZE_CONFIG
    controlnet_config = read_config(REFERENCE / "seesr" / "controlnet" / "config.json") | FULL_SIZE_CONFIG
    controlnet_config |= {"conditioning_embedding_out_channels": [16, 32, 96, 256]}
    models = {"unet": build_unet(unet_config), "controlnet": build_controlnet(controlnet_config)}
    for part, count in (("unet", 1102), ("controlnet", 522)):
        assert {tensor.device.type for tensor in models[part].state_dict().values()} == {"meta"}
        shapes = {key: list(tensor.shape) for key, tensor in models[part].state_dict().items()}
        assert shapes == full_size_keys(part)
        assert len(shapes) == count


def full_size_ram() -> dict[str, Tensor]:
    with torch.device("meta"):
        return RAM(RAMConfig()).state_dict()


def test_full_size_ram_has_the_published_parameters() -> None:
    shapes = {key: list(tensor.shape) for key, tensor in full_size_ram().items()}
    assert shapes == full_size_keys("ram")
    assert len(shapes) == 366


def test_full_size_dape_is_merged_or_recognised() -> None:
    shapes = full_size_keys("dape_lora")
    assert len(shapes) == 248
    dropped = [key for key in shapes if key.startswith(UNUSED_PREFIXES)]
    assert len(dropped) == 192
    ram = full_size_ram()
    merged = merge_dape(ram, {key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    assert merged.keys() == ram.keys()
    changed = [key for key in merged if merged[key] is not ram[key]]
    # 56 tensors are 28 pairs, one for each of these weights. Of the 192 four pairs more act on four of the same weights.
    assert len(changed) == 28


def test_dape_of_the_tag_encoder_counts_where_its_weights_are_tied() -> None:
    ram = adapt_published(read_state_dict(REFERENCE / "ram", "ram_swin_*"))
    dape = read_state_dict(REFERENCE / "ram", "DAPE")
    without = {key: tensor for key, tensor in dape.items() if not key.startswith("tag_encoder.")}
    both, own = merge_dape(ram, dape), merge_dape(ram, without)
    touched = [key for key in ram if not torch.equal(both[key], own[key])]
    assert touched
    assert all(".crossattention.self." in key and key.startswith("tagging_head.") for key in touched)


def base_and_ours(root: Path) -> tuple[UNet2DConditionModel, UNet2DConditionModel]:
    """The base's UNet as stock diffusers loads it, and the one with SeeSR's image transformers."""
    return UNet2DConditionModel.from_pretrained(root / "sd-turbo" / "unet").eval(), load_unet(
        root / "sd-turbo" / "unet", root / "seesr" / "unet"
    )


@pytest.mark.parametrize("root", [REFERENCE, beside_package("tiny")], ids=["reference", "tiny"])
def test_without_image_tokens_the_unet_is_the_base_s_own(root: Path) -> None:
    """So one loaded UNet serves upscaling and generating. Contiguous and without Winograd no bit differs."""
    stock, ours = base_and_ours(root)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, stock.config.in_channels, 24, 20, generator=generator)
    embeds = torch.randn(2, 77, stock.config.cross_attention_dim, generator=generator)

    def predict(unet: UNet2DConditionModel, timestep: int) -> Tensor:
        return unet(latents, timestep, encoder_hidden_states=embeds).sample

    expected = [predict(stock, timestep) for timestep in STEP_TIMESTEPS]
    for timestep, wanted in zip(STEP_TIMESTEPS, expected, strict=True):
        assert torch.equal(predict(ours, timestep), wanted)
    use_winograd(ours)
    to_device(ours, torch.device("cpu"))
    for timestep, wanted in zip(STEP_TIMESTEPS, expected, strict=True):
        assert_close(
            f"{root.name}: as it runs, step {timestep}", predict(ours, timestep), wanted, 1e-3 * wanted.std().item()
        )
