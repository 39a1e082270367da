"""Attention of the VAE's mid block: one head as wide as all channels, over all pixels of the feature map."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

MAX_FUSED_HEAD_DIM = 256
"""Largest head dimension that CUDA's fast fused kernels support."""
SCORES_PER_CHUNK = 1 << 26
"""Attention scores, one for each pair of query and key, computed at once. Most kernels do not store them, but some do."""


def chunked_attention(queries: Tensor, keys: Tensor, values: Tensor, scores_per_chunk: int = SCORES_PER_CHUNK) -> Tensor:
    """Attention of `queries` over `keys` and `values`, each `(B, heads, n, head_dim)`, computed in chunks of queries.

    Wide heads use `math_attention` on CUDA: the kernel that PyTorch selects there takes 1.8 times as long (docs/speed.md).
    """
    kernel = math_attention if uses_math_attention(queries.device, queries.shape[-1]) else F.scaled_dot_product_attention
    chunks = queries.split(max(1, scores_per_chunk // keys.shape[:-1].numel()), dim=2)
    return torch.cat([kernel(chunk, keys, values) for chunk in chunks], dim=2)


def uses_math_attention(device: torch.device, head_dim: int) -> bool:
    """Whether heads of this dimension use `math_attention` on the device, which stores a chunk's scores."""
    return device.type == "cuda" and head_dim > MAX_FUSED_HEAD_DIM


def math_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention as two matrix products with a softmax in float32 between them; it stores all scores."""
    scaled = (queries.float() * queries.shape[-1] ** -0.5).to(queries.dtype).flatten(0, 1)
    # A product of half precision returns float32 sums only on CUDA, and only if `out_dtype` asks for them.
    options: dict[str, Any] = {} if queries.dtype == torch.float32 else {"out_dtype": torch.float32}
    scores = torch.bmm(scaled, keys.flatten(0, 1).transpose(1, 2), **options)
    return torch.bmm(scores.softmax(dim=-1).to(values.dtype), values.flatten(0, 1)).view_as(queries)


def split_heads(layer: Attention, projected: Tensor) -> Tensor:
    """`(B, n, channels)` to `(B, heads, n, head_dim)`."""
    return projected.unflatten(-1, (layer.heads, -1)).transpose(1, 2)


def join_heads(layer: Attention, attended: Tensor) -> Tensor:
    """The layer's output projection of `(B, heads, n, head_dim)`: `(B, n, channels)`."""
    return layer.to_out[0](attended.transpose(1, 2).flatten(2))


class ChunkedAttentionProcessor:
    """diffusers processor for the VAE's `Attention` that uses `chunked_attention`."""

    def __call__(
        self,
        layer: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        """Attention over a feature map `(B, C, h, w)`; the VAE passes none of the other arguments."""
        x = hidden_states.flatten(2)
        tokens = (x if layer.group_norm is None else layer.group_norm(x)).transpose(1, 2)
        queries, keys, values = (split_heads(layer, project(tokens)) for project in (layer.to_q, layer.to_k, layer.to_v))
        attended = join_heads(layer, chunked_attention(queries, keys, values)).transpose(1, 2).view_as(hidden_states)
        output = hidden_states + attended if layer.residual_connection else attended
        return output if layer.rescale_output_factor == 1 else output / layer.rescale_output_factor
