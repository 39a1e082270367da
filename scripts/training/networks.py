"""The networks that `sr` trains together: new ones that begin near the identity, and those of a weights folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scripts.training.configs import CONTROLNET_CONFIG, TEXT_CONFIG, UNET_CONFIG, VAE_CONFIG
from scripts.training.identity_start import start_autoencoder, start_denoiser
from seesr.autoencoder.vae import load_vae
from seesr.diffusion.denoiser import Denoiser, load_denoiser
from seesr.diffusion.image_attention import build_controlnet, build_unet
from seesr.diffusion.text import PromptEncoder, load_prompt_encoder
from seesr.machine.device import to_device
from seesr.tagging.prompt import build_prompt


class Networks(NamedTuple):
    """The trained networks; the names of the fields are keys in a checkpoint of `sr`."""

    vae: AutoencoderKL
    denoiser: Denoiser
    text: PromptEncoder


def build_networks(tokenizer: Path) -> Networks:
    """Fresh networks of the small configs, for the vocabulary of a `tokenizer/` folder."""
    clip_tokenizer = CLIPTokenizer.from_pretrained(tokenizer)
    special = {
        "vocab_size": len(clip_tokenizer),
        "bos_token_id": clip_tokenizer.bos_token_id,
        "eos_token_id": clip_tokenizer.eos_token_id,
        "pad_token_id": clip_tokenizer.pad_token_id,
    }
    text_encoder = CLIPTextModel(CLIPTextConfig(**TEXT_CONFIG, **special))
    unet_and_controlnet = [build_unet(UNET_CONFIG), build_controlnet(CONTROLNET_CONFIG)]
    for network in unet_and_controlnet:
        network.to_empty(device="cpu")
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        for name, parameter in network.named_parameters():
            if name.startswith("controlnet_") and "cond_embedding" not in name:
                nn.init.zeros_(parameter)
    return Networks(AutoencoderKL(**VAE_CONFIG), Denoiser(*unet_and_controlnet), PromptEncoder(clip_tokenizer, text_encoder))


def load_networks(folder: Path) -> Networks:
    """The networks of a weights folder."""
    base = folder / "sd-turbo"
    return Networks(load_vae(base / "vae"), load_denoiser(folder), load_prompt_encoder(base))


def networks_to_train(
    tokenizer: Path, start: Path | None, examples: Tensor, image_tokens: Tensor, device: torch.device
) -> Networks:
    """Networks that begin near the identity, or with the weights of the folder `start`.

    Args:
        tokenizer: a `tokenizer/` folder.
        examples: pictures `(B, 3, H, W)` in -1..1, from which fresh weights get their scale.
        image_tokens: `(B, n, 512)` of pictures.
    """
    networks = build_networks(tokenizer)
    # Even if weights of `start` follow: this also marks the parameters that are trained slowly.
    _start_as_identity(networks, examples, image_tokens)
    if start is not None:
        for network, trained in zip(networks, load_networks(start), strict=True):
            network.load_state_dict(trained.state_dict())
    # They stay in `eval` mode: `train` mode would only make diffusers' blocks copy feature maps out of channels last.
    for network in networks:
        to_device(network, device)
    return networks


def _start_as_identity(networks: Networks, examples: Tensor, image_tokens: Tensor) -> None:
    """Sets fresh networks so that the picture goes through them nearly unchanged."""
    vae, denoiser, text = networks
    start_autoencoder(vae, examples)
    latents = vae.encode(examples).latent_dist.mode().detach()
    prompt_embeds = text([build_prompt([], "")] * len(examples)).detach()
    start_denoiser(
        denoiser.unet,
        denoiser.controlnet,
        lambda: denoiser(torch.randn_like(latents), 999, examples / 2 + 0.5, prompt_embeds, image_tokens),
    )
