"""ST-LPIPS, the shift-tolerant perceptual distance (Ghildyal and Liu, ECCV 2022), as a metric and as a training loss.

The weights come from the PyPI package `stlpips-pytorch` (BSD-2). That package cannot be imported without torchvision, so its
two anti-aliased networks are built here from their published description. `alex` is the metric and `vgg` the training loss,
because a model must not be trained on the metric that evaluates it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACKAGE = "stlpips_pytorch"
INSTALL_HINT = "ST-LPIPS needs its weights: pip install --no-deps stlpips-pytorch==0.0.2"

# One list of layers per slice: (index in the published network, padding) is a convolution; max pooling has its kernel size,
# blur pooling its index.
Slice = list[tuple[str, int] | str]
ALEX: list[Slice] = [
    [("0", 2), "blur:1", "relu"],
    ["max:3", "blur:4", ("5", 2), "relu"],
    ["max:3", "blur:8", ("9", 1), "relu"],
    [("11", 1), "relu"],
    [("13", 1), "relu"],
]
VGG: list[Slice] = [
    [("0", 1), "relu", ("2", 1), "relu"],
    ["max:2", "blur:5", ("6", 1), "relu", ("8", 1), "relu"],
    ["max:2", "blur:11", ("12", 1), "relu", ("14", 1), "relu", ("16", 1), "relu"],
    ["max:2", "blur:19", ("20", 1), "relu", ("22", 1), "relu", ("24", 1), "relu"],
    ["max:2", "blur:27", ("28", 1), "relu", ("30", 1), "relu", ("32", 1), "relu"],
]


class STLPIPS(nn.Module):
    """Distance of two images `(B, 3, H, W)` in -1..1, each side at least 64 pixels: a tensor `(B,)`, 0 for equal images.

    Args:
        net: "alex" (the metric) or "vgg" (the training loss).
        slices: number of feature levels, 1 to 5; with fewer than 5 the values are not comparable with published ones.
    """

    scaling_layer_shift: Tensor
    scaling_layer_scale: Tensor

    def __init__(self, net: str = "alex", slices: int = 5) -> None:
        super().__init__()
        self.slices = {"alex": ALEX, "vgg": VGG}[net][:slices]
        for name, tensor in _published_weights(net).items():
            self.register_buffer(name.replace(".", "_"), tensor)

    @staticmethod
    def is_installed() -> bool:
        """Whether the package with the weights is installed."""
        return importlib.util.find_spec(PACKAGE) is not None

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        distance = torch.zeros(first.shape[0], device=first.device)
        with torch.no_grad():
            second_features = self.features(second)
        for level, (a, b) in enumerate(zip(self.features(first), second_features, strict=True)):
            weight = getattr(self, f"lin{level}_model_1_weight")
            distance = distance + ((a - b) ** 2 * weight).sum(dim=1).mean(dim=(1, 2))
        return distance

    def features(self, image: Tensor) -> list[Tensor]:
        """Features of `image` `(B, 3, H, W)` in -1..1 at each level, normalised to unit length over the channels."""
        hidden = (image - self.scaling_layer_shift) / self.scaling_layer_scale
        levels = []
        for number, layers in enumerate(self.slices, start=1):
            for layer in layers:
                hidden = self._layer(f"net_slice{number}_", layer)(hidden)
            # Under autocast the layers run in half precision, in which distances of unit vectors are too inexact.
            hidden = hidden.float()
            levels.append(hidden / ((hidden**2).sum(dim=1, keepdim=True) + 1e-16).sqrt())
        return levels

    def _layer(self, prefix: str, layer: tuple[str, int] | str) -> Callable[[Tensor], Tensor]:
        if isinstance(layer, tuple):
            index, padding = layer
            weight, bias = getattr(self, f"{prefix}{index}_weight"), getattr(self, f"{prefix}{index}_bias")
            return lambda x: F.conv2d(x, weight, bias, padding=padding)
        operation, _, value = layer.partition(":")
        if operation == "relu":
            return F.relu
        if operation == "max":
            return lambda x: F.max_pool2d(x, int(value), stride=1)
        kernel = getattr(self, f"{prefix}{value}_filt")
        return lambda x: F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def _published_weights(net: str) -> dict[str, Tensor]:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise RuntimeError(INSTALL_HINT)
    path = Path(spec.submodule_search_locations[0]) / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"
    return torch.load(path, map_location="cpu", weights_only=True)
