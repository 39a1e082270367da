"""Command `export`: the trained networks as a weights folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

from scripts.training.configs import CONTROLNET_CONFIG, SCHEDULER_CONFIG, UNET_CONFIG, VAE_CONFIG
from scripts.training.files import write_json, write_model
from scripts.training.losses import LATENT_SIDE
from scripts.training.networks import build_networks, load_networks
from scripts.training.options import Work, require
from scripts.training.run import snapshot_name
from scripts.training.sr import MARGIN
from seesr.weights.resolve import CLEANER, DEFAULTS_FILE


def export(
    work: Work,
    output: Annotated[Path, typer.Option(help="Folder to write, e.g. weights/tiny.")],
    step: Annotated[int | None, typer.Option(help="Of `sr`, a multiple of 500, instead of where it is now.")] = None,
    blend: Annotated[
        Path | None, typer.Option(help="Weights folder to meet, as a rule the `--start` of `sr`.", exists=True)
    ] = None,
    share: Annotated[float, typer.Option(help="Of the way from those of `--blend`, 0 to 1.")] = 0.5,
) -> None:
    """Writes the trained models in the published folder layout, in float16.

    With `blend` they are on the straight line between two weights (Wortsman et al., CVPR 2022): between what one does better
    and what the other does better.
    """
    require(0 <= share <= 1, f"--share {share} is not from 0 to 1")
    checkpoint = "sr.pt" if step is None else snapshot_name("sr", step)
    for part in (checkpoint, "tokenizer", "ram", CLEANER):
        require((work / part).exists(), f"{work / part} does not exist: train all parts first")
    networks = build_networks(work / "tokenizer")
    trained = torch.load(work / checkpoint, map_location="cpu", weights_only=True)
    others = load_networks(blend)._asdict() if blend else {}
    for name, network in networks._asdict().items():
        state = trained["average"][name]
        if name in others:
            state = {key: tensor.lerp(state[key], share) for key, tensor in others[name].state_dict().items()}
        network.load_state_dict(state)
    base, seesr = (output / part for part in ("sd-turbo", "seesr"))

    unet = networks.denoiser.unet.state_dict()
    image_attention = {key: tensor for key, tensor in unet.items() if ".image_attentions." in key}
    unet_config = UNET_CONFIG | {"_class_name": "UNet2DConditionModel"}
    write_model(base / "unet", unet_config, {key: unet[key] for key in unet.keys() - image_attention.keys()})
    write_model(seesr / "unet", unet_config | {"use_image_cross_attention": True}, image_attention)
    controlnet_config = CONTROLNET_CONFIG | {"_class_name": "ControlNetModel", "use_image_cross_attention": True}
    write_model(seesr / "controlnet", controlnet_config, networks.denoiser.controlnet.state_dict())
    vae_config = VAE_CONFIG | {"_class_name": "AutoencoderKL", "scaling_factor": 1.0}
    write_model(base / "vae", vae_config, networks.vae.state_dict())
    text_encoder = networks.text.text_encoder
    write_model(base / "text_encoder", text_encoder.config.to_dict(), text_encoder.state_dict(), "model")
    write_json(base / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    shutil.copytree(work / "tokenizer", base / "tokenizer", dirs_exist_ok=True)
    for part in ("ram", CLEANER):
        shutil.copytree(work / part, output / part, dirs_exist_ok=True)
    # In bfloat16 so small networks with one group a norm leave blotches of colour; of borders the losses leave MARGIN out; a
    # second step gains nothing.
    write_json(output / DEFAULTS_FILE, {"dtype": "float32", "margin": MARGIN // LATENT_SIDE, "steps": 1})
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: sr after {trained['step']} steps, {size / 2**20:.1f} MiB")
