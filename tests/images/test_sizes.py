"""The sizes of a job: working size, padding, output, and parts of the input."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seesr import OptionError
from seesr.images.sizes import SizeRequirements, plan_sizes, to_input_box
from seesr.options import Limits


def test_a_small_limit_of_results_does_not_refuse_what_models_work_on_larger() -> None:
    needs, limits = SizeRequirements(512, 8), Limits(output_side=400)
    assert plan_sizes((100, 75), 4, None, needs, limits).working == (683, 512)
    with pytest.raises(OptionError, match="which makes the longer one 5120, more than 2048"):
        plan_sizes((100, 10), 4, None, needs, limits)


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 12_000),
    height=st.one_of(st.integers(1, 50), st.integers(1, 5000)),
    scale=st.sampled_from([1, 1.49, 2.5, 4, 8]),
    max_side=st.none() | st.integers(16, 12_000),
    minimum=st.sampled_from([128, 512]),
    limit=st.sampled_from([400, 8192]),
)
@example(width=3000, height=10, scale=4, max_side=None, minimum=128, limit=8192)
@example(width=3000, height=40, scale=4, max_side=None, minimum=128, limit=8192)
@example(width=66, height=1, scale=1.49, max_side=None, minimum=128, limit=8192)
def test_who_does_as_a_refusal_says_is_not_refused_again(
    width: int, height: int, scale: float, max_side: int | None, minimum: int, limit: int
) -> None:
    needs, limits = SizeRequirements(minimum, 8), Limits(output_side=limit)
    try:
        plan_sizes((width, height), scale, max_side, needs, limits)
    except OptionError as error:
        advice = str(error)
    else:
        return
    shorter, longer = sorted((width, height))
    if said := re.search(r"crop its longer side to (\d+) pixels or less", advice):
        longer = min(longer, int(said[1]))
    elif said := re.search(r"make its longer side (\d+) pixels or less first", advice):
        shorter, longer = max(1, round(shorter * int(said[1]) / longer)), int(said[1])
    said_scale = re.search(r"ask for a scale of ([\d.]+) or less\.", advice)
    said_side = re.search(r"ask for a longer side of (\d+) or less\.", advice)
    new_scale, new_side = float(said_scale[1]) if said_scale else scale, int(said_side[1]) if said_side else max_side
    assert said or said_scale or said_side, advice
    assert (longer, new_scale, new_side) != (max(width, height), scale, max_side), "something is to be changed"
    plan_sizes((longer, shorter), new_scale, new_side, needs, limits)


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    scale=st.floats(1, 8),
    margin=st.sampled_from([0, 16]),
    data=st.data(),
)
def test_parts_of_the_input_lie_inside_it(width: int, height: int, scale: float, margin: int, data: st.DataObject) -> None:
    sizes = plan_sizes((width, height), scale, None, SizeRequirements(16, 8, margin), Limits(output_side=100_000))
    left, top = (data.draw(st.integers(0, side - 1)) for side in sizes.padded)
    box = to_input_box(sizes, (left, top, left + 64, top + 64))
    assert 0 <= box[0] < box[2] <= width
    assert 0 <= box[1] < box[3] <= height
    assert to_input_box(sizes, (0, 0, *sizes.padded)) == (0, 0, width, height)


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
    scale=st.floats(1, 8),
    multiple=st.sampled_from([4, 8]),
    margin=st.sampled_from([0, 8, 16]),
)
@example(width=44, height=1, scale=1.49, multiple=8, margin=0)
def test_sizes_fit_each_other(width: int, height: int, scale: float, multiple: int, margin: int) -> None:
    output = tuple(max(1, round(side * scale)) for side in (width, height))
    longest = round(max(output) * max(1, 128 / min(output)))
    try:
        sizes = plan_sizes((width, height), scale, None, SizeRequirements(128, multiple, margin), Limits())
    except OptionError:
        assert longest > 8192
        return
    assert sizes.output == output
    assert min(sizes.working) >= 128
    assert max(sizes.working) == longest <= 8192
    assert sizes.margin == margin
    assert all(0 <= padded - side - 2 * margin < multiple for padded, side in zip(sizes.padded, sizes.working, strict=True))
    assert all(side % multiple == 0 for side in sizes.padded)
