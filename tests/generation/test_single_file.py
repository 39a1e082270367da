"""Checkpoints and VAEs in one file: equal to the folder bit for bit, without the network, or refused in one sentence."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoint_files as files
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from helpers import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from seesr import OptionError, WeightsError
from seesr.diffusion.text import clip_tokenizer
from seesr.generation.checkpoints import resolve_checkpoint
from seesr.generation.generator import Generator
from seesr.generation.single_file import SCHEDULER

FAMILIES = ["SD 1", "SD 2"]
OPTIONS: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "seed": 3, "negative_prompt": "dogs", "clip_skip": 2}


def make_folder(folder: Path, is_sd2: bool) -> Path:
    """A random checkpoint of a family at small shape: three levels, of which two have attention."""
    torch.manual_seed(int(is_sd2))
    channels = (64, 64, 128) if is_sd2 else (32, 64, 64)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=[count // 64 for count in channels] if is_sd2 else 8,
        use_linear_projection=is_sd2,
    )
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=23 if is_sd2 else 3,
        num_attention_heads=1,
        hidden_act="gelu" if is_sd2 else "quick_gelu",
        eos_token_id=49407,
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 64),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
    )
    scheduler = DDIMScheduler(**{key: value for key, value in SCHEDULER.items() if not key.startswith("_")})
    tokenizer = clip_tokenizer("!" if is_sd2 else None)
    parts = vae, CLIPTextModel(text), tokenizer, unet, scheduler, None, None
    StableDiffusionPipeline(*parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: make_folder(root / family, family == "SD 2") for family in FAMILIES}


@pytest.fixture(scope="module")
def tensors(folders: dict[str, Path]) -> dict[str, dict[str, Tensor]]:
    """A file's tensors of each family."""
    return {
        family: files.file_tensors(files.networks(resolve_checkpoint(folders[family])), family == "SD 2")
        for family in FAMILIES
    }


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def equal(first: Any, second: Any) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", (33, 32, 3, 3)),
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", ()),
        ("model.diffusion_model.input_blocks.0.0.op.weight", (32, 4, 3, 3)),
        ("first_stage_model.decoder.conv_in.weight", (64,)),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", (49408, 8)),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", (8, 64)),
    ],
)
def test_shapes_that_no_network_can_have_are_an_error_about_the_file(
    tensors: dict[str, dict[str, Tensor]], tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    path = files.save(tensors["SD 1"] | {name: torch.zeros(shape)}, tmp_path / "one.safetensors")
    with pytest.raises(WeightsError, match=r"one\.safetensors"):
        files.networks(resolve_checkpoint(path))


def test_the_vocabulary_is_clip_s() -> None:
    tokenizer = clip_tokenizer("!")
    assert len(tokenizer) == 49408
    # As openai/CLIP tokenizes it.
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (tokenizer.pad_token_id, clip_tokenizer().pad_token_id) == (0, 49407)
    assert tokenizer.decode(tokenizer("naïve 日本 😀").input_ids, skip_special_tokens=True) == "naïve 日本 😀"


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_is_its_folder_bit_for_bit(
    folders: dict[str, Path],
    tensors: dict[str, dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
) -> None:
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    place = tmp_path / "models" / "checkpoints" / "people"
    place.mkdir(parents=True)
    path = files.save(tensors[family], place / "my model.safetensors", **{"modelspec.prediction_type": "epsilon"})
    names = ["my model", "people/my model", "people/my model.safetensors", str(path)]
    assert {resolve_checkpoint(name).root for name in names} == {path}
    of_folder, of_file = resolve_checkpoint(folders[family]), resolve_checkpoint("my model")
    expected, loaded = files.networks(of_folder), files.networks(of_file)
    for name in ("vae", "unet"):
        assert equal(loaded[name], expected[name])
        unstated = {"sample_size", "_name_or_path", "_use_default_values", "_diffusers_version", "_class_name"}
        differing = {
            key for key in expected[name].config if loaded[name].config.get(key) != expected[name].config[key]
        } - unstated
        assert all(tuple(loaded[name].config[key]) == tuple(expected[name].config[key]) for key in differing)
    first, second = (one["prompt_encoder"] for one in (loaded, expected))
    assert equal(first.text_encoder, second.text_encoder)
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
    pictures = [
        Generator.load(root, device="cpu", dtype="float32").text_to_image("a (cat:1.2)", **OPTIONS)[0]
        for root in (folders[family], "my model")
    ]
    assert pictures[0].image.tobytes() == pictures[1].image.tobytes()
    assert pictures[1].weights == "my model"
    assert pictures[1].notes == pictures[0].notes
    renamed = shutil.copy(path, tmp_path / "other.safetensors")
    assert resolve_checkpoint(renamed).digest == of_file.digest != of_folder.digest


def test_the_prediction_type_is_the_file_s_the_user_s_or_assumed_with_a_note(
    tensors: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    def read(family: str, yaml: str | None = None, prediction: str | None = None, **metadata: str) -> tuple[str, int, int]:
        path = files.save(tensors[family], tmp_path / "one.safetensors", **metadata)
        path.with_suffix(".yaml").unlink(missing_ok=True)
        if yaml is not None:
            path.with_suffix(".yaml").write_text(yaml)
        checkpoint = resolve_checkpoint(path, prediction=prediction)
        return checkpoint.scheduler_config["prediction_type"], checkpoint.native_side(8), len(checkpoint.notes)

    assert read("SD 1") == ("epsilon", 512, 0)
    assert read("SD 2") == ("epsilon", 512, 1)
    assert read("SD 2", prediction="v_prediction") == ("v_prediction", 768, 0)
    assert read("SD 2", **{"modelspec.prediction_type": "v"}) == ("v_prediction", 768, 0)
    assert read("SD 2", **{"modelspec.architecture": "stable-diffusion-v2-768-v"}) == ("v_prediction", 768, 0)
    assert read("SD 2", yaml='model:\n  params:\n    parameterization: "v"\n') == ("v_prediction", 768, 0)
    assert read("SD 2", yaml="model: {}\n") == ("epsilon", 512, 0)
    assert read("SD 1", prediction="v_prediction") == ("v_prediction", 512, 0)
    marked = files.save(tensors["SD 2"] | {"v_pred": torch.tensor([])}, tmp_path / "marked.safetensors")
    assert resolve_checkpoint(marked).scheduler_config["prediction_type"] == "v_prediction"
    made = Generator.load(files.save(tensors["SD 2"], tmp_path / "two.safetensors"), device="cpu", dtype="float32")
    note = made.text_to_image("a cat", **OPTIONS)[0].notes
    assert any("two does not say what its UNet predicts: epsilon was assumed; if this is noise, give" in one for one in note)
    with pytest.raises(OptionError, match="unknown prediction 'v'; valid predictions: epsilon, v_prediction"):
        resolve_checkpoint(marked, prediction="v")


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def without(start: str) -> Change:
    return lambda tensors: {name: one for name, one in tensors.items() if not name.startswith(start)}


def having(name: str, *shape: int) -> Change:
    return lambda tensors: tensors | {name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("first_stage_model."), r"holds no VAE; give one with --vae"),
        (without("cond_stage_model."), r"holds no text encoder; get the checkpoint with its text encoder"),
        (without("model.diffusion_model."), r"holds no UNet of SD 1 or SD 2"),
        (having("conditioner.embedders.0.transformer.x", 1), r"is of SDXL; only checkpoints of SD 1 and SD 2 can be used"),
        (having("model.diffusion_model.joint_blocks.0.x", 1), r"is of SD 3; only"),
        (
            having("model.diffusion_model.input_blocks.0.0.weight", 32, 9, 3, 3),
            r"its UNet takes 9 channels, and latents have 4",
        ),
        (having("control_model.x.weight", 1), r"does not fit: (\d+) of its (\d+) tensors .* not control_model\.x\.weight"),
        (having("model.diffusion_model.label_emb.0.0.weight", 8, 8), r"(\d+) of its (\d+) tensors .*, not .*label_emb"),
    ],
)
def test_other_files_are_refused_by_their_header(
    tensors: dict[str, dict[str, Tensor]], tmp_path: Path, change: Change, sentence: str
) -> None:
    path = files.save(change(tensors["SD 1"]), tmp_path / "one.safetensors")
    with pytest.raises(WeightsError, match=sentence) as refused:
        resolve_checkpoint(path)
    if counts := re.search(r"(\d+) of its (\d+)", str(refused.value)):
        assert int(counts[2]) - int(counts[1]) == 1


def test_whatever_tensor_is_missing_or_misshapen_is_an_error(tensors: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    networks = {"model.diffusion_model": "unet", "first_stage_model": "vae", "cond_stage_model": "prompt_encoder"}
    unneeded = re.compile(r"resblocks\.23|logit_scale|text_projection|position_ids|^[^.]*$|model_ema")

    @settings(max_examples=cases(15), deadline=None)
    @given(st.sampled_from(FAMILIES), st.booleans(), st.data())
    def check(family: str, is_missing: bool, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name in tensors[family] if not unneeded.search(name)]))
        changed = dict(tensors[family])
        tensor = changed.pop(name)
        path = files.save(changed if is_missing else changed | {name: torch.cat([tensor] * 2)}, tmp_path / "one.safetensors")
        network = next(networks[start] for start in networks if name.startswith(start))
        with pytest.raises(WeightsError):
            next(spec for spec in resolve_checkpoint(path).networks(torch.float32) if spec.name == network).load()

    check()


@pytest.mark.usefixtures("_no_network")
def test_a_vae_takes_the_place_of_a_checkpoint_s(
    folders: dict[str, Path],
    tensors: dict[str, dict[str, Tensor]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEESR_DATA", str(tmp_path))
    place = tmp_path / "models" / "vae"
    place.mkdir(parents=True)
    shutil.copytree(folders["SD 2"] / "vae", place / "folder")
    vae = files.networks(resolve_checkpoint(folders["SD 2"]))["vae"]
    files.save(files.vae_tensors(vae, "") | {"loss.logvar": torch.ones(1)}, place / "bare.safetensors")
    files.save(files.vae_tensors(vae), place / "prefixed.safetensors")
    files.save(vae.state_dict(), place / "renamed.safetensors")
    bare = files.save(without("first_stage_model.")(tensors["SD 1"]), tmp_path / "no vae.safetensors")
    made = [
        Generator.load(checkpoint, device="cpu", dtype="float32", vae=name).text_to_image("a cat", **OPTIONS)[0]
        for checkpoint, name in (
            (folders["SD 1"], "folder"),
            (folders["SD 1"], "bare"),
            (bare, "prefixed.safetensors"),
            (bare, place / "renamed.safetensors"),
        )
    ]
    assert len({one.image.tobytes() for one in made}) == 1
    own = Generator.load(folders["SD 1"], device="cpu", dtype="float32").text_to_image("a cat", **OPTIONS)[0]
    assert own.image.tobytes() != made[0].image.tobytes()
    assert made[1].settings()["vae_name"] == "bare"
    assert "vae_name" not in own.settings()
    assert f"VAE hash: {made[1].settings()['vae_digest']}, VAE: bare" in (made[1].infotext() or "")
    with pytest.raises(OptionError, match="unknown VAE 'other'; give a folder, a safetensors file or a name in models/vae"):
        resolve_checkpoint(folders["SD 1"], vae="other")
    with pytest.raises(WeightsError, match=r"is UNet2DConditionModel, not AutoencoderKL"):
        resolve_checkpoint(folders["SD 1"], vae=folders["SD 1"] / "unet")
    files.save({"encoder.down.0.block.0.conv1.weight": torch.ones(32, 32, 3, 3)}, place / "part.safetensors")
    with pytest.raises(WeightsError, match="lacks the tensor"):
        Generator.load(folders["SD 1"], vae="part")
    wide = AutoencoderKL(block_out_channels=(32,), latent_channels=8)
    wide.save_pretrained(place / "wide")
    with pytest.raises(WeightsError, match="the VAE wide has latents of 8 channels, and SD 1 was trained on 4; use another"):
        Generator.load(folders["SD 1"], vae="wide")
