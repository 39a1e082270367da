"""Command `pictograms`: a small text-to-image checkpoint of Stable Diffusion's kind that draws pictograms on white.

Its autoencoder is the embedded upscaler's with four latent channels in place of sixteen, its text encoder and its UNet begin
at random. The UNet predicts v (Salimans and Ho, 2022). Its errors weigh alike at high noise, where the prompt decides, and
less at low noise: as min-SNR weighting (Hang et al., 2023), which gives high noise next to no weight, with SNR + 1 for SNR.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scripts.training.device import training_device
from scripts.training.files import save_picture, write_json, write_model
from scripts.training.options import Work, require
from scripts.training.pictogram_pictures import SIDE, Pictogram, cached_pictograms, caption, words
from scripts.training.run import Run, short_digest
from scripts.training.tokenizer import train_tokenizer
from seesr.autoencoder.vae import load_vae
from seesr.diffusion.text import PromptEncoder
from seesr.machine.device import to_device

LATENT_CHANNELS, LATENT_SIDE = 4, SIDE // 4
LEARNT_PIECES = 1536
"""Of the vocabulary, at most."""
TEXT_CONFIG = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": 96,
    "hidden_act": "gelu",
}
UNET_CONFIG: dict[str, Any] = {
    "sample_size": LATENT_SIDE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "block_out_channels": [24, 48, 88],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": TEXT_CONFIG["hidden_size"],
    "attention_head_dim": 4,
    "use_linear_projection": True,
}
SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "clip_sample": False,
    "steps_offset": 1,
}
MAX_WEIGHT = 5.0
"""Of an error of the clean latents at low noise, relative to one at the highest."""
CROP = 64
"""Pixels along a side of what the autoencoder is trained on at a time."""
LATENT_NOISE = 0.1
"""Added to latents, whose deviation is about one, when the decoder is trained: those that a UNet makes are not exact."""
DEFAULTS = {"dtype": "float32", "steps": 20, "guidance_scale": 5.0, "largest_side": SIDE}
"""Of seesr.json, for `seesr generate`."""
SHOWN = ("fox", "pizza", "red apple", "rocket", "owl", "sunflower", "snowman", "guitar")
"""What the pictures show that are drawn during training, in two styles each."""


def pictograms(
    work: Work,
    output: Annotated[Path, typer.Option(help="Folder to write, e.g. weights/pictograms.", file_okay=False)],
    packages: Annotated[
        Path | None, typer.Option(help="Folder of the unpacked npm packages; not needed once WORK has the pictures.")
    ] = None,
    autoencoder: Annotated[Path, typer.Option(help="Folder of the AutoencoderKL to begin with.")] = Path(
        "weights/tiny/sd-turbo/vae"
    ),
    autoencoder_steps: int = 400,
    steps: int = 3000,
    batch: int = 16,
    seed: int = 0,
) -> None:
    """The text-to-image checkpoint that draws pictograms."""
    pictures = cached_pictograms(packages, work / "pictures.npz")
    train_pictograms(pictures, work, output, autoencoder, autoencoder_steps, steps, batch, seed)


def train_pictograms(
    pictures: list[Pictogram],
    work: Path,
    output: Path,
    autoencoder: Path,
    autoencoder_steps: int,
    steps: int,
    batch: int,
    seed: int,
) -> None:
    """Trains the autoencoder, then the text encoder and the UNet, and writes all as a folder that stock diffusers loads.

    Both go on where they were when they are run again with the same `work`.
    """
    require(0 < batch <= 1024 and steps > 0 and autoencoder_steps > 0, "--batch and the numbers of steps must be positive")
    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    vae, factor = _train_autoencoder(pixels, work, autoencoder, autoencoder_steps, seed)
    latents = factor * _encode_all(vae, pixels)
    print(
        f"{len(pictures)} pictures, latents scaled by {factor:.4f}, deviations {latents.std(dim=(0, 2, 3)).tolist()}",
        flush=True,
    )
    train_tokenizer(words(pictures), work / "tokenizer", LEARNT_PIECES)
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    text, unet = _text_encoder(tokenizer), UNet2DConditionModel(**UNET_CONFIG)
    device = training_device()
    prompts = PromptEncoder(tokenizer, text).to(device)
    unet.to(device)
    said = short_digest(repr([(p.names, p.keywords, p.style) for p in pictures]).encode(), pixels.numpy().tobytes())
    settings = {"batch": batch, "seed": seed, "autoencoder_steps": autoencoder_steps, "pictures": said}
    models = {"text": text, "unet": unet}
    run = Run("pictograms", work, models, steps, learning_rate=1e-3, weight_decay=1e-3, steady=0.6, settings=settings)
    noise_levels = DDIMScheduler.from_config(SCHEDULER_CONFIG).alphas_cumprod.to(device)
    while run.step < steps:
        loss = _step_loss(pictures, latents.to(device), prompts, unet, noise_levels, batch, [seed, run.step])
        run.optimize(loss, {"loss": loss})
        if run.is_due(250):
            with run.averaged():
                _export(work / "checkpoint", tokenizer, text, unet, vae, factor)
            _draw(work / "checkpoint", work / f"pictograms_{run.step:06d}.png")
    run.take_average()
    _export(output, tokenizer, text, unet, vae, factor)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: after {run.step} steps, {size / 1e6:.2f} MB")


def _step_loss(
    pictures: list[Pictogram],
    latents: Tensor,
    prompts: PromptEncoder,
    unet: UNet2DConditionModel,
    noise_levels: Tensor,
    batch: int,
    seed: list[int],
) -> Tensor:
    """The weighted loss of one batch, which `seed` alone decides, at timesteps that are spread evenly."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(pictures), size=batch)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    noise = torch.randn((batch, *latents.shape[1:]), generator=generator).to(latents.device)
    timesteps = torch.from_numpy(((np.arange(batch) + rng.random(batch)) / batch * len(noise_levels)).astype(np.int64))
    timesteps = timesteps.to(latents.device)
    clean = latents[torch.from_numpy(chosen).to(latents.device)]
    kept = noise_levels[timesteps].view(-1, 1, 1, 1)
    noisy, truth = kept.sqrt() * clean + (1 - kept).sqrt() * noise, kept.sqrt() * noise - (1 - kept).sqrt() * clean
    prompt_embeds = prompts([caption(pictures[i], rng) for i in chosen])
    errors = (unet(noisy, timesteps, prompt_embeds).sample - truth).square().mean(dim=(1, 2, 3))
    # 1 / (1 - kept) is one more than the signal-to-noise ratio: what an error of v weighs as an error of the picture.
    return (errors * (MAX_WEIGHT * (1 - kept)).clamp(max=1).flatten()).mean()


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A fresh one for the vocabulary."""
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextModel(CLIPTextConfig(**TEXT_CONFIG, **special))


def _train_autoencoder(pixels: Tensor, work: Path, start: Path, steps: int, seed: int) -> tuple[AutoencoderKL, float]:
    """An autoencoder of `LATENT_CHANNELS`, trained on crops of uint8 pictures `(N, H, W, 3)`, and the factor that brings its
    latents to a deviation of one."""
    device = training_device()
    vae = narrow_autoencoder(load_vae(start), _in_range(pixels[:: max(1, len(pixels) // 64)]))
    to_device(vae, device)
    run = Run("autoencoder", work, {"vae": vae}, steps, learning_rate=5e-4, steady=0.3, settings={"seed": seed})
    while run.step < steps:
        rng = np.random.default_rng([seed, run.step])
        torch.manual_seed(int(rng.integers(2**62)))
        chosen = torch.from_numpy(rng.integers(len(pixels), size=8))
        left, top = (4 * int(rng.integers((SIDE - CROP) // 4 + 1)) for _ in range(2))
        truth = _in_range(pixels[chosen, top : top + CROP, left : left + CROP]).to(device)
        latents = vae.encode(truth).latent_dist.mode()
        errors = vae.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample - truth
        loss = F.smooth_l1_loss(errors, torch.zeros_like(errors), beta=0.2)
        run.optimize(loss, {"loss": loss, "deviation": latents.std()})
    run.take_average()
    _centre(vae, _encode_all(vae, pixels).mean(dim=(0, 2, 3)).to(device))
    latents = _encode_all(vae, pixels)
    with torch.no_grad():
        shown = slice(None, None, max(1, len(pixels) // 64))
        truth, made = _in_range(pixels[shown]), vae.decode(latents[shown].to(device)).sample.clamp(-1, 1).cpu()
    psnr = -10 * ((made - truth) / 2).square().mean(dim=(1, 2, 3)).log10().mean()
    print(f"autoencoder: {psnr:.2f} dB", flush=True)
    save_picture(work / "autoencoder.png", truth[:8], made[:8])
    return vae, 1 / latents.std().item()


def narrow_autoencoder(vae: AutoencoderKL, pictures: Tensor) -> AutoencoderKL:
    """An autoencoder with the principal components of the latents of `pictures`, `(B, 3, H, W)` in -1..1, as its latents.

    They are centred, and the square root of their deviation is left to each. The posterior is narrow: its deviation is
    about a thousandth.
    """
    encoder, decoder = vae.encoder, vae.decoder
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mode().movedim(1, -1).flatten(0, -2)
        middle = latents.mean(dim=0)
        variances, directions = torch.linalg.eigh((latents - middle).T @ (latents - middle) / len(latents))
        deviations, directions = variances[-LATENT_CHANNELS:].clamp(min=1e-6).sqrt(), directions[:, -LATENT_CHANNELS:]
        into, out_of = (directions / deviations.sqrt()).T, directions * deviations.sqrt()
        config = {**vae.config, "latent_channels": LATENT_CHANNELS}
        narrow = AutoencoderKL.from_config(config).eval()
        state = {key: tensor for key, tensor in vae.state_dict().items() if "quant_conv" not in key}
        # The two convolutions at the latents, with what lies between them and the principal components taken in.
        moments = vae.quant_conv.weight[: len(middle), :, 0, 0]
        weight = torch.einsum("lm,mihw->lihw", into @ moments, encoder.conv_out.weight)
        bias = into @ (moments @ encoder.conv_out.bias + vae.quant_conv.bias[: len(middle)] - middle)
        state["encoder.conv_out.weight"] = torch.cat([weight, torch.zeros_like(weight)])
        state["encoder.conv_out.bias"] = torch.cat([bias, torch.full_like(bias, -14.0)])
        post = vae.post_quant_conv.weight[:, :, 0, 0]
        first = decoder.conv_in.weight
        state["decoder.conv_in.weight"] = torch.einsum("oihw,il->olhw", first, post @ out_of)
        shift = torch.einsum("oihw,i->o", first, post @ middle + vae.post_quant_conv.bias)
        state["decoder.conv_in.bias"] = decoder.conv_in.bias + shift
        for name in ("quant_conv", "post_quant_conv"):
            layer = getattr(narrow, name)
            state[f"{name}.weight"] = torch.eye(layer.out_channels)[:, :, None, None]
            state[f"{name}.bias"] = torch.zeros(layer.out_channels)
        narrow.load_state_dict(state)
    return narrow


@torch.no_grad()
def _centre(vae: AutoencoderKL, mean: Tensor) -> None:
    """Moves latents with this mean to zero: of the highest noise level some of the mean would else be left in training, and
    none where a picture begins."""
    vae.quant_conv.bias[: len(mean)] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean


@torch.no_grad()
def _encode_all(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Latents `(N, C, H / 4, W / 4)`, not scaled."""
    device = training_device()
    return torch.cat([vae.encode(_in_range(part).to(device)).latent_dist.mode().cpu() for part in pixels.split(32)])


def _in_range(pixels: Tensor) -> Tensor:
    """`(B, 3, H, W)` in -1..1 of uint8 `(B, H, W, 3)`."""
    return pixels.movedim(-1, 1).float() / 127.5 - 1


def _export(
    folder: Path,
    tokenizer: CLIPTokenizer,
    text: CLIPTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    factor: float,
) -> None:
    """Writes the folder of a `StableDiffusionPipeline`, in float16."""
    write_json(folder / "seesr.json", DEFAULTS)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    write_json(folder / "model_index.json", index)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    shutil.copytree(Path(tokenizer.name_or_path), folder / "tokenizer", dirs_exist_ok=True)
    # Without a dtype transformers would load it in float16, and diffusers the others in float32.
    write_model(folder / "text_encoder", text.config.to_dict() | {"dtype": "float32"}, text.state_dict(), "model")
    write_model(folder / "unet", UNET_CONFIG | {"_class_name": "UNet2DConditionModel"}, unet.state_dict())
    config = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    config |= {"_class_name": "AutoencoderKL", "scaling_factor": round(factor, 5)}
    write_model(folder / "vae", config, vae.state_dict())


def _draw(folder: Path, path: Path) -> None:
    """Draws `SHOWN` in two styles with the checkpoint of `folder`."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(training_device())
    columns = []
    for style in ("3d", "drawn"):
        asked = [f"{thing}, {style}" for thing in SHOWN]
        seeds = [torch.Generator().manual_seed(number) for number in range(len(asked))]
        made = pipe(asked, num_inference_steps=20, guidance_scale=4.0, generator=seeds, output_type="pt").images
        columns.append(2 * made - 1)
    save_picture(path, *columns)
