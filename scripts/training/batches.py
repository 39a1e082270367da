"""Batches of crops, each decided by its number alone, and drawn by other processes while the networks compute."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

MAX_WORKERS = 14
"""Processes that draw batches."""
GROUP = 8
"""Batches that are drawn together."""
ENDLESS = 10**9
Crop = tuple[np.ndarray | np.generic, ...]
"""A square of a picture and of its other version, uint8 `(size, size, 3)`, and what else is to be known of them."""
Batch = tuple[np.ndarray, ...]
"""The same of several crops, each part `(batch, ...)`."""
Draw = Callable[[np.random.Generator], list[Crop]]


class Groups(Dataset[list[Batch]]):
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
        num_workers=max(1, min(MAX_WORKERS, _cores() - 1)),
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


def to_pixels(crops: np.ndarray, device: torch.device) -> Tensor:
    """`(B, 3, H, W)` in -1..1, channels last, of uint8 `(B, H, W, 3)`."""
    return torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
