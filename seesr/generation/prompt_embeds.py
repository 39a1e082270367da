"""Embeddings of prompts of any length, with weights for their parts.

Tokens are read in chunks of 75 between a start and an end token; each chunk is encoded by itself and the results are
joined, so nothing is cut off. Weights multiply a token's embedding, after which the mean of the chunk is made what it was
before, as in the AUTOMATIC1111 web UI.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from seesr.components import Components
from seesr.diffusion.text import PromptEncoder
from seesr.generation.adapters import adapted
from seesr.generation.embeddings import Embedding, split_at_words
from seesr.generation.lora import WeightedLora
from seesr.generation.prompt_syntax import BREAKS, Fragment
from seesr.lru_cache import LRUCache
from seesr.machine.device import dtype_of
from seesr.planning.nan_guard import run_with_nan_guard

CACHED_CHUNKS = 512
"""Of 75 tokens, that are kept: 160 MB of SD-Turbo's embeddings."""
TOKENS = 77
"""Of a chunk, with start and end."""
PLACEHOLDER = 0
"""The token in place of which a vector is put."""
COMMA_REACH = 20
"""A chunk that is full ends at the last comma, if that lies at most so many tokens back."""


@dataclass(frozen=True)
class Chunk:
    """Tokens without start and end, and the weight of each."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    vectors: dict[int, Tensor] = field(default_factory=dict)
    """In place of tokens, by their places: of embeddings."""


@dataclass(frozen=True, eq=False)
class TextSettings:
    """How prompts are encoded."""

    clip_skip: int = 1
    """1 takes the text encoder's last layer, 2 the one before it, and so on."""
    loras: tuple[WeightedLora, ...] = ()
    """Change the text encoder meanwhile."""
    embeddings: tuple[Embedding, ...] = ()
    """Words that stand for vectors."""

    @property
    def key(self) -> Hashable:
        """Tells them from others that encode otherwise."""
        changes = [(one.lora.hash, one.text_weight) for one in self.loras if one.lora.text_encoder and one.text_weight]
        return self.clip_skip, tuple(changes), tuple((one.word.lower(), one.hash) for one in self.embeddings)


def to_chunks(encoder: PromptEncoder, fragments: list[Fragment], embeddings: tuple[Embedding, ...] = ()) -> list[Chunk]:
    """The chunks of a prompt, at least one; BREAK begins a new one, and an embedding stands in one."""
    size, tokenizer = encoder.max_tokens - 2, encoder.tokenizer
    (comma,) = tokenizer(",", add_special_tokens=False).input_ids[:1] or [-1]
    chunks, tokens, weights = list[Chunk](), list[int | Tensor](), list[float]()

    def close(count: int) -> None:
        vectors = {place: token for place, token in enumerate(tokens[:count]) if isinstance(token, Tensor)}
        numbers = tuple(PLACEHOLDER if isinstance(token, Tensor) else token for token in tokens[:count])
        chunks.append(Chunk(numbers, tuple(weights[:count]), vectors))
        del tokens[:count], weights[:count]

    for fragment in fragments:
        for number, text in enumerate(BREAKS.split(fragment.text)):
            if number and tokens:
                close(len(tokens))
            for part in split_at_words(text, embeddings):
                if isinstance(part, Embedding):
                    if len(tokens) + len(part.vectors) > size:
                        close(len(tokens))
                    tokens += part.vectors
                    weights += [fragment.weight] * len(part.vectors)
                    continue
                for token in tokenizer(part, add_special_tokens=False, verbose=False).input_ids:
                    if len(tokens) == size:
                        close(_last_comma(tokens, comma) or size)
                    tokens.append(token)
                    weights.append(fragment.weight)
    if tokens or not chunks:
        close(len(tokens))
    return chunks


def _last_comma(tokens: list[int | Tensor], comma: int) -> int:
    """The tokens up to and with the last comma that is near the end; 0 where there is none."""
    for count in range(len(tokens), len(tokens) - COMMA_REACH, -1):
        if not isinstance(token := tokens[count - 1], Tensor) and token == comma:
            return count
    return 0


class PromptEmbedder:
    """Embeds prompts with the text encoder of a checkpoint, and keeps the last results in a cache.

    Args:
        components: holds the text encoder as `prompt_encoder`.
        key: tells the weights of the text encoder from others, such as a digest.
    """

    def __init__(self, components: Components, key: str = "") -> None:
        self.components, self.key = components, key
        self.hits = 0
        """How often an embedding was found in the cache."""
        self._cache: LRUCache[Tensor] = LRUCache(CACHED_CHUNKS, lambda embeds: embeds.shape[1] // TOKENS)

    def embed(self, fragments: list[Fragment], settings: TextSettings) -> Tensor:
        """`(1, 77 * chunks, width)` on the host.

        Raises:
            ComputeError: the text encoder gives NaN or infinity, in float32 too.
        """
        encoder, self.hits = self.components["prompt_encoder"], self.hits + 1

        def compute() -> Tensor:
            self.hits -= 1
            changes = [(one.lora.text_encoder, one.text_weight) for one in settings.loras]
            chunks = to_chunks(encoder, fragments, settings.embeddings)
            with self.components.running("prompt_encoder"), adapted(encoder.text_encoder, changes):
                embeds = [self._encode(encoder, chunk, settings.clip_skip) for chunk in chunks]
            return torch.cat(embeds, dim=1).cpu()

        where = self.components.runs_on, dtype_of(encoder)
        return self._cache.get((self.key, *where, tuple(fragments), settings.key), compute)

    def padded(self, embeds: list[Tensor], settings: TextSettings) -> list[Tensor]:
        """The embeddings with chunks of an empty prompt at the end, so that all have as many as the longest."""
        empty, longest = self.embed([], settings), max(tensor.shape[1] for tensor in embeds)
        return [torch.cat([tensor, *[empty] * ((longest - tensor.shape[1]) // empty.shape[1])], dim=1) for tensor in embeds]

    def clear(self) -> None:
        """Empties the cache."""
        self._cache.clear()

    def _encode(self, encoder: PromptEncoder, chunk: Chunk, clip_skip: int) -> Tensor:
        tokenizer, size = encoder.tokenizer, encoder.max_tokens
        start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        tokens = [start, *chunk.tokens, end]
        tokens += [pad] * (size - len(tokens))

        def run() -> Tensor:
            return encoder.hidden_states(torch.tensor([tokens], device=encoder.text_encoder.device), clip_skip)

        with _replaced(encoder.text_encoder.get_input_embeddings(), chunk.vectors):
            embeds = run_with_nan_guard("prompt", [encoder], run, [])
        if all(weight == 1 for weight in chunk.weights):
            return embeds
        weights = [1.0, *chunk.weights, *[1.0] * (size - 1 - len(chunk.weights))]
        weighted = embeds * torch.tensor(weights, device=embeds.device, dtype=embeds.dtype)[None, :, None]
        # The mean may vanish where weights are 0 or below 0: then nothing can restore it.
        mean = weighted.mean()
        return weighted if mean == 0 else weighted * (embeds.mean() / mean)


@contextmanager
def _replaced(token_embedding: nn.Module, vectors: dict[int, Tensor]) -> Iterator[None]:
    """The embeddings of a chunk's tokens with these vectors in their places; the start token comes before the first."""

    def replace(_: nn.Module, __: tuple[Tensor], embeds: Tensor) -> Tensor:
        embeds = embeds.clone()
        for place, vector in vectors.items():
            embeds[:, place + 1] = vector.to(embeds)
        return embeds

    handle = token_embedding.register_forward_hook(replace) if vectors else None
    try:
        yield
    finally:
        if handle:
            handle.remove()
