"""Counted tokens are those that the pipeline reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from seesr.diffusion.tokens import load_tokenizer
from seesr.generation.embeddings import Embedding
from seesr.generation.generator import Generator
from seesr.generation.library import Library
from seesr.generation.prompt_embeds import to_chunks
from seesr.generation.prompt_syntax import parse_prompt
from seesr.generation.token_count import count_tokens, embedding_vectors
from seesr.weights.manifest import beside_package

TOKENIZER = load_tokenizer(beside_package("tiny") / "sd-turbo" / "tokenizer")
PARTS = ("a cat, ", "(sitting:1.2)", "[dog|horse]", "[a:b c:0.5]", "BREAK", " ink ", "<lora:style:0.8>", "\\(", "sea " * 40)


@settings(max_examples=cases(100))
@given(parts=st.lists(st.sampled_from(PARTS), max_size=8))
def test_they_are_as_many_as_in_the_chunks(generator: Generator, parts: list[str]) -> None:
    prompt, embedding = "".join(parts), Embedding("ink", torch.zeros(3, 32), "")
    (parsed,) = parse_prompt(prompt.replace("<lora:style:0.8>", ""))
    encoder = generator.engine.components["prompt_encoder"]
    chunks = [to_chunks(encoder, parsed.fragments(step, 100), (embedding,)) for step in (0, 99)]
    expected = max(sum(len(chunk.tokens) for chunk in some) for some in chunks)
    assert count_tokens(TOKENIZER, prompt, {"ink": 3}) == expected


@pytest.mark.parametrize(("prompt", "count"), [("", 0), ("a cat AND a", 2), ("Ink blot", 4)])
def test_the_longest_prompt_counts_and_embeddings_are_known_by_their_files(tmp_path: Path, prompt: str, count: int) -> None:
    save_file({"emb_params": torch.zeros(3, 8)}, tmp_path / "ink.safetensors")
    vectors = embedding_vectors(Library(tmp_path, "embedding").models())
    assert vectors == {"ink": 3}
    words = {"a cat AND a": len(TOKENIZER.encode("a cat", add_special_tokens=False).ids)}
    blot = len(TOKENIZER.encode(" blot", add_special_tokens=False).ids)
    assert count_tokens(TOKENIZER, prompt, vectors) == words.get(prompt, count if not prompt else 3 + blot)
