"""The base model's VAE: encodes pictures to latents and decodes latents to pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from seesr.autoencoder.estimated import EstimatedTiledAutoencoder
from seesr.autoencoder.exact import TiledAutoencoder
from seesr.autoencoder.feature_maps import MapStorage
from seesr.weights.state_dict import load_network

MAX_EXACT_MAP_BYTES = 16 << 30
"""Largest feature map that is stored whole, in memory or in files; beyond it the statistics of group norms are estimated."""
MAX_ATTENTION_LATENTS = 1 << 18
"""Latent pixels (512x512) up to which attention in the mid block is over all pixels; its cost grows with their square."""
LEGACY_ATTENTION_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Attention layers of the mid block in checkpoints older than diffusers 0.15, and their names now."""


def load_vae(folder: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """Reads the AutoencoderKL of a `vae/` folder.

    Raises:
        WeightsError: a file is missing, or the tensors do not fit the config.
    """
    return load_network(folder, build_vae, dtype, lambda weights: {current_name(key): weights[key] for key in weights})


def build_vae(config: dict[str, Any]) -> AutoencoderKL:
    """Without weights: on the meta device."""
    with torch.device("meta"):
        return AutoencoderKL.from_config(config).eval()


def current_name(key: str) -> str:
    """diffusers' present name of a tensor of a VAE."""
    if ".attentions." in key:
        for legacy, current in LEGACY_ATTENTION_NAMES.items():
            key = key.replace(legacy, current)
    return key


def vae_scale_factor(vae: AutoencoderKL) -> int:
    """Pixels for each latent pixel along a side: 8 for the published model."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


@dataclass(frozen=True)
class VAETiling:
    """How the VAE processes a picture: whole if `tile` is 0 or covers it, else in tiles of `tile` latent pixels a side.

    `storage` holds the feature maps of exact tiles."""

    tile: int = 0
    storage: MapStorage = field(default_factory=MapStorage)


def tiling_mode(vae: AutoencoderKL, height: int, width: int, tile: int) -> str:
    """How latents of this size are processed: `whole`, in `exact tiles` or in `estimated tiles`."""
    if is_whole(tile, height, width):
        return "whole"
    return "estimated tiles" if height * width > max_exact_latents(vae) else "exact tiles"


def is_whole(tile: int, height: int, width: int) -> bool:
    """Whether latents of this size are processed whole, all pictures of a batch together."""
    return tile == 0 or max(height, width) <= tile


def max_exact_latents(vae: AutoencoderKL) -> int:
    """Number of latent pixels of a picture up to which tiles are exact."""
    map_bytes = max(vae.config.block_out_channels[:2]) * vae_scale_factor(vae) ** 2 * vae.dtype.itemsize
    return min(MAX_EXACT_MAP_BYTES // map_bytes, MAX_ATTENTION_LATENTS if attention_width(vae) else MAX_EXACT_MAP_BYTES)


def attention_width(vae: AutoencoderKL) -> int:
    """Channels of the attention in the mid block; 0 if it has none."""
    return max((layer.to_k.out_features for layer in vae.decoder.mid_block.attentions if layer is not None), default=0)


def encode(vae: AutoencoderKL, image: Tensor, tiling: VAETiling | None = None) -> Tensor:
    """Latents `(B, C, H / f, W / f)` of RGB `(B, 3, H, W)` in 0..1: the posterior's mode, scaled as the UNet expects.

    In tiles the picture stays on its device, and only one tile at a time is moved to the VAE's.
    """
    factor, tiling = vae_scale_factor(vae), tiling or VAETiling()
    mode = tiling_mode(vae, image.shape[2] // factor, image.shape[3] // factor, tiling.tile)
    pixels = 2 * (image.to(vae.device) if mode == "whole" else image) - 1
    if mode == "whole":
        latents = vae.encode(_in_memory_format_of(pixels.to(vae.dtype), vae)).latent_dist.mode()
    elif mode == "exact tiles":
        latents = TiledAutoencoder(vae, tiling.tile, tiling.storage).encode(pixels)
    else:
        latents = torch.cat([EstimatedTiledAutoencoder(vae, tiling.tile).encode(picture) for picture in pixels.split(1)])
    return latents.to(vae.device, vae.dtype) * vae.config.scaling_factor


def decode(vae: AutoencoderKL, latents: Tensor, tiling: VAETiling | None = None) -> Tensor:
    """RGB `(B, 3, H, W)` in float32, about 0..1 and not clamped, of scaled latents `(B, C, h, w)`.

    It is on the VAE's device; with exact tiles, on the storage's; with estimated tiles, on the CPU.
    """
    tiling = tiling or VAETiling()
    mode = tiling_mode(vae, latents.shape[2], latents.shape[3], tiling.tile)
    unscaled = latents / vae.config.scaling_factor
    if mode == "whole":
        pixels = vae.decode(_in_memory_format_of(unscaled, vae)).sample
    elif mode == "exact tiles":
        pixels = TiledAutoencoder(vae, tiling.tile, tiling.storage).decode(unscaled)
    else:
        pixels = torch.cat([EstimatedTiledAutoencoder(vae, tiling.tile).decode(picture) for picture in unscaled.split(1)])
    # First to float32: bfloat16 is finer near 0, the centre of -1..1, than near 0.5.
    return pixels.float() / 2 + 0.5


def _in_memory_format_of(values: Tensor, vae: AutoencoderKL) -> Tensor:
    """`values` in the memory format of the VAE's weights; all feature maps then have it too."""
    weight = vae.decoder.conv_in.weight
    contiguous = weight.is_contiguous()
    return values.contiguous(memory_format=torch.contiguous_format if contiguous else torch.channels_last)
