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
    limit, minimum = limits.output_side, requirements.minimum
    longest = max(limit, ALLOWED_ASPECT_RATIO * minimum)

    def fits(size: Size, scale: float, max_side: int | None) -> bool:
        output, working = _output_and_working(size, scale, max_side, minimum)
        return max(output) <= limit and max(working) <= longest

    def crop_advice() -> str:
        shorter, then = min(size), ""
        wanted_scale, wanted_side = scale, max_side
        if max_side and max_side > limit:
            wanted_side, then = limit, f" and ask for a longer side of {limit} or less"
        elif not max_side and shorter * scale > limit:
            wanted_scale = limit * 100 // shorter / 100
            then = f" and ask for a scale of {wanted_scale:g} or less"
        sides = range(longest * shorter // minimum, shorter, -1)
        side = next((side for side in sides if fits((side, shorter), wanted_scale, wanted_side)), shorter)
        return f"no size works: crop its longer side to {side} pixels or less{then}"

    output, working = _output_and_working(size, scale, max_side, minimum)
    if max(output) > limit:
        scales = (hundredths / 100 for hundredths in range(limit * 100 // max(size), 99, -1))
        side = math.floor(limit / scale)
        sides = range(side, side * 9 // 10, -1)  # rounding makes some sides too narrow
        if max_side and fits(size, scale, limit):
            advice = f"ask for a longer side of {limit} or less"
        elif not max_side and (largest := next((scale for scale in scales if fits(size, scale, None)), None)):
            advice = f"ask for a scale of {largest:g} or less"
        elif not max_side and (
            side := next((side for side in sides if fits(scaled(size, side / max(size)), scale, None)), 0)
        ):
            advice = f"make its longer side {side} pixels or less first"
        else:
            advice = crop_advice()
        raise OptionError(
            f"the result would be {output[0]}x{output[1]}; at most {limit} pixels a side are allowed. "
            f"For this picture {advice}."
        )
    if max(working) > longest:
        raise OptionError(
            f"a {output[0]}x{output[1]} result is too narrow: its shorter side must be computed at {minimum} "
            f"pixels, which makes the longer one {max(working)}, more than {longest}. For this picture {crop_advice()}."
        )
    width, height = (
        math.ceil((side + 2 * requirements.padding) / requirements.multiple_of) * requirements.multiple_of
        for side in working
    )
    return Sizes(size, output, working, (width, height), requirements.padding)


def _output_and_working(size: Size, scale: float, max_side: int | None, minimum: int) -> tuple[Size, Size]:
    output = scaled(size, scale_factor(size, scale, max_side))
    return output, output if min(output) >= minimum else scaled(output, minimum / min(output))


def scale_factor(size: Size, scale: float, max_side: int | None) -> float:
    """Output side over input side: `scale`, or what makes the longer side `max_side` pixels where that is given."""
    return max_side / max(size) if max_side else scale


def scaled(size: Size, factor: float) -> Size:
    """A size times a factor, in whole pixels, at least one."""
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
