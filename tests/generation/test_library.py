"""The library: names, and what files say of themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import loras
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seesr import OptionError, WeightsError
from seesr.generation.library import Library
from seesr.generation.model_file import ModelFile


def of_width(width: int, kind: str = "lora_unet_{}_attn2_to_k.lora_down.weight") -> dict[str, Tensor]:
    """The tensors of a LoRA for prompt embeddings of this width."""
    return {"lora_unet_x_attn1_to_k.lora_down.weight": torch.ones(4, 320), kind.format("x"): torch.ones(4, width)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "people/a", "people/my style (v2)", "people/.hidden", ".cache/b", "ink.v1"):
        loras.write(tmp_path / "loras" / f"{name}.safetensors", of_width(1024))
    loras.write(tmp_path / "loras" / "by peft" / "adapter_model.safetensors", of_width(1024))
    loras.write(tmp_path / "secret.safetensors", of_width(1024))
    (tmp_path / "loras" / "old.pt").write_bytes(b"pickle")
    (tmp_path / "loras" / "folder.safetensors").mkdir()
    return tmp_path / "loras"


def test_names_are_looked_up(folder: Path) -> None:
    library = Library(folder, "LoRA")
    assert [file.name for file in library.models()] == ["a", "by peft", "ink.v1", "people/a", "people/my style (v2)"]
    for name, path in {
        "a": "a.safetensors",
        "people/a": "people/a.safetensors",
        "my style (v2)": "people/my style (v2).safetensors",
        "by peft": "by peft/adapter_model.safetensors",
        "ink.v1": "ink.v1.safetensors",
    }.items():
        assert library.find(name).path == folder / path
    shutil.copy(folder / "a.safetensors", folder / "by peft" / "my style (v2).safetensors")
    with pytest.raises(
        OptionError, match=r"several LoRA files are called 'my style \(v2\)': write by peft/my style \(v2\), people"
    ):
        library.find("my style (v2)")
    assert Library(folder / "none", "LoRA").models() == []


@given(
    st.text(max_size=20)
    | st.sampled_from(["../secret", "people/../a", "/etc/passwd", "a.safetensors", "old", ".", "people"])
)
@settings(max_examples=60)
def test_no_other_name_finds_anything(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "names" / "loras"
    if not folder.exists():
        loras.write(folder / "people" / "one file.safetensors", of_width(1024))
        loras.write(folder.parent / "secret.safetensors", of_width(1024))
    with pytest.raises(OptionError, match=r"unknown LoRA .*; models/loras has: people/one file"):
        Library(folder, "LoRA").find(name)


def test_trigger_words_are_the_user_s_then_the_maker_s_then_the_training_s(tmp_path: Path) -> None:
    tags = json.dumps({"10_cat": {"a cat": 3, "sitting": 1}, "5_dog": {"a dog": 7, "a cat": 1}})
    metadata = {
        "modelspec.trigger_phrase": "by the maker,  in   ink,",
        "modelspec.usage_hint": "a hint",
        "ss_tag_frequency": tags,
    }
    path, sidecar = tmp_path / "x.safetensors", tmp_path / "x.json"
    sidecar.write_text(json.dumps({"activation text": "mine, too, mine", "notes": "n"}))

    def words() -> tuple[str, ...]:
        return ModelFile("x", loras.write(path, of_width(1024), metadata)).trigger_words

    assert words() == ("mine", "too")
    sidecar.write_text(json.dumps({"activation text": " "}))
    assert words() == ("by the maker", "in ink")
    for broken in ("[" * 100_000, "[]", "", "\udcff", '{"activation text": 3}'):
        sidecar.write_bytes(broken.encode(errors="surrogateescape"))
        assert words() == ("by the maker", "in ink")
    del metadata["modelspec.trigger_phrase"]
    assert words() == ("a hint",)
    del metadata["modelspec.usage_hint"]
    assert words() == ("a dog", "a cat", "sitting")
    for broken in ("[1]", "no JSON", "{" * 100_000, '{"a": {"b": "x"}}', '{"a": {"b": 1e999}}'):
        metadata["ss_tag_frequency"] = broken
        assert words() == ()
    sidecar.unlink()
    assert ModelFile("x", path).preview is None
    for name in ("x.png", "x.preview.png"):
        (tmp_path / name).touch()
        assert ModelFile("x", path).preview == tmp_path / name


@pytest.mark.parametrize(
    ("tensors", "metadata", "family"),
    [
        (of_width(768), {}, "SD 1"),
        (of_width(1024, "unet.{}.attn2.to_v.lora_A.weight"), {}, "SD 2"),
        (of_width(768, "unet.{}.attn2.processor.to_k_lora.down.weight"), {}, "SD 1"),
        (of_width(1024, "lora_unet_{}_attn2_to_k.hada_w1_b"), {}, "SD 2"),
        (of_width(2048), {}, "SDXL"),
        ({"lora_te2_x.lora_down.weight": torch.ones(4, 1280)} | of_width(320, "y{}"), {}, "SDXL"),
        (of_width(320, "lora_unet_{}_attn1_to_q.lora_down.weight"), {}, None),
        (of_width(32), {"ss_v2": "True"}, "SD 2"),
        (of_width(32), {"ss_v2": "False", "ss_base_model_version": "sd_v1"}, "SD 1"),
        (of_width(32), {"ss_base_model_version": "sdxl_base_v1-0"}, "SDXL"),
        (of_width(32), {"modelspec.architecture": "stable-diffusion-v2-768-v/lora"}, "SD 2"),
        (of_width(32), {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "SDXL"),
        ({"emb_params": torch.ones(2, 768)}, {}, "SD 1"),
        ({"<word>": torch.ones(1024)}, {}, "SD 2"),
        ({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, {}, "SDXL"),
    ],
)
def test_the_family_is_that_of_the_metadata_or_of_the_shapes(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], family: str | None
) -> None:
    file = ModelFile("face", loras.write(tmp_path / "face.safetensors", tensors, metadata))
    assert file.base_model == family
    if family not in (None, "SD 2"):
        with pytest.raises(WeightsError, match=rf"^face is for {family},? .*and SD-Turbo .*\(?SD 2\)?\.$"):
            file.require_family(1024, "SD-Turbo")
    elif file.prompt_width in (None, 1024):
        file.require_family(1024, "SD-Turbo")
