"""Attention as the VAE's middle has it: one head as wide as all channels, over all pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

FUSED_WIDTH = 256
"""Width of the widest head that CUDA's fast fused kernels take."""
SCORES = 1 << 26
"""Scores that may be held at once where no kernel holds none."""


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What each of `queries` finds in all `keys` and `values`, each `(B, heads, n, width)`.

    On CUDA wide heads are computed as products around a softmax in float32, some queries at a time: the kernel that PyTorch
    would take there is several times slower (docs/speed.md).
    """
    if queries.device.type != "cuda" or queries.shape[-1] <= FUSED_WIDTH:
        return F.scaled_dot_product_attention(queries, keys, values)
    scaled = (queries.float() * queries.shape[-1] ** -0.5).to(queries.dtype)
    parts = scaled.flatten(0, 1).split(max(1, SCORES // (keys.shape[0] * keys.shape[1] * keys.shape[2])), dim=1)
    turned, known = keys.flatten(0, 1).transpose(1, 2), values.flatten(0, 1)
    found = [torch.bmm(_scores(part, turned).softmax(dim=-1).to(known.dtype), known) for part in parts]
    return torch.cat(found, dim=1).view_as(queries)


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Their products in float32: of half precision's inputs, but not rounded to it."""
    return torch.bmm(queries, keys) if queries.dtype == torch.float32 else torch.bmm(queries, keys, out_dtype=torch.float32)


class WholeMapAttention:
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

        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (layer.heads, -1)).transpose(1, 2)

        found = attend(heads(layer.to_q(tokens)), heads(layer.to_k(tokens)), heads(layer.to_v(tokens)))
        found = layer.to_out[0](found.transpose(1, 2).flatten(2)).transpose(1, 2).view_as(hidden_states)
        made = found + hidden_states if layer.residual_connection else found
        return made if layer.rescale_output_factor == 1 else made / layer.rescale_output_factor
