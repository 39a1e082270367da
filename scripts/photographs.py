"""What training sees: photographs, the same reduced as cameras and the web do it, and batches of crops of both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seesr.evaluation.degradation import crop_to_multiple, degrade, downscale_bicubic

SCALE = 4
PLAIN = 0.3
"""Share of pictures whose low resolution is plain bicubic."""
MOST_WORKERS = 14
"""Processes that draw batches."""
GROUP = 8
"""Batches that are drawn together."""
ENDLESS = 10**9
Crop = tuple[np.ndarray | np.generic, ...]
"""A square of a picture and of its other version, uint8 `(size, size, 3)`, and what else is to be known of them."""
Batch = tuple[np.ndarray, ...]
"""The same of several crops, each part `(batch, ...)`."""
Draw = Callable[[np.random.Generator], list[Crop]]


class Photographs:
    """Photographs held in memory as uint8 RGB, with crops drawn from them and their degraded versions."""

    def __init__(self, folder: Path, least_side: int, least_count: int) -> None:
        """Reads those of a folder whose shorter side has `least_side` pixels; fewer than `least_count` are refused."""
        images = [crop_to_multiple(image, 2 * SCALE) for image in read_pictures(folder)]
        self.images = [image for image in images if min(image.size) >= least_side]
        if len(self.images) < least_count:
            raise typer.BadParameter(
                f"{folder} has {len(self.images)} pictures with sides of {least_side} pixels or more, not {least_count}."
            )
        if len(self.images) < len(images):
            print(f"{len(images) - len(self.images)} pictures smaller than {least_side} pixels are left out", flush=True)

    def split_off(self, count: int) -> Photographs:
        """Takes `count` photographs, spread over all, away and returns them."""
        chosen = set(range(len(self.images) // count // 2, len(self.images), len(self.images) // count)[:count])
        taken = object.__new__(Photographs)
        taken.images = [image for number, image in enumerate(self.images) if number in chosen]
        self.images = [image for number, image in enumerate(self.images) if number not in chosen]
        return taken

    def crops(self, size: int, per_image: int, prepare: Callable[[Image.Image], Image.Image] = lambda low: low) -> Draw:
        """Draws crops of one photograph: high resolution; low resolution, prepared and enlarged by bicubic; whether that is
        plain bicubic; the photograph's index."""

        def draw(rng: np.random.Generator) -> list[Crop]:
            index = int(rng.integers(len(self.images)))
            high = self.images[index]
            low, plain = low_resolution(high, rng)
            enlarged = prepare(low).resize(high.size, Image.Resampling.BICUBIC)
            return [(*crop_pair(high, enlarged, rng, size), np.bool_(plain), np.int64(index)) for _ in range(per_image)]

        return draw


def low_resolution(high: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, bool]:
    """A photograph reduced, and whether plainly so; else it goes the real way, once, or twice as in Real-ESRGAN's
    second-order model, each time by half the scale."""
    plain = rng.random() < PLAIN
    return downscale_bicubic(high, SCALE) if plain else _as_in_the_world(high, rng), plain


def _as_in_the_world(high: Image.Image, rng: np.random.Generator) -> Image.Image:
    if rng.random() < 0.7:
        return degrade(high, rng, SCALE)
    return degrade(degrade(high, rng, 2), rng, SCALE // 2)


class Groups(Dataset):
    """By number, `size` batches of crops that were drawn together and mixed, so that those of one photograph come apart.

    What is in a group is decided by `seed` and its number, whatever was drawn before and by which process.
    """

    def __init__(self, draw: Draw, batch: int, seed: int, size: int = GROUP) -> None:
        self.draw, self.batch, self.seed, self.size = draw, batch, seed, size

    def __getitem__(self, number: int) -> list[Batch]:
        rng, crops = np.random.default_rng([self.seed, number]), list[Crop]()
        while len(crops) < self.size * self.batch:
            crops += self.draw(rng)
        order = rng.permutation(len(crops))[: self.size * self.batch].reshape(self.size, self.batch)
        return [tuple(map(np.stack, zip(*(crops[i] for i in chosen), strict=True))) for chosen in order]


def batches(draw: Draw, batch: int, seed: int, first: int = 0) -> Iterator[Batch]:
    """Endless batches from the number `first` on, prepared by other processes; an error there is raised here.

    A run that goes on thus sees what it would have seen.
    """
    groups, (number, skipped) = Groups(draw, batch, seed), divmod(first, GROUP)
    # Forked, they have the photographs without a copy; arrays come through a pipe, tensors would need shared memory.
    loader = DataLoader(
        groups,
        batch_size=None,
        sampler=range(number, ENDLESS),
        num_workers=max(1, min(MOST_WORKERS, _cores() - 1)),
        collate_fn=list,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # else it draws a number of those that the training's noise comes from
    )
    for group in loader:
        yield from group[skipped:]
        skipped = 0


def one_batch(draw: Draw, batch: int, seed: int) -> Batch:
    """One that is always the same."""
    return Groups(draw, batch, seed, size=1)[0][0]


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_pixels(crops: np.ndarray, device: torch.device) -> Tensor:
    """`(B, 3, H, W)` in -1..1, channels last, of uint8 `(B, H, W, 3)`."""
    return torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


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


def crop_pair(high: Image.Image, low: Image.Image, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same square of both pictures, flipped and turned alike."""
    left, top = (int(rng.integers(side - size + 1)) for side in high.size)
    box = (left, top, left + size, top + size)
    flip, turns = rng.random() < 0.5, int(rng.integers(4))

    def take(image: Image.Image) -> np.ndarray:
        pixels = np.rot90(np.asarray(image.crop(box)), turns)
        return np.ascontiguousarray(pixels[:, ::-1] if flip else pixels)

    return take(high), take(low)


def to_tensor(image: Image.Image) -> Tensor:
    """`(3, H, W)` in -1..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1
