"""A decoded input: turned upright, its colours, alpha and profile apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from PIL import ExifTags, Image, ImageChops

from seesr.images.alpha import bleed
from seesr.images.colour_tags import stated_colours, tone_map
from seesr.images.encoded import DECODE_ERRORS, check_dimensions, forget_misleading_texts, open_again, pillow_settings
from seesr.images.icc import Colours, convert, is_grey_profile, to_working_space
from seesr.images.matrix_profiles import convert_samples
from seesr.images.metadata import Metadata, read_metadata
from seesr.images.samples import (
    Pixels,
    SampleFormat,
    Samples,
    raw_mode_of,
    read_samples,
    to_8_bit_image,
    transpose_samples,
)
from seesr.notes import Notes
from seesr.options import Limits

UPRIGHT_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that turns a picture upright, keyed by EXIF orientation."""

GREY_STEP = {"L;2": 85, "L;4": 17}
"""Step between neighbouring grey levels after Pillow expanded samples of 2 or 4 bits to 8 bits, keyed by raw mode."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded input."""

    rgb: Image.Image
    """Mode RGB, upright, in the space that the networks see (`working`)."""
    alpha: Image.Image | None = None
    """Mode L, the size of `rgb`; None when the input has no transparency."""
    profile: bytes | None = None
    """The ICC profile that the output gets; None is sRGB."""
    working: bytes | None = None
    """The ICC profile of the numbers of `rgb`; None is sRGB."""
    is_grey: bool = False
    """Whether all its channels are equal."""
    mode: str = "RGB"
    """That of the output without alpha: L for an input of that kind, else RGB."""
    metadata: Metadata = field(default_factory=Metadata)
    """What the input's file holds beside its pixels."""
    notes: Notes = field(default_factory=Notes)
    """Conversions of the input that the user should know about."""
    deep: np.ndarray | None = None
    """`rgb` before it was rounded to 8 bits: `(H, W, 3)`, float32 in 0..1; None where the input has 8 bits."""
    bits: int = 8
    """Bits of a channel of the input."""

    @property
    def pixels(self) -> Pixels:
        """What the networks see: `deep`, else `rgb`."""
        return self.rgb if self.deep is None else self.deep

    @cached_property
    def srgb(self) -> Image.Image:
        """`rgb` in sRGB; what is outside it is clipped."""
        return convert(self.rgb, self.working, None)


def separate(
    image: Image.Image,
    limits: Limits,
    name: str,
    keep_numbers: bool,
    content: bytes,
    notes: Notes,
    samples: Samples | None = None,
) -> Picture:
    """`samples` are those of `image` where they are known already."""
    sample_format = SampleFormat.of(image, content)
    with pillow_settings():  # Pillow checks the size of a TIFF again here
        if samples is None:
            samples = read_samples(image, content, partial(open_again, content, image), sample_format, notes)
        if samples is None:
            transparent_colour_to_8_bit(image)
            image.load()
            if sample_format.bits > 8:
                notes.add(f"{sample_format.bits} bits a channel, of which 8 are read")
    check_dimensions(image.size, limits, name)  # decoding a HEIC can change its size
    forget_misleading_texts(image)  # those behind the pixels
    # Before it is turned upright, for a copy lacks a TIFF's EXIF.
    orientation = orientation_of(image)
    metadata, transpose, values = read_metadata(image, content, orientation, notes), UPRIGHT_TRANSPOSE.get(orientation), None
    colours = stated_colours(image, content, notes)
    if samples is None:
        image = image.copy() if transpose is None else image.transpose(transpose)
    else:
        values = samples.values if transpose is None else transpose_samples(samples.values, transpose)
        image = to_8_bit_image(values)
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    alpha = None
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("LA" if mode == "L" else "RGBA")
        alpha = image.getchannel("A")
        alpha = None if alpha.getextrema() == (255, 255) else alpha
    image = image if image.mode in ("L", "RGB", "CMYK") else image.convert(mode)
    values = values if values is None else values[..., : len(mode)]
    if colours.transfer is not None:
        values = values if values is None else tone_map(values, colours.transfer)
        image = Image.fromarray(tone_map(np.asarray(image), colours.transfer)) if values is None else to_8_bit_image(values)
    seen = to_working_space(image, colours.profile, notes, keep_numbers)
    rgb = seen.rgb if alpha is None else bleed(seen.rgb, alpha)
    rgb.info = {}  # orientation and profile have been applied, and would be again if `rgb` became an input
    deep = None if values is None else _deep(values, seen, rgb, alpha, notes)
    is_grey = mode == "L" or _has_equal_channels(rgb if deep is None else deep)
    if mode == "L" and seen.profile is not None and not is_grey_profile(seen.profile):
        mode = "RGB"
    bits = 8 if deep is None or samples is None else samples.bits
    return Picture(rgb, alpha, seen.profile, seen.working, is_grey, mode, metadata, notes, deep, bits)


def _deep(values: np.ndarray, seen: Colours, rgb: Image.Image, alpha: Image.Image | None, notes: Notes) -> np.ndarray | None:
    """`Picture.deep` of samples of one or three channels; `rgb` is that picture in 8 bits."""
    deep = convert_samples(np.broadcast_to(values, (*values.shape[:2], 3)), seen.source, seen.working)
    if deep is None:
        notes.add("its colour profile works by tables, so that 8 bits a channel are read")
        return None
    if alpha is not None:  # what is transparent has the colours of its surroundings
        hidden = np.asarray(alpha) == 0
        deep = np.where(hidden[..., None], np.asarray(rgb) / np.float32(255), deep)
    return deep


def _has_equal_channels(rgb: Image.Image | np.ndarray) -> bool:
    if isinstance(rgb, np.ndarray):
        return bool((rgb == rgb[..., :1]).all())
    red = rgb.getchannel("R")
    return all(ImageChops.difference(red, rgb.getchannel(name)).getbbox() is None for name in ("G", "B"))


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where it is none of these, or cannot be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DECODE_ERRORS:
        return 1
    return orientation if orientation in UPRIGHT_TRANSPOSE else 1


def transparent_colour_to_8_bit(image: Image.Image) -> None:
    """Converts the transparent colour of a PNG to 8 bits; Pillow converts only the pixels, when it loads them."""
    transparent, raw_mode = image.info.get("transparency"), raw_mode_of(image)
    if isinstance(transparent, int) and raw_mode in GREY_STEP:
        image.info["transparency"] = transparent * GREY_STEP[raw_mode]
    elif isinstance(transparent, tuple) and raw_mode.endswith(";16B"):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
