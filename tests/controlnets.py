"""Writes ControlNets with random weights, as diffusers writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel


def save_controlnet(unet: UNet2DConditionModel, folder: Path, seed: int, **changes: Any) -> None:
    """A random one beside `unet`, whose outputs are not zero, as training makes them."""
    torch.manual_seed(seed)
    values = {"conditioning_embedding_out_channels": (8, 16, 16)} | changes
    names = ("in_channels", "down_block_types", "block_out_channels", "layers_per_block", "norm_num_groups")
    names += ("cross_attention_dim", "attention_head_dim")
    network = ControlNetModel(**{name: unet.config[name] for name in names} | values)
    for name, weight in network.named_parameters():
        if name.startswith(("controlnet_down", "controlnet_mid", "controlnet_cond")):
            torch.nn.init.normal_(weight, std=0.2 if weight.dim() > 1 else 0.05)
    network.save_pretrained(folder)
