"""Weighs outputs against ground truth: ours, bicubic's and any others', picture by picture and on average."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seesr.errors import InputError
from seesr.evaluation.command import BICUBIC, OURS
from seesr.evaluation.degradation import crop_to_multiple, degrade, downscale_bicubic
from seesr.evaluation.metrics import Scales
from seesr.images.decode import open_picture
from seesr.images.save import save as save_picture
from seesr.options import Limits, Options
from seesr.upscaler import Upscaler

SCALE = 4
SMALLEST = 64
"""Pixels that the networks of ST-LPIPS need."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}

Figures = dict[str, float]


@dataclass(frozen=True, eq=False)
class Case:
    """One picture to weigh: an input and what it should become."""

    name: str
    low: Image.Image
    truth: Image.Image


@dataclass(frozen=True, eq=False)
class Row:
    """One picture's figures and outputs, by method."""

    case: Case
    figures: dict[str, Figures]
    outputs: dict[str, Image.Image]


def from_truth(folder: Path, degradation_seed: int | None = None) -> Iterator[Case]:
    """Each picture of `folder` cropped to a multiple of 4, with its input made by Pillow BICUBIC by 1/4.

    With a seed the input is made by `degradation.degrade` instead, each picture from a generator of its own, which is
    seeded with `degradation_seed` and the picture's place in the order of names.
    """
    paths = _pictures(folder)
    _require_results(paths, 1)
    for number, path in enumerate(paths):
        truth = crop_to_multiple(_rgb(path), SCALE)
        if degradation_seed is None:
            low = downscale_bicubic(truth, SCALE)
        else:
            low = degrade(truth, np.random.default_rng([degradation_seed, number]), SCALE)
        yield Case(path.stem, low, truth)


def from_pairs(low: Path, high: Path) -> Iterator[Case]:
    """Each picture of `high` with the one of the same name in `low`, whatever their suffixes."""
    pairs = [(_same_name(low, path.stem), path) for path in _pictures(high)]
    _require_results([small for small, _ in pairs], SCALE)
    for small, large in pairs:
        yield Case(large.stem, _rgb(small), _rgb(large))


def require_outputs(folders: Iterable[Path], truths: Path) -> None:
    """Raises InputError, before anything is made, where a folder lacks a sound picture of the same name as a truth."""
    for folder in folders:
        for path in _paths(truths):
            _rgb(_same_name(folder, path.stem))


def evaluate(
    cases: Iterator[Case],
    upscaler: Upscaler,
    options: Options,
    scales: Scales,
    others: dict[str, Path],
    tell: Callable[[str], None],
    save: Path | None = None,
) -> list[Row]:
    """Figures of every case: bicubic, ours with `options`, and the files of the same name in the folders `others`.

    An output of another size than the truth is brought to it by bicubic. Our outputs go into the folder `save`, if there
    is one, as they are made.
    """
    rows = []
    for case in cases:
        tell(case.name)
        result = upscaler.upscale(case.low, options)
        seconds = sum(result.seconds.values())
        outputs = {BICUBIC: case.low, OURS: result.image}
        outputs |= {name: _rgb(_same_name(folder, case.name)) for name, folder in others.items()}
        outputs = {name: _to_size(image, case.truth.size) for name, image in outputs.items()}
        figures = {name: scales(image, case.truth) for name, image in outputs.items()}
        if save is not None:
            save_picture(result.image, save / f"{case.name}.png", settings=result.settings())
        megapixels = result.image.width * result.image.height / 1e6
        figures[OURS] |= {"seconds": seconds, "megapixels_per_second": megapixels / seconds}
        rows.append(Row(case, figures, outputs))
    return rows


def means(rows: list[Row]) -> dict[str, Figures]:
    """Mean of each figure, by method; what a picture has no figure for does not count."""
    found = {}
    for method, figures in rows[0].figures.items():
        values = {name: [row.figures[method][name] for row in rows] for name in figures}
        numbers = {name: [value for value in column if np.isfinite(value)] for name, column in values.items()}
        found[method] = {name: statistics.fmean(column) if column else float("nan") for name, column in numbers.items()}
    return found


def _pictures(folder: Path) -> list[Path]:
    """Those that can be truths; what cannot be measured is said before the first is made."""
    paths = _paths(folder)
    if not paths:
        raise InputError(f"{folder} holds no picture to measure.")
    for path in paths:
        width, height = _rgb(path).size
        if min(width, height) < SMALLEST:
            raise InputError(f"{path} is {width}x{height}; a side must have {SMALLEST} pixels.")
    return paths


def _require_results(paths: list[Path], scale: int) -> None:
    """The same of pictures whose results have sides `scale` times as long."""
    limit = Limits.from_environment().output_side
    for path in paths:
        side = scale * max(_rgb(path).size)
        if side > limit:
            raise InputError(f"{path} asks for a result with a side of {side} pixels; at most {limit} (SEESR_OUTPUT_SIDE).")


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)


def _same_name(folder: Path, stem: str) -> Path:
    found = [path for path in _paths(folder) if path.stem == stem]
    if not found:
        raise InputError(f"{folder} holds no picture named {stem}.")
    return found[0]


def _rgb(path: Path) -> Image.Image:
    """Upright, as every other picture is read."""
    return open_picture(path, Limits.from_environment()).rgb


def _to_size(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
