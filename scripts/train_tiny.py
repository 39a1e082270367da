"""Trains the embedded model: VAE, RAM, and UNet + ControlNet + text encoder, all small, in the published folder layout.

    python scripts/train_tiny.py vae  --images PHOTOS --work WORK
    python scripts/train_tiny.py ram  --tags TAGGED   --work WORK
    python scripts/train_tiny.py sr   --images PHOTOS --work WORK
    python scripts/train_tiny.py export --work WORK --output weights/tiny

Each stage is seeded, writes a checkpoint every few minutes, goes on from it when run again, logs its losses to
`WORK/<stage>.jsonl` and draws a validation picture. It runs on a CPU (bfloat16 autocast where the CPU has it) and on CUDA.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from degradation import crop_to_multiple, degrade, downscale_bicubic
from diffusers import AutoencoderKL
from identity_start import is_delicate, start_autoencoder, start_denoiser
from PIL import Image
from safetensors.torch import save_file
from stlpips import STLPIPS
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from seesr.diffusion.denoiser import Denoiser
from seesr.diffusion.image_attention import build_controlnet, build_unet
from seesr.diffusion.sampler import ddim_step
from seesr.diffusion.schedule import NoiseSchedule
from seesr.diffusion.text import PromptEncoder
from seesr.images.colour import wavelet_fix
from seesr.tagging.dape import RANK, merge_dape
from seesr.tagging.prompt import QUALITY_WORDS, build_prompt
from seesr.tagging.ram import RAM, RAMConfig
from seesr.weights.state_dict import DIFFUSERS_FILE

SCALE = 4
MARGIN = 8
"""Pixels at the border of a crop that no loss looks at."""
DELICATE_FACTOR = 0.05
"""Learning rate of what carries the picture, relative to the rest."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)

VAE_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [16, 32, 64],
    "layers_per_block": 1,
    "latent_channels": 8,
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
    "sample_size": 128,
    "force_upcast": False,
}


UNET_CONFIG = {
    "sample_size": 32,
    "in_channels": 8,
    "out_channels": 8,
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
SCHEDULER_CONFIG = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.0085,
    "beta_end": 0.012,
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
VOCABULARY = 1024
RAM_CONFIG = {
    "swin": {
        "image_res": 384,
        "vision_width": 128,
        "window_size": 12,
        "embed_dim": 16,
        "depths": [1, 1, 3, 2],
        "num_heads": [1, 1, 2, 4],
    },
    "bert": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "layer_norm_eps": 1e-12,
        "encoder_width": 512,
    },
    "image_size": 384,
    "num_tags": 0,
}


@dataclass
class Run:
    """One stage's training: where it keeps its files, its models and optimizer, and how far it has come."""

    stage: str
    work: Path
    models: Mapping[str, nn.Module]
    steps: int
    learning_rate: float
    step: int = 0

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        trained = [p for model in self.models.values() for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if not is_delicate(p)], "factor": 1.0},
            {"params": [p for p in trained if is_delicate(p)], "factor": DELICATE_FACTOR},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
        self.started = self.saved = time.monotonic()
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            for name, model in self.models.items():
                model.load_state_dict(state["models"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            print(f"{self.stage}: going on from step {self.step}", flush=True)

    @property
    def checkpoint(self) -> Path:
        return self.work / f"{self.stage}.pt"

    def save(self) -> None:
        """Writes the checkpoint beside the old one and moves it into place."""
        state = {
            "models": {name: model.state_dict() for name, model in self.models.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)
        self.saved = time.monotonic()

    def optimize(self, loss: Tensor, parts: dict[str, float]) -> None:
        """One optimizer step: warm-up then cosine decay, gradients clipped; logs, and saves every two minutes."""
        warmup = min(1.0, (self.step + 1) / 50)
        progress = min(1.0, self.step / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = (
                self.learning_rate * group["factor"] * warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        record = {
            "step": self.step,
            "seconds": round(time.monotonic() - self.started, 1),
            "grad": round(norm.item(), 3),
        }
        record |= {name: round(value, 5) for name, value in parts.items()}
        with (self.work / f"{self.stage}.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        if self.step % 20 == 0:
            print(self.stage, record, flush=True)
        if time.monotonic() - self.saved > 120 or self.step == self.steps:
            self.save()


class Photographs:
    """Photographs held in memory as uint8 RGB, with crops drawn from them and their degraded versions."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
        if not paths:
            raise typer.BadParameter(f"no .jpg or .png picture in {folder}")
        self.images = [crop_to_multiple(Image.open(path).convert("RGB"), 2 * SCALE) for path in paths]

    def crops(self, rng: np.random.Generator, size: int, batch: int, per_image: int) -> Iterator[tuple[Tensor, ...]]:
        """Endless batches: high resolution and low resolution enlarged by bicubic `(B, 3, size, size)` in -1..1,
        and the index of each crop's photograph `(B,)`."""
        buffer: list[tuple[Tensor, Tensor, int]] = []
        while True:
            while len(buffer) < 8 * batch:
                index = int(rng.integers(len(self.images)))
                high = self.images[index]
                if min(high.size) < size:
                    continue
                low = downscale_bicubic(high, SCALE) if rng.random() < 0.3 else degrade(high, rng, SCALE)
                enlarged = low.resize(high.size, Image.Resampling.BICUBIC)
                buffer += [(*_crop_pair(high, enlarged, rng, size), index) for _ in range(per_image)]
            rng.shuffle(buffer)
            taken, buffer = buffer[:batch], buffer[batch:]
            high_batch, low_batch, indices = zip(*taken, strict=True)
            yield torch.stack(high_batch), torch.stack(low_batch), torch.tensor(indices)


def _crop_pair(high: Image.Image, low: Image.Image, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """The same square of both pictures, flipped and turned alike."""
    left, top = (int(rng.integers(side - size + 1)) for side in high.size)
    box = (left, top, left + size, top + size)
    flip, turns = rng.random() < 0.5, int(rng.integers(4))

    def take(image: Image.Image) -> Tensor:
        pixels = torch.rot90(_tensor(image.crop(box)), turns, dims=(1, 2))
        return pixels.flip(-1) if flip else pixels

    return take(high), take(low)


def _tensor(image: Image.Image) -> Tensor:
    """`(3, H, W)` in -1..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where it is fast, else nothing."""
    fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def _place(module: nn.Module, device: torch.device) -> nn.Module:
    return module.to(device, memory_format=torch.channels_last)


def _save_picture(path: Path, *columns: Tensor) -> None:
    """Batches `(B, 3, H, W)` in -1..1 side by side, a row each picture, as a PNG."""
    rows = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)
    pixels = ((rows.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(path)


Work = Annotated[Path, typer.Option(help="Folder for checkpoints, logs and validation pictures.")]
Images = Annotated[Path, typer.Option(help="Folder of photographs, at best about 512x512.")]


def detail_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of pixels plus L1 of their Fourier coefficients: the second keeps fine structure and punishes any grid."""
    spectrum = (torch.fft.rfft2(output, norm="ortho") - torch.fft.rfft2(target, norm="ortho")).abs().mean()
    return (output - target).abs().mean() + 0.1 * spectrum


@dataclass
class TaggedPictures:
    """Pictures at RAM's size as uint8, what VGG sees in each, and which tags each has."""

    pictures: list[Image.Image]
    features: Tensor
    """`(N, 12, 12, 512)` float16: VGG's fifth level of the picture at half size, each channel with mean 0, deviation 1."""
    labels: Tensor
    """`(N, tags)` of 0 and 1."""
    tags: list[str]


def _tagged_pictures(folder: Path, work: Path, device: torch.device) -> TaggedPictures:
    lines = [line.split("\t") for line in (folder / "labels.tsv").read_text().splitlines() if line]
    tags = sorted({tag.strip() for _, names in lines for tag in names.split("|")})
    labels = torch.tensor([[float(tag in {n.strip() for n in names.split("|")}) for tag in tags] for _, names in lines])
    side = RAM_CONFIG["image_size"]
    pictures = [Image.open(folder / "images" / name).convert("RGB").resize((side, side)) for name, _ in lines]
    cache = work / "vgg_features.pt"
    if not cache.exists():
        vgg = STLPIPS("vgg").to(device).eval()
        found = []
        with torch.no_grad(), _autocast(device):
            for picture in pictures:
                half = _tensor(picture.resize((side // 2, side // 2))).to(device)[None]
                level = F.interpolate(vgg.features(half)[-1], size=(12, 12), mode="area")
                found.append(F.normalize(level, dim=1).permute(0, 2, 3, 1).half().cpu())
        torch.save(torch.cat(found), cache)
    features = torch.load(cache, weights_only=True)
    deviation, mean = torch.std_mean(features.float(), dim=(0, 1, 2))
    features = ((features - mean) / deviation.clamp(min=1e-4)).half()
    return TaggedPictures(pictures, features, labels, tags)


@app.command()
def ram(
    tags: Annotated[Path, typer.Option(help="Folder with images/ and labels.tsv: name, tab, tags between bars.")],
    work: Work,
    steps: int = 600,
    head_steps: int = 1500,
    dape_steps: int = 120,
    batch: int = 12,
    seed: int = 0,
) -> None:
    """The tagger: its tokens learn to say what VGG sees, its head learns the tags; then DAPE's LoRA for bad pictures."""
    torch.manual_seed(seed)
    device = _device()
    data = _tagged_pictures(tags, work, device)
    held_out = torch.arange(len(data.pictures)) % 10 == 9
    train_indices = torch.nonzero(~held_out).flatten().numpy()
    model = RAM(RAMConfig.from_dict(RAM_CONFIG | {"num_tags": len(data.tags)}))
    for name, parameter in model.named_parameters():
        if name.endswith(("label_embed", "bias_table")):
            nn.init.normal_(parameter, std=1.0 if name == "label_embed" else 0.02)
    nn.init.constant_(model.fc.bias, -4.0)
    model = model.to(device)
    run = Run("ram", work, {"ram": model}, steps, learning_rate=1e-3)
    rng = np.random.default_rng(seed + run.step)
    while run.step < steps:
        images, features, labels = _tagged_batch(data, rng.choice(train_indices, batch), rng, device)
        with _autocast(device):
            tokens, logits = model(images)
        distilled = F.mse_loss(tokens[:, 1:].float(), features)
        tagged = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum") / batch
        run.optimize(distilled + 0.05 * tagged, {"distilled": distilled.item(), "tagged": tagged.item()})
        if run.step % 200 == 0 or run.step == steps:
            _report_tags(model, data, held_out, device, work)
    _train_head(model, data, train_indices, work, head_steps, seed, device)
    _report_tags(model, data, held_out, device, work)
    _train_dape(model, data, train_indices, work, dape_steps, batch, seed, device)


def _train_head(
    model: RAM, data: TaggedPictures, indices: np.ndarray, work: Path, steps: int, seed: int, device: torch.device
) -> None:
    """The tag head on what the encoder makes of each picture: many cheap steps."""
    for part in (model.visual_encoder, model.image_proj):
        part.requires_grad_(False)
    # The projection that distillation leaves is small in most directions; this one keeps all that the encoder says.
    torch.manual_seed(seed)
    nn.init.orthogonal_(model.image_proj.weight)
    seen = []
    with torch.no_grad():
        for index in indices:
            image = _tensor(data.pictures[index])[None].to(device) / 2 + 0.5
            seen.append(model.encode(image).half().cpu())
    tokens, labels = torch.cat(seen), data.labels[indices]
    run = Run("ram_head", work, {"ram": model}, steps, learning_rate=1e-3)
    rng = np.random.default_rng(seed + run.step)
    while run.step < steps:
        chosen = rng.integers(len(indices), size=32)
        logits = model.logits(tokens[chosen].float().to(device))
        loss = F.binary_cross_entropy_with_logits(logits, labels[chosen].to(device), reduction="sum") / len(chosen)
        run.optimize(loss, {"tagged": loss.item()})


def _tagged_batch(
    data: TaggedPictures, indices: np.ndarray, rng: np.random.Generator, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures in 0..1, half of them mirrored with their features, light and colour a little changed."""
    images = torch.stack([_tensor(data.pictures[i]) for i in indices]) / 2 + 0.5
    features = data.features[indices].float()
    mirrored = torch.from_numpy(rng.random(len(indices)) < 0.5)
    images[mirrored] = images[mirrored].flip(-1)
    features[mirrored] = features[mirrored].flip(2)
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (len(indices), 3, 1, 1))).float()
    return (images * gain).clamp(0, 1).to(device), features.flatten(1, 2).to(device), data.labels[indices].to(device)


def _report_tags(model: RAM, data: TaggedPictures, held_out: Tensor, device: torch.device, work: Path) -> None:
    """Measures the held-out tenth and keeps the confidence from which a tag is more often right than wrong."""
    indices = torch.nonzero(held_out).flatten()
    with torch.no_grad():
        images = [_tensor(data.pictures[i]) / 2 + 0.5 for i in indices]
        logits = torch.cat([model(image[None].to(device))[1].float().cpu() for image in images])
    labels, confidences = data.labels[indices], logits.sigmoid()
    scores = []
    for threshold in torch.arange(0.1, 0.9, 0.02):
        chosen = (confidences > threshold).float()
        f1 = 2 * (chosen * labels).sum() / (chosen.sum() + labels.sum())
        scores.append((f1.item(), threshold.item()))
    f1, threshold = max(scores)
    top = labels.gather(1, logits.argmax(1, keepdim=True)).mean().item()
    result = {"best_f1": round(f1, 3), "threshold": round(threshold, 2), "first_tag_right": round(top, 3)}
    (work / "ram_tags.json").write_text(json.dumps(result | {"tags": data.tags}))
    print("ram", result, flush=True)


def _train_dape(
    model: RAM,
    data: TaggedPictures,
    indices: np.ndarray,
    work: Path,
    steps: int,
    batch: int,
    seed: int,
    device: torch.device,
) -> None:
    """DAPE: a LoRA that makes tokens and tags of a degraded picture those of the clean one."""
    model = model.requires_grad_(False)
    base = dict(model.named_parameters())
    lora = _Lora(base).to(device)
    run = Run("dape", work, {"dape": lora}, steps, learning_rate=2e-3)
    rng = np.random.default_rng(seed + 1 + run.step)
    while run.step < steps:
        chosen = rng.choice(indices, batch)
        clean = torch.stack([_tensor(data.pictures[i]) for i in chosen]) / 2 + 0.5
        bad = torch.stack([_tensor(degrade(data.pictures[i], rng).resize((384, 384))) for i in chosen]) / 2 + 0.5
        with torch.no_grad():
            expected_tokens, expected_logits = model(clean.to(device))
        weights = merge_dape(base, lora.tensors())
        tokens, logits = functional_call(model, weights, (bad.to(device),))
        token_loss = (tokens - expected_tokens).abs().mean()
        logit_loss = F.binary_cross_entropy_with_logits(logits, expected_logits.sigmoid(), reduction="sum") / batch
        run.optimize(token_loss + 0.1 * logit_loss, {"tokens": token_loss.item(), "logits": logit_loss.item()})


class _Lora(nn.Module):
    """DAPE's tensors for a RAM, under their published names."""

    def __init__(self, base: dict[str, Tensor]) -> None:
        super().__init__()
        self.names: list[str] = []
        self.pairs = nn.ParameterList()
        for key, weight in base.items():
            name = key.removesuffix(".weight")
            groups = 2 if name.endswith("attn.qkv") else 1 if name.endswith(("self.query", "self.key")) else 0
            if groups and key.endswith(".weight"):
                self.names.append(name)
                self.pairs.append(torch.randn(groups * RANK, weight.shape[1]) / weight.shape[1] ** 0.5)
                self.pairs.append(torch.zeros(weight.shape[0] * 2 // 3 if groups == 2 else weight.shape[0], RANK))

    def tensors(self) -> dict[str, Tensor]:
        keys = [f"{name}.{part}" for name in self.names for part in ("lora_A", "lora_B")]
        return dict(zip(keys, self.pairs, strict=True))


def train_tokenizer(tags: list[str], folder: Path) -> None:
    """A byte-pair vocabulary of prompts, written as CLIP's `vocab.json` and `merges.txt`."""
    byte_letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(byte_letters) - 2, end_of_word_suffix="</w>", show_progress=False
    )
    words = " ".join([*tags, QUALITY_WORDS]).lower().replace(",", " , ").split()
    tokenizer.train_from_iterator(words, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    names = [*byte_letters, *(letter + "</w>" for letter in byte_letters)]
    names += [first + second for first, second in merges]
    names = [*dict.fromkeys(names), "<|startoftext|>", "<|endoftext|>"]
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
    """What RAM says of each training photograph: image tokens `(N, 145, 512)` and the prompt."""

    tokens: Tensor
    prompts: list[str]


def _conditions(photographs: Photographs, work: Path, device: torch.device) -> Conditions:
    facts = json.loads((work / "ram_tags.json").read_text())
    model = RAM(RAMConfig.from_dict(RAM_CONFIG | {"num_tags": len(facts["tags"])})).eval()
    base = torch.load(work / "ram_head.pt", weights_only=True)["models"]["ram"]
    lora = _Lora(dict(model.named_parameters()))
    lora.load_state_dict(torch.load(work / "dape.pt", weights_only=True)["models"]["dape"])
    model.load_state_dict(merge_dape(base, lora.tensors()))
    model = model.to(device)
    rng, tokens, prompts = np.random.default_rng(0), [], []
    with torch.no_grad():
        for image in photographs.images:
            pixels = (_tensor(degrade(image, rng)) / 2 + 0.5)[None].to(device)
            found, logits = model(pixels)
            chosen = torch.nonzero(logits[0].sigmoid() > facts["threshold"]).flatten()
            tokens.append(found.half().cpu())
            prompts.append(build_prompt([facts["tags"][i] for i in chosen], ""))
    return Conditions(torch.cat(tokens), prompts)


@app.command()
def sr(
    images: Images,
    work: Work,
    steps: int = 2000,
    batch: int = 8,
    size: int = 96,
    perceptual_from: Annotated[float, typer.Option(help="Share of the steps before the VGG loss joins.")] = 0.3,
    perceptual_weight: float = 0.15,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> None:
    """VAE, UNet, ControlNet and text encoder together, through the decoder, at the timesteps of 1 to 4 steps."""
    torch.manual_seed(seed)
    device = _device()
    photographs = Photographs(images)
    conditions = _conditions(photographs, work, device)
    if not (work / "tokenizer").exists():
        train_tokenizer(json.loads((work / "ram_tags.json").read_text())["tags"], work / "tokenizer")
    vae, denoiser, text = _build_models(work)
    schedule = NoiseSchedule.from_config(SCHEDULER_CONFIG)
    examples = next(photographs.crops(np.random.default_rng(seed), size, 16, per_image=1))[0]
    start_autoencoder(vae, examples)
    latents = vae.encode(examples).latent_dist.mode().detach()
    prompt_embeds = text([""] * 16).detach()
    start_denoiser(
        denoiser.unet,
        denoiser.controlnet,
        lambda: denoiser(torch.randn_like(latents), 999, examples / 2 + 0.5, prompt_embeds, conditions.tokens[:16].float()),
    )
    models_ = {name: _place(model, device) for name, model in (("vae", vae), ("denoiser", denoiser), ("text", text))}
    perceptual = _place(STLPIPS("vgg"), device).eval()
    run = Run("sr", work, models_, steps, learning_rate)
    torch.manual_seed(seed + run.step)
    rng = np.random.default_rng(seed + run.step)
    crops = photographs.crops(rng, size, batch, per_image=4)
    while run.step < steps:
        high, low, indices = next(crops)
        high, low = (x.to(device, memory_format=torch.channels_last) for x in (high, low))
        prompts = ["" if rng.random() < 0.1 else conditions.prompts[i] for i in indices]
        tokens = conditions.tokens[indices].float().to(device)
        with _autocast(device):
            x0 = _denoised(vae, denoiser, schedule, low, text(prompts), tokens, rng)
            reconstructed = vae.encode(high[:1]).latent_dist.sample()
            decoded = vae.decode(torch.cat([x0, reconstructed])).sample.float()
        fixed = wavelet_fix(decoded[:-1], low)
        # At a picture's border convolutions see zeros; the product gives them a margin there and cuts it off.
        decoded, fixed, high, low = (x[..., MARGIN:-MARGIN, MARGIN:-MARGIN] for x in (decoded, fixed, high, low))
        parts = {"detail": detail_loss(fixed, high), "raw": (decoded[:-1] - high).abs().mean()}
        parts["vae"] = detail_loss(decoded[-1:], high[:1])
        loss = parts["detail"] + 0.2 * parts["raw"] + 0.5 * parts["vae"]
        if run.step >= perceptual_from * steps:
            # A window at a random place: the loss network's own strides must not meet the model's.
            top, left = (int(offset) for offset in rng.integers(0, high.shape[-1] - 64 + 1, 2))
            window = (..., slice(top, top + 64), slice(left, left + 64))
            parts["perceptual"] = perceptual(fixed[window], high[window]).mean()
            loss = loss + perceptual_weight * parts["perceptual"]
        parts["bicubic"] = (low - high).abs().mean()
        run.optimize(loss, {name: value.item() for name, value in parts.items()})
        if run.step % 200 == 0:
            _save_picture(work / f"sr_{run.step:06d}.png", low, fixed.detach(), high)


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
def export(work: Work, output: Annotated[Path, typer.Option(help="Folder to write, e.g. weights/tiny.")]) -> None:
    """Writes the trained models in the published folder layout, in float16."""
    vae, denoiser, text = _build_models(work)
    trained = torch.load(work / "sr.pt", map_location="cpu", weights_only=True)["models"]
    for name, model in (("vae", vae), ("denoiser", denoiser), ("text", text)):
        model.load_state_dict(trained[name])
    facts = json.loads((work / "ram_tags.json").read_text())
    ram_config = RAM_CONFIG | {"num_tags": len(facts["tags"])}
    ram_weights = torch.load(work / "ram_head.pt", map_location="cpu", weights_only=True)["models"]["ram"]
    lora = _Lora(dict(RAM(RAMConfig.from_dict(ram_config)).named_parameters()))
    lora.load_state_dict(torch.load(work / "dape.pt", map_location="cpu", weights_only=True)["models"]["dape"])
    base, seesr, ram_folder = (output / part for part in ("sd-turbo", "seesr", "ram"))

    unet = denoiser.unet.state_dict()
    image_attention = {key: tensor for key, tensor in unet.items() if ".image_attentions." in key}
    unet_config = UNET_CONFIG | {"_class_name": "UNet2DConditionModel"}
    _write_model(base / "unet", unet_config, {key: unet[key] for key in unet.keys() - image_attention.keys()})
    _write_model(seesr / "unet", unet_config | {"use_image_cross_attention": True}, image_attention)
    controlnet_config = CONTROLNET_CONFIG | {"_class_name": "ControlNetModel", "use_image_cross_attention": True}
    _write_model(seesr / "controlnet", controlnet_config, denoiser.controlnet.state_dict())
    vae_config = VAE_CONFIG | {"_class_name": "AutoencoderKL", "scaling_factor": 1.0}
    _write_model(base / "vae", vae_config, vae.state_dict())
    text_config = text.text_encoder.config.to_dict()
    _write_model(base / "text_encoder", text_config, text.text_encoder.state_dict(), "model")
    _write_json(base / "scheduler" / "scheduler_config.json", SCHEDULER_CONFIG)
    shutil.copytree(work / "tokenizer", base / "tokenizer", dirs_exist_ok=True)

    _write_model(ram_folder, ram_config, ram_weights, "ram_swin_tiny")
    _write_tensors(ram_folder / "DAPE.safetensors", lora.tensors())
    (ram_folder / "ram_tag_list.txt").write_text("".join(f"{tag}\n" for tag in facts["tags"]))
    (ram_folder / "ram_tag_list_threshold.txt").write_text(f"{facts['threshold']:.2f}\n" * len(facts["tags"]))
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {size / 2**20:.1f} MiB")


def _write_model(folder: Path, config: dict, tensors: Mapping[str, Tensor], stem: str = DIFFUSERS_FILE) -> None:
    _write_json(folder / "config.json", config)
    _write_tensors(folder / f"{stem}.safetensors", tensors)


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({key: tensor.detach().half().contiguous() for key, tensor in tensors.items()}, path)


if __name__ == "__main__":
    app()
