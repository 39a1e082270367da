"""Command `line-drawings`: an adapter (LoRA) that makes the pictogram checkpoint draw black lines on white.

peft adds to each layer of the text encoder and of the UNet's blocks, convolutions too, a product of two narrow matrices
(Hu et al., ICLR 2022); they alone are trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from scripts.training.device import training_device
from scripts.training.options import Work, require
from scripts.training.pictogram_pictures import LINES, Pictogram, fetched_pictograms
from scripts.training.pictogram_scenes import Scene
from scripts.training.pictograms import encoded_pool, pictures_digest, step_loss
from scripts.training.run import Run, short_digest
from seesr.autoencoder.vae import load_vae
from seesr.diffusion.text import PromptEncoder
from seesr.machine.device import to_device

RANK = 8
LAYERS = r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|conv1|conv2|ff\.net\.0\.proj|ff\.net\.2)"
"""Of the UNet, by the ends of their names."""
TEXT_LAYERS = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
"""Of the text encoder."""
UNNAMED = 0.1
"""Share of the captions that are empty, for guidance."""


def line_drawings(
    work: Work,
    output: Annotated[Path, typer.Option(help="File to write, e.g. weights/pictograms/loras/line_drawings.safetensors.")],
    checkpoint: Annotated[Path, typer.Option(help="What `pictograms` wrote.", exists=True)] = Path("weights/pictograms"),
    packages: Annotated[Path | None, typer.Option(help="As in `pictograms`.")] = None,
    steps: int = 600,
    batch: int = 16,
    seed: int = 0,
) -> None:
    """The LoRA with which the pictogram checkpoint draws black lines on white."""
    pictures = fetched_pictograms(work, "lines.npz", packages, {LINES: "line drawing"})
    train_line_drawings(pictures, work, output, checkpoint, steps, batch, seed)


def train_line_drawings(
    pictures: list[Pictogram], work: Path, output: Path, checkpoint: Path, steps: int, batch: int, seed: int
) -> None:
    """Trains the adapter and writes it as diffusers does; goes on where it was when it is run again with the same `work`."""
    from peft import LoraConfig
    from peft.utils.save_and_load import get_peft_model_state_dict

    require(0 < batch <= 1024 and steps > 0, "--batch and --steps must be positive")
    device = training_device()
    vae = load_vae(checkpoint / "vae")
    to_device(vae, device)
    scenes, said = [Scene((pictogram,)) for pictogram in pictures], pictures_digest(pictures)
    latents = encoded_pool(vae, scenes, work, vae.config.scaling_factor, said)
    text = CLIPTextModel.from_pretrained(checkpoint / "text_encoder").float().requires_grad_(False)
    prompts = PromptEncoder(CLIPTokenizer.from_pretrained(checkpoint / "tokenizer"), text)
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet").float().requires_grad_(False)
    torch.manual_seed(seed)
    begun = short_digest(*(tensor.detach().cpu().numpy().tobytes() for tensor in text.state_dict().values()))
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
    text.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TEXT_LAYERS))
    unet.to(device)
    prompts.to(device)
    settings = {"batch": batch, "seed": seed, "checkpoint": begun, "pictures": said}
    run = Run("line_drawings", work, {"unet": unet, "text": text}, steps, learning_rate=1e-3, steady=0.5, settings=settings)
    noise_levels = DDIMScheduler.from_pretrained(checkpoint / "scheduler").alphas_cumprod.to(device)
    while run.step < steps:
        rng = np.random.default_rng([seed, run.step])
        chosen = rng.integers(len(pictures), size=batch)
        captions = ["" if rng.random() < UNNAMED else str(rng.choice(pictures[int(i)].names)) for i in chosen]
        clean = torch.from_numpy(latents[chosen]).to(device).float()
        loss = step_loss(clean, captions, prompts, unet, noise_levels, rng)
        run.optimize(loss, {"loss": loss})
    run.take_average()
    of_unet, of_text = (
        {key: tensor.half() for key, tensor in get_peft_model_state_dict(model).items()} for model in (unet, text)
    )
    # As transformers before 5 named them, which those after accept.
    of_text = {f"text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in of_text.items()}
    StableDiffusionPipeline.save_lora_weights(
        output.parent, unet_lora_layers=of_unet, text_encoder_lora_layers=of_text, weight_name=output.name
    )
    print(f"{output}: after {run.step} steps, {output.stat().st_size / 1e6:.2f} MB")
