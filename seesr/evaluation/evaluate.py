"""Weighs outputs against ground truth: ours, bicubic's and any others', picture by picture and on average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seesr.errors import InputError
from seesr.evaluation import BICUBIC, OURS
from seesr.evaluation.degradation import crop_to_multiple, degrade, downscale_bicubic
from seesr.evaluation.metrics import Scales
from seesr.images.read import PICTURE_SUFFIXES, read_picture
from seesr.machine.out_of_memory import oom_as
from seesr.options import Limits, Options
from seesr.upscaler import Upscaler

SCALE = 4
SMALLEST = 64
"""Pixels that the networks of ST-LPIPS need."""
CROP = 192
"""Side of what a page shows of a picture."""

Figures = dict[str, float]


@dataclass(frozen=True, eq=False)
class Case:
    """One picture to weigh: an input and what it should become."""

    name: str
    low: Image.Image
    truth: Image.Image


@dataclass(frozen=True, eq=False)
class Row:
    """One picture's figures by method, and what a page shows of it."""

    name: str
    figures: dict[str, Figures]
    crops: dict[str, Image.Image]
    """By method, the truth last; empty where there will be no page."""


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
    with_crops: bool = False,
) -> Iterator[Row]:
    """Figures of every case: bicubic, ours with `options`, and the files of the same name in the folders `others`.

    An output of another size than the truth is brought to it by bicubic. Our outputs go into the folder `save`, if there
    is one, as they are made.
    """
    for case in cases:
        tell(case.name)
        result = upscaler.upscale(case.low, options)
        seconds = sum(result.seconds.values())
        outputs = {BICUBIC: case.low, OURS: result.image}
        outputs |= {name: _rgb(_same_name(folder, case.name)) for name, folder in others.items()}
        outputs = {name: _to_size(image, case.truth.size) for name, image in outputs.items()}
        if save is not None:
            result.save(save / f"{case.name}.png")
        with oom_as(
            f"memory ran out while {case.name} of {case.truth.width}x{case.truth.height} pixels was weighed. "
            "Close other programs, or leave it out."
        ):
            figures = {name: scales(image, case.truth) for name, image in outputs.items()}
            crops = _crops(outputs | {"truth": case.truth}) if with_crops else {}
        megapixels = result.image.width * result.image.height / 1e6
        figures[OURS] |= {"seconds": seconds, "megapixels_per_second": megapixels / seconds}
        yield Row(case.name, figures, crops)


def means(rows: list[Row]) -> dict[str, Figures]:
    """Mean of each figure, by method, over the pictures for which every method has a finite one: PSNR of an exact copy and
    NIQE of a small picture are none."""
    found: dict[str, Figures] = {method: {} for method in rows[0].figures}
    for name in rows[0].figures[OURS]:
        methods = [method for method, figures in rows[0].figures.items() if name in figures]
        values = np.array([[row.figures[method][name] for method in methods] for row in rows])
        whole = values[np.isfinite(values).all(axis=1)]
        for number, method in enumerate(methods):
            found[method][name] = float(whole[:, number].mean()) if len(whole) else float("nan")
    return found


def _crops(images: dict[str, Image.Image]) -> dict[str, Image.Image]:
    box = _busiest(images[OURS], images[BICUBIC])
    return {name: image.crop(box) for name, image in images.items()}


def _busiest(first: Image.Image, second: Image.Image) -> tuple[int, int, int, int]:
    """The window in which two pictures differ most."""
    difference = np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).sum(axis=2)
    height, width = (min(CROP, side) for side in difference.shape)
    total = np.pad(difference.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(left), int(top), int(left) + width, int(top) + height


def _pictures(folder: Path) -> list[Path]:
    """Those that can be truths; what cannot be measured is said before the first is made."""
    paths = _paths(folder)
    if not paths:
        raise InputError(f"{folder} holds no picture to measure.")
    stems: dict[str, Path] = {}
    for path in paths:
        other = stems.setdefault(path.stem, path)
        if other != path:
            raise InputError(f"{other} and {path} have one name, by which outputs are found; give each its own.")
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
    found = (path for path in folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(path for path in found if not path.name.startswith("._"))  # macOS's notes on a file


def _same_name(folder: Path, stem: str) -> Path:
    found = [path for path in _paths(folder) if path.stem == stem]
    if not found:
        raise InputError(f"{folder} holds no picture named {stem}.")
    return found[0]


def _rgb(path: Path) -> Image.Image:
    """Upright, as every other picture is read."""
    return read_picture(path, Limits.from_environment()).rgb


def _to_size(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
