"""Attention as the VAE's middle has it: one head as wide as all channels, over all pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

FUSED_WIDTH = 256
"""Width of the widest head that CUDA's fast fused kernels take."""
SCORES = 1 << 26
"""Scores, of a query for a key, that are computed at once. Most kernels hold none of them, but not all."""


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What each of `queries` finds in all `keys` and `values`, each `(B, heads, n, width)`, some queries at a time.

    Wide heads go as products on CUDA: the kernel that PyTorch takes there needs 1.8 times as long (docs/speed.md).
    """
    kernel = math_attention if uses_math_attention(queries.device, queries.shape[-1]) else F.scaled_dot_product_attention
    parts = queries.split(max(1, SCORES // keys.shape[:-1].numel()), dim=2)
    return torch.cat([kernel(part, keys, values) for part in parts], dim=2)


def uses_math_attention(device: torch.device, width: int) -> bool:
    """Whether heads of this width do, which then hold their scores."""
    return device.type == "cuda" and width > FUSED_WIDTH


def math_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same as two products with a softmax in float32 between them, which holds all scores."""
    scaled = (queries.float() * queries.shape[-1] ** -0.5).to(queries.dtype).flatten(0, 1)
    # Products of half precision give their sums in float32 only on CUDA, and only if they are asked to.
    wanted = {} if queries.dtype == torch.float32 else {"out_dtype": torch.float32}
    scores = torch.bmm(scaled, keys.flatten(0, 1).transpose(1, 2), **wanted)
    return torch.bmm(scores.softmax(dim=-1).to(values.dtype), values.flatten(0, 1)).view_as(queries)


def split_heads(layer: Attention, projected: Tensor) -> Tensor:
    """`(B, heads, n, width)` of `(B, n, channels)`."""
    return projected.unflatten(-1, (layer.heads, -1)).transpose(1, 2)


def join_heads(layer: Attention, found: Tensor) -> Tensor:
    """The layer's last projection of what its heads found: `(B, n, channels)`."""
    return layer.to_out[0](found.transpose(1, 2).flatten(2))


class MathAttentionProcessor:
    """Processor of diffusers for the VAE's `Attention`, which computes it by `attend`."""

    def __call__(
        self,
        layer: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        """Of a map `(B, C, h, w)`; of the rest, which others take, the VAE gives nothing."""
        x = hidden_states.flatten(2)
        tokens = (x if layer.group_norm is None else layer.group_norm(x)).transpose(1, 2)
        projections = (split_heads(layer, project(tokens)) for project in (layer.to_q, layer.to_k, layer.to_v))
        found = join_heads(layer, attend(*projections)).transpose(1, 2).view_as(hidden_states)
        made = hidden_states + found if layer.residual_connection else found
        return made if layer.rescale_output_factor == 1 else made / layer.rescale_output_factor
