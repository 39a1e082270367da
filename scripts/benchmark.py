"""Measures pictures and time: `scripts/start_seesr.sh benchmark --pairs LR HR` or `--truth FOLDER`.

Protocol. With `--truth` the input is Pillow BICUBIC by 1/4 of the picture cropped to a multiple of 4; with `--pairs` it
is the file of the same name. Output and truth are compared at the truth's size: PSNR-Y and SSIM-Y on BT.601 luma (16 to
235 over 255), 4 pixels of border left out, SSIM with the Gaussian window of Wang et al. (2004); ST-LPIPS with AlexNet on
RGB in -1..1; grid, the energy of luma's spectrum at the frequencies of the model's strides (2, 4, 8 and 16 pixels) over
that of their neighbours, relative to the truth's. Lower is better for ST-LPIPS, and 1 is best for grid. Bicubic is
Pillow's, from the same input.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from degradation import crop_to_multiple, downscale_bicubic
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage.metrics import structural_similarity
from stlpips import STLPIPS

from seesr import Options, Upscaler

SCALE, BORDER = 4, 4
GRID_STRIDES = (2, 4, 8, 16)


def luma(image: Image.Image) -> np.ndarray:
    """BT.601 luma in 16..235 of an RGB image, border cut off."""
    y = np.asarray(image, dtype=np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16
    return y[BORDER:-BORDER, BORDER:-BORDER]


def grid_energy(y: np.ndarray) -> float:
    """Mean ratio of spectral energy on the lines of the stride frequencies to that on lines 2 and 3 bins away."""
    side = min(y.shape) // 16 * 16
    window = np.hanning(side)
    spectrum = np.abs(np.fft.fft2((y[:side, :side] - y.mean()) * window[:, None] * window)) ** 2
    ratios = []
    for lines in (spectrum.mean(axis=0), spectrum.mean(axis=1)):
        for stride in GRID_STRIDES:
            centre = side // stride
            neighbours = [lines[(centre + offset) % side] for offset in (-3, -2, 2, 3)]
            ratios.append(lines[centre] / statistics.fmean(neighbours))
    return statistics.fmean(ratios)


def measure(output: Image.Image, truth: Image.Image, perceptual: STLPIPS) -> dict[str, float]:
    """Every figure of one output against its truth."""
    y, expected = luma(output), luma(truth)
    mse = ((y - expected) ** 2).mean()
    ssim = structural_similarity(y, expected, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1 for image in (output, truth)]
    with torch.inference_mode():
        distance = perceptual(*tensors).item()
    return {
        "psnr_y": 10 * np.log10(255**2 / mse),
        "ssim_y": ssim,
        "st_lpips": distance,
        "grid": grid_energy(y) / grid_energy(expected),
    }


def pictures(truth: Path | None, pairs: tuple[Path, Path] | None) -> Iterator[tuple[str, Image.Image, Image.Image]]:
    """(name, input, truth) of each picture."""
    folder = pairs[1] if pairs else truth
    if folder is None:
        raise typer.BadParameter("give --truth FOLDER or --pairs LR HR.")
    for path in sorted(folder.glob("*.png")):
        expected = crop_to_multiple(Image.open(path).convert("RGB"), SCALE)
        low = Image.open(pairs[0] / path.name).convert("RGB") if pairs else downscale_bicubic(expected, SCALE)
        yield path.stem, low, expected


def main(
    truth: Annotated[Path | None, typer.Option(help="Folder of sharp PNGs.")] = None,
    pairs: Annotated[tuple[Path, Path] | None, typer.Option(help="Folders of inputs and of truths.")] = None,
    weights: Annotated[Path | None, typer.Option(help="As for seesr upscale.")] = None,
    steps: Annotated[int | None, typer.Option(help="As for seesr upscale.")] = None,
    seed: int = 0,
    save: Annotated[Path | None, typer.Option(help="Folder for the outputs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON instead of a table.")] = False,
) -> None:
    """Compares SeeSR and bicubic to ground truth."""
    upscaler, perceptual = Upscaler.load(weights), STLPIPS("alex").eval()
    options = Options.make(scale=SCALE, steps=steps, seed=seed)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name, low, expected in pictures(truth, pairs):
        result = upscaler.upscale(low, options)
        output = result.image.resize(expected.size, Image.Resampling.BICUBIC)
        bicubic = low.resize(expected.size, Image.Resampling.BICUBIC)
        rows[name] = {"bicubic": measure(bicubic, expected, perceptual), "seesr": measure(output, expected, perceptual)}
        rows[name]["seesr"]["seconds"] = sum(result.seconds.values())
        if save:
            save.mkdir(parents=True, exist_ok=True)
            output.save(save / f"{name}.png")
    if not rows:
        raise typer.BadParameter("no PNG to measure.")
    means = {
        method: {
            key: statistics.fmean(row[method][key] for row in rows.values()) for key in next(iter(rows.values()))[method]
        }
        for method in ("bicubic", "seesr")
    }
    if as_json:
        print(json.dumps({"mean": means, "pictures": rows}))
        return
    table = Table("picture", "method", *means["seesr"])
    for name, row in [*rows.items(), ("mean", means)]:
        for method, figures in row.items():
            table.add_row(name, method, *(f"{value:.3f}" for value in figures.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
