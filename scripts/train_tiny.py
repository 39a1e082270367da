"""Trains the embedded model: RAM, cleaner, and VAE, UNet, ControlNet, text encoder, all small, in the published layout.

    python scripts/train_tiny.py ram     --tags TAGGED --work WORK
    python scripts/train_tiny.py cleaner --images PHOTOS --work WORK
    python scripts/train_tiny.py sr      --images PHOTOS --work WORK
                                         [--ram weights/tiny/ram --cleaner weights/tiny/cleaner]
    python scripts/train_tiny.py export  --work WORK --output weights/tiny

The weights here took `sr` twice, the second time with `--start`: weights/README.md has the commands.

Each stage is seeded, writes a checkpoint every two minutes, goes on from it when run again, and logs its losses to
`WORK/<stage>.csv`; `cleaner` and `sr` draw a validation picture every 250 steps and at the end, with the average of weights.
They run on Linux and macOS, on a CPU (in bfloat16 where the CPU is faster in it) or on CUDA.
"""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import cleaning
import imagenet
import numpy as np
import tagger
import torch
import typer
from diffusers import AutoencoderKL
from identity_start import smooth_upsampling, start_autoencoder, start_denoiser
from losses import (
    FINISH_JOINS,
    GRID_PERIODS,
    LATENT_SIDE,
    Balance,
    detail_loss,
    direction_loss,
    grid_loss,
    perceptual_loss,
    sharpness_loss,
)
from photographs import Photographs, batches, one_batch, to_pixels, to_tensor
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from training import Run, autocast, place, save_picture, snapshot_name, training_device, write_json, write_model
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from seesr.autoencoder.vae import load_vae
from seesr.cleaner import Cleaner, clean, load_cleaner
from seesr.diffusion.denoiser import Denoiser, load_denoiser
from seesr.diffusion.image_attention import build_controlnet, build_unet
from seesr.diffusion.sampler import ddim_step
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.text import PromptEncoder, load_prompt_encoder
from seesr.evaluation.degradation import degrade
from seesr.evaluation.stlpips import INSTALL_HINT, STLPIPS
from seesr.images import resize
from seesr.images.colour import wavelet_fix
from seesr.runtime.device import CPU
from seesr.tagging.prompt import QUALITY_WORDS, build_prompt, load_tag_list
from seesr.tagging.ram import load_ram
from seesr.weights.resolve import CLEANER, WISHES

MARGIN = 8
"""Pixels at the border of a crop that no loss looks at."""
PLAIN_FACTOR, DEGRADED_FACTOR = 0.5, 2.0
"""Of the perceptual loss of a plain bicubic picture, of which pixels are known better, and of a degraded one."""
SNAPSHOT_EVERY = 500
"""Steps of `sr` after which its average of weights is kept for `export --step`."""
PARTS = "vae", "denoiser", "text"
"""Of `sr`, as its checkpoint names them."""
WORDS = 3
"""Most tags in a prompt. The tagger gives them only where it is sure, which would teach the prompt's use too rarely."""
HELD_OUT, EXAMPLES = 8, 16
"""Photographs that `cleaner` and `sr` never see, which the validation picture shows; those that fresh weights start from."""
FEWEST = HELD_OUT + EXAMPLES
LEAST_SIDE = 256
"""Of a photograph, in pixels; one for `cleaner` and `sr`, so that both hold out the same ones."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)

VAE_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [16, 32, 64],
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
    "sample_size": 128,
    "force_upcast": False,
}


UNET_CONFIG = {
    "sample_size": 32,
    "in_channels": 16,
    "out_channels": 16,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "block_out_channels": [64, 96, 128],
    "layers_per_block": 1,
    "norm_num_groups": 1,
    "cross_attention_dim": 64,
    "attention_head_dim": [2, 3, 4],
    "use_linear_projection": True,
}
CONTROLNET_CONFIG = {
    key: UNET_CONFIG[key] for key in UNET_CONFIG if key not in ("sample_size", "out_channels", "up_block_types")
} | {"conditioning_embedding_out_channels": [16, 32, 64]}
# Steeper than SD-Turbo's: at the timesteps of 1 to 4 steps, 999 to 249, next to nothing of the latents is left, so that a
# small network need not learn to take the noise out of them; the picture comes through the ControlNet.
SCHEDULER_CONFIG = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.02,
    "beta_end": 0.05,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "clip_sample": False,
    "steps_offset": 1,
}
TEXT_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "projection_dim": 64,
    "hidden_act": "gelu",
}
VOCABULARY, END_OF_WORD, SPECIAL_TOKENS = 1024, "</w>", ("<|startoftext|>", "<|endoftext|>")

Work = Annotated[Path, typer.Option(help="Folder for checkpoints, logs and validation pictures.", file_okay=False)]
Images = Annotated[
    Path, typer.Option(help="Folder of photographs, at best about 512x512, 24 or more.", exists=True, file_okay=False)
]


@app.command()
def ram(
    tags: Annotated[
        Path, typer.Option(help="Folder with images/ and labels.tsv: name, tab, tags between bars.", exists=True)
    ],
    work: Work,
    steps: int = 500,
    dape_steps: int = 60,
    batch: int = 64,
    seed: int = 0,
) -> None:
    """The tagger: projection and tag head on an encoder that ImageNet taught; then DAPE's LoRA for bad pictures."""
    _require(imagenet.encoder_is_installed(), imagenet.INSTALL_HINT)
    device = training_device()
    data = tagger.TaggedPictures.read(tags)
    model = tagger.train_ram(data, work, steps, batch, seed, device)
    lora = tagger.train_dape(model, data, work, dape_steps, batch, seed, device)
    confidences, labels = tagger.held_out_confidences(tagger.adapted(model, lora), data), data.labels[data.held_out]
    tagger.report(confidences, labels)
    thresholds = tagger.choose_thresholds(confidences, labels)
    tagger.write_ram(work / "ram", model, lora, data.tags, thresholds)


@app.command()
def cleaner(
    images: Images,
    work: Work,
    steps: int = 4000,
    batch: int = 16,
    size: Annotated[int, typer.Option(help="Side of a crop of the reduced photograph.")] = 64,
    seed: int = 0,
) -> None:
    """The network that brings bad pictures to what the others are taught on."""
    # Its maps are halved twice, and its losses leave a border out.
    _require(size >= 32 and size % 4 == 0, f"--size {size} is not a multiple of 4 from 32 on")
    photographs = Photographs(images, max(LEAST_SIDE, cleaning.SCALE * size), FEWEST)
    held_out = photographs.split_off(HELD_OUT)
    model = cleaning.train_cleaner(photographs, held_out, work, steps, batch, size, seed)
    cleaning.write_cleaner(work / CLEANER, model)


def train_tokenizer(tags: list[str], folder: Path) -> None:
    """A byte-pair vocabulary of prompts, written as CLIP's `vocab.json` and `merges.txt`."""
    byte_letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    last_letters = [letter + END_OF_WORD for letter in byte_letters]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS),
        initial_alphabet=byte_letters,
        special_tokens=last_letters,  # numbered before it looks at words, in whose order it breaks ties
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    words = " ".join([*tags, QUALITY_WORDS]).lower().replace(",", " , ").split()
    tokenizer.train_from_iterator(words, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    names = [*byte_letters, *last_letters, *(first + second for first, second in merges)]
    names = [*dict.fromkeys(names), *SPECIAL_TOKENS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TEXT_CONFIG["max_position_embeddings"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _build_models(work: Path) -> tuple[AutoencoderKL, Denoiser, PromptEncoder]:
    """Fresh models of the small configs; the tokenizer is read from `work`."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text = CLIPTextModel(CLIPTextConfig(**TEXT_CONFIG, **special, pad_token_id=tokenizer.pad_token_id))
    networks = [build_unet(UNET_CONFIG), build_controlnet(CONTROLNET_CONFIG)]
    for network in networks:
        network.to_empty(device="cpu")
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        for name, parameter in network.named_parameters():
            if name.startswith("controlnet_") and "cond_embedding" not in name:
                nn.init.zeros_(parameter)
    return AutoencoderKL(**VAE_CONFIG), Denoiser(*networks), PromptEncoder(tokenizer, text)


@dataclass
class Conditions:
    """What RAM says of each training photograph: image tokens `(N, n, 512)` of a degraded one, and the tags it is surest
    of in the sharp one, surest first."""

    tokens: Tensor
    tags: list[list[str]]
    names: list[str]
    """All tags there are."""

    def prompt(self, index: int, rng: np.random.Generator) -> str:
        """A prompt with a random number of these tags, often with none."""
        return build_prompt(self.tags[index][: max(0, int(rng.integers(-1, WORDS + 1)))], "")


def _conditions(photographs: Photographs, ram: Path, device: torch.device) -> Conditions:
    model = load_ram(ram).to(device)
    names = load_tag_list(ram, model.config.num_tags).names
    rng, tokens, tags = np.random.default_rng(0), [], []
    with torch.no_grad():
        for image in photographs.images:
            bad, sharp = ((to_tensor(one) / 2 + 0.5)[None].to(device) for one in (degrade(image, rng), image))
            tokens.append(model(bad)[0].half().cpu())
            surest = model(sharp)[1][0].topk(WORDS).indices
            tags.append([names[i] for i in surest])
    return Conditions(torch.cat(tokens), tags, names)


@app.command()
def sr(
    images: Images,
    work: Work,
    steps: int = 2700,
    batch: int = 8,
    size: Annotated[int, typer.Option(help="Side of a crop: 16 and a multiple of 112.")] = 128,
    perceptual_from: Annotated[float, typer.Option(help="Share of the steps before the VGG loss joins.")] = 0.1,
    perceptual_full: Annotated[float, typer.Option(help="Share of the steps at which it has its weight.")] = 0.5,
    perceptual_weight: Annotated[float, typer.Option(help="Of the VGG loss; it grows from nothing.")] = 0.5,
    grid_weight: Annotated[float, typer.Option(help="Of the loss on grids; it grows from a tenth.")] = 3.0,
    direction_weight: Annotated[
        float, typer.Option(help="Of the loss on directions; it grows once the VGG loss is whole.")
    ] = 0.1,
    sharpness_weight: Annotated[
        float, typer.Option(help="Of the loss on sharpness; it grows with that on directions.")
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
    checkpointing: Annotated[bool, typer.Option(help="Computes activations twice, to save memory.")] = False,
    seed: int = 0,
) -> None:
    """VAE, UNet, ControlNet and text encoder together, through the decoder, at the timesteps of 1 to 4 steps."""
    _require(STLPIPS.is_installed(), INSTALL_HINT)
    longest, margin = max(GRID_PERIODS.values()), 2 * MARGIN
    _require(size > margin and size % longest == margin, f"--size {size} is not {margin} and a multiple of {longest}")
    _require(perceptual_from < perceptual_full, "--perceptual-from must be less than --perceptual-full")
    latest = 1 - FINISH_JOINS
    no_time = f"--perceptual-full {perceptual_full} leaves those on directions and sharpness no time: at most {latest}"
    _require(perceptual_full <= latest or not (direction_weight or sharpness_weight), f"{no_time}, or both weights 0")
    _require(0 <= steady < 1, f"--steady {steady} is not from 0 to less than 1")
    torch.manual_seed(seed)
    device = training_device()
    photographs = Photographs(images, max(LEAST_SIDE, size), FEWEST)
    held_out = photographs.split_off(HELD_OUT)
    for given, name in ((ram, "ram"), (cleaner, CLEANER)):
        _take(given, work / name)
    prepare = _cleaning(load_cleaner(work / CLEANER))
    conditions, shown_conditions = (_conditions(some, work / "ram", device) for some in (photographs, held_out))
    schedule = NoiseSchedule.from_config(SCHEDULER_CONFIG)
    if start is not None:
        _take(start / "sd-turbo" / "tokenizer", work / "tokenizer")
    elif not (work / "tokenizer").exists():
        train_tokenizer(conditions.names, work / "tokenizer")
    examples = to_pixels(one_batch(photographs.crops(size, 1), EXAMPLES, seed)[0], CPU)
    networks = _models_to_train(work, start, examples, conditions, device)
    vae, denoiser, text = networks
    if checkpointing:
        for model in (vae, denoiser.unet, denoiser.controlnet):
            model.enable_gradient_checkpointing()
    perceptual = place(STLPIPS("vgg"), device).eval()
    balance = Balance(
        perceptual_from,
        perceptual_full,
        perceptual_weight=perceptual_weight,
        grid_weight=grid_weight,
        direction_weight=direction_weight,
        sharpness_weight=sharpness_weight,
    )
    settings = {
        "batch": batch,
        "size": size,
        "photographs": len(photographs.images),
        **asdict(balance),
        "start": start and str(start),
        "beta_start": SCHEDULER_CONFIG["beta_start"],
        "seed": seed,
    }
    run = Run(
        "sr",
        work,
        dict(zip(PARTS, networks, strict=True)),
        steps,
        learning_rate,
        steady=steady,
        constrain=lambda: smooth_upsampling(vae, denoiser.unet),
        settings=settings,
        snapshot_every=SNAPSHOT_EVERY,
    )
    drawn = batches(photographs.crops(size, 4, prepare), batch, seed, run.step)
    *shown, _, shown_indices = one_batch(held_out.crops(size, 1, prepare), HELD_OUT, seed)
    shown_high, shown_low = (to_pixels(crops, device) for crops in shown)
    while run.step < steps:
        torch.manual_seed(seed + run.step)
        rng = np.random.default_rng([seed, run.step, 1])  # not that of the batches
        *crops, plain, indices = next(drawn)
        high, low = (to_pixels(one, device) for one in crops)
        prompts = [conditions.prompt(i, rng) for i in indices]
        tokens = conditions.tokens[indices].float().to(device)
        with autocast(device), _attention(device):
            x0 = _denoised(vae, denoiser, schedule, low, text(prompts), tokens, rng)
            reconstructed = vae.encode(high[:1]).latent_dist.sample()
            decoded = vae.decode(torch.cat([x0, reconstructed])).sample
        decoded = decoded.float()
        fixed = wavelet_fix(decoded, torch.cat([low, high[:1]]))
        # At a picture's border convolutions see zeros; the product gives them a margin there and cuts it off.
        decoded, fixed, high, low = (x[..., MARGIN:-MARGIN, MARGIN:-MARGIN] for x in (decoded, fixed, high, low))
        parts = {"raw": (decoded - torch.cat([high, high[:1]])).abs().mean(), "vae": detail_loss(fixed[-1:], high[:1])}
        fixed = fixed[:-1]
        parts |= {"detail": detail_loss(fixed, high), "grid": grid_loss(fixed, high)}
        parts |= {"direction": direction_loss(fixed, high), "sharpness": sharpness_loss(fixed, high)}
        parts["perceptual"] = high.new_zeros(())
        if balance.perceptual_growth(run.step / steps) > 0:
            factors = torch.from_numpy(np.where(plain, PLAIN_FACTOR, DEGRADED_FACTOR)).float().to(device)
            parts["perceptual"] = perceptual_loss(perceptual, fixed, high, factors, rng)
        loss = balance.total(parts, run.step / steps)
        parts["bicubic"] = detail_loss(low, high)
        with _attention(device):  # with --checkpointing it is computed again, and must be the same
            run.optimize(loss, parts)
        if run.is_due(250):
            with torch.no_grad(), run.averaged():
                embeds = text([build_prompt([], "")] * HELD_OUT)
                tokens = shown_conditions.tokens[shown_indices].float().to(device)
                x0 = _denoised(vae, denoiser, schedule, shown_low, embeds, tokens, np.random.default_rng(0))
                made = wavelet_fix(vae.decode(x0).sample, shown_low)
                save_picture(work / f"sr_{run.step:06d}.png", shown_low, made, shown_high)


def _models_to_train(
    work: Path, start: Path | None, examples: Tensor, conditions: Conditions, device: torch.device
) -> tuple[AutoencoderKL, Denoiser, PromptEncoder]:
    """Models that let the picture through, or those of the weights folder `start`."""
    networks = _build_models(work)
    # Also where other weights follow: it marks what is to be trained slowly.
    _start_as_identity(*networks, examples, conditions)
    if start is not None:
        for model, trained in zip(networks, _load_models(start), strict=True):
            model.load_state_dict(trained.state_dict())
    # Trained in `eval` mode: in `train` mode diffusers' blocks copy maps out of channels last, and nothing else differs.
    return tuple(place(model, device).eval() for model in networks)


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the fused attention's backward pass takes a fifth of a step, at these sizes: products instead."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise typer.BadParameter(otherwise)


def _take(given: Path | None, target: Path) -> None:
    """Copies a part of a weights folder into WORK. What a run there already uses is not replaced by another."""
    if given is None:
        _require(target.is_dir(), f"{target} does not exist: train it first, or give --{target.name}")
        return
    _require(given.is_dir(), f"{given} does not exist")
    if not target.exists():
        copy = target.with_name(f"{target.name}.tmp")
        shutil.copytree(given, copy, dirs_exist_ok=True)
        copy.rename(target)
    else:
        names = [path.name for path in given.iterdir()]
        same = not any(filecmp.cmpfiles(given, target, names, shallow=False)[1:])
        _require(same, f"{target} exists and is not {given}: take another --work")


def _cleaning(cleaner: Cleaner) -> Callable[[Image.Image], Image.Image]:
    """What the product does with a picture before it enlarges it."""

    def cleaned(image: Image.Image) -> Image.Image:
        with torch.inference_mode():
            return resize.to_image(clean(cleaner, resize.to_tensor(image)))

    return cleaned


def _load_models(folder: Path) -> tuple[AutoencoderKL, Denoiser, PromptEncoder]:
    """The models of a weights folder."""
    base = folder / "sd-turbo"
    return load_vae(base / "vae"), load_denoiser(folder), load_prompt_encoder(base)


def _start_as_identity(
    vae: AutoencoderKL, denoiser: Denoiser, text: PromptEncoder, examples: Tensor, conditions: Conditions
) -> None:
    """Sets fresh models so that the picture goes through them nearly unchanged."""
    start_autoencoder(vae, examples)
    latents = vae.encode(examples).latent_dist.mode().detach()
    prompt_embeds, tokens = text([build_prompt([], "")] * EXAMPLES).detach(), conditions.tokens[:EXAMPLES].float()
    start_denoiser(
        denoiser.unet,
        denoiser.controlnet,
        lambda: denoiser(torch.randn_like(latents), 999, examples / 2 + 0.5, prompt_embeds, tokens),
    )


def _denoised(
    vae: AutoencoderKL,
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    low: Tensor,
    prompt_embeds: Tensor,
    tokens: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """x0 as predicted at one of the steps of a 1 to 4 step sampling; the steps before it run without gradients."""
    count = int(rng.choice([1, 2, 3, 4], p=[0.55, 0.3, 0.05, 0.1]))
    timesteps = schedule.timesteps(count)
    chosen = int(rng.integers(count))

    def predict(latents: Tensor, timestep: int) -> Tensor:
        return denoiser(latents, timestep, low / 2 + 0.5, prompt_embeds, tokens).float()

    with torch.no_grad():
        latents = vae.encode(low).latent_dist.mode()
        latents = schedule.add_noise(latents, torch.randn_like(latents), timesteps[0])
        for timestep, following in zip(timesteps[:chosen], timesteps[1 : chosen + 1], strict=True):
            latents = ddim_step(schedule, predict(latents, timestep), latents, timestep, following)
    return schedule.split(predict(latents, timesteps[chosen]), latents, timesteps[chosen])[0]


@app.command()
def export(
    work: Work,
    output: Annotated[Path, typer.Option(help="Folder to write, e.g. weights/tiny.")],
    step: Annotated[int | None, typer.Option(help="Of `sr`, a multiple of 500, instead of where it is now.")] = None,
) -> None:
    """Writes the trained models in the published folder layout, in float16."""
    trained_file = "sr.pt" if step is None else snapshot_name("sr", step)
    for part in (trained_file, "tokenizer", "ram", CLEANER):
        _require((work / part).exists(), f"{work / part} does not exist: train all parts first")
    vae, denoiser, text = _build_models(work)
    trained = torch.load(work / trained_file, map_location="cpu", weights_only=True)
    for name, model in zip(PARTS, (vae, denoiser, text), strict=True):
        model.load_state_dict(trained["average"][name])
    base, seesr = (output / part for part in ("sd-turbo", "seesr"))

    unet = denoiser.unet.state_dict()
    image_attention = {key: tensor for key, tensor in unet.items() if ".image_attentions." in key}
    unet_config = UNET_CONFIG | {"_class_name": "UNet2DConditionModel"}
    write_model(base / "unet", unet_config, {key: unet[key] for key in unet.keys() - image_attention.keys()})
    write_model(seesr / "unet", unet_config | {"use_image_cross_attention": True}, image_attention)
    controlnet_config = CONTROLNET_CONFIG | {"_class_name": "ControlNetModel", "use_image_cross_attention": True}
    write_model(seesr / "controlnet", controlnet_config, denoiser.controlnet.state_dict())
    vae_config = VAE_CONFIG | {"_class_name": "AutoencoderKL", "scaling_factor": 1.0}
    write_model(base / "vae", vae_config, vae.state_dict())
    text_config = text.text_encoder.config.to_dict()
    write_model(base / "text_encoder", text_config, text.text_encoder.state_dict(), "model")
    write_json(base / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    shutil.copytree(work / "tokenizer", base / "tokenizer", dirs_exist_ok=True)
    for part in ("ram", CLEANER):
        shutil.copytree(work / part, output / part, dirs_exist_ok=True)
    # In bfloat16 so small networks with one group a norm leave blotches of colour; of borders the losses leave MARGIN out.
    write_json(output / WISHES, {"dtype": "float32", "margin": MARGIN // LATENT_SIDE})
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: sr after {trained['step']} steps, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    app()
