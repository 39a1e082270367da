"""How well pictures are tagged that training never saw, as they are and degraded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scripts.training.tagged_pictures import TaggedPictures
from scripts.training.thresholds import given_by_halves
from seesr.tagging.ram import RAM

VIEWS = "as they are", "degraded"
"""In which held-out pictures are tagged."""


@torch.no_grad()
def held_out_confidences(ram: RAM, data: TaggedPictures) -> Tensor:
    """What `ram` says of the held-out pictures in each of `VIEWS`: `(pictures, 2, tags)` in 0..1."""
    device, rng = ram.image_proj.weight.device, np.random.default_rng(0)
    pairs = (torch.stack([data.whole(i), data.degraded(i, rng)]) for i in data.held_out)
    return torch.stack([ram(pair.to(device))[1].float().sigmoid().cpu() for pair in pairs])


def print_report(confidences: Tensor, labels: Tensor) -> None:
    """Prints how well pictures are tagged, as they are and degraded; see `given_by_halves` for the arguments."""
    all_given = given_by_halves(confidences, labels)
    for view, name in enumerate(VIEWS):
        given, sure = all_given[:, view], confidences[:, view]
        right = (given * labels).sum().item()
        figures = {
            "precision": right / max(1, given.sum().item()),
            "recall": right / max(1, labels.sum().item()),
            "first_tag_right": labels.gather(1, sure.argmax(1, keepdim=True)).mean().item(),
            "average_precision": average_precision(sure.flatten(), labels.flatten()),
            "without_a_tag": (~given.any(1)).float().mean().item(),
            "with_a_wrong_one": (given * (1 - labels)).any(1).float().mean().item(),
        }
        print(name, {name: round(value, 3) for name, value in figures.items()}, flush=True)


def average_precision(confidences: Tensor, labels: Tensor) -> float:
    """The mean, over what is true of `labels` `(n,)`, of the share of true ones among those as sure or surer."""
    ranked = labels[confidences.argsort(descending=True)].float()
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    return ((precision * ranked).sum() / ranked.sum()).item()
