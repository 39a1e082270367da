"""DAPE, SeeSR's degradation-aware LoRA for RAM (Wu et al., CVPR 2024), merged into RAM's weights at load.

Published as loralib tensors of rank 8 with alpha 1. The Swin's qkv is a MergedLinear on q and v: rows 0-7 of its
`lora_A` and the first half of `lora_B` belong to q, the others to v.

One thing does not show in the names. The published RAM ties the weights of its tag head to the first layers of its
tag encoder, but not their LoRA, so both LoRAs are merged into the one shared weight. Tagging never runs the tag encoder,
and yet its LoRA counts here wherever the tag head has a weight of the same name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seesr.errors import WeightsError
from seesr.weights.tensors import StateDict

RANK = 8
SCALING = 1 / RANK
TIED_PART, TAG_HEAD = "tag_encoder.", "tagging_head."
DROPPED_PARTS = (TIED_PART, "text_decoder.")
"""Parts of the published RAM that tagging never runs."""


def merge_dape(ram: StateDict, dape: StateDict) -> StateDict:
    """`ram`'s weights with DAPE's updates added, in float32 where there is one.

    At full size 56 of DAPE's 248 tensors have a place of their own in `ram`; of the 192 of dropped parts, 8 act on the
    tag head through tied weights and the rest is ignored.

    Raises:
        WeightsError: a tensor of `dape` has no partner, or no place in `ram` and belongs to no dropped part.
    """
    merged = dict(ram)
    for key in sorted(dape):
        name, _, part = key.rpartition(".")
        if part not in ("lora_A", "lora_B") or f"{name}.lora_A" not in dape or f"{name}.lora_B" not in dape:
            raise WeightsError(f"DAPE's {key} is no half of a lora_A and lora_B pair.")
        target = f"{name}.weight".replace(TIED_PART, TAG_HEAD, 1)
        if target not in ram:
            if not key.startswith(DROPPED_PARTS):
                raise WeightsError(f"DAPE's {key} has no place in this RAM.")
        elif part == "lora_A":
            merged[target] = _updated(merged[target], dape[key], dape[f"{name}.lora_B"], name)
    return merged


def _updated(weight: Tensor, lora_a: Tensor, lora_b: Tensor, name: str) -> Tensor:
    lora_a, lora_b = lora_a.float(), lora_b.float()
    if lora_a.shape[0] == 2 * RANK:
        update_q = lora_b[: len(lora_b) // 2] @ lora_a[:RANK]
        update_v = lora_b[len(lora_b) // 2 :] @ lora_a[RANK:]
        update = torch.cat([update_q, torch.zeros_like(update_q), update_v])
    else:
        update = lora_b @ lora_a
    if update.shape != weight.shape:
        raise WeightsError(f"DAPE's update of {name} is {tuple(update.shape)}, the weight {tuple(weight.shape)}.")
    return weight.float() + SCALING * update
