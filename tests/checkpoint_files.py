"""Writes networks of diffusers' classes in the layout of CompVis's and Stability AI's single files, tensor by tensor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from seesr.generation.checkpoints import Checkpoint

RESNET = {
    ".norm1.": ".in_layers.0.",
    ".conv1.": ".in_layers.2.",
    ".time_emb_proj.": ".emb_layers.1.",
    ".norm2.": ".out_layers.0.",
    ".conv2.": ".out_layers.3.",
    ".conv_shortcut.": ".skip_connection.",
}
UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
VAE_PARTS = {
    ".down_blocks.": ".down.",
    ".resnets.": ".block.",
    ".downsamplers.0.": ".downsample.",
    ".upsamplers.0.": ".upsample.",
    ".mid_block.block.0.": ".mid.block_1.",
    ".mid_block.block.1.": ".mid.block_2.",
    ".mid_block.attentions.0.group_norm.": ".mid.attn_1.norm.",
    ".mid_block.attentions.0.to_out.0.": ".mid.attn_1.proj_out.",
    ".mid_block.attentions.0.to_": ".mid.attn_1.",
    ".conv_norm_out.": ".norm_out.",
    ".conv_shortcut.": ".nin_shortcut.",
}
OPEN_CLIP_PARTS = {
    "embeddings.token_embedding.": "token_embedding.",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.": "ln_final.",
    "encoder.layers.": "transformer.resblocks.",
    ".self_attn.": ".attn.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}


def unet_tensors(unet: Any) -> dict[str, Tensor]:
    """A UNet's tensors by CompVis's names: blocks are counted through all levels."""
    layers, tensors = unet.config.layers_per_block, unet.state_dict()

    def block(found: re.Match[str]) -> str:
        way, level, kind, number = found["way"], int(found["level"]), found["kind"], int(found["number"])
        first = level * (layers + 1)
        if way == "down":
            place = f"input_blocks.{first + layers + 1 if kind == 'downsamplers' else first + 1 + number}"
            return {"resnets": f"{place}.0", "attentions": f"{place}.1", "downsamplers": f"{place}.0.op"}[kind]
        place = f"output_blocks.{first + layers if kind == 'upsamplers' else first + number}"
        after = 2 if any(name.startswith(f"up_blocks.{level}.attentions") for name in tensors) else 1
        return {"resnets": f"{place}.0", "attentions": f"{place}.1", "upsamplers": f"{place}.{after}.conv"}[kind]

    blocks = re.compile(
        r"^(?P<way>down|up)_blocks\.(?P<level>\d+)\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<number>\d+)"
        r"(\.conv(?=\.))?"
    )
    named = {}
    for name, tensor in tensors.items():
        start = next((start for start in UNET_ENDS if name.startswith(start)), None)
        new = UNET_ENDS[start] + name[len(start) :] if start else blocks.sub(block, name)
        if "transformer_blocks" not in new:
            new = _replaced(new, RESNET)
        named[f"model.diffusion_model.{new}"] = tensor
    return named


def vae_tensors(vae: Any, prefix: str = "first_stage_model.") -> dict[str, Tensor]:
    """A VAE's tensors by CompVis's names: the decoder's levels are counted from the deepest."""
    levels, named = len(vae.config.block_out_channels), {}
    for name, tensor in vae.state_dict().items():
        new = re.sub(r"\.up_blocks\.(\d+)\.", lambda found: f".up.{levels - 1 - int(found[1])}.", name)
        new = _replaced(new, VAE_PARTS)
        is_linear = ".mid.attn_1." in new and tensor.dim() == 2
        named[prefix + new] = tensor[..., None, None] if is_linear else tensor
    return named


def clip_tensors(text_encoder: Any) -> dict[str, Tensor]:
    """Those of SD 1's text encoder, with the positions that old versions saved."""
    named = {f"cond_stage_model.transformer.text_model.{name}": one for name, one in _text(text_encoder).items()}
    return named | {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}


def open_clip_tensors(text_encoder: Any) -> dict[str, Tensor]:
    """Those of SD 2's text encoder, with a last layer and a projection, which SD 2 does not use."""
    width, layers = text_encoder.config.hidden_size, text_encoder.config.num_hidden_layers
    tensors, named = _text(text_encoder), {}
    for name, tensor in tensors.items():
        if not re.search(r"\.[qkv]_proj\.", name):
            named[_replaced(name, OPEN_CLIP_PARTS)] = tensor
    for layer in range(layers):
        for part in ("weight", "bias"):
            three = [tensors[f"encoder.layers.{layer}.self_attn.{one}_proj.{part}"] for one in "qkv"]
            named[f"transformer.resblocks.{layer}.attn.in_proj_{part}"] = torch.cat(three)
    last = {name: one for name, one in named.items() if name.startswith("transformer.resblocks.0.")}
    named |= {name.replace(".0.", ".23.", 1): torch.ones_like(one) for name, one in last.items()}
    named |= {"text_projection": torch.ones(width, width), "logit_scale": torch.tensor(4.6)}
    return {f"cond_stage_model.model.{name}": tensor for name, tensor in named.items()}


def file_tensors(components: Any, is_sd2: bool) -> dict[str, Tensor]:
    """A whole file's tensors, with what training leaves beside the networks."""
    text = (open_clip_tensors if is_sd2 else clip_tensors)(components["prompt_encoder"].text_encoder)
    beside = {"alphas_cumprod": torch.ones(1000), "betas": torch.ones(1000), "model_ema.decay": torch.tensor(0.9)}
    return unet_tensors(components["unet"]) | vae_tensors(components["vae"]) | text | beside


def save(tensors: dict[str, Tensor], path: Path, **metadata: str) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def networks(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint's networks by name, in float32."""
    return {spec.name: spec.load() for spec in checkpoint.networks(torch.float32)}


def _text(text_encoder: Any) -> dict[str, Tensor]:
    return {name.removeprefix("text_model."): tensor for name, tensor in text_encoder.state_dict().items()}


def _replaced(name: str, parts: dict[str, str]) -> str:
    for old, new in parts.items():
        name = name.replace(old, new)
    return name
