"""Prompts in A1111's syntax, and what the text encoder is given of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seesr import OptionError
from seesr.generation.generator import Generator
from seesr.generation.prompt_embeds import TextSettings, to_chunks
from seesr.generation.prompt_syntax import MAX_WEIGHT, Fragment, changes_with_steps, parse_negative_prompt, parse_prompt
from seesr.generation.styles import apply_styles, expand_variants, read_styles

SYNTAX = st.lists(
    st.sampled_from([*"()[]:|\\ ", "a", "cat", "0.5", "3", "-1", ":1.2)", "AND", "BREAK", "😀", "\n"]), max_size=30
)


def at(prompt: str, step: int = 0, steps: int = 10) -> list[tuple[str, float]]:
    (subprompt,) = parse_prompt(prompt)
    return [(fragment.text, round(fragment.weight, 4)) for fragment in subprompt.fragments(step, steps)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1)]),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("a ((cat))", [("a ", 1), ("cat", 1.21)]),
        ("a (cat:1.5), b", [("a ", 1), ("cat", 1.5), (", b", 1)]),
        ("a (very (red:2) cat:0.5)", [("a ", 1), ("very ", 0.5), ("red", 1), (" cat", 0.5)]),
        ("a [cat]", [("a ", 1), ("cat", 0.9091)]),
        (r"a \(cat\)", [("a (cat)", 1)]),
        ("a (cat", [("a ", 1), ("cat", 1.1)]),
        ("a cat)", [("a cat)", 1)]),
        ("time 12:30", [("time 12:30", 1)]),
        ("(cat:-1)", [("cat", -1)]),
        ("(cat:9999999)", [("cat", MAX_WEIGHT)]),
        ("", []),
    ],
)
def test_emphasis(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert at(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "by_step"),
    [
        ("[a:b:0.5]", "aaaaabbbbb"),
        ("[a:b:3]", "aaabbbbbbb"),
        ("[b:0.2]", "  bbbbbbbb"),
        ("[a::0.2]", "aa        "),
        ("[a|b]", "ababababab"),
        ("[a|b|c]", "abcabcabca"),
        ("[[a|b]:c:0.4]", "ababcccccc"),
    ],
)
def test_what_changes_with_the_steps(prompt: str, by_step: str) -> None:
    assert changes_with_steps(parse_prompt(prompt))
    assert "".join("".join(text for text, _ in at(prompt, step)) or " " for step in range(10)) == by_step
    assert not changes_with_steps(parse_prompt("[a], (b:1.2)"))


def test_prompts_that_and_joins() -> None:
    found = parse_prompt("a cat AND a dog :0.5 AND a BAND")
    assert [(subprompt.fragments(0, 1)[0].text, subprompt.weight) for subprompt in found] == [
        ("a cat", 1),
        ("a dog", 0.5),
        ("a BAND", 1),
    ]


@settings(deadline=None)
@given(prompt=st.one_of(SYNTAX.map("".join), st.text()))
def test_no_prompt_is_an_error(prompt: str) -> None:
    for subprompt in parse_prompt(prompt):
        assert all(abs(fragment.weight) <= MAX_WEIGHT for fragment in subprompt.fragments(1, 4))


def test_a_share_of_the_steps_is_rounded_down() -> None:
    assert [at("[a:b:0.5]", step, 5)[0][0] for step in range(5)] == ["a", "a", "b", "b", "b"]


def test_and_is_a_word_in_a_negative_prompt_and_too_many_are_refused() -> None:
    assert parse_negative_prompt("ugly AND blue").fragments(0, 1) == [Fragment("ugly AND blue")]
    with pytest.raises(OptionError, match="the prompt joins 40 prompts by AND; at most 32"):
        parse_prompt(" AND ".join("a" * 40))


def test_brackets_without_end_are_text() -> None:
    for nested in ("(" + "]" * 20_000, "[" + ")" * 20_000):
        assert parse_prompt(nested)[0].fragments(0, 1)[0].text.endswith(nested[-1] * 100)
    for sign in "([":
        (subprompt,) = parse_prompt(sign * 20_000 + "a")
        assert subprompt.fragments(0, 1)[-1].text.endswith(f"{sign}a")


def test_nothing_of_a_long_prompt_is_cut_off(generator: Generator) -> None:
    encoder = generator.engine.components["prompt_encoder"]
    words = ", ".join(["a cat"] * 100)
    chunks = to_chunks(encoder, [Fragment(words)])
    assert [len(chunk.tokens) <= 75 for chunk in chunks] == [True] * len(chunks)
    tokens = [token for chunk in chunks for token in chunk.tokens]
    assert tokens == encoder.tokenizer(words, add_special_tokens=False, verbose=False).input_ids
    (comma,) = encoder.tokenizer(",", add_special_tokens=False).input_ids
    assert all(chunk.tokens[-1] == comma for chunk in chunks[:-1]), "a chunk ends at a comma"
    assert [len(chunk.tokens) for chunk in to_chunks(encoder, [Fragment("cat BREAK dog")])] == [
        len(encoder.tokenizer(word, add_special_tokens=False).input_ids) for word in ("cat ", " dog")
    ]


def test_weights_keep_the_mean(generator: Generator) -> None:
    embedder = generator.passes.embedder
    plain, weighted = (embedder.embed([Fragment("a "), Fragment("cat", weight)], TextSettings()) for weight in (1.0, 1.5))
    assert plain.shape == weighted.shape == (1, 77, 32)
    assert not torch.allclose(plain, weighted, atol=1e-3)
    torch.testing.assert_close(weighted.mean(), plain.mean())


def test_styles_and_variants(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text(
        'name,prompt,negative_prompt\nSketch,"{prompt}, pencil",colour\nDark,"at night",\n', encoding="utf-8-sig"
    )
    styles = read_styles(tmp_path / "styles.csv")
    assert apply_styles("a cat", "", ["Sketch", "Dark"], styles) == ("a cat, pencil, at night", "colour")
    with pytest.raises(OptionError, match=r"unknown style 'Old'; styles\.csv has: Sketch, Dark"):
        apply_styles("a cat", "", ["Old"], styles)
    assert read_styles(tmp_path / "none.csv") == {}

    wildcards = tmp_path / "wildcards"
    wildcards.mkdir()
    (wildcards / "colour.txt").write_text("red\nblue\n")
    (wildcards / "loop.txt").write_text("__loop__\n")
    made = {expand_variants("a {big|small} __colour__ cat", seed, wildcards) for seed in range(40)}
    assert made == {f"a {size} {colour} cat" for size in ("big", "small") for colour in ("red", "blue")}
    assert expand_variants("a {b|c}", 7) == expand_variants("a {b|c}", 7)
    for plain in ("{not closed", "{0::a|0::b}", "${x} {a|b}", "__../secret__"):
        assert expand_variants(plain, 1, wildcards) == plain
    assert expand_variants("#fff {a|a}", 1) == "#fff a"
    with pytest.raises(OptionError, match="at most 200 are allowed"):
        expand_variants("{a|b}" * 300, 1)
    with pytest.raises(OptionError, match="a wildcard names itself"):
        expand_variants("__loop__", 1, wildcards)
