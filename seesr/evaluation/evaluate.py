"""Computes the metrics of SeeSR, bicubic and other methods against ground truth, per picture and on average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seesr.errors import InputError
from seesr.evaluation import BICUBIC, OURS
from seesr.evaluation.degradation import crop_to_multiple, degraded_pair, downscale_bicubic
from seesr.evaluation.metrics import Metrics
from seesr.images.encoded import PICTURE_SUFFIXES
from seesr.images.read import read_picture
from seesr.images.resize import resize
from seesr.machine.out_of_memory import oom_as
from seesr.options import Limits, Options
from seesr.upscaler import Upscaler

SCALE = 4
MIN_SIDE = 64
"""Pixels that the networks of ST-LPIPS need."""
CROP_SIDE = 192
"""Pixels of the crops on the HTML page."""

MetricValues = dict[str, float]
"""Values by metric."""


@dataclass(frozen=True, eq=False)
class ImagePair:
    """A low-resolution input and its ground truth, both RGB."""

    name: str
    low: Image.Image
    truth: Image.Image


@dataclass(frozen=True, eq=False)
class PictureMetrics:
    """The metrics of one picture by method, and the crops that the HTML page shows."""

    name: str
    by_method: dict[str, MetricValues]
    crops: dict[str, Image.Image]
    """By method, the ground truth last; empty without an HTML page."""


def pairs_from_truths(folder: Path, degradation_seed: int | None = None, kind: str = "camera") -> Iterator[ImagePair]:
    """Pairs of each picture of `folder`, cropped to a multiple of 4, and the same reduced to 1/4 by Pillow's bicubic.

    With a seed the pair is made by `degradation.degraded_pair` instead. Each picture then has its own random generator,
    seeded with `degradation_seed` and the picture's index in the order of names.

    Raises:
        InputError: a picture cannot be evaluated.
    """
    paths = _truth_paths(folder)
    _check_output_sides(paths, 1)
    for number, path in enumerate(paths):
        truth = crop_to_multiple(_read_rgb(path), SCALE)
        if degradation_seed is None:
            low = downscale_bicubic(truth, SCALE)
        else:
            low, truth = degraded_pair(truth, kind, np.random.default_rng([degradation_seed, number]))
        yield ImagePair(path.stem, low, truth)


def pairs_from_folders(low: Path, high: Path) -> Iterator[ImagePair]:
    """Pairs of each picture of `high` and the picture in `low` with the same name, which may have another suffix.

    Raises:
        InputError: a picture is missing or cannot be evaluated.
    """
    pairs = [(_find(low, path.stem), path) for path in _truth_paths(high)]
    _check_output_sides([low_path for low_path, _ in pairs], SCALE)
    for low_path, truth_path in pairs:
        yield ImagePair(truth_path.stem, _read_rgb(low_path), _read_rgb(truth_path))


def require_outputs(folders: Iterable[Path], truths: Path) -> None:
    """Checks that each of `folders` has a readable picture with the name of each picture in `truths`.

    Raises:
        InputError: a picture is missing or cannot be read.
    """
    for folder in folders:
        for path in _picture_paths(truths):
            _read_rgb(_find(folder, path.stem))


def evaluate(
    pairs: Iterator[ImagePair],
    upscaler: Upscaler,
    options: Options,
    metrics: Metrics,
    other_methods: dict[str, Path],
    print_status: Callable[[str], None],
    save: Path | None = None,
    with_crops: bool = False,
) -> Iterator[PictureMetrics]:
    """The metrics of each pair, for bicubic, SeeSR with `options`, and the outputs in the folders of `other_methods`.

    An output whose size differs from that of the ground truth is resized to it by bicubic. SeeSR's outputs are saved in the
    folder `save`, if it is given.
    """
    for pair in pairs:
        print_status(pair.name)
        result = upscaler.upscale(pair.low, options)
        seconds = sum(result.seconds.values())
        outputs = {BICUBIC: pair.low, OURS: result.image}
        outputs |= {method: _read_rgb(_find(folder, pair.name)) for method, folder in other_methods.items()}
        outputs = {method: resize(image, pair.truth.size) for method, image in outputs.items()}
        if save is not None:
            result.save(save / f"{pair.name}.png")
        with oom_as(
            f"memory ran out while the metrics of {pair.name} ({pair.truth.width}x{pair.truth.height}) were computed. "
            "Close other programs, or leave it out."
        ):
            by_method = {method: metrics(image, pair.truth) for method, image in outputs.items()}
            crops = _crops(outputs | {"truth": pair.truth}) if with_crops else {}
        megapixels = result.image.width * result.image.height / 1e6
        by_method[OURS] |= {"seconds": seconds, "megapixels_per_second": megapixels / seconds}
        yield PictureMetrics(pair.name, by_method, crops)


def mean_metrics(pictures: list[PictureMetrics]) -> dict[str, MetricValues]:
    """Mean of each metric, by method, over the pictures for which its value is finite for every method.

    The PSNR of an exact copy is infinite, and the NIQE of a small picture is NaN.
    """
    means: dict[str, MetricValues] = {method: {} for method in pictures[0].by_method}
    for metric in pictures[0].by_method[OURS]:
        methods = [method for method, values in pictures[0].by_method.items() if metric in values]
        values = np.array([[picture.by_method[method][metric] for method in methods] for picture in pictures])
        finite = values[np.isfinite(values).all(axis=1)]
        for column, method in enumerate(methods):
            means[method][metric] = float(finite[:, column].mean()) if len(finite) else float("nan")
    return means


def _crops(images: dict[str, Image.Image]) -> dict[str, Image.Image]:
    box = _most_different_window(images[OURS], images[BICUBIC])
    return {method: image.crop(box) for method, image in images.items()}


def _most_different_window(first: Image.Image, second: Image.Image) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) in which two images differ most."""
    difference = np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float)).sum(axis=2)
    height, width = (min(CROP_SIDE, side) for side in difference.shape)
    total = np.pad(difference.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(left), int(top), int(left) + width, int(top) + height


def _truth_paths(folder: Path) -> list[Path]:
    """The ground truths in `folder`, each of which is checked, before the first is used."""
    paths = _picture_paths(folder)
    if not paths:
        raise InputError(f"{folder} holds no picture to measure.")
    stems: dict[str, Path] = {}
    for path in paths:
        other = stems.setdefault(path.stem, path)
        if other != path:
            raise InputError(f"{other} and {path} have the same name, by which outputs are found; rename one of them.")
        width, height = _read_rgb(path).size
        if min(width, height) < MIN_SIDE:
            raise InputError(f"{path} is {width}x{height}; each side must have at least {MIN_SIDE} pixels.")
    return paths


def _check_output_sides(paths: list[Path], scale: int) -> None:
    """Checks that the inputs `paths`, enlarged by `scale`, do not exceed the limit on output sides."""
    limit = Limits.from_environment().output_side
    for path in paths:
        side = scale * max(_read_rgb(path).size)
        if side > limit:
            raise InputError(
                f"the output of {path} would have a side of {side} pixels; at most {limit} (SEESR_OUTPUT_SIDE)."
            )


def _picture_paths(folder: Path) -> list[Path]:
    pictures = (path for path in folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted(path for path in pictures if not path.name.startswith("._"))  # metadata files of macOS


def _find(folder: Path, stem: str) -> Path:
    matches = [path for path in _picture_paths(folder) if path.stem == stem]
    if not matches:
        raise InputError(f"{folder} holds no picture named {stem}.")
    return matches[0]


def _read_rgb(path: Path) -> Image.Image:
    return read_picture(path, Limits.from_environment()).srgb
