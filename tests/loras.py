"""LoRA files as kohya's scripts write them, for any network, and the same changes merged into its weights by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

Factors = dict[str, tuple[Tensor, Tensor]]
"""Down `(r, in, ...)` and up `(out, r, ...)` by the names of layers."""
ALPHA, RANK = 2.0, 4


def factors(network: nn.Module, seed: int, among: tuple[str, ...] = ("",)) -> Factors:
    """Random factors of each layer whose name contains one of `among`, large enough to be seen."""
    generator, made = torch.Generator().manual_seed(seed), Factors()
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and any(part in name for part in among):
            shape = layer.weight.shape
            down = torch.randn(RANK, *shape[1:], generator=generator) / shape[1:].numel() ** 0.5
            up = torch.randn(shape[0], RANK, *[1] * (len(shape) - 2), generator=generator) / 2
            made[name] = down, up
    return made


def kohya(unet: Factors | None = None, text_encoder: Factors | None = None) -> dict[str, Tensor]:
    """The tensors of a file in kohya's layout."""
    tensors = dict[str, Tensor]()
    for prefix, by_name in (("lora_unet_", unet), ("lora_te_text_model_", text_encoder)):
        for name, (down, up) in (by_name or {}).items():
            flat = prefix + name.removeprefix("text_model.").replace(".", "_")
            tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": torch.tensor(ALPHA)}
    return tensors


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, dict(metadata) if metadata else None)
    return path


def merge(network: nn.Module, by_name: Factors, weight: float) -> None:
    """Adds the changes to the weights, in float64."""
    for name, (down, up) in by_name.items():
        layer = network.get_submodule(name)
        delta = (up.flatten(1).double() @ down.flatten(1).double()).view(layer.weight.shape)
        layer.weight.data = (layer.weight.double() + weight * ALPHA / RANK * delta).to(layer.weight.dtype)
