"""Inpainting without networks: the mask, what fills it, the part of the picture that is worked on, and pasting it back.

Masks are mode L: white is painted anew. Pixels that the blurred mask leaves black are the input's own, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from seesr.errors import InputError
from seesr.images.picture import Picture
from seesr.images.sizes import Size

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels; the last two are exclusive."""
OPAQUE = [0, *[255] * 255]
"""Maps all alpha above 0 to 255."""
FILL_BLURS = (256, 64, 16, 4, 2)
"""Radii, in pixels, of the blurs that carry colours from around a mask into it, the widest first."""


def mask_of(picture: Picture) -> Image.Image:
    """A picture as a mask: its brightness, or where it has transparency its alpha."""
    return picture.alpha or picture.rgb.convert("L")


def prepare_mask(mask: Image.Image, size: Size, invert: bool) -> Image.Image:
    """The mask, inverted if asked for.

    Args:
        mask: mode L.
        size: width and height of the picture that it belongs to.

    Raises:
        InputError: it has another size.
    """
    if mask.size != size:
        raise InputError(
            f"the mask is {mask.width}x{mask.height}, the picture {size[0]}x{size[1]}; give a mask of its size."
        )
    if invert:
        mask = ImageOps.invert(mask)
    return mask


def blur(mask: Image.Image, radius: float) -> Image.Image:
    """The mask with its edge softened by a Gaussian of a radius in pixels."""
    return mask.filter(ImageFilter.GaussianBlur(radius)) if radius else mask


def fill_from_around(image: Image.Image, mask: Image.Image) -> Image.Image:
    """`image` (RGB) with what is masked replaced by blurred colours of what surrounds it."""
    known = Image.composite(Image.new("RGBA", image.size), image.convert("RGBA"), mask.point(OPAQUE))
    filled = Image.new("RGBA", image.size)
    for radius in FILL_BLURS:
        # Premultiplied by alpha, so that what is masked has no colour of its own.
        blurred = known.convert("RGBa").filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        opaque = Image.merge("RGBA", (*blurred.split()[:3], blurred.getchannel("A").point(OPAQUE)))
        filled.alpha_composite(opaque)
    result = image.copy()
    filled.alpha_composite(known)
    result.paste(filled.convert("RGB"), mask=ImageOps.invert(known.getchannel("A")))
    return result


def crop_box(mask: Image.Image, padding: int, ratio: float) -> Box:
    """The box around what is masked, `padding` pixels wider on each side, as near to `ratio` (width to height) as possible.

    It lies inside the picture, and holds all that is masked.
    """
    left, top, right, bottom = mask.getbbox() or (0, 0, *mask.size)
    width, height = mask.size
    left, top = max(0, left - padding), max(0, top - padding)
    right, bottom = min(width, right + padding), min(height, bottom + padding)
    if (right - left) / (bottom - top) < ratio:
        left, right = _widen(left, right, round((bottom - top) * ratio), width)
    else:
        top, bottom = _widen(top, bottom, round((right - left) / ratio), height)
    return left, top, right, bottom


def _widen(start: int, stop: int, length: int, most: int) -> tuple[int, int]:
    """An interval of `length` around another, inside 0 to `most`, which is moved where it reaches over an end."""
    length = min(max(length, stop - start), most)
    start = min(max(0, start - (length - (stop - start)) // 2), most - length)
    return start, start + length


def paste_back(original: Image.Image, made: Image.Image, mask: Image.Image, box: Box | None = None) -> Image.Image:
    """`original` with `made` in the masked places of `box` (by default of the whole picture); both RGB."""
    box = box or (0, 0, *original.size)
    size = box[2] - box[0], box[3] - box[1]
    layer = original.copy()
    layer.paste(made if made.size == size else made.resize(size, Image.Resampling.LANCZOS), box[:2])
    within = Image.new("L", original.size)
    within.paste(mask.crop(box), box[:2])
    return Image.composite(layer, original, within)


@dataclass(frozen=True)
class Outpainting:
    """A picture on a larger canvas, and the mask of what is new on it."""

    image: Image.Image
    mask: Image.Image


def outpaint(image: Image.Image, left: int, top: int, right: int, bottom: int) -> Outpainting:
    """`image` (RGB) with so many pixels added on each side; the new ones repeat the border."""
    pixels = np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)), mode="edge")
    mask = Image.new("L", (pixels.shape[1], pixels.shape[0]), 255)
    mask.paste(0, (left, top, left + image.width, top + image.height))
    return Outpainting(Image.fromarray(pixels), mask)
