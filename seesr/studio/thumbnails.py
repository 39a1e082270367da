"""Thumbnails: small WebP pictures, made with Pillow alone."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from seesr.images.encoded import DECODE_ERRORS, damaged, open_image, pillow_settings

SIDE = 384
"""Pixels of the longer side at most."""
QUALITY = 80


def make_thumbnail(content: bytes) -> bytes:
    """The thumbnail of a picture's file: upright, the first frame, without metadata but its profile.

    Raises:
        InputError: it is damaged.
    """
    try:
        image = open_image(content)
        image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded at a fraction of its size
        with pillow_settings():  # which one thread at a time has, so that a page of large pictures needs the memory of one
            image.load()
            image = ImageOps.exif_transpose(image)
            profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
            image = _to_8_bit(image)
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    except DECODE_ERRORS as error:
        raise damaged("the picture", error) from error
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, icc_profile=profile)
    return buffer.getvalue()


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("RGB")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
