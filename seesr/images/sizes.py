"""Sizes of one picture: what the user gets, what the networks work on, and which part of the input a tile shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seesr.errors import OptionError
from seesr.options import Limits

Size = tuple[int, int]
"""(width, height) in pixels."""
NARROW = 4
"""Times its shortest side that a picture which models work on may be long, however small the limit of results is."""


@dataclass(frozen=True)
class SizeRequirements:
    """What networks ask of a picture's size, in pixels."""

    minimum: int
    """The shorter side below which they do badly; such pictures are worked on larger and reduced."""
    multiple_of: int
    """Sides that they take are multiples of this."""
    padding: int = 0
    """Around the picture, where they do badly at its border: convolutions see zeros there, and it shall lie outside."""


@dataclass(frozen=True)
class Sizes:
    """Every size of one picture in the pipeline, each (width, height)."""

    input: Size
    output: Size
    """What the user asked for."""
    working: Size
    """What the models see: the output size, or larger when that is smaller than the models like."""
    padded: Size
    """`working` with the models' margin all around, rounded up to what the VAE can halve."""
    margin: int
    """Pixels around the picture in `padded`."""


def plan_sizes(size: Size, scale: float, max_side: int | None, requirements: SizeRequirements, limits: Limits) -> Sizes:
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
    working = output if min(output) >= requirements.minimum else _scaled(output, requirements.minimum / min(output))
    longest = max(limit, NARROW * requirements.minimum)
    if max(working) > longest:
        raise OptionError(
            f"a {output[0]}x{output[1]} result is too narrow: its short side must be worked on at {requirements.minimum} "
            f"pixels, which makes the long one {max(working)}, more than {longest}. Crop the picture."
        )
    width, height = (
        math.ceil((side + 2 * requirements.padding) / requirements.multiple_of) * requirements.multiple_of
        for side in working
    )
    return Sizes(size, output, working, (width, height), requirements.padding)


def _scaled(size: Size, factor: float) -> Size:
    width, height = (max(1, round(side * factor)) for side in size)
    return width, height


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
