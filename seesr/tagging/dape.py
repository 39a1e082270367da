"""DAPE, SeeSR's degradation-aware LoRA for RAM (Wu et al., CVPR 2024), merged into RAM's weights when they are loaded.

It is published as loralib tensors of rank 8 with alpha 1. The Swin's qkv is a MergedLinear on q and v: rows 0-7 of its
`lora_A` and the first half of its `lora_B` belong to q, the others to v.

The names do not show one fact: the published RAM ties the weights of its tag head to the first layers of its tag encoder,
but not their LoRAs, so both LoRAs are merged into the shared weight. Tagging never runs the tag encoder, but its LoRA is
merged too wherever the tag head has a weight of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seesr.errors import WeightsError
from seesr.weights.tensors import StateDict

RANK = 8
SCALING = 1 / RANK
TAG_ENCODER, TAG_HEAD = "tag_encoder.", "tagging_head."
UNUSED_PREFIXES = (TAG_ENCODER, "text_decoder.")
"""Prefixes of tensors of the published RAM that tagging never uses."""


def merge_dape(ram: Mapping[str, Tensor], dape: Mapping[str, Tensor]) -> StateDict:
    """The state dict `ram` with DAPE's updates added; updated weights are in float32.

    At full size 56 of DAPE's 248 tensors belong to weights of `ram`. Of the 192 tensors with an unused prefix, 8 belong to
    the tag head through tied weights; the others are ignored.

    Raises:
        WeightsError: a tensor of `dape` lacks its partner, or belongs to no weight of `ram` and has no unused prefix.
    """
    merged = dict(ram)
    for key in sorted(dape):
        name, _, factor = key.rpartition(".")
        if factor not in ("lora_A", "lora_B") or f"{name}.lora_A" not in dape or f"{name}.lora_B" not in dape:
            raise WeightsError(f"DAPE's {key} is not one of a lora_A and lora_B pair.")
        target = f"{name}.weight".replace(TAG_ENCODER, TAG_HEAD, 1)
        if target not in ram:
            if not key.startswith(UNUSED_PREFIXES):
                raise WeightsError(f"DAPE's {key} belongs to no weight of this RAM.")
        elif factor == "lora_A":
            merged[target] = _add_update(merged[target], dape[key], dape[f"{name}.lora_B"], name)
    return merged


def _add_update(weight: Tensor, lora_a: Tensor, lora_b: Tensor, name: str) -> Tensor:
    lora_a, lora_b = lora_a.float(), lora_b.float()
    if lora_a.shape[0] == 2 * RANK:
        update_q = lora_b[: len(lora_b) // 2] @ lora_a[:RANK]
        update_v = lora_b[len(lora_b) // 2 :] @ lora_a[RANK:]
        update = torch.cat([update_q, torch.zeros_like(update_q), update_v])
    else:
        update = lora_b @ lora_a
    if update.shape != weight.shape:
        raise WeightsError(f"DAPE's update of {name} has shape {tuple(update.shape)}, the weight {tuple(weight.shape)}.")
    return weight.float() + SCALING * update
