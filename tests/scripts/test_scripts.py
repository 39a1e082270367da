"""The scripts that make random weights and measure tiling, on networks of the embedded model's sizes."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PHOTOS, REFERENCE
from PIL import Image
from typer.testing import CliRunner

from scripts import check_tiling, make_random_weights
from seesr import Upscaler
from seesr.tagging.ram import RAMConfig
from seesr.weights.config import read_config
from seesr.weights.manifest import beside_package

TINY = beside_package("tiny")
VAE = TINY / "sd-turbo" / "vae"
SMALL_RAM = REFERENCE / "ram" / "config.json"
"""Of a Swin, as the published one has, but small."""


@pytest.fixture
def _small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which `make_random_weights.py` writes weights."""
    base, ram = TINY / "sd-turbo", RAMConfig.from_dict(read_config(SMALL_RAM))
    for name, folder in {
        "UNET": base / "unet",
        "CONTROLNET": TINY / "seesr" / "controlnet",
        "VAE": VAE,
        "TEXT": base / "text_encoder",
    }.items():
        monkeypatch.setattr(make_random_weights, name, read_config(folder / "config.json"))
    monkeypatch.setattr(make_random_weights, "RAMConfig", lambda: ram)


@pytest.mark.usefixtures("_small_networks")
def test_random_weights_are_loaded_and_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    results = []
    for seed in (0, 0, 1):
        folder = tmp_path_factory.mktemp("weights")
        make_random_weights.main(folder, seed)
        shutil.copy(SMALL_RAM, folder / "ram")
        upscaler = Upscaler.load(folder, "cpu", "float32")
        results.append(np.asarray(upscaler.upscale(Image.new("RGB", (32, 32), "teal"), scale=4, steps=1, seed=0).image))
    assert results[0].shape == (128, 128, 3)
    assert results[0].std() > 0
    assert (results[0] == results[1]).all()
    assert (results[0] != results[2]).any()


def run_check_tiling(*arguments: object) -> str:
    result = CliRunner().invoke(check_tiling.app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_exact_tiles_differ_by_rounding_alone() -> None:
    output = run_check_tiling("differences", VAE, "--size", "96x64", "--tile", 8)
    found = re.fullmatch(r"96x64, tile 8: encode (\S+), decode (\S+)\n", output)
    assert found
    assert all(float(difference) < 1e-4 for difference in found.groups())


def test_estimated_tiles_are_measured_on_pictures() -> None:
    output = run_check_tiling("estimate", VAE, PHOTOS, "--tile", 24)
    of_pictures = {name: float(decibels) for name, decibels in re.findall(r"(\w+): (\S+) dB\n", output)}
    assert {*of_pictures} == {path.stem for path in PHOTOS.glob("*.png")}
    found = re.search(r"lowest (\S+) dB, mean (\S+) dB\n$", output)
    assert found
    lowest, mean = map(float, found.groups())
    assert lowest == min(of_pictures.values())
    assert lowest > 30
    assert mean == pytest.approx(np.mean([*of_pictures.values()]), abs=0.11)


def test_a_decode_that_is_over_at_once_still_took_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=iter([0.0, 0.001]).__next__)
    monkeypatch.setattr(check_tiling, "time", clock)
    seconds, _ = run_check_tiling("decode", VAE, 16, 0, "--dtype", "float32").split()
    assert float(seconds) == 0.001


def test_cost_compares_two_processes() -> None:
    output = run_check_tiling("cost", VAE, "--side", 128, "--tile", 16, "--dtype", "float32")
    assert re.fullmatch(
        r"whole: \S+ s, \S+ GB\ntile 16: \S+ s, \S+ GB\ntiled to whole: \S+ of the time, \S+ of the memory\n", output
    )
