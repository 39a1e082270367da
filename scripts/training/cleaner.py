"""Stage `cleaner`: from a photograph reduced on the real way to the same photograph reduced plainly, by bicubic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from scripts.training.batches import Crop, Draw, batches, one_batch, to_pixels
from scripts.training.device import autocast, training_device
from scripts.training.files import save_picture, write_model
from scripts.training.options import Images, Work, require
from scripts.training.photographs import SCALE, Photographs, crop_pair, low_resolution, read_split
from scripts.training.run import Run
from seesr.cleaner import Cleaner
from seesr.evaluation.degradation import downscale_bicubic
from seesr.machine.device import to_device
from seesr.weights.resolve import CLEANER

CONFIG = {"channels": [32, 64, 128], "layers": 3}
MARGIN = 4
"""Pixels at the border of a crop that the loss does not look at."""
QUADRATIC = 0.1
"""Errors below this, of 1, count by their square. By their amount alone nothing is learnt: where a picture is good already,
each change costs, and that outweighs what a first, small change of bad ones gains."""
PER_IMAGE = 4
"""Crops of each photograph."""


def cleaner(
    images: Images,
    work: Work,
    steps: int = 4000,
    batch: int = 16,
    size: Annotated[int, typer.Option(help="Side of a crop of the reduced photograph.")] = 64,
    seed: int = 0,
) -> None:
    """The network that brings bad pictures to what the others are taught on."""
    # Its maps are halved twice, and its losses leave a border out.
    require(size >= 32 and size % 4 == 0, f"--size {size} is not a multiple of 4 from 32 on")
    photographs, held_out = read_split(images, SCALE * size)
    model = train_cleaner(photographs, held_out, work, steps, batch, size, seed)
    write_model(work / CLEANER, CONFIG, model.state_dict())


def train_cleaner(
    photographs: Photographs, held_out: Photographs, work: Path, steps: int, batch: int, size: int, seed: int
) -> Cleaner:
    """The average of weights over the last steps."""
    torch.manual_seed(seed)
    device, model = training_device(), _fresh_cleaner()
    to_device(model, device)
    settings = {"batch": batch, "size": size, "photographs": len(photographs.images), "seed": seed}
    run = Run("cleaner", work, {"cleaner": model}, steps, learning_rate=1e-3, settings=settings)
    drawn = batches(_pairs(photographs, size), batch, seed, run.step)
    shown = one_batch(_pairs(held_out, size), len(held_out.images), seed)
    while run.step < steps:
        good, bad = (_in_unit(crops, device) for crops in next(drawn))
        with autocast(device):
            cleaned = model(bad)
        good, bad, cleaned = (images[..., MARGIN:-MARGIN, MARGIN:-MARGIN] for images in (good, bad, cleaned))
        loss, before = (F.smooth_l1_loss(images, good, beta=QUADRATIC) for images in (cleaned, bad))
        run.optimize(loss, {"loss": loss, "before": before})
        if run.is_due(250):
            with torch.no_grad(), run.averaged():
                good, bad = (_in_unit(crops, device) for crops in shown)
                save_picture(work / f"cleaner_{run.step:06d}.png", *(2 * images - 1 for images in (bad, model(bad), good)))
    run.take_average()
    return model


def _fresh_cleaner() -> Cleaner:
    """With weights by which blocks and the whole change little."""
    cleaner = Cleaner(**CONFIG)
    for name, parameter in cleaner.named_parameters():
        if parameter.ndim == 1:
            nn.init.zeros_(parameter)
        else:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            with torch.no_grad():
                parameter *= 0.2 if ".conv2." in name else 0.1 if name.startswith("last.") else 1.0
    return cleaner


def _pairs(photographs: Photographs, size: int) -> Draw:
    """Draws crops of one photograph: reduced plainly, and reduced as `low_resolution` does."""

    def draw(rng: np.random.Generator) -> list[Crop]:
        high = photographs.images[int(rng.integers(len(photographs.images)))]
        good = downscale_bicubic(high, SCALE)
        bad, _ = low_resolution(high, rng)
        return [crop_pair(good, bad, rng, size) for _ in range(PER_IMAGE)]

    return draw


def _in_unit(crops: np.ndarray, device: torch.device) -> Tensor:
    """In 0..1, as the cleaner takes them."""
    return to_pixels(crops, device) / 2 + 0.5
