"""What stands for `unet` in a pipeline and calls it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class WrappedUNet(nn.Module):
    """Has what pipelines ask of a UNet: config, device and dtype."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    @property
    def config(self) -> Any:
        return self.unet.config

    @property
    def device(self) -> torch.device:
        return self.unet.device  # pyright: ignore[reportReturnType] # a property of diffusers' models

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype  # pyright: ignore[reportReturnType]
