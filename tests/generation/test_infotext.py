"""Infotext is read back as it was written, and other programs read it."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from seesr.generation.infotext import Infotext

PARAMETERS = {"Steps": "20", "Sampler": "Euler a", "CFG scale": "7", "Seed": "1", "Size": "128x128"}
PROMPTS = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            [
                "a cat",
                "Negative prompt: dog",
                "Steps: 20, Sampler: x, Seed: 4",
                '"quoted", (a:1.2)',
                "\n",
                " ",
                "😀",
                "שלום",
                "\r\n",
                "\\",
                ":",
                ",",
            ]
        ),
        max_size=6,
    ).map("".join),
    st.lists(st.sampled_from(["a", "Negative prompt: b", "Steps: 1, Seed: 2, Size: 3", "", " "]), max_size=4).map("\n".join),
)


@settings(max_examples=300, deadline=None)
@given(prompt=PROMPTS, negative=PROMPTS, style=st.text(min_size=1, max_size=40))
@example(prompt="Negative prompt: a", negative="Negative prompt: b", style='"')
def test_what_is_written_is_read_back(prompt: str, negative: str, style: str) -> None:
    written = Infotext(prompt, negative, PARAMETERS | {"Style": style})
    assert Infotext.parse(str(written)) == written


def test_a_long_line_is_read_in_no_time() -> None:
    for line in ("a" * 100_000, " " * 100_000, "a: " * 40_000, '"' * 100_000, "a:" + '"\\' * 50_000):
        Infotext.parse(f"a cat\n{line}")


def test_a_plain_prompt_stands_as_it_is() -> None:
    text = str(Infotext("a cat,\n(red:1.2)", "dogs", PARAMETERS))
    assert text == (
        "a cat,\n(red:1.2)\nNegative prompt: dogs\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 128x128"
    )
