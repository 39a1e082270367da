"""`seesr evaluate`: of folders and pairs, with nothing lost when it ends early."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Run, photograph
from PIL import ExifTags, Image, ImageFilter

from seesr import OutputError
from seesr.evaluation import stlpips
from seesr.evaluation.metrics import luma
from seesr.evaluation.niqe import NIQE
from seesr.result import Result


def square(name: str, size: int = 288) -> Image.Image:
    return photograph(name, (60, 0, 60 + size, size))


@pytest.fixture(scope="module")
def pristine() -> NIQE:
    return NIQE.fit([luma(square(name)) for name in ("astronaut.png", "chelsea.png", "coffee.png")])


ALEX_SHAPES = {
    "slice1.0": (64, 3, 11, 11),
    "slice2.5": (192, 64, 5, 5),
    "slice3.9": (384, 192, 3, 3),
    "slice4.11": (256, 384, 3, 3),
    "slice5.13": (256, 256, 3, 3),
}


@pytest.fixture
def perceptual(monkeypatch: pytest.MonkeyPatch) -> stlpips.STLPIPS:
    """The network with weights of chance in place of those that are fetched."""
    torch.manual_seed(0)
    weights = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    for level, (name, shape) in enumerate(ALEX_SHAPES.items()):
        weights[f"net.{name}.weight"] = torch.randn(shape) / np.prod(shape[1:]) ** 0.5
        weights[f"net.{name}.bias"] = torch.zeros(shape[0])
        weights[f"lin{level}.model.1.weight"] = torch.ones(1, shape[0], 1, 1)
    for name, channels in (("slice1.1", 64), ("slice2.4", 64), ("slice3.8", 192)):
        weights[f"net.{name}.filt"] = torch.full((channels, 1, 3, 3), 1 / 9)
    monkeypatch.setattr(stlpips, "_published_weights", lambda net: weights)
    return stlpips.STLPIPS("alex")


@pytest.fixture
def truths(tmp_path: Path) -> Path:
    folder = tmp_path / "truth"
    folder.mkdir()
    for name in ("chelsea.png", "coffee.png"):
        square(name, 98).save(folder / name)
    return folder


def test_the_command_weighs_a_folder(
    seesr: Run, truths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pristine: NIQE
) -> None:
    monkeypatch.setenv("SEESR_CACHE", str(tmp_path / "cache"))
    others = tmp_path / "others"
    others.mkdir()
    for path in truths.iterdir():
        Image.open(path).crop((0, 0, 96, 96)).filter(ImageFilter.GaussianBlur(0.4)).save(others / path.name)
    model = tmp_path / "niqe.npz"
    np.savez(model, mu_pris_param=pristine.mean, cov_pris_param=pristine.covariance, gaussian_window=pristine.window)
    arguments = ["--truth", truths, "--steps", 1, "--against", f"soft={others}", "--json", "--niqe-model", model]
    outcome = seesr("evaluate", *arguments, "--html", tmp_path / "page.html", "--save", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["pictures"].keys() == {"chelsea", "coffee"}
    assert record["settings"]["steps"] == 1
    mean = record["mean"]
    assert mean.keys() == {"bicubic", "seesr", "soft"}
    assert mean["soft"]["psnr_y"] > mean["bicubic"]["psnr_y"] > 15
    assert mean["seesr"].keys() >= {"psnr_y", "ssim_y", "niqe", "grid", "grid_to_truth", "seconds", "megapixels_per_second"}
    assert mean["bicubic"]["psnr_y"] == pytest.approx(
        np.mean([record["pictures"][name]["bicubic"]["psnr_y"] for name in record["pictures"]])
    )
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 2 * 4
    assert Image.open(tmp_path / "out" / "chelsea.png").size == (96, 96), "cropped to a multiple of 4"
    shown = seesr("evaluate", "--truth", truths, "--steps", 1, "--degrade", 5)
    assert shown.code == 0
    assert "mean" in shown.out
    (others / "coffee.png").unlink()
    outcome = seesr("evaluate", *arguments)
    assert outcome.code == 2
    assert f"{others} holds no picture named coffee" in outcome.err
    assert "chelsea" not in outcome.err, "it is said before the first picture"


def test_a_picture_that_lies_on_its_side_is_turned_once(
    seesr: Run, truths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = tmp_path / "turned"
    turned.mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    sharp = square("coffee.png", 96).crop((0, 0, 96, 72))
    sharp.save(tmp_path / "truth" / "coffee.png")
    sharp.transpose(Image.Transpose.ROTATE_90).save(turned / "coffee.png", exif=exif)
    (truths / "chelsea.png").unlink()
    (turned / "._coffee.png").write_text("a note of macOS")
    means_ = []
    for folder in (truths, turned):
        outcome = seesr("evaluate", "--truth", folder, "--steps", 1, "--json")
        assert outcome.code == 0, outcome.err
        means_.append(json.loads(outcome.out)["mean"]["seesr"])
    assert means_[0]["psnr_y"] == pytest.approx(means_[1]["psnr_y"], abs=0.01)
    sharp.save(truths / "coffee.bmp")
    outcome = seesr("evaluate", "--truth", truths)
    assert outcome.code == 2
    assert "coffee.bmp and" in outcome.err
    assert "have the same name, by which outputs are found" in outcome.err


def test_figures_before_an_error_are_not_lost(
    seesr: Run, truths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        if "coffee" in str(arguments[1]):
            raise OutputError("coffee.png cannot be written: No space left on device.")

    monkeypatch.setattr(Result, "save", full)
    outcome = seesr("evaluate", "--truth", truths, "--steps", 1, "--save", tmp_path / "out", "--json")
    assert outcome.code == 2
    assert "No space left on device" in outcome.err
    assert "stopped after 1 picture; the metrics are of these only." in outcome.err
    record = json.loads(outcome.out)
    assert record["pictures"].keys() == {"chelsea"}
    assert not record["complete"]


def test_a_model_of_niqe_that_is_none_is_one_sentence(seesr: Run, truths: Path, tmp_path: Path) -> None:
    names = ("mu_pris_param", "cov_pris_param", "gaussian_window")
    np.savez(tmp_path / "shapes.npz", **dict.fromkeys(names, np.zeros(3)))
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "empty.npz").touch()
    (tmp_path / "cut.npz").write_bytes((tmp_path / "shapes.npz").read_bytes()[:200])
    for name in ("shapes.npz", "one.npy", "empty.npz", "cut.npz"):
        outcome = seesr("evaluate", "--truth", truths, "--niqe-model", tmp_path / name)
        assert outcome.code == 2
        assert f"{name} is not NIQE's pristine model" in outcome.err


def test_the_command_weighs_pairs(
    seesr: Run, truths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, perceptual: stlpips.STLPIPS
) -> None:
    """Of the same name, whatever their suffixes; all there before the first is made."""
    monkeypatch.setattr(stlpips.STLPIPS, "is_installed", staticmethod(lambda: True))
    low = tmp_path / "low"
    low.mkdir()
    for path in truths.iterdir():
        Image.open(path).resize((24, 24), Image.Resampling.BICUBIC).save(low / f"{path.stem}.webp", lossless=True)
    outcome = seesr("evaluate", "--pairs", low, truths, "--steps", 1, "--json")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert record["settings"]["degradation"] == "pairs"
    assert record["complete"]
    assert record["pictures"].keys() == {"chelsea", "coffee"}
    assert record["mean"]["seesr"]["st_lpips"] > 0
    assert record["mean"]["bicubic"]["psnr_y"] > 15
    outcome = seesr("evaluate", "--pairs", low, truths, "--steps", 1, "--json", "--html", low / "chelsea.webp" / "page.html")
    assert outcome.code == 2
    assert "cannot be written" in outcome.err
    assert json.loads(outcome.out)["mean"]["bicubic"] == record["mean"]["bicubic"], "figures are not lost"
    monkeypatch.setenv("SEESR_OUTPUT_SIDE", "90")
    outcome = seesr("evaluate", "--pairs", low, truths)
    assert outcome.code == 2
    assert "chelsea.webp would have a side of 96 pixels; at most 90" in outcome.err
    monkeypatch.delenv("SEESR_OUTPUT_SIDE")
    (low / "coffee.webp").write_text("broken")
    for broken in (["--pairs", low, truths], ["--truth", truths, "--against", f"theirs={low}"]):
        outcome = seesr("evaluate", *broken)
        assert outcome.code == 2
        assert "coffee.webp is not a picture" in outcome.err
        assert "chelsea\n" not in outcome.err, "before the first is made"
    (low / "coffee.webp").unlink()
    for folder in (low, tmp_path / "nowhere"):
        outcome = seesr("evaluate", "--pairs", folder, truths, "--steps", 1, "--json")
        assert outcome.code == 2
        assert f"{folder} holds no picture named" in outcome.err
        assert not outcome.out
    square("rocket.jpg", 50).save(truths / "small.png")
    outcome = seesr("evaluate", "--truth", truths)
    assert outcome.code == 2
    assert "small.png is 50x50; each side must have at least 64 pixels" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either --truth FOLDER"),
        (["--truth", "."], "holds no picture to measure"),
        (
            ["--truth", ".", "--against", "x=nowhere"],
            "a folder that exists and a name but seesr and bicubic",
        ),
        (["--truth", ".", "--niqe-model", "nowhere.npz"], "nowhere.npz does not exist"),
        (["--truth", ".", "--html", "../HERE"], "a folder; give a file"),
        (["--truth", ".", "--save", "../HERE"], "which holds pictures to evaluate; give another folder"),
    ],
)
def test_mistakes_are_one_sentence(
    seesr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = seesr("evaluate", *(text.replace("HERE", tmp_path.name) for text in arguments))
    assert outcome.code == 2
    assert words in outcome.err
