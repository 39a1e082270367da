"""Options, presets and limits: values that cannot be are refused in a sentence."""

from __future__ import annotations

import pytest

from seesr import OptionError, Options
from seesr.options import Limits, parse_bytes


@pytest.mark.parametrize(("text", "size"), [("4GB", 4e9), ("4 gib", 4 << 30), ("500MB", 5e8), ("1.5k", 1500), ("77", 77)])
def test_sizes_of_memory(text: str, size: float) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "many", "-3GB", "4XB", "0"])
def test_bad_sizes_of_memory(text: str) -> None:
    with pytest.raises(OptionError, match="the memory limit is"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scale": 0}, "scale is 0: .*greater than or equal to 1"),
        ({"scale": 99}, "scale is 99: .*less than or equal to 8"),
        ({"steps": 0}, "steps is 0"),
        ({"preset": "best"}, "unknown preset 'best'; valid presets: speed, quality"),
        ({"guidance": 3}, "unknown option 'guidance'; valid options: scale, max_side"),
        ({"color_fix": "blue"}, "color_fix is 'blue'"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(values: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Options.make(**values)
    if "preset" not in values:
        with pytest.raises(OptionError, match=words):
            Options(**values)


def test_a_preset_sets_what_is_not_given() -> None:
    assert Options.make().steps is None
    assert Options.make("speed").steps == 1
    assert Options.make("quality").steps == 4
    assert Options.make("quality", steps=3).steps == 3


def test_limits_are_set_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEESR_OUTPUT_SIDE", "1000")
    assert Limits.from_environment() == Limits(output_side=1000)
    monkeypatch.setenv("SEESR_OUTPUT_SIDE", "-3")
    with pytest.raises(OptionError, match="SEESR_OUTPUT_SIDE is '-3'"):
        Limits.from_environment()
