"""Bicubic resizing, padding, and conversion between PIL images and tensors."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from seesr.images.sizes import Size, Sizes


def resize(image: Image.Image, size: Size) -> Image.Image:
    """Bicubic by Pillow, as in the published SeeSR pipeline."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image to `(1, 3, H, W)` float32 in 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float().div_(255)


def to_image(tensor: Tensor) -> Image.Image:
    """`(1, 3, H, W)` to an RGB image; values are clamped to 0..1."""
    pixels = (tensor[0].float().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def pad(tensor: Tensor, sizes: Sizes) -> Tensor:
    """Pads `tensor` `(B, C, H, W)` from the working size to the padded size by replicating its edges."""
    (width, height), margin = sizes.padded, sizes.margin
    sides = margin, width - margin - tensor.shape[3], margin, height - margin - tensor.shape[2]
    return F.pad(tensor, sides, mode="replicate") if any(sides) else tensor


def network_input(images: list[Image.Image], sizes: Sizes) -> Tensor:
    """RGB images of one size to the input of the networks: `(B, 3, H, W)` in 0..1 at the padded size."""
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
