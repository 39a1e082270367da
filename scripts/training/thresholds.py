"""For each tag the confidence above which it counts, chosen so that the tags that a picture gets are right."""

from __future__ import annotations

import torch
from torch import Tensor

WANTED_PRECISION = 0.9
"""Share of right tags among those given, on pictures held out; decides the thresholds."""
LOWEST, NEVER, OFTEN = 0.5, 0.97, 10
"""Bounds of a threshold, and how often a tag must be given to get one of its own."""


def choose_thresholds(confidences: Tensor, labels: Tensor) -> list[float]:
    """For each tag the confidence above which `WANTED_PRECISION` of the tags given are right, in all views of all pictures.

    Of `confidences` `(pictures, views, tags)` and `labels` `(pictures, tags)`. Tags that are given often have one of their
    own, the others one for all. A wrong tag is worse than none.
    """
    labels = labels[:, None].expand_as(confidences).flatten(0, 1)
    confidences = confidences.flatten(0, 1)
    often = (confidences > LOWEST).sum(dim=0) >= OFTEN
    common = _threshold(confidences[:, ~often], labels[:, ~often])
    return [
        max(common, _threshold(confidences[:, tag], labels[:, tag])) if often[tag] else common
        for tag in range(labels.shape[1])
    ]


def _threshold(confidences: Tensor, labels: Tensor) -> float:
    """The lowest from `LOWEST` on that gives enough precision, else `NEVER`."""
    for threshold in torch.arange(LOWEST, NEVER, 0.01).tolist():
        given = confidences > threshold
        if given.any() and labels[given].mean() >= WANTED_PRECISION:
            return round(threshold, 2)
    return NEVER


def given_by_halves(confidences: Tensor, labels: Tensor) -> Tensor:
    """Which tags each picture is given, by thresholds chosen on the half of the pictures that it is not in.

    Of `confidences` `(pictures, views, tags)` and `labels` `(pictures, tags)`; every second picture is a half.
    """
    given = torch.zeros(confidences.shape, dtype=torch.bool)
    for half, other in ((0, 1), (1, 0)):
        thresholds = choose_thresholds(confidences[other::2], labels[other::2])
        given[half::2] = confidences[half::2] > torch.tensor(thresholds)
    return given
