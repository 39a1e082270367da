"""Bicubic resizing, padding, and conversion of pictures to tensors and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from seesr.images.samples import Pixels
from seesr.images.sizes import Size, Sizes


@overload
def resize(pixels: Image.Image, size: Size) -> Image.Image: ...
@overload
def resize(pixels: np.ndarray, size: Size) -> np.ndarray: ...
def resize(pixels: Pixels, size: Size) -> Pixels:
    """Bicubic by Pillow, as in the published SeeSR pipeline."""
    if size_of(pixels) == size:
        return pixels
    if isinstance(pixels, Image.Image):
        return pixels.resize(size, Image.Resampling.BICUBIC)
    channels = [Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC) for channel in np.moveaxis(pixels, 2, 0)]
    return np.stack([np.asarray(channel) for channel in channels], axis=2).clip(0, 1)


def size_of(pixels: Pixels) -> Size:
    """(width, height)."""
    return pixels.size if isinstance(pixels, Image.Image) else (pixels.shape[1], pixels.shape[0])


def to_tensor(pixels: Pixels) -> Tensor:
    """RGB to `(1, 3, H, W)` float32 in 0..1."""
    tensor = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()
    return tensor.div_(255) if isinstance(pixels, Image.Image) else tensor


def to_image(tensor: Tensor) -> Image.Image:
    """`(1, 3, H, W)` to an RGB image; values are clamped to 0..1."""
    pixels = (tensor[0].float().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def pad(tensor: Tensor, sizes: Sizes) -> Tensor:
    """Pads `tensor` `(B, C, H, W)` from the working size to the padded size by replicating its edges."""
    (width, height), margin = sizes.padded, sizes.margin
    sides = margin, width - margin - tensor.shape[3], margin, height - margin - tensor.shape[2]
    return F.pad(tensor, sides, mode="replicate") if any(sides) else tensor


def to_array(tensor: Tensor) -> np.ndarray:
    """`(1, 3, H, W)` to `(H, W, 3)`, float32; values are clamped to 0..1."""
    return tensor[0].float().clamp(0, 1).permute(1, 2, 0).contiguous().cpu().numpy()


def network_input(images: Sequence[Pixels], sizes: Sizes) -> Tensor:
    """RGB pictures of one size to the input of the networks: `(B, 3, H, W)` in 0..1 at the padded size."""
    return torch.cat([pad(to_tensor(resize(image, sizes.working)), sizes) for image in images])


def crop(tensor: Tensor, sizes: Sizes) -> Tensor:
    """Inverse of `pad`: crops `tensor` `(B, C, H, W)` from the padded size to the working size."""
    (width, height), margin = sizes.working, sizes.margin
    return tensor[..., margin : margin + height, margin : margin + width]


def side_by_side(before: Image.Image, after: Image.Image) -> Image.Image:
    """`before`, resized by bicubic, to the left of `after`; both RGB in one colour space."""
    pair = Image.new("RGB", (2 * after.width, after.height))
    pair.paste(resize(before, after.size), (0, 0))
    pair.paste(after, (after.width, 0))
    return pair
