"""Brings a photograph to what the models were taught on, before it is enlarged: takes back blur and noise.

A network of the embedded model alone; the published one has none. Such a stage is the pre-cleaning of RealBasicVSR (Chan et
al., CVPR 2022) and the first stage of DiffBIR (Lin et al., ECCV 2024).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seesr.errors import WeightsError
from seesr.images.colour import wavelet_fix
from seesr.weights.state_dict import load_network

TILE = 512
"""Longest side in pixels of what is cleaned at once."""
MARGIN = 8
"""Pixels by which a picture's edge is repeated, so that the zeros which convolutions see beyond are not next to it."""

CONTRAST, CHANGE = 4.0, 0.1
"""Units of what the network sees and of what it says: both are about 1 then, which training needs."""


class Residual(nn.Module):
    """Two convolutions beside a shortcut, `(B, channels, H, W)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.conv2(F.silu(self.conv1(maps)))


class Cleaner(nn.Module):
    """A U-Net without normalisation that says what is wrong with a picture, at the picture's own size.

    Args:
        channels: width of each level; a level's maps are half as large as those of the one before.
        layers: blocks of each level on the way down, and as many on the way up.
    """

    def __init__(self, channels: list[int], layers: int) -> None:
        super().__init__()

        def blocks(width: int) -> nn.Sequential:
            return nn.Sequential(*(Residual(width) for _ in range(layers)))

        steps = list(zip(channels[:-1], channels[1:], strict=True))
        self.multiple = 2 ** len(steps)
        # Each block looks two pixels of its level further; the last level is passed once, the others twice.
        self.reach = 2 + 2 * layers * (2 * sum(2**level for level in range(len(steps))) + self.multiple) + self.multiple
        self.first = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down = nn.ModuleList(blocks(width) for width in channels)
        self.reduce = nn.ModuleList(nn.Conv2d(wide, deep, 2, stride=2) for wide, deep in steps)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(deep, wide, 2, stride=2) for wide, deep in steps)
        self.up = nn.ModuleList(blocks(width) for width in channels[:-1])
        self.last = nn.Conv2d(channels[0], 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """RGB `(B, 3, H, W)` in 0..1 cleaned, float32; sides must be multiples of `multiple`.

        A pixel of the result depends on no pixel further away than `reach`.
        """
        centred = ((image - 0.5) * CONTRAST).to(self.first.weight.dtype)
        maps, skips = self.first(centred), []
        for level, blocks in enumerate(self.down):
            maps = blocks(maps)
            if level < len(self.reduce):
                skips.append(maps)
                maps = self.reduce[level](maps)
        for level in reversed(range(len(self.up))):
            maps = self.up[level](self.enlarge[level](maps) + skips[level])
        return image + self.last(maps).float() * CHANGE


def clean(cleaner: Cleaner, image: Tensor) -> Tensor:
    """RGB `(B, 3, H, W)` in 0..1 of any size and on the CPU, cleaned, with the colours that it has; float32, not clamped.

    It is done in tiles, with the result of the whole up to rounding.
    """
    height, width = image.shape[2:]
    right, bottom = (MARGIN + -(side + 2 * MARGIN) % cleaner.multiple for side in (width, height))
    padded, device = F.pad(image, (MARGIN, right, MARGIN, bottom), mode="replicate"), cleaner.first.weight.device
    halo, result = _round_up(cleaner.reach, cleaner.multiple), torch.empty_like(padded)
    tall, wide = (_tile_side(side, cleaner.multiple) for side in padded.shape[2:])
    for top in range(0, padded.shape[2], tall):
        for left in range(0, padded.shape[3], wide):
            above, before = min(halo, top), min(halo, left)
            part = padded[..., top - above : top + tall + halo, left - before : left + wide + halo]
            cleaned = cleaner(part.to(device))[..., above : above + tall, before : before + wide]
            result[..., top : top + tall, left : left + wide] = cleaned
    return wavelet_fix(result[..., MARGIN : MARGIN + height, MARGIN : MARGIN + width], image)


def _tile_side(length: int, multiple: int) -> int:
    """Of tiles that are as many as `TILE` makes necessary, and about equally large."""
    return _round_up(math.ceil(length / math.ceil(length / TILE)), multiple)


def _round_up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple


def load_cleaner(folder: Path, dtype: torch.dtype = torch.float32) -> Cleaner:
    """Of a folder with `config.json` (`channels` and `layers`) and the tensors.

    Raises:
        WeightsError: a file is missing or says something else, or the tensors do not fit the config.
    """

    def build(config: dict[str, Any]) -> Cleaner:
        channels, layers = config.get("channels"), config.get("layers")
        if not isinstance(channels, list) or not channels or not all(_is_count(number) for number in [*channels, layers]):
            path = folder / "config.json"
            raise WeightsError(f"{path} must hold `channels`, a list of whole numbers, and `layers`, one; all above 0.")
        with torch.device("meta"):
            return Cleaner(channels, layers)

    return load_network(folder, build, dtype)


def _is_count(number: object) -> bool:
    return isinstance(number, int) and number > 0
