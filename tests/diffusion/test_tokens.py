"""Tokens without PyTorch are those of transformers' tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from seesr.diffusion.text import clip_tokenizer
from seesr.diffusion.tokens import load_tokenizer
from seesr.errors import WeightsError
from seesr.weights.manifest import beside_package

PICTOGRAMS = beside_package("pictograms") / "tokenizer"
OURS = load_tokenizer(PICTOGRAMS), load_tokenizer(None)
THEIRS = CLIPTokenizer.from_pretrained(PICTOGRAMS), clip_tokenizer()
TEXTS = st.lists(st.one_of(st.text(max_size=12), st.sampled_from(("it's", "<|endoftext|>", "12 Äpfel,", "\n", "😀"))))


@settings(max_examples=cases(100))
@given(TEXTS.map(" ".join))
def test_any_text_has_the_tokens_of_transformers(text: str) -> None:
    for ours, theirs in zip(OURS, THEIRS, strict=True):
        assert ours.encode(text, add_special_tokens=False).ids == theirs(text, add_special_tokens=False).input_ids


def test_a_folder_of_transformers_5_has_them_too(tmp_path: Path) -> None:
    THEIRS[1].save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.json").exists()
    text = "a red apple, it's 3d"
    assert load_tokenizer(tmp_path).encode(text, add_special_tokens=False).ids == OURS[1].encode(text).ids


@pytest.mark.parametrize("change", [{"vocab": {"a": 0}}, {"merges": ["a b c"]}, {"merges": 3}, {"vocab": {"a": "x"}}])
def test_a_damaged_tokenizer_is_an_error_in_one_sentence(tmp_path: Path, change: dict[str, object]) -> None:
    THEIRS[0].save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"model": values["model"] | change}))
    with pytest.raises(WeightsError, match="is damaged: its merges do not fit its vocabulary; get it again"):
        load_tokenizer(tmp_path)
