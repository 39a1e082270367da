"""RAM's tag head: a BERT-like decoder without self-attention, in which tag embeddings attend to the image tokens."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class TagHead(nn.Module):
    """Tag queries `(B, tags, hidden_size)` and image tokens `(B, n, encoder_width)` to features of the shape of the queries.

    Parameter names are those of the published checkpoint, where the head is a reduced BERT.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        num_attention_heads: int,
        num_hidden_layers: int,
        encoder_width: int,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        layers = [
            TagLayer(hidden_size, intermediate_size, num_attention_heads, encoder_width, layer_norm_eps)
            for _ in range(num_hidden_layers)
        ]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, queries: Tensor, image_tokens: Tensor) -> Tensor:
        for layer in self.encoder["layer"].children():
            queries = layer(queries, image_tokens)
        return queries


class TagLayer(nn.Module):
    """Cross-attention, then a feed-forward network; each is followed by a residual connection and a LayerNorm."""

    def __init__(self, width: int, hidden_width: int, heads: int, encoder_width: int, eps: float) -> None:
        super().__init__()
        self.crossattention = nn.ModuleDict(
            {"self": CrossAttention(width, heads, encoder_width), "output": ResidualNorm(width, width, eps)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden_width)})
        self.output = ResidualNorm(hidden_width, width, eps)

    def forward(self, queries: Tensor, image_tokens: Tensor) -> Tensor:
        attended = self.crossattention["self"](queries, image_tokens)
        queries = self.crossattention["output"](attended, queries)
        return self.output(F.gelu(self.intermediate["dense"](queries)), queries)


class CrossAttention(nn.Module):
    """Multi-head attention of queries over the image tokens."""

    def __init__(self, width: int, heads: int, encoder_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(encoder_width, width)
        self.value = nn.Linear(encoder_width, width)

    def forward(self, queries: Tensor, image_tokens: Tensor) -> Tensor:
        projections = (self.query(queries), self.key(image_tokens), self.value(image_tokens))
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projections)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class ResidualNorm(nn.Module):
    """A linear layer, a residual connection and a LayerNorm."""

    def __init__(self, input_width: int, width: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(input_width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(hidden) + residual)
