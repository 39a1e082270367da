"""Photographs to train on, the same reduced as cameras and the web do it, and crops of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from scripts.training.batches import Crop, Draw
from seesr.evaluation.degradation import crop_to_multiple, degrade, downscale_bicubic

SCALE = 4
PLAIN = 0.3
"""Share of pictures whose low resolution is plain bicubic."""
HELD_OUT, EXAMPLES = 8, 16
"""Photographs that `cleaner` and `sr` never see, which the validation picture shows; those that fresh weights start from."""
MIN_COUNT = HELD_OUT + EXAMPLES
MIN_SIDE = 256
"""Of a photograph, in pixels; one for `cleaner` and `sr`, so that both hold out the same ones."""


Reduce = Callable[[Image.Image, np.random.Generator], tuple[Image.Image, bool]]
"""A photograph reduced to a quarter, and whether plainly so."""


def low_resolution(high: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, bool]:
    """A photograph reduced, plainly or as `as_cameras_do`; and whether plainly."""
    plain = rng.random() < PLAIN
    return downscale_bicubic(high, SCALE) if plain else as_cameras_do(high, rng), plain


def as_cameras_do(high: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Reduced and degraded once, or twice as in Real-ESRGAN's second-order model, each time by half the scale."""
    if rng.random() < 0.7:
        return degrade(high, rng, SCALE)
    return degrade(degrade(high, rng, 2), rng, SCALE // 2)


class Photographs:
    """Photographs held in memory as uint8 RGB, with crops drawn from them and their degraded versions."""

    def __init__(self, folder: Path, min_side: int, min_count: int) -> None:
        """Reads those of a folder whose shorter side has `min_side` pixels; fewer than `min_count` are refused."""
        images = [crop_to_multiple(image, 2 * SCALE) for image in read_pictures(folder)]
        self.images = [image for image in images if min(image.size) >= min_side]
        if len(self.images) < min_count:
            raise typer.BadParameter(
                f"{folder} has {len(self.images)} pictures with sides of {min_side} pixels or more, not {min_count}."
            )
        if len(self.images) < len(images):
            print(f"{len(images) - len(self.images)} pictures smaller than {min_side} pixels are left out", flush=True)

    def split_off(self, count: int) -> Photographs:
        """Takes `count` photographs, spread over all, away and returns them."""
        chosen = set(range(len(self.images) // count // 2, len(self.images), len(self.images) // count)[:count])
        taken = object.__new__(Photographs)
        taken.images = [image for number, image in enumerate(self.images) if number in chosen]
        self.images = [image for number, image in enumerate(self.images) if number not in chosen]
        return taken

    def crops(
        self,
        size: int,
        per_image: int,
        prepare: Callable[[Image.Image], Image.Image] = lambda low: low,
        reduce: Reduce = low_resolution,
    ) -> Draw:
        """Draws crops of one photograph: high resolution; low resolution, prepared and enlarged by bicubic; whether that is
        plain bicubic; the photograph's index."""

        def draw(rng: np.random.Generator) -> list[Crop]:
            index = int(rng.integers(len(self.images)))
            high = self.images[index]
            low, plain = reduce(high, rng)
            enlarged = prepare(low).resize(high.size, Image.Resampling.BICUBIC)
            return [(*crop_pair(high, enlarged, rng, size), np.bool_(plain), np.int64(index)) for _ in range(per_image)]

        return draw


def read_split(folder: Path, crop_side: int) -> tuple[Photographs, Photographs]:
    """The photographs to train on, and those held out; of each a crop of that many pixels a side can be taken."""
    photographs = Photographs(folder, max(MIN_SIDE, crop_side), MIN_COUNT)
    return photographs, photographs.split_off(HELD_OUT)


def crop_pair(high: Image.Image, low: Image.Image, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same square of both pictures, flipped and turned alike."""
    left, top = (int(rng.integers(side - size + 1)) for side in high.size)
    box = (left, top, left + size, top + size)
    flip, turns = rng.random() < 0.5, int(rng.integers(4))

    def take(image: Image.Image) -> np.ndarray:
        pixels = np.rot90(np.asarray(image.crop(box)), turns)
        return np.ascontiguousarray(pixels[:, ::-1] if flip else pixels)

    return take(high), take(low)


def picture_paths(folder: Path) -> list[Path]:
    """All JPEG and PNG pictures of a folder, in order of their names."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise typer.BadParameter(f"no .jpg or .png picture in {folder}")
    return paths


def read_pictures(folder: Path) -> list[Image.Image]:
    """Those of `picture_paths`, as RGB."""
    return [read_picture(path) for path in picture_paths(folder)]


def read_picture(path: Path) -> Image.Image:
    """As RGB."""
    try:
        return Image.open(path).convert("RGB")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read as a picture: {error}") from error


def to_tensor(image: Image.Image) -> Tensor:
    """`(3, H, W)` in -1..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
