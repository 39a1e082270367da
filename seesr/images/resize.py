"""Sizes of the way: what the user gets, what the models work on, and the bicubic step between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from seesr.errors import OptionError
from seesr.options import Limits

Size = tuple[int, int]
"""(width, height) in pixels."""
NARROW = 4
"""Times its shortest side that a picture which models work on may be long, however small the limit of results is."""


@dataclass(frozen=True)
class Needs:
    """What models ask of a picture's size, in pixels."""

    minimum: int
    """The shorter side below which they do badly; such pictures are worked on larger and reduced."""
    multiple: int
    """Sides that they take are multiples of this."""
    margin: int = 0
    """Around the picture, where they do badly at its border: convolutions see zeros there, and it shall lie outside."""


@dataclass(frozen=True)
class Sizes:
    """Every size of one picture's way, each (width, height)."""

    input: Size
    output: Size
    """What the user asked for."""
    working: Size
    """What the models see: the output size, or larger when that is smaller than the models like."""
    padded: Size
    """`working` with the models' margin all around, rounded up to what the VAE can halve."""
    margin: int
    """Pixels around the picture in `padded`."""


def plan_sizes(size: Size, scale: float, max_side: int | None, needs: Needs, limits: Limits) -> Sizes:
    """Sizes for a picture of `size`.

    Args:
        scale: output side over input side; any real number.
        max_side: if given, the output's longer side in pixels, instead of `scale`.

    Raises:
        OptionError: the output would be larger than the limit.
    """
    factor = max_side / max(size) if max_side else scale
    output = _scaled(size, factor)
    limit = limits.output_side
    if max(output) > limit:
        if max_side:
            advice = f"ask for a longer side of {limit} or less"
        else:
            fitting = math.floor(limit / max(size) * 100) / 100
            advice = f"ask for a scale of {fitting:g} or less" if fitting >= 1 else "make it smaller first"
        raise OptionError(
            f"the result would be {output[0]}x{output[1]}; at most {limit} pixels a side are made. "
            f"For this picture {advice}."
        )
    working = output if min(output) >= needs.minimum else _scaled(output, needs.minimum / min(output))
    longest = max(limit, NARROW * needs.minimum)
    if max(working) > longest:
        raise OptionError(
            f"a {output[0]}x{output[1]} result is too narrow: its short side must be worked on at {needs.minimum} pixels, "
            f"which makes the long one {max(working)}, more than {longest}. Crop the picture."
        )
    width, height = (math.ceil((side + 2 * needs.margin) / needs.multiple) * needs.multiple for side in working)
    return Sizes(size, output, working, (width, height), needs.margin)


def _scaled(size: Size, factor: float) -> Size:
    width, height = (max(1, round(side * factor)) for side in size)
    return width, height


def resize(image: Image.Image, size: Size) -> Image.Image:
    """Bicubic, as the published pipeline makes its input."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def to_tensor(image: Image.Image) -> Tensor:
    """RGB `(1, 3, H, W)` float32 in 0..1 of a mode RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float().div_(255)


def to_image(tensor: Tensor) -> Image.Image:
    """Mode RGB image of `(1, 3, H, W)` in 0..1; what lies outside is clamped."""
    pixels = (tensor[0].float().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def pad(tensor: Tensor, sizes: Sizes) -> Tensor:
    """`tensor` `(B, C, H, W)` of the working size enlarged to the padded one by repeating its edges."""
    (width, height), margin = sizes.padded, sizes.margin
    sides = margin, width - margin - tensor.shape[3], margin, height - margin - tensor.shape[2]
    return F.pad(tensor, sides, mode="replicate") if any(sides) else tensor


def crop(tensor: Tensor, sizes: Sizes) -> Tensor:
    """The inverse of `pad`."""
    (width, height), margin = sizes.working, sizes.margin
    return tensor[..., margin : margin + height, margin : margin + width]


def part_of_input(sizes: Sizes, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The part of the input (left, top, right, bottom) that `box` in the padded picture shows, at least one pixel."""
    found = []
    for side, (start, end) in enumerate(((box[0], box[2]), (box[1], box[3]))):
        length, factor = sizes.input[side], sizes.input[side] / sizes.working[side]
        first = min(max(math.floor((start - sizes.margin) * factor), 0), length - 1)
        last = max(min(math.ceil((end - sizes.margin) * factor), length), first + 1)
        found.append((first, last))
    (left, right), (top, bottom) = found
    return left, top, right, bottom


def side_by_side(before: Image.Image, after: Image.Image) -> Image.Image:
    """`before` enlarged by bicubic and `after`, next to each other; both RGB, in one colour space."""
    pair = Image.new("RGB", (2 * after.width, after.height))
    pair.paste(resize(before, after.size), (0, 0))
    pair.paste(after, (after.width, 0))
    return pair
