"""The sizes of a job: working size, padding, output, and parts of the input."""

from __future__ import annotations

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
