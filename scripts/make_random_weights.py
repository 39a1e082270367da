"""Writes a weights folder in the published layout, full size, with random weights: about 5 GB in float16.

    python scripts/make_random_weights.py FOLDER
    seesr upscale photo.png -o out.png --weights FOLDER

For trying the loaders, memory and speed of the full model where the published weights cannot be had. The pictures are
noise. RAM and DAPE are written as the legacy files that they are published as. The tokenizer is the embedded model's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from seesr.diffusion.image_attention import build_controlnet, build_unet
from seesr.tagging.dape import RANK
from seesr.tagging.ram import RAM, RAMConfig
from seesr.weights.manifest import beside_package

CHANNELS = [320, 640, 1280, 1280]
DENOISER = {
    "in_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "block_out_channels": CHANNELS,
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
UNET = DENOISER | {
    "sample_size": 64,
    "out_channels": 4,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
CONTROLNET = DENOISER | {"conditioning_embedding_out_channels": [16, 32, 96, 256]}
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
    "scaling_factor": 0.18215,
}
TEXT = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def random_like(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that keep a signal's size: norms 1, biases 0, the rest normal over the square root of their inputs."""
    made = {}
    for key, tensor in tensors.items():
        if tensor.ndim >= 2:
            made[key] = (torch.randn(tensor.shape) / tensor[0].numel() ** 0.5).half()
        else:
            made[key] = torch.full(tensor.shape, float(key.endswith("weight")), dtype=torch.float16)
    return made


def write(
    folder: Path, config: dict[str, Any], tensors: Mapping[str, Tensor], stem: str = "diffusion_pytorch_model"
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(random_like(tensors), folder / f"{stem}.safetensors")
    print(folder, flush=True)


def random_dape(ram: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A LoRA for every weight that DAPE changes."""
    made = {}
    for key, weight in ram.items():
        name, is_qkv = key.removesuffix(".weight"), key.endswith("attn.qkv.weight")
        if is_qkv or key.endswith(("self.query.weight", "self.key.weight")):
            rank, rows = (2 * RANK, weight.shape[0] * 2 // 3) if is_qkv else (RANK, weight.shape[0])
            made[f"{name}.lora_A"] = torch.randn(rank, weight.shape[1]) * 0.02
            made[f"{name}.lora_B"] = torch.randn(rows, RANK) * 0.02
    return made


def main(folder: Annotated[Path, typer.Argument(help="Folder to write.")], seed: int = 0) -> None:
    """Writes the folder."""
    torch.manual_seed(seed)
    base, seesr, ram_folder = folder / "sd-turbo", folder / "seesr", folder / "ram"
    unet = build_unet(UNET).state_dict()
    image_attention = {key: tensor for key, tensor in unet.items() if ".image_attentions." in key}
    write(base / "unet", UNET, {key: tensor for key, tensor in unet.items() if key not in image_attention})
    write(seesr / "unet", UNET, image_attention)
    write(seesr / "controlnet", CONTROLNET, build_controlnet(CONTROLNET).state_dict())
    with torch.device("meta"):
        vae, text, ram = AutoencoderKL(**VAE), CLIPTextModel(CLIPTextConfig(**TEXT)), RAM(RAMConfig())
    write(base / "vae", VAE, vae.state_dict())
    write(base / "text_encoder", TEXT, text.state_dict(), "model")
    (base / "scheduler").mkdir(exist_ok=True)
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=1))
    shutil.copytree(beside_package("tiny") / "sd-turbo" / "tokenizer", base / "tokenizer", dirs_exist_ok=True)

    ram_folder.mkdir(exist_ok=True)
    tensors = ram.state_dict()
    torch.save({"model": random_like(tensors)}, ram_folder / "ram_swin_large_14m.pth")
    torch.save(random_dape(tensors), ram_folder / "DAPE.pth")
    names = [f"tag {number}" for number in range(RAMConfig().num_tags)]
    (ram_folder / "ram_tag_list.txt").write_text("\n".join(names) + "\n")
    (ram_folder / "ram_tag_list_threshold.txt").write_text("0.99\n" * len(names))


if __name__ == "__main__":
    typer.run(main)
