"""Command `pictograms`: a small text-to-image checkpoint of Stable Diffusion's kind that draws pictograms.

Its autoencoder is the embedded upscaler's with four latent channels in place of sixteen, its text encoder and its UNet begin
at random. They learn from scenes that are drawn by lot, of which a pool is encoded once.

First the text encoder learns alone to tell from a caption what the picture looks like. The last 16 of its 77 places, where
nothing of a prompt stands unless it is very long, are for as many parts of the picture: what the encoder says there is what
a linear layer, thrown away afterwards, needs for the latents of that part. Then the UNet learns with the text encoder as it
is, and first of all where to look: of its attention to the prompt, one head for each quarter of a part is drawn to the place
of the part that it is at. So the memory of what things look like is in the text encoder, where a caption costs a tenth of
what it costs in the UNet, and the UNet learns from every picture the same: to take it over and to make it sharp.

The UNet predicts v (Salimans and Ho, 2022). Its errors weigh alike at high noise, where the prompt decides, and less at low
noise: as min-SNR weighting (Hang et al., 2023), which gives high noise next to no weight, with SNR + 1 for SNR.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from scripts.training.device import autocast, training_device
from scripts.training.files import save_picture, write_json, write_model
from scripts.training.options import Work, require
from scripts.training.pictogram_pictures import SIDE, Pictogram, fetched_pictograms
from scripts.training.pictogram_scenes import Scene, Scenes, caption, draw, words
from scripts.training.run import Run, short_digest
from scripts.training.tokenizer import train_tokenizer
from seesr.autoencoder.vae import load_vae
from seesr.diffusion.text import PromptEncoder
from seesr.files import atomic_write
from seesr.generation.checkpoints import WORDS
from seesr.machine.device import to_device

LATENT_CHANNELS, LATENT_SIDE = 4, SIDE // 4
LEARNT_PIECES = 4096
"""Of the vocabulary, at most."""
TEXT_CONFIG = {
    "hidden_size": 256,
    "intermediate_size": 2048,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "projection_dim": 256,
    "hidden_act": "gelu",
}
UNET_CONFIG: dict[str, Any] = {
    "sample_size": LATENT_SIDE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    "block_out_channels": [32, 64, 128, 192],
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "cross_attention_dim": TEXT_CONFIG["hidden_size"],
    "attention_head_dim": 4,
    "use_linear_projection": True,
}
SCHEDULER_CONFIG: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    # Twice Stable Diffusion's: of a picture 0.8 % is left at the highest noise level. With nothing left (zero terminal SNR,
    # Lin et al., 2024) half of the samplers could not begin.
    "beta_end": 0.024,
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
PARTS = 4
"""Along a side: the parts of a picture that the text encoder's last places are for."""
TEXT_BATCH, TEXT_RATE = 64, 2e-3
"""Captions at a time that the text encoder learns from, and its learning rate."""
FULL_LENGTH = 0.08
"""Share of those steps with all 77 places; in the others, those between a caption and the parts are left out."""
ATTENTION_STEPS, ATTENTION_WEIGHT = 1500, 0.05
"""The first steps of the UNet, in which it learns where to look, and what that weighs beside its errors."""
WORD_DEVIATION = 0.2
"""Of the text encoder's embeddings of words at its beginning: ten times CLIP's, so that they differ more than places do."""
CROP = 64
"""Pixels along a side of what the autoencoder is trained on at a time."""
LATENT_NOISE = 0.1
"""Added to latents, whose deviation is about one, when the decoder is trained: those that a UNet makes are not exact."""
DEFAULTS = {"dtype": "float32", "steps": 20, "guidance_scale": 5.0, "largest_side": SIDE}
"""Of seesr.json, for `seesr generate`."""
SHOWN = (
    "fox",
    "pizza",
    "rocket",
    "owl",
    "snowman, blue background",
    "fox and pizza",
    "purple apple",
    "small guitar at the top",
)
"""What the pictures show that are drawn during training, in two styles each."""
POOL = 40_000
"""Composed scenes that are encoded once."""
PLAIN = 0.75
"""Share of what is learnt from that is one pictogram as it was drawn, on white."""
UNTOLD = {"a", "an", "and", "at", "in", "no", "of", "on", "or", "the", "to", "up", "with", "without"}
"""Words of names that say nothing of a thing."""
HELD_OUT = "held_out.json"
"""A file of the checkpoint: what training never showed it."""


def pictograms(
    work: Work,
    output: Annotated[Path, typer.Option(help="Folder to write, e.g. weights/pictograms.", file_okay=False)],
    packages: Annotated[
        Path | None,
        typer.Option(help="Folder for the npm packages, fetched unless they are there; WORK/packages unless given."),
    ] = None,
    autoencoder: Annotated[
        Path, typer.Option(help="Folder of the AutoencoderKL to begin with; its latents are reduced to four channels.")
    ] = Path("weights/tiny/sd-turbo/vae"),
    start: Annotated[
        Path | None, typer.Option(help="A checkpoint of this command: its autoencoder is kept, the rest goes on from it.")
    ] = None,
    autoencoder_steps: int = 400,
    text_steps: int = 5000,
    steps: int = 3000,
    batch: int = 32,
    pool: Annotated[int, typer.Option(help="Composed scenes.")] = POOL,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> None:
    """The text-to-image checkpoint that draws pictograms."""
    pictures = fetched_pictograms(work, "pictures.npz", packages)
    train_pictograms(
        pictures, work, output, autoencoder, autoencoder_steps, text_steps, steps, batch, seed, pool, learning_rate, start
    )


def train_pictograms(
    pictures: list[Pictogram],
    work: Path,
    output: Path,
    autoencoder: Path,
    autoencoder_steps: int,
    text_steps: int,
    steps: int,
    batch: int,
    seed: int,
    pool: int = POOL,
    learning_rate: float = 1e-3,
    start: Path | None = None,
) -> None:
    """Trains the autoencoder, then the text encoder and the UNet, and writes all as a folder that stock diffusers loads.

    Both go on where they were when they are run again with the same `work`.
    """
    require(0 < batch <= 1024, f"--batch must be from 1 to 1024, not {batch}")
    require(min(steps, autoencoder_steps, text_steps) > 0, "the numbers of steps must be positive")
    require(pool > 0, f"--pool must be positive, not {pool}")
    scenes = Scenes(pictures)
    plain = scenes.plain()
    learnt = [*plain, *(scenes.composed(np.random.default_rng([seed, index])) for index in range(pool))]
    if start is None:
        vae, factor = _train_autoencoder(learnt, work, autoencoder, autoencoder_steps, seed)
        train_tokenizer(words(pictures), work / "tokenizer", LEARNT_PIECES)
        tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
        torch.manual_seed(seed)
        text, unet = _text_encoder(tokenizer), UNet2DConditionModel(**UNET_CONFIG)
    else:
        vae = load_vae(start / "vae")
        factor = float(vae.config.scaling_factor)
        tokenizer = CLIPTokenizer.from_pretrained(start / "tokenizer")
        text = CLIPTextModel.from_pretrained(start / "text_encoder").float()
        unet = UNet2DConditionModel.from_pretrained(start / "unet").float()
    device = training_device()
    to_device(vae, device)
    said = pictures_digest(pictures)
    latents = encoded_pool(vae, learnt, work, factor, f"{said}_{seed}")
    print(f"{len(learnt)} scenes, {len(plain)} plain, latents scaled by {factor:.4f}", flush=True)
    prompts = PromptEncoder(tokenizer, text).to(device)
    unet.to(device)
    settings = {"seed": seed, "pictures": said, "pool": pool}
    if start is None:
        _name_by_look(prompts, latents, plain)
        _teach_text(prompts, latents, learnt, len(plain), work, text_steps, seed, settings)
    settings |= {"batch": batch, "autoencoder_steps": autoencoder_steps, "text_steps": text_steps}
    text.requires_grad_(requires_grad=False)
    run = Run("pictograms", work, {"unet": unet}, steps, learning_rate, weight_decay=1e-3, steady=0.5, settings=settings)
    noise_levels = DDIMScheduler.from_config(SCHEDULER_CONFIG).alphas_cumprod.to(device)
    while run.step < steps:
        rng = np.random.default_rng([seed, run.step])
        chosen = _chosen(rng, batch, len(plain), len(learnt))
        clean = torch.from_numpy(latents[chosen]).to(device).float()
        captions = [caption(learnt[int(i)], rng) for i in chosen]
        looking = watch_attention(unet) if start is None and run.step < ATTENTION_STEPS else []
        loss = step_loss(clean, captions, prompts, unet, noise_levels, rng)
        parts = {"loss": loss}
        if looking:
            parts["looking"] = torch.stack([attention.loss for attention in looking]).mean()
            unet.set_attn_processor(AttnProcessor2_0())
        run.optimize(loss + ATTENTION_WEIGHT * parts.get("looking", 0), {"looking": loss.new_zeros(()), **parts})
        if run.is_due(1000):
            with run.averaged():
                _export(work / "checkpoint", tokenizer, text, unet, vae, factor, scenes)
            _draw(work / "checkpoint", work / f"pictograms_{run.step:06d}.png")
    run.take_average()
    _export(output, tokenizer, text, unet, vae, factor, scenes)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: after {run.step} steps, {size / 1e6:.2f} MB")


def step_loss(
    clean: Tensor,
    captions: list[str],
    prompts: PromptEncoder,
    unet: UNet2DConditionModel,
    noise_levels: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """The weighted loss of one batch of latents, which `rng` alone decides."""
    batch = len(clean)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    spread = (np.arange(batch) + rng.random(batch)) / batch
    timesteps = torch.from_numpy((spread * len(noise_levels)).astype(np.int64)).to(clean.device)
    kept = noise_levels[timesteps].view(-1, 1, 1, 1)
    noisy, truth = kept.sqrt() * clean + (1 - kept).sqrt() * noise, kept.sqrt() * noise - (1 - kept).sqrt() * clean
    with autocast(clean.device):
        predicted = unet(noisy, timesteps, prompts(captions)).sample
    errors = (predicted.float() - truth).square().mean(dim=(1, 2, 3))
    # 1 / (1 - kept) is one more than the signal-to-noise ratio: what an error of v weighs as an error of the picture.
    return (errors * (MAX_WEIGHT * (1 - kept)).clamp(max=1).flatten()).mean()


class WatchedAttention:
    """An attention processor for square maps that keeps how far attention is from the part of the picture that it is at.

    Args:
        places: of the prompt; the last `PARTS ** 2` are the parts.
        quarters: a head for each quarter of a part, which elsewhere looks at the first place; else all heads everywhere.
    """

    def __init__(self, places: int, quarters: bool) -> None:
        self.places, self.quarters = places, quarters
        self.loss = torch.zeros(())

    def __call__(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: object) -> Tensor:
        query, key, value = (
            layer(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, states in (
                (attn.to_q, hidden_states),
                (attn.to_k, encoder_hidden_states),
                (attn.to_v, encoder_hidden_states),
            )
        )
        scores = attn.scale * query @ key.transpose(-1, -2)
        wanted = self.wanted(scores.shape[1], scores.shape[2]).to(scores.device).expand(len(scores), -1, -1)
        self.loss = F.cross_entropy(scores.float().flatten(0, 2), wanted.flatten())
        states = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](states))

    def wanted(self, heads: int, cells: int) -> Tensor:
        """For each head and each cell of the map, `(heads, cells)`, the place to look at."""
        side = math.isqrt(cells)
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        across = side // PARTS
        part = (self.places - PARTS**2 + row // across * PARTS + column // across).flatten()
        if not self.quarters:
            return part.expand(heads, -1)
        quarter = (row % across * 2 // across * 2 + column % across * 2 // across).flatten()
        return torch.where(quarter == torch.arange(heads)[:, None] % 4, part, 0)


def watch_attention(unet: UNet2DConditionModel) -> list[WatchedAttention]:
    """Has the attention to the prompt watched, until the processors are set anew."""
    watched = {
        name: WatchedAttention(int(TEXT_CONFIG["max_position_embeddings"]), name.startswith("up_blocks"))
        for name in unet.attn_processors
        if ".attn2." in name
    }
    unet.set_attn_processor({name: watched.get(name, AttnProcessor2_0()) for name in unet.attn_processors})
    return list(watched.values())


def _chosen(rng: np.random.Generator, batch: int, plain: int, learnt: int) -> np.ndarray:
    """Which scenes a batch is of, of which the first `plain` are plain."""
    return np.where(rng.random(batch) < PLAIN, rng.integers(plain, size=batch), rng.integers(learnt, size=batch))


@torch.no_grad()
def _name_by_look(prompts: PromptEncoder, latents: np.ndarray, plain: list[Scene]) -> None:
    """Begins the embeddings of the words in names with the principal components of what the things look like.

    Words for what looks alike are alike then, and what is learnt of one thing serves the others.
    """
    looks: dict[tuple[str, ...], list[np.ndarray]] = {}
    for scene, latent in zip(plain, latents, strict=False):
        looks.setdefault(scene.pictograms[0].names, []).append(latent.astype(np.float32).ravel())
    means = torch.from_numpy(np.stack([np.mean(among, axis=0) for among in looks.values()]))
    embeddings = _embeddings(prompts.text_encoder)
    left, values, _ = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False)
    components = (left * values.sqrt())[:, : embeddings.shape[1]]
    components *= WORD_DEVIATION / components.std()
    of_pieces: dict[int, list[Tensor]] = {}
    for names, look in zip(looks, components, strict=True):
        for piece in {piece for name in names for piece in prompts.tokenizer(name).input_ids[1:-1]}:
            of_pieces.setdefault(piece, []).append(look)
    for piece, among in of_pieces.items():
        embeddings[piece, : len(among[0])] = torch.stack(among).mean(dim=0).to(embeddings)


def _teach_text(
    prompts: PromptEncoder,
    latents: np.ndarray,
    scenes: list[Scene],
    plain: int,
    work: Path,
    steps: int,
    seed: int,
    settings: Mapping[str, object],
) -> None:
    """Trains the text encoder alone: a linear layer, which is thrown away, tells from what it says at the last places the
    latents of the parts of the picture. It takes minutes; through a UNet it takes hours."""
    device = training_device()
    torch.manual_seed(seed)
    tell = torch.nn.Linear(TEXT_CONFIG["hidden_size"], latents[0].size // PARTS**2).to(device)
    models = {"text": prompts.text_encoder, "tell": tell}
    run = Run("text", work, models, steps, TEXT_RATE, weight_decay=1e-3, steady=0.3, settings=settings)
    while run.step < steps:
        rng = np.random.default_rng([seed, run.step])
        chosen = _chosen(rng, TEXT_BATCH, plain, len(scenes))
        captions = [caption(scenes[int(i)], rng) for i in chosen]
        tokens = prompts.tokenizer(captions, truncation=True, max_length=prompts.max_tokens - PARTS**2).input_ids
        truth = picture_parts(torch.from_numpy(latents[chosen]).to(device).float())
        with autocast(device):
            told = tell(_said_of_parts(prompts, tokens, full=rng.random() < FULL_LENGTH))
        loss = F.mse_loss(told.float(), truth)
        run.optimize(loss, {"loss": loss})
    run.take_average()
    prompts.text_encoder.requires_grad_(requires_grad=False)


def picture_parts(latents: Tensor) -> Tensor:
    """The latents of each part, `(B, PARTS ** 2, n)`, of `(B, C, H, W)`: row by row."""
    batch, channels, height, width = latents.shape
    parts = latents.view(batch, channels, PARTS, height // PARTS, PARTS, width // PARTS)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(batch, PARTS**2, -1)


def _said_of_parts(prompts: PromptEncoder, tokens: list[list[int]], full: bool) -> Tensor:
    """What the text encoder says at the last places, `(B, PARTS ** 2, width)`, of tokenized captions."""
    places, padding = prompts.max_tokens, prompts.tokenizer.pad_token_id
    longest = places - PARTS**2 if full else max(map(len, tokens))
    padded = [[*one, *[padding] * (longest - len(one) + PARTS**2)] for one in tokens]
    positions = torch.cat([torch.arange(longest), torch.arange(places - PARTS**2, places)])
    device = prompts.text_encoder.device
    states = prompts.text_encoder(torch.tensor(padded, device=device), position_ids=positions[None].to(device))
    return states.last_hidden_state[:, longest:]


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A fresh one for the vocabulary."""
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = CLIPTextModel(CLIPTextConfig(**TEXT_CONFIG, **special))
    torch.nn.init.normal_(_embeddings(text), std=WORD_DEVIATION)
    return text


def _embeddings(text: CLIPTextModel) -> Tensor:
    """Of the vocabulary, `(pieces, width)`."""
    layer = text.get_input_embeddings()
    assert isinstance(layer, torch.nn.Embedding)
    return layer.weight


def _train_autoencoder(scenes: list[Scene], work: Path, start: Path, steps: int, seed: int) -> tuple[AutoencoderKL, float]:
    """An autoencoder of `LATENT_CHANNELS`, trained on crops of scenes, and the factor that gives its latents deviation 1."""
    device = training_device()
    shown = _in_range(np.stack([draw(scene) for scene in scenes[:: max(1, len(scenes) // 256)]]))
    vae = load_vae(start)
    if vae.config.latent_channels != LATENT_CHANNELS:
        vae = narrow_autoencoder(vae, shown[::4])
    vae.requires_grad_(requires_grad=True)
    to_device(vae, device)
    run = Run("autoencoder", work, {"vae": vae}, steps, learning_rate=5e-4, steady=0.3, settings={"seed": seed})
    while run.step < steps:
        rng = np.random.default_rng([seed, run.step])
        torch.manual_seed(int(rng.integers(2**62)))
        pixels = np.stack([draw(scenes[int(i)]) for i in rng.integers(len(scenes), size=8)])
        left, top = (4 * int(rng.integers((SIDE - CROP) // 4 + 1)) for _ in range(2))
        truth = _in_range(pixels[:, top : top + CROP, left : left + CROP]).to(device)
        with autocast(device):
            latents = vae.encode(truth).latent_dist.mode()
            made = vae.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample
        loss = F.smooth_l1_loss(made.float(), truth, beta=0.2)
        run.optimize(loss, {"loss": loss, "deviation": latents.std()})
    run.take_average()
    _centre(vae, _encode(vae, shown).mean(dim=(0, 2, 3)).to(device))
    latents = _encode(vae, shown)
    with torch.no_grad():
        made = torch.cat([vae.decode(part.to(device)).sample.clamp(-1, 1).cpu() for part in latents.split(32)])
    psnr = -10 * ((made - shown) / 2).square().mean(dim=(1, 2, 3)).log10().mean()
    print(f"autoencoder: {psnr:.2f} dB", flush=True)
    save_picture(work / "autoencoder.png", shown[::32], made[::32])
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
def _encode(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Latents `(N, C, H / 4, W / 4)`, not scaled, of pictures `(N, 3, H, W)` in -1..1."""
    device = training_device()
    return torch.cat([vae.encode(part.to(device)).latent_dist.mode().float().cpu() for part in pictures.split(32)])


def pictures_digest(pictures: list[Pictogram]) -> str:
    """Tells one set of pictures, with what is said of them, from others."""
    said = repr([(p.names, p.keywords, p.style) for p in pictures]).encode()
    return short_digest(said, *(p.pixels.tobytes() for p in pictures))


def encoded_pool(vae: AutoencoderKL, scenes: list[Scene], work: Path, factor: float, about: str) -> np.ndarray:
    """The scaled latents of all scenes, float16 `(N, C, H / 4, W / 4)`, kept in `work` for this autoencoder.

    Args:
        about: tells the scenes from others of the same number.
    """
    digest = short_digest(*(tensor.cpu().numpy().tobytes() for tensor in vae.state_dict().values()))
    path = work / f"pool_{digest}_{about}_{len(scenes)}.npy"
    if not path.exists():
        pool = np.empty((len(scenes), LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE), dtype=np.float16)
        for first in range(0, len(scenes), 64):
            part = scenes[first : first + 64]
            with autocast(training_device()):
                latents = _encode(vae, _in_range(np.stack([draw(scene) for scene in part])))
            pool[first : first + len(part)] = (factor * latents).numpy()
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, pool)
    return np.load(path)


def _in_range(pixels: np.ndarray) -> Tensor:
    """`(B, 3, H, W)` in -1..1 of uint8 `(B, H, W, 3)`."""
    return torch.from_numpy(pixels).movedim(-1, 1).float() / 127.5 - 1


def _export(
    folder: Path,
    tokenizer: CLIPTokenizer,
    text: CLIPTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    factor: float,
    scenes: Scenes,
) -> None:
    """Writes the folder of a `StableDiffusionPipeline`, in float16."""
    write_json(folder / "seesr.json", DEFAULTS)
    things = {word for p in scenes.shown for name in (*p.names, *p.keywords) for word in re.findall(r"\w+", name.lower())}
    (folder / WORDS).write_text("\n".join(sorted(things - UNTOLD)) + "\n")
    held_out = scenes.held_out
    told = {
        "pictures": sorted(f"{thing}, {style}" for thing, style in held_out.pictures),
        "pairs": sorted(" and ".join(sorted(pair)) for pair in held_out.pairs),
        "colours": sorted(f"{colour} {thing}" for colour, thing in held_out.colours),
    }
    write_json(folder / HELD_OUT, told)
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
