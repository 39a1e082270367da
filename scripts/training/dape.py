"""Trains DAPE: a LoRA by which RAM finds in a degraded picture what it finds in the clean one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from scripts.training.device import autocast
from scripts.training.run import Run, short_digest
from scripts.training.tagged_pictures import TaggedPictures
from seesr.tagging.dape import RANK, merge_dape
from seesr.tagging.ram import RAM

ADAPTED = "image_proj", "self.query", "self.key"
"""Layers that the LoRA changes: those of the published one that are here, and the projection, in the encoder's stead."""


class Lora(nn.Module):
    """DAPE's tensors for a RAM, under their published names."""

    def __init__(self, base: Mapping[str, Tensor]) -> None:
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


def train_dape(ram: RAM, data: TaggedPictures, work: Path, steps: int, batch: int, seed: int, device: torch.device) -> Lora:
    """DAPE: a LoRA that makes tokens and tags of a degraded picture those of the clean one."""
    ram = ram.requires_grad_(False)
    base = dict(ram.named_parameters())
    torch.manual_seed(seed)
    lora = Lora(base).to(device)
    taught = short_digest(*(base[name].detach().cpu().numpy().tobytes() for name in sorted(base)))
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


def with_dape(ram: RAM, lora: Lora) -> RAM:
    """`ram` with DAPE merged, as it is used."""
    merged = copy.deepcopy(ram)
    merged.load_state_dict(merge_dape(ram.state_dict(), lora.tensors()))
    return merged
