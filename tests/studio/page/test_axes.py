"""The values of a plot's axes, as they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seesr.errors import InputError
from seesr.generation.samplers import SAMPLERS
from seesr.studio.page.axes import MAX_VALUES, REPLACE, Axis, axis_names
from seesr.studio.page.plot import Plot


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1, 2,4", ["1", "2", "4"]),
        ("1-4", ["1", "2", "3", "4"]),
        ("1-10 (+3)", ["1", "4", "7", "10"]),
        ("1..10 by 3", ["1", "4", "7", "10"]),
        ("1-10 [4]", ["1", "4", "7", "10"]),
        ("0.1-0.3 (+0.1)", ["0.1", "0.2", "0.3"]),
        ("0..1 [3], 7.50", ["0", "0.5", "1", "7.5"]),
        ("5-3", ["5", "4", "3"]),
        ("-1..1", ["-1", "0", "1"]),
        ("2, 2.0, 1-2", ["2", "1"]),
    ],
)
def test_numbers_are_lists_and_ranges(text: str, values: list[str]) -> None:
    assert Axis.parse("guidance_scale", text).values == tuple(values)


@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 60))
def test_a_range_is_what_it_says(first: int, step: int, count: int) -> None:
    wanted = [first + step * place for place in range(count)]
    for text in (f"{first}-{wanted[-1]} (+{step})", f"{first}..{wanted[-1]} by {step}", f"{first}-{wanted[-1]} [{count}]"):
        assert [*map(int, Axis.parse("seed", text).values)] == wanted


@given(st.sampled_from(axis_names()), st.text(st.sampled_from('0123456789-.+,()[] by"aé\n'), max_size=30))
def test_whatever_is_written_is_values_or_one_sentence(name: str, text: str) -> None:
    try:
        axis = Axis.parse(name, text)
    except InputError:
        return
    assert 1 <= len(axis.values) <= MAX_VALUES
    assert len({*axis.values}) == len(axis.values)


def test_words_may_hold_commas_and_a_list_may_be_left_out() -> None:
    assert Axis.parse(REPLACE, 'cat, "dog, wet", bird').values == ("cat", "dog, wet", "bird")
    assert Axis.parse("sampler", "").values == tuple(sampler.name for sampler in SAMPLERS)


@pytest.mark.parametrize("text", ["", "one", "1-10 (+0)", "1-1000", "0-1 [0]"])
def test_what_is_no_axis_is_told(text: str) -> None:
    with pytest.raises(InputError):
        Axis.parse("steps", text)


def test_cells_have_one_seed_and_one_picture_each() -> None:
    fields = {"plot_x": "steps", "plot_x_values": "1, 2", "plot_z": REPLACE, "plot_z_values": "cat, dog"}
    form = {"prompt": "a cat", "negative_prompt": "", "seed": None, "batch_size": 4, "batch_count": 2}
    plot = Plot.of(fields)
    cells = [*plot.cells(form | fields)]
    assert plot.count == 4
    assert [(cell["steps"], cell["prompt"]) for cell in cells] == [
        ("1", "a cat"), ("2", "a cat"), ("1", "a dog"), ("2", "a dog"),
    ]  # fmt: skip
    assert len({cell["seed"] for cell in cells}) == 1
    assert {(cell["batch_size"], cell["batch_count"]) for cell in cells} == {(1, 1)}
    with pytest.raises(InputError, match="does not hold"):
        list(plot.cells(form | {"prompt": "a bird"}))


def test_an_axis_of_seeds_has_its_own() -> None:
    plot = Plot.of({"plot_y": "seed", "plot_y_values": "3-5"})
    assert [cell["seed"] for cell in plot.cells({"seed": 9})] == ["3", "4", "5"]
