"""From the layout in which CompVis (SD 1) and Stability AI (SD 2) keep networks in one file to that of diffusers.

diffusers' converters rename the tensors; the networks' configs follow from the names and shapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)

from seesr.autoencoder.vae import current_name
from seesr.generation.tensor_names import OPEN_CLIP, UNET, VAE
from seesr.weights.tensors import StateDict

LATENT_CHANNELS = 4
NATIVE_LATENTS, NATIVE_LATENTS_OF_V = 64, 96
"""Latent pixels of a side that SD was trained with; 96 where SD 2 predicts v."""
HEADS, HEAD_WIDTH = 8, 64
"""Heads of each attention of SD 1's UNet; channels of a head of SD 2's and of both text encoders."""
SCALING_FACTOR = 0.18215
"""Of the latents of both families' VAEs."""


def convert_unet(tensors: StateDict) -> StateDict:
    """The UNet's tensors by diffusers' names; what is no tensor of a UNet is left out."""
    # The first downsampling follows the first level's blocks and the first convolution.
    numbers = [int(key[len(UNET) :].split(".")[1]) for key in tensors if ".0.op.weight" in key and "input_blocks" in key]
    first = min(numbers, default=_count(tensors, f"{UNET}input_blocks."))
    return _without_none(convert_ldm_unet_checkpoint(tensors, {"layers_per_block": max(first - 1, 0)}))


def convert_vae(tensors: StateDict) -> StateDict:
    """Those of the VAE, which may have diffusers' names already."""
    tensors = {key.removeprefix(VAE): tensor for key, tensor in tensors.items()}
    if any(key.startswith("encoder.down_blocks.") for key in tensors):
        return {current_name(key): tensor for key, tensor in tensors.items()}
    levels = [""] * _count(tensors, "encoder.down.")
    return _without_none(convert_ldm_vae_checkpoint(tensors, {"down_block_types": levels, "up_block_types": levels}))


def convert_text(tensors: StateDict) -> StateDict:
    """Those of the text encoder, by the names of transformers' CLIPTextModel."""
    if not any(key.startswith(OPEN_CLIP) for key in tensors):
        return _without_none(convert_ldm_clip_checkpoint(tensors))
    # Of the model the converter reads nothing but its width.
    model: Any = SimpleNamespace(config=SimpleNamespace(hidden_size=len(tensors[f"{OPEN_CLIP}ln_final.weight"])))
    return _without_none(convert_open_clip_checkpoint(model, tensors, OPEN_CLIP))


def _without_none(tensors: dict[str, Any]) -> StateDict:
    """Converters give None for some of the tensors that lack."""
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}


def unet_config(tensors: StateDict, is_sd2: bool) -> dict[str, Any]:
    """The config of a UNet with these tensors, which `convert_unet` gave."""
    levels = range(_count(tensors, "down_blocks."))
    channels = [len(tensors[f"down_blocks.{level}.resnets.0.conv1.weight"]) for level in levels]

    def kinds(way: str) -> list[str]:
        crossed = [_count(tensors, f"{way.lower()}_blocks.{level}.attentions.") for level in levels]
        return [f"CrossAttn{way}Block2D" if count else f"{way}Block2D" for count in crossed]

    from_prompt = (tensor.shape[1] for name, tensor in tensors.items() if name.endswith("attn2.to_k.weight"))
    projections = (tensor.dim() for name, tensor in tensors.items() if name.endswith("proj_in.weight"))
    return {
        "sample_size": NATIVE_LATENTS,
        "in_channels": tensors["conv_in.weight"].shape[1],
        "out_channels": len(tensors["conv_out.weight"]),
        "block_out_channels": channels,
        "down_block_types": kinds("Down"),
        "up_block_types": kinds("Up"),
        "layers_per_block": _count(tensors, "down_blocks.0.resnets."),
        "cross_attention_dim": next(from_prompt, None),
        "attention_head_dim": [count // HEAD_WIDTH for count in channels] if is_sd2 else HEADS,
        "use_linear_projection": next(projections, 4) == 2,
    }


def vae_config(tensors: StateDict) -> dict[str, Any]:
    """The config of a VAE with these tensors, which `convert_vae` gave."""
    levels = range(_count(tensors, "encoder.down_blocks."))
    return {
        "block_out_channels": [len(tensors[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"]) for level in levels],
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "layers_per_block": _count(tensors, "encoder.down_blocks.0.resnets."),
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in tensors,
        "scaling_factor": SCALING_FACTOR,
    }


def text_config(tensors: StateDict, is_sd2: bool) -> dict[str, Any]:
    """The config of a text encoder with these tensors, which `convert_text` gave."""
    vocabulary, width = tensors["embeddings.token_embedding.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": len(tensors["encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": _count(tensors, "encoder.layers."),
        "num_attention_heads": width // HEAD_WIDTH,
        "max_position_embeddings": len(tensors["embeddings.position_embedding.weight"]),
        "hidden_act": "gelu" if is_sd2 else "quick_gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def _count(names: Iterable[str], start: str) -> int:
    """How many different parts follow `start` in the names."""
    return len({name[len(start) :].partition(".")[0] for name in names if name.startswith(start)})
