"""Stage `sr`: VAE, UNet, ControlNet and text encoder learn together to enlarge photographs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scripts.training.batches import batches, one_batch, to_pixels
from scripts.training.configs import SCHEDULER_CONFIG
from scripts.training.degradations import low_quality
from scripts.training.device import autocast, training_device
from scripts.training.files import copy_once, save_picture
from scripts.training.identity_start import smooth_upsampling
from scripts.training.losses import (
    FINISH_JOINS,
    GRID_PERIODS,
    Balance,
    detail_loss,
    direction_loss,
    grid_loss,
    perceptual_loss,
    sharpness_loss,
)
from scripts.training.networks import Networks, networks_to_train
from scripts.training.options import Images, Work, require
from scripts.training.photographs import EXAMPLES, HELD_OUT, Reduce, low_resolution, read_split
from scripts.training.run import Run
from scripts.training.taggings import tag_photographs
from scripts.training.tokenizer import train_tokenizer
from seesr.cleaner import Cleaner, clean, load_cleaner
from seesr.diffusion.sampler import ddim_step
from seesr.diffusion.schedule import NoiseSchedule
from seesr.evaluation.stlpips import INSTALL_HINT, STLPIPS
from seesr.images import resize
from seesr.images.colour import wavelet_fix
from seesr.machine.device import CPU, to_device
from seesr.tagging.prompt import build_prompt
from seesr.weights.resolve import CLEANER

MARGIN = 8
"""Pixels at the border of a crop that no loss looks at."""
PLAIN_FACTOR, DEGRADED_FACTOR = 0.5, 2.0
"""Weights of the perceptual loss for plain bicubic inputs, whose pixels are known better, and for degraded ones."""
BAD = ("second order", "web")
"""What `--bad` is a share of: how inputs of the cleaner are degraded that are neither plain nor a camera's."""
SNAPSHOT_EVERY = 500
"""Steps after which the average of weights is kept for `export --step`."""


def sr(
    images: Images,
    work: Work,
    steps: int = 2700,
    batch: int = 8,
    size: Annotated[int, typer.Option(help="Side of a crop: 16 plus a multiple of 112.")] = 128,
    perceptual_from: Annotated[float, typer.Option(help="Share of the steps before the VGG loss joins.")] = 0.1,
    perceptual_full: Annotated[float, typer.Option(help="Share of the steps at which it has its weight.")] = 0.5,
    perceptual_weight: Annotated[float, typer.Option(help="Weight of the VGG loss; it grows from 0.")] = 0.5,
    grid_weight: Annotated[float, typer.Option(help="Weight of the grid loss; it grows from a tenth of it.")] = 3.0,
    direction_weight: Annotated[
        float, typer.Option(help="Weight of the direction loss; it grows once the VGG loss has its full weight.")
    ] = 0.1,
    sharpness_weight: Annotated[
        float, typer.Option(help="Weight of the sharpness loss; it grows with the direction loss's.")
    ] = 0.05,
    learning_rate: float = 2.6e-4,
    steady: Annotated[float, typer.Option(help="Share of the steps before the learning rate begins to fall.")] = 0.0,
    ram: Annotated[
        Path | None, typer.Option(help="Tagger to take, e.g. weights/tiny/ram; else that of WORK.", exists=True)
    ] = None,
    cleaner: Annotated[
        Path | None, typer.Option(help="Cleaner to take, e.g. weights/tiny/cleaner; else that of WORK.", exists=True)
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights folder to begin with, instead of from nothing.", exists=True)
    ] = None,
    bad: Annotated[
        float, typer.Option(help="Share of the inputs that are as bad as most that the cleaner is taught on.")
    ] = 0.0,
    checkpointing: Annotated[bool, typer.Option(help="Computes activations twice, to save memory.")] = False,
    seed: int = 0,
) -> None:
    """VAE, UNet, ControlNet and text encoder together, through the decoder, at the timesteps of 1 to 4 steps."""
    balance = Balance(
        perceptual_from,
        perceptual_full,
        perceptual_weight=perceptual_weight,
        grid_weight=grid_weight,
        direction_weight=direction_weight,
        sharpness_weight=sharpness_weight,
    )
    _check_options(size, steady, bad, balance)
    torch.manual_seed(seed)
    device = training_device()
    photographs, held_out = read_split(images, size)
    copy_once(ram, work / "ram")
    copy_once(cleaner, work / CLEANER)
    prepare, reduce = _cleaning_by(load_cleaner(work / CLEANER)), _reducing(bad)
    taggings, held_out_taggings = (tag_photographs(some, work / "ram", device) for some in (photographs, held_out))
    schedule = NoiseSchedule.from_config(SCHEDULER_CONFIG)
    tokenizer = work / "tokenizer"
    if start is not None:
        copy_once(start / "sd-turbo" / "tokenizer", tokenizer)
    elif not tokenizer.exists():
        train_tokenizer(taggings.names, tokenizer)
    examples = to_pixels(one_batch(photographs.crops(size, 1), EXAMPLES, seed)[0], CPU)
    networks = networks_to_train(tokenizer, start, examples, taggings.image_tokens[:EXAMPLES].float(), device)
    vae, denoiser, text = networks
    if checkpointing:
        for network in (vae, denoiser.unet, denoiser.controlnet):
            network.enable_gradient_checkpointing()
    perceptual = STLPIPS("vgg")
    to_device(perceptual, device)
    settings = {
        "batch": batch,
        "size": size,
        "photographs": len(photographs.images),
        **asdict(balance),
        "start": start and str(start),
        "bad": bad,
        "beta_start": SCHEDULER_CONFIG["beta_start"],
        "seed": seed,
    }
    run = Run(
        "sr",
        work,
        networks._asdict(),
        steps,
        learning_rate,
        steady=steady,
        constrain=lambda: smooth_upsampling(vae, denoiser.unet),
        settings=settings,
        snapshot_every=SNAPSHOT_EVERY,
    )
    drawn = batches(photographs.crops(size, 4, prepare, reduce), batch, seed, run.step)
    *shown, _, shown_indices = one_batch(held_out.crops(size, 1, prepare, reduce), HELD_OUT, seed)
    shown_high, shown_low = (to_pixels(crops, device) for crops in shown)
    while run.step < steps:
        torch.manual_seed(seed + run.step)
        rng, progress = np.random.default_rng([seed, run.step, 1]), run.step / steps  # not the generator of the batches
        *crops, plain, indices = next(drawn)
        high, low = (to_pixels(pixels, device) for pixels in crops)
        prompts = [taggings.prompt(i, rng) for i in indices]
        image_tokens = taggings.image_tokens[indices].float().to(device)
        with autocast(device), _math_attention(device):
            x0 = _predict_x0(networks, schedule, low, text(prompts), image_tokens, rng)
            reconstructed = vae.encode(high[:1]).latent_dist.sample()
            decoded = vae.decode(torch.cat([x0, reconstructed])).sample
        losses, output, truth = _losses(decoded.float(), low, high)
        losses["perceptual"] = high.new_zeros(())
        if balance.perceptual_growth(progress) > 0:
            factors = torch.from_numpy(np.where(plain, PLAIN_FACTOR, DEGRADED_FACTOR)).float().to(device)
            losses["perceptual"] = perceptual_loss(perceptual, output, truth, factors, rng)
        loss = balance.total(losses, progress)
        losses["bicubic"] = detail_loss(_without_border(low), truth)
        with _math_attention(device):  # with --checkpointing it is computed again, and must be the same
            run.optimize(loss, losses)
        if run.is_due(250):
            with torch.no_grad(), run.averaged():
                embeds = text([build_prompt([], "")] * HELD_OUT)
                image_tokens = held_out_taggings.image_tokens[shown_indices].float().to(device)
                x0 = _predict_x0(networks, schedule, shown_low, embeds, image_tokens, np.random.default_rng(0))
                enlarged = wavelet_fix(vae.decode(x0).sample, shown_low)
                save_picture(work / f"sr_{run.step:06d}.png", shown_low, enlarged, shown_high)


def _check_options(size: int, steady: float, bad: float, balance: Balance) -> None:
    """Raises typer.BadParameter where something is missing or options do not fit together."""
    require(STLPIPS.is_installed(), INSTALL_HINT)
    longest, margin = max(GRID_PERIODS.values()), 2 * MARGIN
    require(size > margin and size % longest == margin, f"--size {size} is not {margin} plus a multiple of {longest}")
    full, latest = balance.perceptual_full, 1 - FINISH_JOINS
    require(balance.perceptual_from < full, "--perceptual-from must be less than --perceptual-full")
    no_time = f"--perceptual-full {full} leaves the direction and sharpness losses no time: at most {latest}"
    has_time = full <= latest or not (balance.direction_weight or balance.sharpness_weight)
    require(has_time, f"{no_time}, or both weights 0")
    require(0 <= steady < 1, f"--steady {steady} is not from 0 to less than 1")
    require(0 <= bad <= 1, f"--bad {bad} is not from 0 to 1")


def _losses(decoded: Tensor, low: Tensor, high: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """All losses but the perceptual one, and what that compares: the output after the colour fix, and the truth.

    Args:
        decoded: `(B + 1, 3, H, W)` in -1..1, what the decoder made of the pictures and, last, of the first one's truth.
        low: `(B, 3, H, W)`, the pictures as they went in.
        high: their truths.
    """
    fixed = wavelet_fix(decoded, torch.cat([low, high[:1]]))
    decoded, fixed, high = (_without_border(pixels) for pixels in (decoded, fixed, high))
    output, reconstruction = fixed[:-1], fixed[-1:]
    losses = {
        "raw": (decoded - torch.cat([high, high[:1]])).abs().mean(),
        "vae": detail_loss(reconstruction, high[:1]),
        "detail": detail_loss(output, high),
        "grid": grid_loss(output, high),
        "direction": direction_loss(output, high),
        "sharpness": sharpness_loss(output, high),
    }
    return losses, output, high


def _without_border(pixels: Tensor) -> Tensor:
    """At a picture's border convolutions see zeros; inference pads pictures there and crops the result."""
    return pixels[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def _math_attention(device: torch.device) -> AbstractContextManager[object]:
    """Attention that is not fused on a CPU, where the backward pass of the fused one takes a fifth of a training step."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _reducing(bad: float) -> Reduce:
    """As `low_resolution` does it; a share `bad` of the photographs in the `BAD` manners of the cleaner's."""

    def reduce(high: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, bool]:
        return (low_quality(high, rng, BAD), False) if bad and rng.random() < bad else low_resolution(high, rng)

    return reduce


def _cleaning_by(cleaner: Cleaner) -> Callable[[Image.Image], Image.Image]:
    """The cleaning that inference does before it enlarges a picture."""

    def cleaned(image: Image.Image) -> Image.Image:
        with torch.inference_mode():
            return resize.to_image(clean(cleaner, resize.to_tensor(image)))

    return cleaned


def _predict_x0(
    networks: Networks,
    schedule: NoiseSchedule,
    low: Tensor,
    prompt_embeds: Tensor,
    image_tokens: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """x0 as predicted at one of the steps of a 1 to 4 step sampling; the steps before it run without gradients."""
    count = int(rng.choice([1, 2, 3, 4], p=[0.55, 0.3, 0.05, 0.1]))
    timesteps = schedule.timesteps(count)
    chosen = int(rng.integers(count))

    def predict(latents: Tensor, timestep: int) -> Tensor:
        return networks.denoiser(latents, timestep, low / 2 + 0.5, prompt_embeds, image_tokens).float()

    with torch.no_grad():
        latents = networks.vae.encode(low).latent_dist.mode()
        latents = schedule.add_noise(latents, torch.randn_like(latents), timesteps[0])
        for timestep, following in zip(timesteps[:chosen], timesteps[1 : chosen + 1], strict=True):
            latents = ddim_step(schedule, predict(latents, timestep), latents, timestep, following)
    return schedule.x0_and_noise(predict(latents, timesteps[chosen]), latents, timesteps[chosen])[0]
