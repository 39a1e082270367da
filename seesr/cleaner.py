"""Brings a photograph to what the models were taught on, before it is enlarged: takes back blur, noise, JPEG's blocks.

A network of the embedded model alone; the published one has none. Such a stage is the pre-cleaning of RealBasicVSR (Chan et
al., CVPR 2022) and the first stage of DiffBIR (Lin et al., ECCV 2024).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seesr.weights.files import read_config
from seesr.weights.state_dict import DIFFUSERS_FILE, assign_state_dict, read_state_dict

TILE = 256
"""Side in pixels of what is cleaned at once; a multiple of `Cleaner.multiple`."""
MARGIN = 8
"""Pixels by which a picture's edge is repeated, so that convolutions do not see zeros at it."""

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
    """RGB `(B, 3, H, W)` in 0..1 of any size, cleaned; float32, on the CPU. It is done in tiles, which changes nothing."""
    height, width = image.shape[2:]
    right, bottom = (MARGIN + -(side + 2 * MARGIN) % cleaner.multiple for side in (width, height))
    padded, device = F.pad(image, (MARGIN, right, MARGIN, bottom), mode="replicate"), cleaner.first.weight.device
    halo, result = -(-cleaner.reach // cleaner.multiple) * cleaner.multiple, torch.empty_like(padded)
    for top in range(0, padded.shape[2], TILE):
        for left in range(0, padded.shape[3], TILE):
            above, before = min(halo, top), min(halo, left)
            part = padded[..., top - above : top + TILE + halo, left - before : left + TILE + halo]
            cleaned = cleaner(part.to(device))[..., above : above + TILE, before : before + TILE]
            result[..., top : top + TILE, left : left + TILE] = cleaned
    return result[..., MARGIN : MARGIN + height, MARGIN : MARGIN + width]


def load_cleaner(folder: Path, dtype: torch.dtype = torch.float32) -> Cleaner:
    """Of a folder with `config.json` and the tensors.

    Raises:
        WeightsError: a file is missing, or its tensors do not fit its config.
    """
    config = read_config(folder / "config.json")
    with torch.device("meta"):
        cleaner = Cleaner(config["channels"], config["layers"])
    assign_state_dict(cleaner, read_state_dict(folder, DIFFUSERS_FILE, dtype), str(folder), dtype)
    return cleaner
