"""The base model's VAE: pictures to latents and back."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from seesr.weights.state_dict import DIFFUSERS_FILE, assign_state_dict, read_config, read_state_dict

LEGACY_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""How checkpoints older than diffusers 0.15 call the mid-block attention."""


def load_vae(folder: Path, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """AutoencoderKL of a `vae/` folder.

    Raises:
        WeightsError: a file is missing, or its tensors do not fit its config.
    """
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(read_config(folder / "config.json")).eval()
    weights = {_current_name(key): tensor for key, tensor in read_state_dict(folder, DIFFUSERS_FILE).items()}
    assign_state_dict(vae, weights, str(folder), dtype)
    return vae


def _current_name(key: str) -> str:
    if ".attentions." in key:
        for old, new in LEGACY_ATTENTION.items():
            key = key.replace(old, new)
    return key


def scale_factor(vae: AutoencoderKL) -> int:
    """Pixels a side for each latent: 8 for the published model."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def encode(vae: AutoencoderKL, image: Tensor) -> Tensor:
    """Latents `(B, C, H / f, W / f)` of RGB `(B, 3, H, W)` in 0..1: the posterior's mode, scaled as the UNet expects."""
    return vae.encode(2 * image - 1).latent_dist.mode() * vae.config.scaling_factor


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """RGB `(B, 3, H, W)`, about 0..1 and not clamped, of scaled latents."""
    return vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5
