"""Textual inversion: a word's vectors, as diffusers reads them, and nothing of it in other prompts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import loras
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seesr import WeightsError
from seesr.generation.embeddings import Embedding, split_at_words
from seesr.generation.generator import Generator
from seesr.generation.infotext import Infotext
from seesr.generation.prompt_embeds import TextSettings, to_chunks
from seesr.generation.prompt_syntax import Fragment

VALUES: dict[str, Any] = {"steps": 1, "seed": 5, "guidance_scale": 3.0}


@pytest.fixture
def with_embeddings(generator: Generator, tmp_path: Path) -> Generator:
    """The generator with the words `Cat-Like` (two vectors) and `sub/my word`."""
    folder, vectors = tmp_path / "models" / "embeddings", torch.Generator().manual_seed(1)
    loras.write(folder / "Cat-Like.safetensors", {"emb_params": torch.randn(2, 32, generator=vectors)})
    loras.write(folder / "sub" / "my word.safetensors", {"<x>": torch.randn(32, generator=vectors)})
    return Generator(generator.engine, generator.checkpoint, data=tmp_path)


def embeds(generator: Generator, prompt: str) -> Tensor:
    with torch.inference_mode():
        return generator.passes.embedder.embed(
            [Fragment(prompt)], TextSettings(embeddings=generator.passes.embeddings.named_in(prompt))
        )


def test_embeds_are_those_of_diffusers(checkpoint: Path, with_embeddings: Generator) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, local_files_only=True)
    folder = with_embeddings.data / "models" / "embeddings"
    for path, word in ((folder / "Cat-Like.safetensors", "xyzzy"), (folder / "sub" / "my word.safetensors", "plugh")):
        pipeline.load_textual_inversion(str(path), token=word)
    expected = pipeline.encode_prompt("a xyzzy, plugh dog", torch.device("cpu"), 1, False)[0]
    ours = embeds(with_embeddings, "a CAT-like, my word dog")
    assert (ours - expected).abs().max() < 1e-5
    assert torch.equal(embeds(with_embeddings, "a Cat-Like, sub/my word dog"), ours)


def test_a_word_counts_where_it_stands_and_nowhere_else(with_embeddings: Generator) -> None:
    def made(prompt: str, negative: str = "") -> bytes:
        return with_embeddings.text_to_image(prompt, negative_prompt=negative, **VALUES)[0].image.tobytes()

    before = made("a cat-liked dog")
    bare = Generator(with_embeddings.engine, with_embeddings.checkpoint, data=with_embeddings.data / "none")
    assert bare.text_to_image("a cat-liked dog", **VALUES)[0].image.tobytes() == before
    assert len({before, made("a cat-like dog"), made("a (cat-like:1.4) dog"), made("a cat-liked dog", "my word")}) == 4
    assert made("a cat-liked dog") == before
    (result,) = with_embeddings.text_to_image("a dog", negative_prompt="my word", **VALUES)
    digest = hashlib.sha256((with_embeddings.data / "models/embeddings/sub/my word.safetensors").read_bytes()).hexdigest()
    assert Infotext.parse(result.infotext() or "").parameters["TI hashes"] == f"my word: {digest[:12]}"


def test_an_embedding_is_not_torn_between_two_chunks(generator: Generator) -> None:
    encoder, vectors = generator.engine.components["prompt_encoder"], torch.arange(4.0)[:, None].expand(4, 32)
    for before in (0, 70, 71, 72, 75, 150):
        fragments = [Fragment("cat " * before), Fragment("word cat", 1.5)]
        (chunk,) = (one for one in to_chunks(encoder, fragments, (Embedding("word", vectors, ""),)) if one.vectors)
        places = [*chunk.vectors]
        assert [vector[0].item() for vector in chunk.vectors.values()] == [0, 1, 2, 3]
        assert places == [*range(places[0], places[0] + 4)]
        assert places[-1] < 75
        assert [chunk.weights[place] for place in places] == [1.5] * 4


WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).map(lambda word: word.lower())


@given(st.lists(WORDS, min_size=1, max_size=5, unique=True), st.text(max_size=30))
@settings(max_examples=100)
def test_a_text_is_split_without_loss(words: list[str], text: str) -> None:
    known = tuple(Embedding(word, torch.zeros(1, 1), "") for word in words)
    text = f"{text} {words[0]} {text}".lower()
    parts = split_at_words(text, known)
    assert "".join(part.word if isinstance(part, Embedding) else part for part in parts) == text
    assert any(isinstance(part, Embedding) for part in parts)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"emb_params": torch.ones(2, 768)}, "face is for SD 1, with prompt embeddings of 768, and random has 32."),
        ({"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}, "face is no embedding with vectors of 32: the file"),
        ({"emb_params": torch.ones(76, 32)}, "the embedding face has 76 vectors; 1 to 75 are allowed."),
        ({"emb_params": torch.ones(0, 32)}, "the embedding face has 0 vectors; 1 to 75 are allowed."),
        ({"emb_params": torch.full((1, 32), torch.nan)}, "the embedding face holds NaN or infinity; get it again."),
        (
            {"emb_params": torch.ones(1, 1, 32)},
            "face is no embedding with vectors of 32: the file holds emb_params (1, 1, 32).",
        ),
        ({}, "face is no embedding with vectors of 32: the file holds nothing."),
    ],
)
def test_what_is_no_embedding_is_refused(with_embeddings: Generator, tensors: dict[str, Tensor], sentence: str) -> None:
    loras.write(with_embeddings.data / "models" / "embeddings" / "face.safetensors", tensors)
    with pytest.raises(WeightsError) as refused:
        with_embeddings.text_to_image("a face", **VALUES)
    assert str(refused.value).startswith(sentence)
    assert with_embeddings.text_to_image("faces", **VALUES)
