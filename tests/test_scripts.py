"""The scripts that make random weights and measure tiling, on networks of the embedded model's sizes."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import IMAGES, SCRIPTS
from PIL import Image
from typer.testing import CliRunner

from seesr import Upscaler
from seesr.tagging.ram import RAMConfig
from seesr.weights.config import read_config
from seesr.weights.manifest import beside_package

TINY = beside_package("tiny")
VAE = TINY / "sd-turbo" / "vae"
SMALL_RAM = Path(__file__).parent / "reference" / "ram" / "config.json"
"""Of a Swin, as the published one has, but small."""


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`make_random_weights.py`, but small."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script: Any = importlib.import_module("make_random_weights")
    base, ram = TINY / "sd-turbo", RAMConfig.from_dict(read_config(SMALL_RAM))
    for name, folder in {
        "UNET": base / "unet",
        "CONTROLNET": TINY / "seesr" / "controlnet",
        "VAE": VAE,
        "TEXT": base / "text_encoder",
    }.items():
        monkeypatch.setattr(script, name, read_config(folder / "config.json"))
    monkeypatch.setattr(script, "RAMConfig", lambda: ram)
    return script


def test_random_weights_are_loaded_and_run(random_weights: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> None:
    results = []
    for seed in (0, 0, 1):
        folder = tmp_path_factory.mktemp("weights")
        random_weights.main(folder, seed)
        shutil.copy(SMALL_RAM, folder / "ram")
        upscaler = Upscaler.load(folder, "cpu", "float32")
        results.append(np.asarray(upscaler.upscale(Image.new("RGB", (32, 32), "teal"), scale=4, steps=1, seed=0).image))
    assert results[0].shape == (128, 128, 3)
    assert results[0].std() > 0
    assert (results[0] == results[1]).all()
    assert (results[0] != results[2]).any()


def check_tiling(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    app = importlib.import_module("check_tiling").app
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_exact_tiles_differ_by_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    output = check_tiling(monkeypatch, "differences", VAE, "--size", "96x64", "--tile", 8)
    found = re.fullmatch(r"96x64, tile 8: encode (\S+), decode (\S+)\n", output)
    assert found
    assert all(float(difference) < 1e-4 for difference in found.groups())


def test_estimated_tiles_are_measured_on_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    output = check_tiling(monkeypatch, "estimate", VAE, IMAGES, "--tile", 24)
    of_pictures = {name: float(decibels) for name, decibels in re.findall(r"(\w+): (\S+) dB\n", output)}
    assert {*of_pictures} == {path.stem for path in IMAGES.glob("*.png")}
    found = re.search(r"lowest (\S+) dB, mean (\S+) dB\n$", output)
    assert found
    lowest, mean = map(float, found.groups())
    assert lowest == min(of_pictures.values())
    assert lowest > 30
    assert mean == pytest.approx(np.mean([*of_pictures.values()]), abs=0.11)


def test_a_decode_that_is_over_at_once_still_took_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    clock = SimpleNamespace(perf_counter=iter([0.0, 0.001]).__next__)
    monkeypatch.setattr(importlib.import_module("check_tiling"), "time", clock)
    seconds, _ = check_tiling(monkeypatch, "decode", VAE, 16, 0, "--dtype", "float32").split()
    assert float(seconds) == 0.001


def test_cost_compares_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    output = check_tiling(monkeypatch, "cost", VAE, "--side", 256, "--tile", 16, "--dtype", "float32")
    assert re.fullmatch(
        r"whole: \S+ s, \S+ GB\ntile 16: \S+ s, \S+ GB\ntiled to whole: \S+ of the time, \S+ of the memory\n", output
    )
