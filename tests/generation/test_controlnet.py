"""ControlNet: equal to stock diffusers, steers as asked, and what does not fit is refused before it is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import loras
import numpy as np
import pytest
import torch
from controlnets import save_controlnet
from diffusers import ControlNetModel, UNet2DConditionModel
from helpers import cases, encoded, hooked, photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil, GLPNConfig

from seesr import ControlUnit, OptionError, Upscaler, WeightsError
from seesr.engine import Engine
from seesr.errors import CanceledError
from seesr.generation.controls import MAX_WEIGHT
from seesr.generation.generator import Generator
from seesr.generation.infotext import Infotext
from seesr.generation.library import ModelPlace
from seesr.generation.options import GenerationOptions
from seesr.generation.preprocessors import canny, depth_map
from seesr.generation.samplers import make_scheduler, parse_sampler
from seesr.images.resize import to_tensor
from seesr.jobs import GenerationRequest, content_hash, parse_request, run_job
from seesr.networks import network_costs
from seesr.planning.plan import Budget
from seesr.weights.manifest import beside_package

PROMPT, NEGATIVE = "a cat, sitting", "dogs"
VALUES: dict[str, Any] = {"steps": 4, "seed": 5, "guidance_scale": 3.0, "negative_prompt": NEGATIVE}
PHOTO = photograph("chelsea.png", (150, 80, 214, 144))


def drawn(box: tuple[int, int, int, int] = (12, 20, 40, 52)) -> Image.Image:
    """A map: a white ellipse on black."""
    image = Image.new("RGB", (64, 64))
    ImageDraw.Draw(image).ellipse(box, fill="white")
    return image


@pytest.fixture(scope="module")
def data(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the ControlNets `edges` and `others/depth map`, and the LoRA `style`."""
    folder = tmp_path_factory.mktemp("data")
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    save_controlnet(unet, folder / "models" / "controlnet" / "edges", 1)
    save_controlnet(unet, folder / "models" / "controlnet" / "others" / "depth map", 2)
    loras.write(folder / "models" / "loras" / "style.safetensors", loras.kohya(loras.factors(unet, 3)))
    return folder


@pytest.fixture
def steered(generator: Generator, data: Path) -> Generator:
    return Generator(generator.engine, generator.checkpoint, data=data)


def latents(generator: Generator, make: Callable[[], object]) -> Tensor:
    """Those of the last picture that `make` finishes."""
    vae, seen = generator.engine.components["vae"], list[Tensor]()
    with hooked(vae.post_quant_conv, lambda _, inputs: seen.append(inputs[0])):
        make()
    return seen[-1] * vae.config.scaling_factor


def stock(generator: Generator, task: str, sampler: str, units: list[ControlUnit[Image.Image]]) -> Tensor:
    """Latents of the stock pipeline with the same networks, noise and scheduler."""
    components, data = generator.engine.components, generator.data / "models" / "controlnet"
    names = {"text to image": "", "image to image": "Img2Img", "inpainting": "Inpaint"}
    encoder, vae = components["prompt_encoder"], components["vae"]
    nets = [ControlNetModel.from_pretrained(data / unit.name) for unit in units]
    pipeline = getattr(diffusers, f"StableDiffusionControlNet{names[task]}Pipeline")(
        vae=vae,
        text_encoder=encoder.text_encoder,
        tokenizer=encoder.tokenizer,
        unet=components["unet"],
        controlnet=nets,
        scheduler=make_scheduler(generator.checkpoint.scheduler_config, parse_sampler(sampler)[0], "Automatic", 5),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    maps = [to_tensor(unit.image) for unit in units]
    arguments: dict[str, Any] = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": VALUES["steps"]}
    arguments |= {"guidance_scale": 3.0, "generator": torch.Generator().manual_seed(5), "output_type": "latent"}
    arguments |= {"controlnet_conditioning_scale": [unit.weight for unit in units]}
    arguments |= {f"control_guidance_{end}": [getattr(unit, end) for unit in units] for end in ("start", "end")}
    with torch.inference_mode():
        if task == "text to image":
            return pipeline(image=maps, **arguments).images
        begun = vae.encode(to_tensor(PHOTO) * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
        return pipeline(image=begun, control_image=maps, strength=0.75, **arguments).images


@pytest.mark.parametrize(
    ("task", "sampler", "several"),
    [
        ("text to image", "DDIM", [(1.0, 0.0, 1.0)]),
        ("text to image", "Heun", [(0.7, 0.0, 0.5)]),
        ("text to image", "Euler", [(1.0, 0.3, 1.0), (0.5, 0.0, 0.8)]),
        ("image to image", "DPM++ 2M", [(0.8, 0.0, 0.7)]),
    ],
)
def test_latents_are_those_of_the_stock_pipeline(
    steered: Generator, task: str, sampler: str, several: list[tuple[float, float, float]]
) -> None:
    units = [
        ControlUnit(name, drawn(), *values) for name, values in zip(("edges", "others/depth map"), several, strict=False)
    ]
    expected = stock(steered, task, sampler, units)
    image = None if task == "text to image" else PHOTO

    def make(units: list[Any] = units) -> None:
        options = GenerationOptions(prompt=PROMPT, sampler=sampler, **VALUES)
        assert next(steered.stream(options, image, controls=units)).task == task

    ours, without = latents(steered, make), latents(steered, lambda: make([]))
    assert (ours - expected).abs().max() < 2e-4
    assert (ours - without).abs().max() > 0.05


def made(generator: Generator, *units: Any, prompt: str = PROMPT, **values: Any) -> bytes:
    return generator.text_to_image(prompt, controls=units, **VALUES | {"steps": 2} | values)[0].image.tobytes()


def test_nothing_of_a_controlnet_stays_and_weight_0_is_none(steered: Generator) -> None:
    before, unit = made(steered), ControlUnit("edges", drawn())
    changed = made(steered, unit)
    assert changed != before
    assert [*steered.engine.components.extras] == [name for name in steered.engine.components.networks if "edges" in name]
    own = network_costs(steered.engine.components)
    assert steered.engine.costs.weight_bytes == own.weight_bytes, "the memory plan counts its bytes"
    assert made(steered, ControlUnit("edges", drawn(), 0.0)) == before
    assert not steered.engine.components.extras
    assert made(steered, ControlUnit("edges", drawn(), start=0.9, end=0.95)) == before, "between two steps"
    assert steered.engine.costs.weight_bytes == own.weight_bytes
    made(steered)
    assert steered.engine.costs.weight_bytes < own.weight_bytes

    def cancel(stage: str, done: int, total: int) -> None:
        if stage == "denoise" and done == 1:
            raise CanceledError("enough")

    with pytest.raises(CanceledError, match="enough"):
        made(steered, unit, progress=cancel)
    assert made(steered) == before
    assert made(steered, unit) == changed


def test_a_job_ends_within_a_call_of_a_controlnet(steered: Generator) -> None:
    unit, inside = ControlUnit("edges", drawn()), list[int]()
    made(steered, unit)
    (name,) = steered.engine.components.extras
    network = steered.engine.components[name]
    end, middle = network.controlnet_mid_block, network.mid_block
    with hooked(end, lambda *_: inside.append(1)), hooked(middle, lambda *_: inside.append(0)), pytest.raises(CanceledError):
        made(steered, unit, cancelled=lambda: 0 in inside)
    assert inside == [0]
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_it_works_with_all_else(steered: Generator, checkpoint: Path, data: Path) -> None:
    unit = ControlUnit("edges", drawn())
    sequential = Generator.load(checkpoint, device="cpu", dtype="float32", sequential=True, vae_tile=8)
    one_by_one = Generator(sequential.engine, sequential.checkpoint, vae_tile=8, data=data)
    composed = "a cat AND a dog :0.5 [of wood:of stone:0.5] <lora:style:0.5>"
    values = {"prompt": composed, "width": 96, "second_pass": 1.25, "second_pass_upscaler": "latent"}
    expected, image = (np.frombuffer(made(one, unit, **values), np.uint8) for one in (steered, one_by_one))
    assert np.abs(expected.astype(int) - image).max() <= 1
    assert not np.array_equal(expected, np.frombuffer(made(steered, **values), np.uint8))
    assert all(weight.is_meta for name in one_by_one.engine.components.extras for weight in _weights(one_by_one, name))
    one_by_one.unload()
    with pytest.raises(RuntimeError, match="unloaded"):
        made(one_by_one, unit)
    together = steered.text_to_image(PROMPT, controls=[unit], batch_size=2, **VALUES | {"steps": 2})
    assert (
        np.abs(np.asarray(together[0].image, int) - np.frombuffer(made(steered, unit), np.uint8).reshape(64, 64, 3)).max()
        <= 1
    )


def _weights(generator: Generator, name: str) -> list[Tensor]:
    return [*generator.engine.components[name].parameters()]


def test_a_map_is_of_the_part_that_is_painted_anew(steered: Generator) -> None:
    """Two maps that differ outside of the box alone make the same picture."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (24, 24, 40, 40))
    inside, other, outside = drawn((26, 26, 38, 38)), drawn((20, 20, 44, 30)), drawn((26, 26, 38, 38))
    outside.paste("white", (0, 0, 6, 64))
    values = VALUES | {"inpaint_area": "masked", "inpaint_padding": 4, "mask_blur": 0.0}
    pictures = [
        steered.inpaint(PHOTO, mask, PROMPT, controls=[ControlUnit("edges", one)], **values)[0].image.tobytes()
        for one in (inside, outside, other)
    ]
    assert pictures[0] == pictures[1] != pictures[2]


def test_it_steers_where_the_map_says(steered: Generator) -> None:
    """Maps that differ on the left change the left more: a random network has no other aim."""
    left, right = (drawn((at, 16, at + 16, 48)) for at in (2, 46))
    empty, on_left, on_right = (
        np.frombuffer(made(steered, ControlUnit("edges", one, 0.6), steps=1, guidance_scale=1.0), np.uint8)
        .reshape(64, 64, 3)
        .astype(int)
        for one in (Image.new("RGB", (64, 64)), left, right)
    )
    for changed, near, far in ((on_left, slice(0, 24), slice(40, 64)), (on_right, slice(40, 64), slice(0, 24))):
        difference = np.abs(changed - empty).mean(axis=2)
        assert difference[:, near].mean() > 1.5 * difference[:, far].mean()


def test_upscaling_never_sees_it(tmp_path: Path) -> None:
    weights = Path(shutil.copytree(beside_package("tiny"), tmp_path / "full"))
    upscaler = Upscaler.load(weights, device="cpu", dtype="float32")
    unet, folder = upscaler.engine.components["unet"], tmp_path / "models" / "controlnet"
    save_controlnet(unet, folder / "a", 1, use_linear_projection=True)
    shutil.copytree(weights / "seesr" / "controlnet", folder / "own")
    before = upscaler.upscale(PHOTO, scale=2, seed=1).image.tobytes()
    shared = Generator.sharing(upscaler)
    generator = Generator(shared.engine, shared.checkpoint, upscaler, data=tmp_path)
    quick: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "seed": 3}
    plain, changed = (
        generator.text_to_image("a cat", controls=units, **quick)[0].image.tobytes()
        for units in ([], [ControlUnit("a", PHOTO, preprocessor="canny")])
    )
    assert plain != changed
    assert upscaler.upscale(PHOTO, scale=2, seed=1).image.tobytes() == before
    with pytest.raises(WeightsError, match=r"own is SeeSR's own, which is for upscaling"):
        generator.text_to_image("a cat", controls=[ControlUnit("own", PHOTO)], **quick)


def test_what_does_not_fit_the_memory_is_planned(steered: Generator, data: Path) -> None:
    """With a budget that the VAE fits whole, but the ControlNet's weights do not."""
    engine = steered.engine
    made(steered, ControlUnit("edges", drawn()))
    with_it = engine.costs
    made(steered)
    assert with_it.weight_bytes - engine.costs.weight_bytes == with_it.largest_weight_bytes - engine.components.nbytes(
        "unet"
    )
    small = Engine(engine.components, engine.costs, engine.dtype, engine.limits, budget=lambda *_: Budget(1.0, 1.0))
    made_small = Generator(small, steered.checkpoint, data=data).text_to_image(
        PROMPT, controls=[ControlUnit("edges", drawn())], **VALUES
    )
    assert "no plan fits the memory limit; the smallest one is used" in made_small[0].notes
    made(steered)


def changed_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cross_attention_dim": 768}, "mine is for SD 1, with prompt embeddings of 768, and random has 32"),
        ({"cross_attention_dim": 2048}, "mine is for SDXL, with prompt embeddings of 2048"),
        ({"_class_name": "ControlNetUnionModel"}, "mine asks for ControlNetUnionModel; only ControlNetModel"),
        ({"_class_name": ["mine", "Net"]}, "mine asks for no class"),
        ({"block_out_channels": [32, 32]}, r"its block_out_channels is .* instead of"),
        ({"layers_per_block": 2}, "its layers_per_block is 2 instead of 1"),
        ({"global_pool_conditions": True}, "its global_pool_conditions is True instead of False"),
        ({"conditioning_embedding_out_channels": [8, 16]}, "reduces its map 2 times, and latents are 4 times smaller"),
        ({"block_out_channels": "many"}, r"the config\.json of the ControlNet mine cannot be used"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_config(
    steered: Generator, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = Path(
        shutil.copytree(steered.data / "models" / "controlnet" / "edges", tmp_path / "models" / "controlnet" / "mine")
    )
    changed_config(folder, **change)
    other = Generator(steered.engine, steered.checkpoint, data=tmp_path)
    with pytest.raises(WeightsError, match=message):
        made(other, ControlUnit("mine", drawn()))
    assert not any("mine" in name for name in other.engine.components.networks)


def test_only_whole_safetensors_without_code_are_read(steered: Generator, tmp_path: Path) -> None:
    folder = Path(
        shutil.copytree(steered.data / "models" / "controlnet" / "edges", tmp_path / "models" / "controlnet" / "mine")
    )
    other, unit = Generator(steered.engine, steered.checkpoint, data=tmp_path), ControlUnit("mine", drawn())
    before = made(other)
    file = folder / "diffusion_pytorch_model.safetensors"
    file.rename(variant := folder / "diffusion_pytorch_model.fp16.safetensors")
    assert made(other, unit) == made(steered, ControlUnit("edges", drawn()))
    whole = variant.read_bytes()
    variant.write_bytes(whole[:-8])
    with pytest.raises(WeightsError, match="bytes instead of"):
        made(other, unit)
    variant.rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"mine has no diffusion_pytorch_model\.safetensors"):
        made(other, unit)
    file.write_bytes(whole)
    (folder / "evil.py").write_text("raise SystemExit")
    with pytest.raises(WeightsError, match=r"holds code \(evil\.py\)"):
        made(other, unit)
    with pytest.raises(OptionError, match=r"unknown ControlNet '\.\./edges'; models/controlnet has: mine"):
        made(other, ControlUnit("../edges", drawn()))
    assert made(other) == before


def test_canny_finds_the_edges_of_what_is_drawn() -> None:
    edges = np.asarray(canny(drawn()))[..., 0] > 0
    assert set(np.unique(np.asarray(canny(PHOTO)))) == {0, 255}
    rows, columns = np.nonzero(edges)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((20, 52, 12, 40), abs=1)
    assert not edges[28:44, 20:32].any()
    assert 60 < edges.sum() < 200


@pytest.fixture
def depth_model(tmp_path: Path) -> Path:
    """A random Depth Anything in `tmp_path/models/depth/small`."""
    torch.manual_seed(3)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
        patch_size=14,
    )
    folder = tmp_path / "models" / "depth" / "small"
    model = DepthAnythingForDepthEstimation(config)
    for weight in model.head.parameters():
        torch.nn.init.normal_(weight)
    model.save_pretrained(folder)
    DPTImageProcessorPil(size={"height": 72, "width": 56}).save_pretrained(folder)
    return folder


def test_depth_is_that_of_a_model_in_the_data_folder(steered: Generator, depth_model: Path, tmp_path: Path) -> None:
    shutil.copytree(steered.data / "models" / "controlnet", tmp_path / "models" / "controlnet")
    other, unit = (
        Generator(steered.engine, steered.checkpoint, data=tmp_path),
        ControlUnit("edges", PHOTO, preprocessor="depth"),
    )
    changed = made(other, unit)
    assert changed not in (made(other), made(other, ControlUnit("edges", PHOTO)))
    assert changed == made(other, unit)
    model = DepthAnythingForDepthEstimation.from_pretrained(depth_model)
    processor = DPTImageProcessorPil.from_pretrained(depth_model)
    with torch.inference_mode():
        inputs = processor(images=PHOTO, return_tensors="pt")
        (expected,) = processor.post_process_depth_estimation(model(**inputs), [(64, 64)])
    values = expected["predicted_depth"]
    values = (values - values.min()) / (values.max() - values.min())
    ours = depth_map(PHOTO, ModelPlace("small", depth_model))
    assert np.abs(np.asarray(ours)[..., 0] / 255 - values.numpy()).max() < 0.01

    changed_config(depth_model, depth_estimation_type="metric")
    with pytest.raises(WeightsError, match=r"small is depth_anything \(metric\)"):
        made(other, unit)
    GLPNConfig().save_pretrained(depth_model)
    with pytest.raises(WeightsError, match="small is glpn"):
        made(other, unit)
    shutil.copytree(depth_model, depth_model.with_name("second"))
    with pytest.raises(OptionError, match="has several depth models: second, small; keep one"):
        made(other, unit)
    shutil.rmtree(depth_model.parent)
    with pytest.raises(OptionError, match="there is no depth model"):
        made(other, unit)


def test_units_stand_in_the_file_as_a1111_writes_them(steered: Generator) -> None:
    units = [ControlUnit("edges", PHOTO, 0.8, preprocessor="canny"), ControlUnit("others/depth map", drawn(), end=0.5)]
    (result,) = steered.text_to_image(PROMPT, controls=units, **VALUES)
    parameters = Infotext.parse(result.infotext() or "").parameters
    digests = [str(unit["digest"]) for unit in result.controls]
    assert len(set(digests)) == 2
    assert parameters["ControlNet 0"] == (
        f"Module: canny, Model: edges [{digests[0]}], Weight: 0.8, Guidance Start: 0.0, Guidance End: 1.0"
    )
    assert parameters["ControlNet 1"].startswith(f"Module: none, Model: depth map [{digests[1]}], Weight: 1.0")
    assert json.loads(json.dumps(result.settings()))["controls"][1] == {
        "name": "others/depth map",
        "digest": digests[1],
        "weight": 1.0,
        "start": 0.0,
        "end": 0.5,
        "preprocessor": "none",
    }


def test_a_job_carries_units_by_the_hash_of_their_pictures(steered: Generator) -> None:
    picture = encoded(drawn(), "png")
    request = GenerationRequest(
        options=GenerationOptions(prompt=PROMPT, **VALUES | {"steps": 2}),
        controls=(ControlUnit("edges", content_hash(picture), 0.7),),
    )
    again = parse_request(request.model_dump_json())
    assert isinstance(again, GenerationRequest)
    assert again == request
    assert again.pictures == {content_hash(picture)}
    (result,) = run_job(steered, again, {content_hash(picture): picture})
    assert result.image.tobytes() == made(steered, ControlUnit("edges", drawn(), 0.7))


@settings(max_examples=cases(50))
@given(
    st.text(st.characters(exclude_characters=":", exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool),
    st.decimals(0, MAX_WEIGHT, places=3),
    st.decimals(0, 1, places=3),
    st.decimals(0, 1, places=3),
)
def test_units_are_read_as_they_are_written(name: str, weight: Any, first: Any, second: Any) -> None:
    start, end = sorted((first, second))
    assert ControlUnit.parse(f" {name} ", "picture") == ControlUnit(name, "picture")
    if start < end:
        unit = ControlUnit.parse(f"{name}:{weight}:{start}:{end}", "picture", "canny")
        assert unit == ControlUnit(name, "picture", float(weight), float(start), float(end), "canny")
    else:
        with pytest.raises(OptionError, match="give a start below the end"):
            ControlUnit.parse(f"{name}:{weight}:{start}:{end}", "picture")


@pytest.mark.parametrize("text", ["", ":1", "a:b", "a:2.1", "a:-1", "a:nan", "a:1:0:1:1", "a:1e0", "a:1:1"])
def test_units_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"ControlNet"):
        ControlUnit.parse(text, "picture")
    with pytest.raises(OptionError, match="unknown preprocessor 'pose'; valid ones: none, canny, depth"):
        ControlUnit.parse("a", "picture", "pose")
