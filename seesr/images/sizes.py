"""Sizes of one picture in the pipeline: output, working and padded size, and the box of the input that a tile covers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seesr.errors import OptionError
from seesr.options import Limits

Size = tuple[int, int]
"""(width, height) in pixels."""
ALLOWED_ASPECT_RATIO = 4
"""Up to this aspect ratio a working size is never refused, even where its longer side exceeds the limit on output sides."""


@dataclass(frozen=True)
class SizeRequirements:
    """What the networks require of the size of their input, in pixels."""

    minimum: int
    """Smallest useful shorter side; a smaller output is computed at a larger size and then reduced."""
    multiple_of: int
    """Both sides must be multiples of this."""
    padding: int = 0
    """Added on each side, so that the zero padding of the convolutions affects only what is cropped; 0 adds nothing."""


@dataclass(frozen=True)
class Sizes:
    """All sizes of one picture in the pipeline."""

    input: Size
    output: Size
    """What the user asked for."""
    working: Size
    """The size that the networks compute: the output size, or larger where that is below their minimum."""
    padded: Size
    """The size of the networks' input: `working` with `margin` on each side, rounded up to whole latent pixels."""
    margin: int
    """Pixels added at the left and top in `padded`, and at least as many at the right and bottom."""


def plan_sizes(size: Size, scale: float, max_side: int | None, requirements: SizeRequirements, limits: Limits) -> Sizes:
    """Sizes for an input of `size`.

    Args:
        scale: output side over input side; any real number.
        max_side: if given, the output's longer side in pixels, instead of `scale`.

    Raises:
        OptionError: the output would be larger than the limit, or is too narrow for the networks.
    """
    factor = max_side / max(size) if max_side else scale
    output = _scaled(size, factor)
    limit = limits.output_side
    if max(output) > limit:
        if max_side:
            advice = f"ask for a longer side of {limit} or less"
        else:
            largest_scale = math.floor(limit / max(size) * 100) / 100
            advice = f"ask for a scale of {largest_scale:g} or less" if largest_scale >= 1 else "make it smaller first"
        raise OptionError(
            f"the result would be {output[0]}x{output[1]}; at most {limit} pixels a side are allowed. "
            f"For this picture {advice}."
        )
    working = output if min(output) >= requirements.minimum else _scaled(output, requirements.minimum / min(output))
    longest = max(limit, ALLOWED_ASPECT_RATIO * requirements.minimum)
    if max(working) > longest:
        raise OptionError(
            f"a {output[0]}x{output[1]} result is too narrow: its shorter side must be computed at {requirements.minimum} "
            f"pixels, which makes the longer one {max(working)}, more than {longest}. Crop the picture."
        )
    width, height = (
        math.ceil((side + 2 * requirements.padding) / requirements.multiple_of) * requirements.multiple_of
        for side in working
    )
    return Sizes(size, output, working, (width, height), requirements.padding)


def _scaled(size: Size, factor: float) -> Size:
    width, height = (max(1, round(side * factor)) for side in size)
    return width, height


def to_input_box(sizes: Sizes, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of the input that `box` of the padded picture covers, of at least one pixel."""
    ranges = []
    for side, (start, end) in enumerate(((box[0], box[2]), (box[1], box[3]))):
        length, factor = sizes.input[side], sizes.input[side] / sizes.working[side]
        first = min(max(math.floor((start - sizes.margin) * factor), 0), length - 1)
        last = max(min(math.ceil((end - sizes.margin) * factor), length), first + 1)
        ranges.append((first, last))
    (left, right), (top, bottom) = ranges
    return left, top, right, bottom
