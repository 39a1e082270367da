"""The base model's VAE: pictures to latents and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from seesr.autoencoder.estimated import EstimatedAutoencoder
from seesr.autoencoder.exact import TiledAutoencoder
from seesr.autoencoder.feature_maps import MapMemory
from seesr.weights.state_dict import load_network

EXACT_MAP_BYTES = 16 << 30
"""Largest map that is kept whole, in memory or in files; beyond it statistics are estimated."""
EXACT_ATTENTION_LATENTS = 1 << 18
"""Latent pixels (512x512) up to which the mid-block's attention looks at all others; its cost grows with their square."""
LEGACY_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""How checkpoints older than diffusers 0.15 call the mid-block attention."""


def load_vae(folder: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """AutoencoderKL of a `vae/` folder.

    Raises:
        WeightsError: a file is missing, or its tensors do not fit its config.
    """
    return load_network(folder, _build, dtype, lambda tensors: {_current_name(key): tensors[key] for key in tensors})


def _build(config: dict[str, Any]) -> AutoencoderKL:
    with torch.device("meta"):
        return AutoencoderKL.from_config(config).eval()


def _current_name(key: str) -> str:
    if ".attentions." in key:
        for old, new in LEGACY_ATTENTION.items():
            key = key.replace(old, new)
    return key


def scale_factor(vae: AutoencoderKL) -> int:
    """Pixels a side for each latent: 8 for the published model."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


@dataclass(frozen=True)
class Tiling:
    """How the VAE goes over a picture: whole with `tile` 0, else in tiles of so many latent pixels a side."""

    tile: int = 0
    memory: MapMemory = field(default_factory=MapMemory)


def tiling_mode(vae: AutoencoderKL, height: int, width: int, tile: int) -> str:
    """What is done for latents of this size: `whole`, `exact tiles` or `estimated tiles`."""
    if is_whole(tile, height, width):
        return "whole"
    return "estimated tiles" if height * width > largest_exact(vae) else "exact tiles"


def is_whole(tile: int, height: int, width: int) -> bool:
    """Whether latents of this size are worked on in one piece, all pictures of a batch together."""
    return tile == 0 or max(height, width) <= tile


def largest_exact(vae: AutoencoderKL) -> int:
    """Latent pixels up to which tiles are exact."""
    map_bytes = max(vae.config.block_out_channels[:2]) * scale_factor(vae) ** 2 * vae.dtype.itemsize
    return min(EXACT_MAP_BYTES // map_bytes, EXACT_ATTENTION_LATENTS if attention_width(vae) else EXACT_MAP_BYTES)


def attention_width(vae: AutoencoderKL) -> int:
    """Width of the mid-block's attention, 0 where it has none."""
    return max((layer.to_k.out_features for layer in vae.decoder.mid_block.attentions if layer is not None), default=0)


def encode(vae: AutoencoderKL, image: Tensor, tiling: Tiling | None = None) -> Tensor:
    """Latents `(B, C, H / f, W / f)` of RGB `(B, 3, H, W)` in 0..1: the posterior's mode, scaled as the UNet expects.

    In tiles the picture stays where it is, and only the tile at work goes to the VAE's device.
    """
    factor, tiling = scale_factor(vae), tiling or Tiling()
    mode = tiling_mode(vae, image.shape[2] // factor, image.shape[3] // factor, tiling.tile)
    pixels = 2 * (image.to(vae.device) if mode == "whole" else image) - 1
    if mode == "whole":
        latents = vae.encode(_laid_out(pixels.to(vae.dtype), vae)).latent_dist.mode()
    elif mode == "exact tiles":
        latents = TiledAutoencoder(vae, tiling.tile, tiling.memory).encode(pixels)
    else:
        latents = torch.cat([EstimatedAutoencoder(vae, tiling.tile).encode(one) for one in pixels.split(1)])
    return latents.to(vae.device, vae.dtype) * vae.config.scaling_factor


def decode(vae: AutoencoderKL, latents: Tensor, tiling: Tiling | None = None) -> Tensor:
    """RGB `(B, 3, H, W)` in float32, about 0..1 and not clamped, of scaled latents: on the VAE's device, from exact tiles
    where maps lie, from estimated ones on the host."""
    tiling = tiling or Tiling()
    mode, unscaled = tiling_mode(vae, *latents.shape[2:], tiling.tile), latents / vae.config.scaling_factor
    if mode == "whole":
        pixels = vae.decode(_laid_out(unscaled, vae)).sample
    elif mode == "exact tiles":
        pixels = TiledAutoencoder(vae, tiling.tile, tiling.memory).decode(unscaled)
    else:
        pixels = torch.cat([EstimatedAutoencoder(vae, tiling.tile).decode(one) for one in unscaled.split(1)])
    # bfloat16 tells numbers near 0 finer than those around a half.
    return pixels.float() / 2 + 0.5


def _laid_out(values: Tensor, vae: AutoencoderKL) -> Tensor:
    """`values` as the convolutions' weights are: all maps then are so too."""
    weight = vae.decoder.conv_in.weight
    contiguous = weight.is_contiguous()
    return values.contiguous(memory_format=torch.contiguous_format if contiguous else torch.channels_last)
