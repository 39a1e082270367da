"""Bytes to a picture, safely: bounds checked before decoding, turned upright, in sRGB, alpha and profile set aside."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from struct import error as struct_error

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from seesr.errors import InputError
from seesr.images.alpha import bleed
from seesr.images.metadata import kept_exif
from seesr.options import Limits

DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct_error, EOFError, OverflowError)
"""How Pillow's readers say that a file is damaged: in as many ways as there are formats."""

ImageSource = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded input."""

    rgb: Image.Image
    """Mode RGB, upright, sRGB."""
    alpha: Image.Image | None = None
    """Mode L, the size of `rgb`; None when the input has no transparency."""
    profile: bytes | None = None
    """The ICC profile that the input's colours were in."""
    exif: bytes | None = None
    """What of the input's EXIF goes on to the result."""
    notes: list[str] = field(default_factory=list)
    """What was done to the input that a user would want to know."""


def open_picture(source: ImageSource, limits: Limits) -> Picture:
    """Decodes a path, the bytes of a file, a PIL image, or an array `(H, W)`, `(H, W, 3)` or `(H, W, 4)` of uint8.

    Raises:
        InputError: not a picture, damaged, or beyond a limit.
    """
    if isinstance(source, np.ndarray):
        return _to_picture(_from_array(source), limits, "the array")
    if isinstance(source, Image.Image):
        return _to_picture(source, limits, "the image")
    if isinstance(source, bytes):
        return _decode(source, limits, "the data")
    path = Path(source)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return _decode(content, limits, str(path))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(
            f"the array is {array.dtype} of shape {array.shape}; give uint8 of shape (H, W), (H, W, 3) or (H, W, 4)."
        )
    return Image.fromarray(array)


def _decode(content: bytes, limits: Limits, name: str) -> Picture:
    if not content:
        raise InputError(f"{name} is empty (0 bytes).")
    pillow_heif.register_heif_opener()
    try:
        with warnings.catch_warnings():
            # Pillow's own bomb warning: `limits` decides that here, in _to_picture and before any pixel is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is not a picture in a known format (PNG, JPEG, WebP, TIFF, BMP, GIF, HEIC, AVIF)."
        ) from None
    except Image.DecompressionBombError as error:
        # Pillow's last line of defence comes before ours and knows the number of pixels only.
        pixels = int(re.search(r"\d+", str(error)).group())
        raise InputError(
            f"{name} has {pixels:,} pixels; at most {limits.input_pixels:,} are taken. Make it smaller first."
        ) from None
    except DAMAGE as error:
        raise InputError(f"{name} is damaged or cut short and cannot be decoded ({_first_line(error)}).") from error
    return _to_picture(image, limits, name)


def _to_picture(image: Image.Image, limits: Limits, name: str) -> Picture:
    _check_size(image.size, limits, name)
    notes: list[str] = []
    if _has_16_bits(image):
        notes.append("16 bits a channel, the result has 8")
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"{image.n_frames} frames, the first is used")
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except DAMAGE as error:
        raise InputError(f"{name} is damaged or cut short and cannot be decoded ({_first_line(error)}).") from error
    exif = _exif(image, notes)
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        alpha = None if alpha.getextrema() == (255, 255) else alpha
    rgb, profile = _to_srgb(image, notes)
    if alpha is not None:
        rgb = bleed(rgb, alpha)
    return Picture(rgb, alpha, profile, exif, notes)


def _check_size(size: tuple[int, int], limits: Limits, name: str) -> None:
    width, height = size
    if width * height > limits.input_pixels:
        raise InputError(
            f"{name} is {width}x{height}, {width * height:,} pixels; at most {limits.input_pixels:,} are taken. "
            "Make it smaller first, or raise SEESR_INPUT_PIXELS."
        )


def _has_16_bits(image: Image.Image) -> bool:
    """Whether an opened, not yet loaded file has more than 8 bits a channel; Pillow is silent about most such."""
    return image.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))


def _exif(image: Image.Image, notes: list[str]) -> bytes | None:
    try:
        return kept_exif(image)
    except ValueError as error:
        notes.append(f"{error} and was left out")
        return None


def _to_8_bit(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode == "F":
        top = 1.0 if values.max(initial=0) <= 1 else 255.0
    else:
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
    return Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))


def _to_srgb(image: Image.Image, notes: list[str]) -> tuple[Image.Image, bytes | None]:
    """The image in sRGB, and the profile to bring the result back to, if it has one that can be."""
    base = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
    profile = image.info.get("icc_profile")
    if not profile:
        return base.convert("RGB"), None
    srgb = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(base, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        notes.append(f"its colour profile cannot be used and was ignored ({_first_line(error)})")
        return base.convert("RGB"), None
    try:
        ImageCms.buildTransform(srgb, source, "RGB", "RGB")
    except ImageCms.PyCMSError:
        notes.append("its colours were converted to sRGB and stay so")
        return converted, None
    return converted, profile


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
