"""Weights folders: what they may ask for, and configs that are wrong."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from seesr import SeeSRError, Upscaler, WeightsError
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.text import load_prompt_encoder
from seesr.files import data_folder
from seesr.tagging.prompt import load_tag_list
from seesr.tagging.ram import load_ram
from seesr.weights.cache import Cache
from seesr.weights.config import read_config
from seesr.weights.manifest import beside_package
from seesr.weights.resolve import ModelDefaults, resolve_weights


def test_what_the_embedded_weights_want_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = json.loads((beside_package("tiny") / "seesr.json").read_text())
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    upscaler = Upscaler.load("tiny", "cpu")
    assert upscaler.defaults.margin == wanted["margin"] == 2
    assert str(upscaler.engine.dtype) == f"torch.{wanted['dtype']}" == "torch.float32"
    assert upscaler.engine.components["vae"].dtype == torch.float32


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"{tmp_path} is not a weights folder: sd-turbo, seesr, ram is missing"):
        resolve_weights(tmp_path)


TINY = beside_package("tiny")


def test_weights_may_ask_for_precision_margin_and_steps(tmp_path: Path) -> None:
    for part in ("sd-turbo", "seesr", "ram"):
        (tmp_path / part).mkdir()
    assert resolve_weights(tmp_path).name == tmp_path.name, "results tell it to strangers: not where it lies"
    assert resolve_weights(tmp_path).defaults == ModelDefaults(dtype=None, margin=0)
    (tmp_path / "seesr.json").write_text('{"dtype": "float32", "margin": 3, "steps": 1}')
    assert resolve_weights(tmp_path).defaults == ModelDefaults(dtype="float32", margin=3, steps=1)
    for said, complaint in (
        ('{"dtype": "float8"}', "has dtype 'float8'; valid: float32"),
        ('{"margin": -1}', "has margin -1; it must be a whole number from 0 to 8"),
        ('{"margin": "2"}', "has margin '2'"),
        ('{"steps": 5}', "has steps 5; it must be a whole number from 1 to 4"),
        ('{"step": 1}', "holds unknown key 'step'; valid keys: dtype, margin, steps"),
    ):
        (tmp_path / "seesr.json").write_text(said)
        with pytest.raises(WeightsError, match=complaint):
            resolve_weights(tmp_path).defaults  # noqa: B018


def test_a_user_without_a_home_has_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "SEESR_CACHE", "SEESR_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert resolve_weights().name == "tiny (embedded)"
    private = tmp_path / f"seesr-{os.getuid()}"
    assert Cache.default().root == private / ".cache" / "seesr"
    assert data_folder() == private / ".local" / "share" / "seesr"
    assert private.stat().st_mode & 0o777 == 0o700
    private.rmdir()
    private.symlink_to(tmp_path / "another's")
    (tmp_path / "another's").mkdir()
    with pytest.raises(SeeSRError, match=r"no home folder, and .* is not its own; set HOME, or SEESR_CACHE and SEESR_DATA"):
        Cache.default()


def test_a_tagger_config_that_lacks_something_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_tags": 3, "image_size": 64}')
    with pytest.raises(WeightsError, match=r"config\.json lacks 'bert'"):
        load_ram(tmp_path)


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({}, "lacks 'swin or efficientnet'"),
        ({"efficientnet": {"stem": 8, "blocks": []}}, "lacks 'width'"),
        (
            {"efficientnet": {"stem": 8, "blocks": [{"kernel": 3}], "width": 8}},
            "RAM cannot be built .*missing",
        ),
        ({"efficientnet": {"stem": -8, "blocks": [], "width": 8}}, "RAM cannot be built from .*config.json"),
        ({"swin": {"window_size": 7, "embed_dim": 8, "depths": [2], "num_heads": [1]}}, "cannot be split into windows"),
    ],
)
def test_a_tagger_config_that_is_wrong_is_one_sentence(tmp_path: Path, part: dict[str, object], complaint: str) -> None:
    config = json.loads((TINY / "ram" / "config.json").read_text())
    del config["efficientnet"]
    (tmp_path / "config.json").write_text(json.dumps(config | part))
    with pytest.raises(WeightsError, match=complaint):
        load_ram(tmp_path)


def test_a_threshold_that_is_no_number_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ram_tag_list.txt").write_text("cat\ndog\n")
    (tmp_path / "ram_tag_list_threshold.txt").write_text("0.5\n\n")
    with pytest.raises(WeightsError, match=r"ram_tag_list_threshold\.txt has a line that is not a number"):
        load_tag_list(tmp_path, 2)


@pytest.mark.parametrize("lacking", ["vocab.json", "merges.txt"])
def test_a_tokenizer_that_lacks_a_file_is_one_sentence(tmp_path: Path, lacking: str) -> None:
    shutil.copytree(TINY / "sd-turbo" / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / lacking).unlink()
    with pytest.raises(WeightsError, match=rf"{lacking} is missing"):
        load_prompt_encoder(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta_start": None}, "lacks beta_start"),
        ({"beta_schedule": "sigmoid"}, "has beta schedule 'sigmoid'"),
        ({"prediction_type": "sample"}, "has prediction type 'sample'"),
        ({"rescale_betas_zero_snr": True}, "has rescale_betas_zero_snr"),
    ],
)
def test_a_schedule_that_is_not_known_is_one_sentence(change: dict[str, Any], words: str) -> None:
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"} | change
    with pytest.raises(WeightsError, match=words):
        NoiseSchedule.from_config({name: value for name, value in config.items() if value is not None})
    assert NoiseSchedule.from_config({"trained_betas": [0.1, 0.5]}).alphas_cumprod.tolist() == pytest.approx([0.9, 0.45])


def test_a_config_that_may_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        read_config(tmp_path / "config.json")
