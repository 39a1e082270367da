"""Textual inversion (Gal et al., ICLR 2023): words of a prompt that stand for learnt vectors instead of tokens.

A file's name is the word, as in the AUTOMATIC1111 web UI; capitals do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seesr.components import Components
from seesr.errors import WeightsError
from seesr.generation.library import Library
from seesr.generation.model_file import EMBEDDING_KEY, ModelFile
from seesr.generation.token_count import word_pattern
from seesr.weights.tensors import read_safetensors

MAX_VECTORS = 75
"""Of an embedding, which stands in one chunk of a prompt."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """Vectors, and the word that they stand for."""

    word: str
    vectors: Tensor
    """`(n, width)`, of the text encoder's token embeddings."""
    hash: str
    """See `ModelFile.file_hash`."""


class Embeddings:
    """Finds and reads the embeddings that prompts name.

    Args:
        library: where they are.
        components: holds the `prompt_encoder` that they are for, of `checkpoint`.
    """

    def __init__(self, library: Library, components: Components, checkpoint: str) -> None:
        self.library, self.components, self.checkpoint = library, components, checkpoint

    def named_in(self, *prompts: str) -> tuple[Embedding, ...]:
        """Those whose names stand in one of the prompts, in the order of their names.

        Raises:
            OptionError: several files have the name.
            WeightsError: a file is damaged, is no embedding, or is for other checkpoints.
        """
        names = [name for file in self.library.models() for name in (file.name, file.name.rpartition("/")[2])]
        words = {name.lower(): name for name in names}
        if not words:
            return ()
        pattern = word_pattern(words)
        found = {match.lower() for prompt in prompts for match in pattern.findall(prompt)}
        return tuple(self._read(self.library.find(words[word]), words[word]) for word in sorted(found & words.keys()))

    def _read(self, file: ModelFile, word: str) -> Embedding:
        width = self.components["prompt_encoder"].text_encoder.config.hidden_size
        file.require_family(width, self.checkpoint)
        tensors = read_safetensors(file.path)
        vectors = tensors.get(EMBEDDING_KEY, next(iter(tensors.values()), torch.empty(0))).float()
        vectors = vectors[None] if vectors.dim() == 1 else vectors
        if (len(tensors) > 1 and EMBEDDING_KEY not in tensors) or vectors.dim() != 2 or vectors.shape[1] != width:
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(tensors.items())[:3]) or "nothing"
            raise WeightsError(f"{file.name} is no embedding with vectors of {width}: the file holds {shapes}.")
        if not 1 <= len(vectors) <= MAX_VECTORS:
            raise WeightsError(f"the embedding {file.name} has {len(vectors)} vectors; 1 to {MAX_VECTORS} are allowed.")
        if not torch.isfinite(vectors).all():
            raise WeightsError(f"the embedding {file.name} holds NaN or infinity; get it again.")
        return Embedding(word, vectors, file.file_hash)


def split_at_words(text: str, embeddings: tuple[Embedding, ...]) -> list[str | Embedding]:
    """The text, and in their places the embeddings that it names."""
    if not embeddings:
        return [text]
    by_word = {embedding.word.lower(): embedding for embedding in embeddings}
    return [by_word.get(part.lower(), part) for part in word_pattern(by_word).split(text)]
