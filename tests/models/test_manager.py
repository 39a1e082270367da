"""What the manager finds, adds, removes and verifies, among the user's files and those of other programs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from helpers import Run
from safetensors.torch import save_file
from torch import Tensor

import seesr.models.listing
from seesr import OptionError, WeightsError, cli
from seesr.generation.library import find_known_model, model_folders
from seesr.models.contents import inspect
from seesr.models.manager import ModelManager
from seesr.weights.cache import Cache
from seesr.weights.header import read_header
from seesr.weights.manifest import beside_package

ONES = torch.ones(2, 2)
LORA_2 = {"lora_unet_x_attn2_to_k.lora_down.weight": torch.ones(4, 1024)}
LORA_XL = {"lora_unet_x_attn2_to_k.lora_down.weight": torch.ones(4, 2048)}
CHECKPOINT_1 = {"model.diffusion_model.x": ONES, "cond_stage_model.transformer.x": ONES, "first_stage_model.x": ONES}
CHECKPOINT_XL = {"model.diffusion_model.x": ONES, "conditioner.embedders.0.x": ONES}
VAE = {"encoder.conv_in.weight": ONES, "decoder.conv_in.weight": ONES}
EMBEDDING = {"emb_params": torch.ones(3, 768)}
CONTROLNET = {"control_model.x": ONES}


def write(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    return path


@pytest.fixture
def data(tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a model of each kind."""
    monkeypatch.setenv("SEESR_DATA", str(tmp_path / "data"))
    models = tmp_path / "data" / "models"
    write(models / "checkpoints" / "old style.safetensors", CHECKPOINT_1)
    shutil.copytree(beside_package("pictograms"), models / "checkpoints" / "icons")
    write(models / "loras" / "people" / "ink.safetensors", LORA_2)
    write(models / "vae" / "soft.safetensors", VAE)
    write(models / "embeddings" / "by-me.safetensors", EMBEDDING)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("tensors", "kind", "base", "problem"),
    [
        (CHECKPOINT_1, "checkpoints", "SD 1", None),
        (CHECKPOINT_XL, "checkpoints", "SDXL", "it is of SDXL; only SD 1 and SD 2 can be used"),
        (LORA_2, "loras", "SD 2", None),
        (LORA_XL, "loras", "SDXL", "it is of SDXL"),
        (VAE, "vae", None, None),
        (EMBEDDING, "embeddings", "SD 1", None),
        ({"clip_l": ONES, "clip_g": ONES}, "embeddings", "SDXL", "it is of SDXL"),
        (CONTROLNET, "controlnet", None, "a ControlNet of one file is not read"),
        ({"input_blocks.0.x": ONES, "out.x": ONES}, "checkpoints", None, "a UNet alone"),
        ({"a": ONES, "b": ONES}, None, None, "no network that SeeSR knows"),
    ],
)
def test_content_says_what_a_file_is(
    tmp_path: Path, tensors: dict[str, Tensor], kind: str | None, base: str | None, problem: str | None
) -> None:
    contents = inspect(write(tmp_path / "any name.safetensors", tensors))
    assert contents.kind == kind
    assert contents.base == base
    assert (problem is None) == (contents.problem is None)
    assert (problem or "") in (contents.problem or "")


def test_everything_is_listed_with_why_it_cannot_be_used(data: Path) -> None:
    write(data / "models" / "loras" / "wrong place.safetensors", VAE)
    (data / "models" / "checkpoints" / "old.ckpt").write_bytes(b"pickle")
    (data / "models" / "loras" / "cut.safetensors").write_bytes(b"\x10")
    manager = ModelManager(data, others=())
    infos = {(info.kind, info.name): info for info in manager.list_models()}
    assert {key: (info.base, info.problem) for key, info in infos.items()} == {
        ("checkpoints", "icons"): (None, None),
        ("checkpoints", "old"): (None, "it is no safetensors file, and is never read: it may run code"),
        ("checkpoints", "old style"): ("SD 1", None),
        ("loras", "cut"): (None, "cut.safetensors is not a safetensors file, or is cut short; get it again"),
        ("loras", "people/ink"): ("SD 2", None),
        ("loras", "wrong place"): (None, "it is a VAE; move it to models/vae"),
        ("vae", "soft"): (None, None),
        ("embeddings", "by-me"): ("SD 1", None),
    }
    assert infos["checkpoints", "icons"].is_folder
    assert infos["checkpoints", "icons"].size > 1_000_000


@pytest.mark.parametrize("place", ["", "models"])
def test_models_of_other_programs_are_found_and_never_changed(data: Path, tmp_path: Path, place: str) -> None:
    webui, comfy = tmp_path / "webui", tmp_path / "comfy"
    write(webui / "models" / "Stable-diffusion" / "v1.safetensors", CHECKPOINT_1)
    theirs = write(webui / "models" / "Lora" / "sub" / "theirs.safetensors", LORA_2)
    write(comfy / "models" / "loras" / "more.safetensors", LORA_2)
    write(comfy / "models" / "loras" / "people" / "ink.safetensors", LORA_XL)
    manager = ModelManager(data, others=[webui / place, comfy / place])
    names = {info.name: info for info in manager.list_models()}
    assert names.keys() >= {"v1", "sub/theirs", "more"}
    assert names["people/ink"].base == "SD 2", "one's own counts"
    with pytest.raises(OptionError, match="it is not removed from here"):
        manager.remove("loras", "theirs")
    assert theirs.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEESR_MODELS_FROM", os.pathsep.join([str(webui / place), str(comfy / place)]))
        assert find_known_model("theirs", "loras") == theirs.resolve()
        assert find_known_model("v1.safetensors", "checkpoints") is not None
        assert len(model_folders("loras")) == 3
    assert find_known_model("theirs", "loras") is None
    for name in ("../loras/people/ink", str(theirs), "people", "", "."):
        assert find_known_model(name, "checkpoints") is None


def test_headers_and_digests_are_read_once_and_what_is_new_moved_or_changed_is_noticed(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, hashed = list[str](), list[str]()
    inspect_file, sha256 = seesr.models.listing.inspect, seesr.models.listing.sha256
    monkeypatch.setattr(seesr.models.listing, "inspect", lambda path: read.append(path.name) or inspect_file(path))
    monkeypatch.setattr(seesr.models.listing, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    assert len(ModelManager(data, others=()).list_models()) == 5
    assert len(read) == 5
    manager = ModelManager(data, others=())
    manager.list_models()
    first = manager.digest("loras", "ink")
    assert manager.digest("loras", "people/ink") == first == manager.info("loras", "ink").sha256
    assert (len(read), hashed) == (5, ["ink.safetensors"])

    path = data / "models" / "loras" / "people" / "ink.safetensors"
    write(path, LORA_XL)
    path.rename(path.with_name("new.safetensors"))
    write(data / "models" / "loras" / "people" / "ink.safetensors", LORA_2 | {"x.alpha": ONES})
    bases = {info.name: info.base for info in manager.list_models("loras")}
    assert bases == {"people/ink": "SD 2", "people/new": "SDXL"}
    assert sorted(read[5:]) == ["ink.safetensors", "new.safetensors"]
    assert manager.digest("loras", "ink") != first
    (data / "models" / ".index.json").write_text("{broken")
    assert len(manager.list_models()) == 6, "a damaged index is made anew"


def test_a_model_is_added_by_its_content_verified_and_removed(data: Path, tmp_path: Path) -> None:
    manager = ModelManager(data, others=())
    info = manager.add(write(tmp_path / "my lora.st", LORA_2))
    assert (info.kind, info.name) == ("loras", "my lora")
    folder = shutil.copytree(beside_package("pictograms"), tmp_path / "drawn")
    assert manager.add(folder, name="mine").kind == "checkpoints"
    with pytest.raises(WeightsError, match="models/checkpoints has Mine already"):
        manager.add(folder, name="Mine")
    with pytest.raises(WeightsError, match=r"my lora.st is a LoRA, not a VAE"):
        manager.add(tmp_path / "my lora.st", "vae")
    with pytest.raises(WeightsError, match="it is of SDXL; only SD 1 and SD 2 can be used"):
        manager.add(write(tmp_path / "xl.safetensors", CHECKPOINT_XL))
    (folder / "unet" / "model.py").write_text("x")
    with pytest.raises(WeightsError, match=r"drawn is refused: drawn holds code \(unet/model.py\), which is never run"):
        manager.add(folder, name="coded")
    states = {(one.name, one.state) for one in manager.verify()}
    assert states >= {("my lora", "intact"), ("mine", "intact"), ("icons", "not recorded")}
    assert all(state in ("intact", "not recorded") for _, state in states)
    added = data / "models" / "loras" / "my lora.safetensors"
    content = bytearray(added.read_bytes())
    content[-1] ^= 1
    added.write_bytes(content)
    assert [one.state for one in manager.verify("loras", "my lora")] == ["changed"]
    (added.parent / "my lora.json").write_text("{}")
    manager.remove("loras", "my lora")
    manager.remove("checkpoints", "mine")
    assert not list(added.parent.glob("my lora*"))
    assert {info.name for info in manager.list_models()} == {"icons", "old style", "people/ink", "soft", "by-me"}
    assert list(manager.verify())[-1].state == "not recorded"
    with pytest.raises(OptionError, match="LoRA: unknown 'my lora'; models/loras has: people/ink"):
        manager.remove("loras", "my lora")
    assert not list((data / "models" / ".partial").iterdir())


def test_the_command(data: Path, tmp_path: Path, run_main: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(*arguments: object) -> tuple[int, str, str]:
        outcome = run_main(cli.main, "models", *arguments)
        return outcome.code, outcome.out, outcome.err

    code, out, _ = run("list")
    assert code == 0
    assert "people/ink; SD 2" in out
    assert "0 of" in out.splitlines()[-1]
    code, out, _ = run("list", "--json", "--digests", "--kind", "lora")
    assert len(json.loads(out)["sha256"]) == 64
    assert run("add", write(tmp_path / "x.safetensors", EMBEDDING))[0] == 0
    assert "intact       embeddings/x" in run("verify", "x")[1]
    assert run("remove", "x")[0] == 0
    code, _, err = run("remove", "x")
    assert (code, err) == (2, "seesr: unknown model 'x'; `seesr models list` shows those that are there.\n")
    assert "sd-vae-ft-mse" in run("list", "--catalogue")[1]
    code, _, err = run("list", "--models-from", tmp_path / "none")
    assert "is not a folder" in err
    other = write(tmp_path / "webui" / "models" / "Lora" / "theirs.safetensors", LORA_2)
    assert "theirs; SD 2" in run("list", "--models-from", other.parents[2])[1]
    assert read_header(other)
