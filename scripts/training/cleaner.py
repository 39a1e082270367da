"""Stage `cleaner`: from a picture reduced and spoilt as cameras and the web do it to the same picture reduced plainly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from torch import Tensor, nn

from scripts.training.batches import Crop, Draw, batches, one_batch, to_pixels
from scripts.training.degradations import low_quality, tone
from scripts.training.device import autocast, training_device
from scripts.training.drawings import drawing
from scripts.training.files import save_picture, write_model
from scripts.training.options import Images, Work, require
from scripts.training.photographs import SCALE, Photographs, crop_pair, read_split
from scripts.training.run import Run
from seesr.cleaner import Cleaner, clean, load_cleaner
from seesr.evaluation.degradation import KINDS, degraded_pair, downscale_bicubic
from seesr.images import resize
from seesr.machine.device import to_device
from seesr.weights.resolve import CLEANER

CONFIG = {"channels": [32, 64, 128, 128], "layers": 3}
MARGIN = 4
"""Pixels at the border of a crop that the loss does not look at."""
QUADRATIC = 0.1
"""Errors below this, of 1, count by their square. By their amount alone nothing is learnt: where a picture is good already,
each change costs, and that outweighs what a first, small change of bad ones gains."""
DRAWINGS = 0.15
"""Share of pictures that are drawn; the others are photographs."""
ROOM = 16
"""Pixels by which a picture's side, reduced, is larger than the crop's, so that the crop lies anywhere on JPEG's blocks."""
CHECK_EVERY = 250
"""Steps after which the errors on held-out photographs are taken and the average of weights is written as finished ones."""


def cleaner(
    images: Images,
    work: Work,
    steps: int = 4000,
    batch: int = 16,
    size: Annotated[int, typer.Option(help="Side of a crop of the reduced photograph.")] = 64,
    learning_rate: float = 1e-3,
    steady: Annotated[float, typer.Option(help="Share of the steps before the learning rate begins to fall.")] = 0.0,
    start: Annotated[
        Path | None,
        typer.Option(help="Cleaner to begin with, e.g. weights/tiny/cleaner; it may have fewer levels.", exists=True),
    ] = None,
    seed: int = 0,
) -> None:
    """The network that brings bad pictures to what the others are taught on."""
    # Its maps are halved three times, and its losses leave a border out.
    require(size >= 32 and size % 8 == 0, f"--size {size} is not a multiple of 8 from 32 on")
    require(0 <= steady < 1, f"--steady {steady} is not from 0 to less than 1")
    photographs, held_out = read_split(images, SCALE * size)
    torch.manual_seed(seed)
    device, model = training_device(), _fresh_cleaner()
    if start is not None:
        grow(model, load_cleaner(start))
    to_device(model, device)
    settings = {
        "batch": batch,
        "size": size,
        "photographs": len(photographs.images),
        "start": start and str(start),
        "seed": seed,
    }
    run = Run("cleaner", work, {"cleaner": model}, steps, learning_rate, steady=steady, settings=settings)
    drawn = batches(_pairs(photographs, size), batch, seed, run.step)
    shown = one_batch(_pairs(held_out, size), 2 * len(held_out.images), seed)
    while run.step < steps:
        good, bad = (_in_unit(crops, device) for crops in next(drawn))
        with autocast(device):
            cleaned = model(bad)
        good, bad, cleaned = (images[..., MARGIN:-MARGIN, MARGIN:-MARGIN] for images in (good, bad, cleaned))
        loss, before = (F.smooth_l1_loss(images, good, beta=QUADRATIC) for images in (cleaned, bad))
        run.optimize(loss, {"loss": loss, "before": before})
        if run.is_due(CHECK_EVERY):
            with torch.no_grad(), run.averaged():
                good, bad = (_in_unit(crops, device) for crops in shown)
                save_picture(work / f"cleaner_{run.step:06d}.png", *(2 * images - 1 for images in (bad, model(bad), good)))
                _print_errors(model, held_out, run.step)
                write_model(work / CLEANER, CONFIG, model.state_dict())


def grow(model: Cleaner, smaller: Cleaner) -> None:
    """Gives `model` the weights of a cleaner with the same widths that may have fewer levels, and the same result as it.

    The further levels begin with an enlargement that is zero and blocks of the decoder that change nothing.

    Raises:
        typer.BadParameter: the widths of both differ.
    """
    known = smaller.state_dict()
    own = model.state_dict()
    require(
        all(name in own and own[name].shape == tensor.shape for name, tensor in known.items()),
        "the cleaner to begin with has other widths than the one to train",
    )
    for name, tensor in own.items():
        if name in known:
            tensor.copy_(known[name])
        elif name.startswith("enlarge.") or (name.startswith("up.") and ".conv2." in name):
            tensor.zero_()


def _print_errors(model: Cleaner, held_out: Photographs, step: int) -> None:
    """Root of the mean squared error to the good picture, in grey levels, before and after cleaning, by kind."""
    errors = {}
    for kind in (None, *KINDS):
        squares = []
        for number, high in enumerate(held_out.images):
            bad, truth = degraded_pair(high, kind, np.random.default_rng([0, number])) if kind else (None, high)
            good = resize.to_tensor(downscale_bicubic(truth, SCALE))
            image = resize.to_tensor(bad) if bad else good
            squares.append([(255 * (one - good)).square().mean().item() for one in (image, clean(model, image))])
        errors[kind or "plain"] = ", ".join(f"{value:.2f}" for value in np.sqrt(np.mean(squares, axis=0)))
    print("cleaner errors", step, errors, flush=True)


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
    """Draws a crop of a picture: reduced plainly, and reduced and spoilt as `low_quality` does."""
    side = SCALE * (size + ROOM)

    def draw(rng: np.random.Generator) -> list[Crop]:
        if rng.random() < DRAWINGS:
            high = drawing(side, rng)
        else:
            high = _part(photographs.images[int(rng.integers(len(photographs.images)))], side, rng)
        high = tone(high, rng)
        return [crop_pair(downscale_bicubic(high, SCALE), low_quality(high, rng), rng, size)]

    return draw


def _part(image: Image.Image, side: int, rng: np.random.Generator) -> Image.Image:
    """A part of at most `side` pixels a side."""
    width, height = (min(side, length) for length in image.size)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _in_unit(crops: np.ndarray, device: torch.device) -> Tensor:
    """In 0..1, as the cleaner takes them."""
    return to_pixels(crops, device) / 2 + 0.5
